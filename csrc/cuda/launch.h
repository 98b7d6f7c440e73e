// From tensors to kernels: the device, its stream, the shape of a grid and the template that a problem needs.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <tuple>
#include <type_traits>

#include "cuda/row.cuh"
#include "tensors.h"

#include <torch/csrc/stable/macros.h>

#ifndef __CUDACC__
#include "runtime_api.h"
#endif

#ifndef SA_LIBRARY  // tests give the same operators another name, and another device
#define SA_LIBRARY sampling_argmax
#define SA_DEVICE CUDA
#endif

namespace sampling_argmax::cuda {

#ifdef __CUDACC__
using DeviceGuard = torch::stable::accelerator::DeviceGuard;

inline cudaStream_t current_stream() {
  int device = 0;
  void* stream = nullptr;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}
#else
using shim::current_stream;
using shim::DeviceGuard;
#endif

inline int64_t device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}
inline int64_t multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }
inline int64_t shared_limit() { return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

constexpr int64_t most_blocks = 65535;  // along y and z

// The blocks of a grid; x may be 0, and then nothing is launched.
inline dim3 blocks(int64_t x, int64_t y = 1, int64_t z = 1) {
  check(x < int64_t(1) << 31 && y <= most_blocks && z <= most_blocks, "a grid of ", x, " x ", y, " x ", z,
        " blocks is larger than CUDA's: take smaller batches");
  return dim3(unsigned(x), unsigned(y), unsigned(z));
}

template <class... Parameters, class... Args>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared, Args... args) {
  if (grid.x == 0) return;
  // Always the device's limit: host threads that launch one kernel with sizes of their own would undo each other's.
  if (shared > 48 * 1024)
    STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_limit())));
  const cudaLaunchConfig_t config{grid, dim3(unsigned(threads)), size_t(shared), current_stream()};
  STD_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, Parameters(args)...));
}

template <auto value>
using Constant = std::integral_constant<decltype(value), value>;

// The seed tensor is read by the kernels: the host never waits for it.
inline DeviceProblem device_problem(const Problem& p, const Tensor& seed) {
  DeviceProblem d{};
  d.p = p;
  if (seed.defined()) {
    check_seed(seed);
    d.seed = seed.const_data_ptr<int64_t>(), d.seed_words = int(seed.numel());
  }
  d.width = Division::by(p.shape[2]), d.height = Division::by(p.shape[1]);
  d.contiguous = p.contiguous();
  d.scale = p.beta * 1.4426950408889634 / p.tau;
  d.neg_inv_tau = -1 / p.tau, d.neg_inv_tau_single = float(d.neg_inv_tau);
  return d;
}

// Runs body(weight, d) with the way of making weights that the temperature asks for.
template <class T, class Body>
void with_weight(DeviceProblem d, const Body& body) {
  if (!bounded_exponents(d.p)) return body(Constant<Weight::low>(), d);
  if constexpr (sizeof(T) == 4) {
    if (d.p.tau == 1) return body(Constant<Weight::one>(), d);
    if (d.p.tau == 2) return body(Constant<Weight::two>(), d);
  }
  d.shift = exponent_centre / d.p.tau;
  body(Constant<Weight::general>(), d);
}

template <class Body>
void with_axes(const Problem& p, const Body& body) {
  switch (p.axes) {
    case 1: return body(Constant<1>());
    case 2: return body(Constant<2>());
    default: return body(Constant<3>());
  }
}

// The kernels of `none` and gaussian are the same: noise of a gaussian is added to the sums.
template <class Body>
void with_cell_basis(const Problem& p, const Body& body) {
  switch (p.basis) {
    case Basis::uniform: return body(Constant<Basis::uniform>());
    case Basis::triangular: return body(Constant<Basis::triangular>());
    default: return body(Constant<Basis::gaussian>());
  }
}

template <class T, class Body>
void with_cell_kernel(const DeviceProblem& problem, const Body& body) {
  with_weight<T>(problem, [&](auto weight, const DeviceProblem& d) {
    with_axes(d.p, [&](auto axes) { with_cell_basis(d.p, [&](auto basis) { body(basis, axes, weight, d); }); });
  });
}

// Threads of a block, by the cells of a row alone (sums depend on it).
inline int threads_for(int64_t cells, int64_t cells_per_thread, int most) {
  int threads = 32;
  while (threads < most && threads * cells_per_thread < cells) threads *= 2;
  return threads;
}

// So many that the last ones of a grid, which leave multiprocessors idle, are few among them.
inline int64_t blocks_wanted() { return 16 * multiprocessors(); }

// Into how many parts rows are cut for that. No result depends on it.
inline int64_t parts_wanted(int64_t rows, int64_t most) {
  if (rows == 0) return 1;
  return std::clamp<int64_t>((blocks_wanted() + rows - 1) / rows, 1, std::min(most, most_blocks));
}

// Rows that are longer than this have their largest logits found before the kernels, not by each of their blocks.
constexpr int64_t long_row = 16384;

// A problem with the largest logits of its rows where these are long; it has to live until the last launch.
struct ToppedProblem {
  DeviceProblem problem;
  Tensor tops;
};

template <class T>
ToppedProblem find_tops(DeviceProblem d, const Tensor& like) {
  if (d.p.cells <= long_row) return {d, Tensor()};
  Tensor tops = new_empty(like, {d.p.rows()});
  constexpr int threads = 256;
  launch(row_tops<T>, blocks(d.p.rows()), threads, int64_t(sizeof(T)) * (1 + threads / 32), d,
         tops.mutable_data_ptr<T>());
  d.tops = tops.const_data_ptr<T>();
  return {d, tops};
}

template <class T>
T* data_or_null(Tensor& x) {
  return x.numel() > 0 ? x.mutable_data_ptr<T>() : nullptr;
}
inline void* raw_or_null(Tensor& x) { return x.numel() > 0 ? x.mutable_data_ptr() : nullptr; }

}  // namespace sampling_argmax::cuda
