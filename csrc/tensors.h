// From tensors to a Problem, and empty results: what the launchers of all devices share. Of PyTorch only the stable ABI
// is used (TORCH_TARGET_VERSION in setup.py), so that one binary serves every release from that one on.

#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "check.h"
#include "problem.h"

namespace sampling_argmax {

using torch::headeronly::ScalarType;
using torch::stable::new_empty;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Shape = torch::headeronly::IntHeaderOnlyArrayRef;
using Needs = std::vector<bool>;  // which gradients are asked for

// A str of a schema, which its reader frees: the headers' own conversion leaks it before PyTorch 2.14.
inline std::string text_of(StringHandle handle) {
  size_t length = 0;
  const char* data = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_string_length(handle, &length));
  TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &data));
  std::string text(data, length);
  TORCH_ERROR_CODE_CHECK(torch_delete_string(handle));
  return text;
}

inline Basis parse_basis(const std::string& name) {
  if (name == "none") return Basis::none;
  if (name == "uniform") return Basis::uniform;
  if (name == "triangular") return Basis::triangular;
  check(name == "gaussian", "basis must be none, uniform, triangular or gaussian, got ", name);
  return Basis::gaussian;
}

inline Metric parse_metric(const std::string& name) {
  if (name == "l1") return Metric::l1;
  if (name == "l2") return Metric::l2;
  if (name == "euclidean") return Metric::euclidean;
  check(name == "smooth_l1", "metric must be l1, l2, euclidean or smooth_l1, got ", name);
  return Metric::smooth_l1;
}

// tau and beta are tensors for the graphs of torch.compile, in which a number that changes is compiled anew.
inline double positive(const Tensor& x, const char* name) {
  check(x.is_cpu() && x.numel() == 1 && x.scalar_type() == ScalarType::Double, name,
        " must be one float64 number on the CPU");
  const double value = *x.const_data_ptr<double>();
  check(value > 0 && value < std::numeric_limits<double>::infinity(), name, " must be > 0, got ", value);
  return value;
}

// How samples are drawn.
struct Law {
  double tau, beta;
  Basis basis;
};

inline Law law_of(const Tensor& tau, const Tensor& beta, StringHandle basis) {
  const Basis parsed = parse_basis(text_of(basis));
  return {positive(tau, "tau"), positive(beta, "beta"), parsed};
}

// That of soft-argmax, which draws none.
inline Law no_samples(const Tensor& beta) { return {1, positive(beta, "beta"), Basis::none}; }

inline Dtype dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Double: return Dtype::float64;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    case ScalarType::Half: return Dtype::float16;
    default:
      refuse("logits must be float32, bfloat16, float16 or float64, got ",
             torch::headeronly::toString(x.scalar_type()));
  }
}

inline bool double_precision(const Problem& p) { return p.dtype == Dtype::float64; }

inline Tensor dense(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }
inline OptionalTensor dense(const OptionalTensor& x) { return x ? OptionalTensor(dense(*x)) : std::nullopt; }

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
  check(seed.is_contiguous() && (seed.numel() == 1 || seed.numel() == 2),
        "seed must be contiguous, of 1 or 2 words, got ", seed.numel(), " words",
        seed.is_contiguous() ? "" : " that are not");
}

inline void add_origins(Problem& p, const Tensor& origins) {
  check(p.points == nullptr && origins.scalar_type() == ScalarType::Long && origins.dim() == 2 &&
            origins.size(0) == p.batch && origins.size(1) == p.keypoints,
        "origins must be int64 [B, K], of a grid");
  p.origins = origins.const_data_ptr<int64_t>();
  p.origin_stride[0] = origins.stride(0), p.origin_stride[1] = origins.stride(1);
}

// What a call asks for, but the seed and, for a grid, its coordinates.
inline Problem describe(const Tensor& logits, const OptionalTensor& points, const OptionalTensor& sigma,
                        int64_t samples, const Law& law, const OptionalTensor& origins) {
  Problem p{};
  p.logits = logits.const_data_ptr();
  p.dtype = dtype_of(logits);
  p.batch = logits.size(0), p.keypoints = logits.size(1);
  p.batch_stride = logits.stride(0), p.keypoint_stride = logits.stride(1);
  describe_grid(p, logits);
  p.axes = int(points ? points->size(2) : logits.dim() - 2);
  p.samples = samples, p.tau = law.tau, p.beta = law.beta, p.basis = law.basis;
  if (points) p.points = points->const_data_ptr();
  if (origins) add_origins(p, *origins);
  if (sigma) {
    p.sigma = sigma->const_data_ptr();
    p.sigma_stride[0] = sigma->stride(0), p.sigma_stride[1] = sigma->stride(1);
  }
  return p;
}

inline Tensor empty_result(const Tensor& logits, Shape shape) {
  return new_empty(logits, shape, logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float);
}

inline Tensor empty_gradient(const Tensor& logits, const OptionalTensor& x, bool needed) {
  return needed && x ? new_empty(*x, x->sizes()) : empty_result(logits, {0});
}

}  // namespace sampling_argmax
