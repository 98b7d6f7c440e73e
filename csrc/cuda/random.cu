#include "cuda/random.cuh"

#include "cuda/launch.h"

namespace sampling_argmax::cuda {
namespace {

constexpr int threads = 128;

dim3 blocks_for(int64_t count) { return blocks((count + threads - 1) / threads); }

Tensor random_words_cuda(const Tensor& seed, const Tensor& row, const Tensor& sample, const Tensor& index,
                         int64_t stream) {
  const DeviceGuard guard(index.get_device_index());
  Tensor words = new_empty(index, index.sizes());
  launch(random_words<int64_t>, blocks_for(index.numel()), threads, schedule_bytes, seed.const_data_ptr<int64_t>(),
         row.const_data_ptr<int64_t>(), sample.const_data_ptr<int64_t>(), index.const_data_ptr<int64_t>(), int(stream),
         index.numel(), words.mutable_data_ptr<int64_t>());
  return words;
}

Tensor exponential_cuda(const Tensor& words) {
  const DeviceGuard guard(words.get_device_index());
  const Tensor in = dense(words);
  Tensor out = new_empty(words, words.sizes(), ScalarType::Float);
  launch(exponentials<float>, blocks_for(words.numel()), threads, 0,
         reinterpret_cast<const uint32_t*>(in.const_data_ptr<int32_t>()), words.numel(), out.mutable_data_ptr<float>());
  return out;
}

#define SA_STRING(...) #__VA_ARGS__
#define SA_EXPANDED_STRING(...) SA_STRING(__VA_ARGS__)

// What the kernels were compiled for, e.g. "800,900".
std::string cuda_architectures() {
#ifdef __CUDA_ARCH_LIST__
  return SA_EXPANDED_STRING(__CUDA_ARCH_LIST__);
#else
  return "";
#endif
}

}  // namespace
}  // namespace sampling_argmax::cuda

STABLE_TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("random_words", TORCH_BOX(&sampling_argmax::cuda::random_words_cuda));
  m.impl("exponential", TORCH_BOX(&sampling_argmax::cuda::exponential_cuda));
}

STABLE_TORCH_LIBRARY_IMPL(SA_LIBRARY, CompositeExplicitAutograd, m) {
  m.impl("cuda_architectures", TORCH_BOX(&sampling_argmax::cuda::cuda_architectures));
}
