// From tensors to a Problem, and empty results: what the launchers of all devices share.

#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>

#include "problem.h"

namespace sampling_argmax {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline Basis parse_basis(const std::string& name) {
  if (name == "none") return Basis::none;
  if (name == "uniform") return Basis::uniform;
  if (name == "triangular") return Basis::triangular;
  TORCH_CHECK_VALUE(name == "gaussian", "basis must be none, uniform, triangular or gaussian, got ", name);
  return Basis::gaussian;
}

inline Dtype dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return Dtype::float32;
    case at::kDouble: return Dtype::float64;
    case at::kBFloat16: return Dtype::bfloat16;
    case at::kHalf: return Dtype::float16;
    default: TORCH_CHECK_VALUE(false, "logits must be float32, bfloat16, float16 or float64, got ", x.dtype());
  }
}

inline bool double_precision(const Problem& p) { return p.dtype == Dtype::float64; }

inline Metric parse_metric(const std::string& name) {
  if (name == "l1") return Metric::l1;
  if (name == "l2") return Metric::l2;
  if (name == "euclidean") return Metric::euclidean;
  TORCH_CHECK_VALUE(name == "smooth_l1", "metric must be l1, l2, euclidean or smooth_l1, got ", name);
  return Metric::smooth_l1;
}

inline void describe_grid(Problem& p, const Tensor& logits) {
  for (int i = 0; i < 3; ++i) p.shape[i] = 1, p.stride[i] = 0;
  p.cells = 1;
  for (int64_t dim = 2, slot = 5 - logits.dim(); dim < logits.dim(); ++dim, ++slot) {
    p.shape[slot] = logits.size(dim);
    p.stride[slot] = logits.stride(dim);
    p.cells *= logits.size(dim);
  }
}

// The words of a seed are read from its first one on.
inline void check_seed(const Tensor& seed) {
  TORCH_CHECK_VALUE(seed.is_contiguous() && (seed.numel() == 1 || seed.numel() == 2),
                    "seed must be contiguous, of 1 or 2 words, got ", seed.numel(), " with strides ", seed.strides());
}

// What a call asks for, but the seed and, for a grid, its coordinates.
inline Problem describe(const Tensor& logits, const OptionalTensor& points, const OptionalTensor& sigma,
                        int64_t samples, double tau, double beta, const std::string& basis) {
  Problem p{};
  p.logits = logits.const_data_ptr();
  p.dtype = dtype_of(logits);
  p.batch = logits.size(0), p.keypoints = logits.size(1);
  p.batch_stride = logits.stride(0), p.keypoint_stride = logits.stride(1);
  describe_grid(p, logits);
  p.axes = int(points ? points->size(2) : logits.dim() - 2);
  p.samples = samples, p.tau = tau, p.beta = beta, p.basis = parse_basis(basis);
  if (points) p.points = points->const_data_ptr();
  if (sigma) {
    p.sigma = sigma->const_data_ptr();
    p.sigma_stride[0] = sigma->stride(0), p.sigma_stride[1] = sigma->stride(1);
  }
  return p;
}

inline Tensor empty_result(const Tensor& logits, at::IntArrayRef shape) {
  const auto dtype = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return at::empty(shape, logits.options().dtype(dtype));
}

inline Tensor empty_gradient(const Tensor& logits, const OptionalTensor& x, bool needed) {
  if (!needed || !x) return empty_result(logits, {0});
  return at::empty(x->sizes(), x->options());
}

}  // namespace sampling_argmax
