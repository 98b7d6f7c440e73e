// Runs one row of one kernel S times over, for counting its instructions: instructions OP BASIS DIRECTION S.

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "problem.h"

#define SA_KERNELS "cpu/sample_kernel.h"
#include "cpu/foreach_isa.h"

namespace sampling_argmax::avx2 {
#include "cpu/target_avx2_begin.h"
#include "cpu/axis_sample_kernel.h"
#include "cpu/target_end.h"
}  // namespace sampling_argmax::avx2

using namespace sampling_argmax;

namespace {

constexpr int64_t width = 48, height = 64, cells = width * height;
using Numbers = std::vector<float>;

Numbers logits() {
  Numbers out(cells);
  for (int64_t i = 0; i < cells; ++i) out[size_t(i)] = float(i * 7919 % 1000) / 250 - 2;
  return out;
}

Problem problem(const char* basis, int64_t samples, double tau, const Numbers& z, const Numbers& coords, const float& sigma) {
  Problem p{};
  p.logits = z.data(), p.dtype = Dtype::float32, p.axes = 2;
  p.shape[0] = 1, p.shape[1] = height, p.shape[2] = width;
  p.stride[1] = width, p.stride[2] = 1;
  p.batch = p.keypoints = 1, p.cells = cells, p.coords = coords.data(), p.sigma = &sigma;
  p.samples = samples, p.tau = tau, p.beta = 1, p.seed = 12345;
  p.basis = !std::strcmp(basis, "none")      ? Basis::none
            : !std::strcmp(basis, "uniform") ? Basis::uniform
            : !std::strcmp(basis, "gaussian") ? Basis::gaussian
                                              : Basis::triangular;
  return p;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return std::puts("instructions OP BASIS DIRECTION TAU S"), 1;
  const bool axis = !std::strcmp(argv[1], "axis_sample"), backward = !std::strcmp(argv[3], "backward");
  const int64_t samples = std::atoll(argv[5]);
  const Numbers z = logits(), coords(2 * cells + 128, 3.0f);
  const float sigma = 1;
  const Problem p = problem(argv[2], samples, std::atof(argv[4]), z, coords, sigma);
  Numbers scratch(size_t(16 * p.padded())), y(size_t(2 * samples), 1.0f), stats(size_t(2 * samples), 12.0f), grad(y);
  Numbers bins(size_t(samples * (width + height)), 0.01f), out(size_t(p.padded()));
  if (axis && backward)
    avx2::dispatch<avx2::AxisSampleRowBackward, avx2::F>(p, AxisOptions{}, int64_t(0), int64_t(0), height,
        static_cast<const float*>(grad.data()), static_cast<const float*>(bins.data()),
        static_cast<const float*>(stats.data()), scratch.data(), out.data());
  else if (axis)
    avx2::dispatch<avx2::AxisSampleRow, avx2::F>(p, AxisOptions{}, int64_t(0), int64_t(0), samples, scratch.data(),
                                                 y.data(), bins.data(), stats.data());
  else if (backward)
    avx2::dispatch<avx2::SampleRowBackward, avx2::F>(p, int64_t(0), int64_t(0), p.padded(),
        static_cast<const float*>(grad.data()), static_cast<const float*>(y.data()),
        static_cast<const float*>(stats.data()), scratch.data(), out.data(), static_cast<float*>(nullptr));
  else
    avx2::dispatch<avx2::SampleRow, avx2::F>(p, int64_t(0), int64_t(0), samples, scratch.data(), y.data(), stats.data());
  std::printf("%g\n", double(y[0] + stats[0] + out[0]));
  return 0;
}
