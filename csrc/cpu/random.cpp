#include "cpu/launch.h"

#define SA_KERNELS "cpu/random_kernel.h"
#include "cpu/foreach_isa.h"

namespace sampling_argmax {
namespace {

template <class T>
uint32_t random_word(const Problem& p, uint64_t seed, uint64_t row, uint32_t sample, int64_t index, int stream) {
  return SA_RUN(one_kernel, RandomWord, T, p, seed, row, sample, index, stream);
}

Tensor random_words_cpu(const Tensor& seed, const Tensor& row, const Tensor& sample, const Tensor& index,
                        int64_t stream) {
  Tensor words = new_empty(index, index.sizes());
  const uint64_t key = uint64_t(seed.const_data_ptr<int64_t>()[0]);
  const int64_t *rows = row.const_data_ptr<int64_t>(), *samples = sample.const_data_ptr<int64_t>(),
                *indices = index.const_data_ptr<int64_t>();
  int64_t* out = words.mutable_data_ptr<int64_t>();
  const Problem p{};
  for (int64_t i = 0; i < index.numel(); ++i)
    out[i] = random_word<float>(p, key, uint64_t(rows[i]), uint32_t(samples[i]), indices[i], int(stream));
  return words;
}

template <class T>
void exponentials(const Problem& p, const Tensor& words, Tensor& out) {
  SA_RUN(one_kernel, Exponentials, T, p, reinterpret_cast<const uint32_t*>(words.const_data_ptr<int32_t>()),
         out.mutable_data_ptr<T>(), words.numel());
}

Tensor exponential_cpu(const Tensor& words) {
  check(words.numel() % cell_padding == 0, "exponential: the number of words must be a multiple of ", cell_padding,
        ", got ", words.numel());
  Tensor out = new_empty(words, words.sizes(), ScalarType::Float);
  exponentials<float>(Problem{}, dense(words), out);
  return out;
}

std::string build_info() { return std::string(isa_name(current_isa())) + "|" + __VERSION__; }

void set_isa_limit(StringHandle name) { limit_isa(text_of(name).c_str()); }

}  // namespace
}  // namespace sampling_argmax

STABLE_TORCH_LIBRARY_IMPL(sampling_argmax, CPU, m) {
  m.impl("random_words", TORCH_BOX(&sampling_argmax::random_words_cpu));
  m.impl("exponential", TORCH_BOX(&sampling_argmax::exponential_cpu));
}

STABLE_TORCH_LIBRARY_IMPL(sampling_argmax, CompositeExplicitAutograd, m) {
  m.impl("build_info", TORCH_BOX(&sampling_argmax::build_info));
  m.impl("limit_isa", TORCH_BOX(&sampling_argmax::set_isa_limit));
}
