// Issue rates of one GPU for bench/roofline.py: every thread runs a chain of eight independent strands of one instruction.

#include <ATen/ATen.h>
#include <cuda_runtime.h>
#include <torch/library.h>

#include <c10/cuda/CUDAStream.h>

namespace {

constexpr int strands = 8, turns = 4096;

enum class Rate { ffma, imad_wide, lop3, lg2 };

template <Rate rate>
__global__ void strand(float* out, unsigned seed) {
  float f[strands];
  unsigned u[strands];
  for (int k = 0; k < strands; ++k) f[k] = 1.0f + k + threadIdx.x * 1e-3f, u[k] = seed + k + threadIdx.x;
  for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
    for (int k = 0; k < strands; ++k) {
      if (rate == Rate::ffma) asm volatile("fma.rn.f32 %0, %0, %0, %0;" : "+f"(f[k]));
      if (rate == Rate::lg2) asm volatile("lg2.approx.ftz.f32 %0, %0;" : "+f"(f[k]));
      if (rate == Rate::lop3) asm volatile("lop3.b32 %0, %0, %1, %2, 0x96;" : "+r"(u[k]) : "r"(seed), "r"(turn));
      if (rate == Rate::imad_wide) {
        unsigned long long product;
        asm volatile("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(u[k]), "r"(0xD2511F53u));
        u[k] = unsigned(product);
      }
    }
  }
  float sum = 0;
  for (int k = 0; k < strands; ++k) sum += f[k] + float(u[k]);
  if (sum == 12345.678f) *out = sum;  // never; keeps the chains
}

template <Rate rate>
double instructions_per_second(float* out, int blocks) {
  cudaEvent_t begin, end;
  cudaEventCreate(&begin), cudaEventCreate(&end);
  const auto stream = c10::cuda::getCurrentCUDAStream().stream();
  strand<rate><<<blocks, 256, 0, stream>>>(out, 1);  // warms up
  cudaEventRecord(begin, stream);
  strand<rate><<<blocks, 256, 0, stream>>>(out, 1);
  cudaEventRecord(end, stream);
  cudaEventSynchronize(end);
  float milliseconds = 0;
  cudaEventElapsedTime(&milliseconds, begin, end);
  return double(blocks) * 256 * strands * turns / (milliseconds * 1e-3);
}

// Thread instructions a second of FFMA, IMAD.WIDE, LOP3 and MUFU.LG2.
at::Tensor measure(const at::Tensor& scratch) {
  int multiprocessors = 0;
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, scratch.get_device());
  float* out = scratch.mutable_data_ptr<float>();
  const int blocks = multiprocessors * 8 * 4;
  return at::tensor({instructions_per_second<Rate::ffma>(out, blocks), instructions_per_second<Rate::imad_wide>(out, blocks),
                     instructions_per_second<Rate::lop3>(out, blocks), instructions_per_second<Rate::lg2>(out, blocks)});
}

}  // namespace

TORCH_LIBRARY(sampling_argmax_bench, m) {
  m.def("rates(Tensor scratch) -> Tensor");
}
TORCH_LIBRARY_IMPL(sampling_argmax_bench, CUDA, m) { m.impl("rates", &measure); }
