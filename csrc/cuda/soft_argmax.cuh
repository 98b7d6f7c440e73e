// soft_argmax, forward and backward: mean, variance, peak and entropy of p = softmax(beta z). Equations (25)-(30) of
// reference/README.md. A block takes a row (backward with points: a batch element, whose keypoints add to the same
// points). Logits are read three times forward (maximum, sums, variance about the mean, so that nothing cancels) and
// twice backward, once written; the weights are made again rather than kept.

#pragma once

#include "cuda/row.cuh"

namespace sampling_argmax::cuda {

constexpr double ln2 = 0.6931471805599453;

// The exponent of a cell in base 2.
template <class T>
SA_INLINE T plain_exponent(const DeviceProblem& d, T logit, T top) {
  return (logit - top) * T(d.p.beta * 1.4426950408889634);
}
// For the entropy, where p log p -> 0: a cell of -inf must not give 0 * inf. NaN stays NaN.
template <class T>
SA_INLINE T finite(T exponent) {
  return exponent < T(-1000) ? T(-1000) : exponent;
}

template <class T, int axes>
__global__ void __launch_bounds__(256) soft_argmax_forward(DeviceProblem d, T* mean, T* variance, T* peak, T* entropy) {
  SA_SHARED_MEMORY(memory);
  T* result = reinterpret_cast<T*>(memory);
  const int64_t row = blockIdx.x, offset = logits_offset(d.p, row);
  const T top = row_top(d, row, result);
  T sums[2 + axes] = {};
  for_cells<T>(d, offset, [&](uint32_t i, T logit) {
    const T exponent = plain_exponent(d, logit, top), w = exp2(exponent);
    sums[0] += w;
    sums[1] = fma(w, finite(exponent), sums[1]);
    for (int axis = 0; axis < axes; ++axis) sums[2 + axis] = fma(w, coordinate<T>(d, row, i, axis), sums[2 + axis]);
  });
  block_reduce<false>(sums, result);
  const T total = result[0], log_sum = result[1];
  T centre[axes], square[axes] = {};
  for (int axis = 0; axis < axes; ++axis) centre[axis] = result[2 + axis] / total;
  for_cells<T>(d, offset, [&](uint32_t i, T logit) {
    const T w = exp2(plain_exponent(d, logit, top));
    for (int axis = 0; axis < axes; ++axis) {
      const T from_mean = coordinate<T>(d, row, i, axis) - centre[axis];
      square[axis] = fma(w * from_mean, from_mean, square[axis]);
    }
  });
  block_reduce<false>(square, result);
  if (threadIdx.x != 0) return;
  for (int axis = 0; axis < axes; ++axis) {
    mean[row * axes + axis] = centre[axis];
    variance[row * axes + axis] = result[axis] / total;
  }
  peak[row] = 1 / total;
  entropy[row] = T(ln2) * (log2(total) - log_sum / total);
}

// Adds the gradient of points of one row to the thread's cells of a batch element; written once, by its owner.
template <class T, int axes>
SA_INLINE void moment_cell(const DeviceProblem& d, int64_t row, uint32_t i, T exponent, const MomentRow<T>& grad,
                           const MomentRow<T>& value, T constant, T& grad_logit, T* grad_point, bool first_row) {
  const T probability = exp2(exponent) * value.peak[row];
  T change = fma(finite(exponent), -grad.entropy[row] * T(ln2), constant);
  for (int axis = 0; axis < axes; ++axis) {
    const int64_t at = row * axes + axis;
    const T from_mean = coordinate<T>(d, row, i, axis) - value.mean[at];
    change = fma(fma(from_mean, grad.variance[at], grad.mean[at]), from_mean, change);
    if (grad_point == nullptr) continue;
    const T add = probability * fma(from_mean, 2 * grad.variance[at], grad.mean[at]);
    grad_point[axis] = first_row ? add : grad_point[axis] + add;
  }
  grad_logit = probability * change * T(d.p.beta);
}

// Grid: rows, with points batch elements. dL/dz_i = beta p_i (sum_a gm_a (c - m) + gv_a ((c - m)^2 - v) - gh (ln p_i +
// H)
// - gp peak) + beta gp peak [i first peak]; points add p_i (gm_a + 2 gv_a (c - m)).
template <class T, int axes>
__global__ void __launch_bounds__(256)
    soft_argmax_backward(DeviceProblem d, MomentRow<T> grad, MomentRow<T> value, void* grad_logits, T* grad_points) {
  SA_SHARED_MEMORY(memory);
  T* result = reinterpret_cast<T*>(memory);
  const int64_t rows = grad_points == nullptr ? 1 : d.p.keypoints;
  for (int64_t row = blockIdx.x * rows; row < (blockIdx.x + 1) * rows; ++row) {
    const int64_t offset = logits_offset(d.p, row);
    const T top = row_top(d, row, result);
    const T peak = value.peak[row];
    T constant = -grad.entropy[row] * (T(ln2) * log2(peak) + value.entropy[row]) - grad.peak[row] * peak;
    for (int axis = 0; axis < axes; ++axis)
      constant -= grad.variance[row * axes + axis] * value.variance[row * axes + axis];
    T first_peak[1] = {T(-d.p.cells)};  // minus the smallest index of the maximum
    for_cells<T>(d, offset, [&](uint32_t i, T logit) {
      if (plain_exponent(d, logit, top) == 0) first_peak[0] = max(first_peak[0], -T(i));
    });
    block_reduce<true>(first_peak, result);
    for_cells<T>(d, offset, [&](uint32_t i, T logit) {
      T grad_logit;
      T* grad_point = grad_points == nullptr ? nullptr : grad_points + (row / d.p.keypoints * d.p.cells + i) * axes;
      moment_cell<T, axes>(d, row, i, plain_exponent(d, logit, top), grad, value, constant, grad_logit, grad_point,
                           row == int64_t(blockIdx.x) * rows);
      if (T(i) == -result[0]) grad_logit += T(d.p.beta) * grad.peak[row] * peak;
      if (grad_logits != nullptr) write_gradient(d.p, grad_logits, row * d.p.cells + i, grad_logit);
    });
  }
}

}  // namespace sampling_argmax::cuda
