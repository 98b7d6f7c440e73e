#include "cpu/launch.h"

#define SA_KERNELS "cpu/soft_argmax_kernel.h"
#include "cpu/foreach_isa.h"

#include <torch/library.h>

#include <cmath>

namespace sampling_argmax {
namespace {

using Moments = std::array<Tensor, 5>;  // mean, covariance, peak, entropy, mode; contiguous
using Part = MomentPart<double, 3>;

Task moments_task(const Tensor& logits, const OptionalTensor& points, double beta) {
  return make_task(logits, points, std::nullopt, Tensor(), 1, 1.0, beta, "none");
}

int64_t parts_of(const Problem& p) { return (p.cells + moment_cells - 1) / moment_cells; }

MomentCells part_cells(const Problem& p, int64_t part) {
  const int64_t begin = part * moment_cells, end = std::min(begin + moment_cells, p.cells);
  return {begin, end, (end - begin + cell_padding - 1) / cell_padding * cell_padding};
}

// Puts the parts of a row together, each with the mass that it has beside the largest logit of all. Equation (25).
template <class T>
void combine_parts(const Problem& p, int64_t row, const Part* parts, int64_t count, Moments& out) {
  int64_t largest = 0;
  for (int64_t k = 1; k < count; ++k)
    if (parts[k].top > parts[largest].top) largest = k;
  double total = 0, logs = 0, mean[3] = {}, square[6] = {};
  std::vector<double> mass(count);
  for (int64_t k = 0; k < count; ++k) {
    const double shift = (parts[k].top - parts[largest].top) * p.beta * 1.4426950408889634;
    const double factor = std::exp2(shift), of_part = mass[k] = factor * parts[k].total;
    total += of_part, logs += factor * parts[k].logs + (of_part == 0 ? 0 : of_part * shift);
    for (int a = 0; a < p.axes; ++a) mean[a] += of_part * parts[k].mean[a];
    for (int pair = 0; pair < pairs_of(p.axes); ++pair) square[pair] += factor * parts[k].square[pair];
  }
  for (double& x : mean) x /= total;
  T* covariance = out[1].mutable_data_ptr<T>() + row * p.axes * p.axes;
  for (int a = 0, pair = 0; a < p.axes; ++a)
    for (int b = a; b < p.axes; ++b, ++pair) {
      for (int64_t k = 0; k < count; ++k)
        square[pair] += mass[k] * (parts[k].mean[a] - mean[a]) * (parts[k].mean[b] - mean[b]);
      covariance[a * p.axes + b] = covariance[b * p.axes + a] = T(square[pair] / total);
    }
  for (int a = 0; a < p.axes; ++a) out[0].mutable_data_ptr<T>()[row * p.axes + a] = T(mean[a]);
  out[2].mutable_data_ptr<T>()[row] = T(1 / total);
  out[3].mutable_data_ptr<T>()[row] = T(0.6931471805599453 * (std::log2(total) - logs / total));
  out[4].mutable_data_ptr<int64_t>()[row] = largest * moment_cells + int64_t(parts[largest].first);
}

template <class T>
void soft_argmax_all(const Problem& p, Moments& out) {
  const int64_t parts = parts_of(p);
  std::vector<Part> of_rows(p.rows() * parts);
  for_each_part<T>(p.rows(), parts, (1 + p.axes) * moment_cells, [&](int64_t row, int64_t part, T* scratch) {
    SA_RUN(plain_kernel, SoftArgmaxPart, T, p, row, part_cells(p, part), scratch, &of_rows[row * parts + part]);
  });
  for (int64_t row = 0; row < p.rows(); ++row) combine_parts<T>(p, row, &of_rows[row * parts], parts, out);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> soft_argmax_cpu(const Tensor& logits, const OptionalTensor& points,
                                                                   double beta) {
  const Task task = moments_task(logits, points, beta);
  const Problem& p = task.p;
  const std::array<int64_t, 4> shape{p.batch, p.keypoints, p.axes, p.axes};
  Tensor peak = empty_result(logits, {p.batch, p.keypoints});
  Moments out{empty_result(logits, {p.batch, p.keypoints, p.axes}), empty_result(logits, shape), peak,
              at::empty_like(peak), at::empty_like(peak, at::kLong)};
  if (double_precision(p))
    soft_argmax_all<double>(p, out);
  else
    soft_argmax_all<float>(p, out);
  return {out[0], out[1], out[2], out[3], out[4]};
}

template <class T>
MomentRow<T> moment_row(const Moments& moments, const Problem& p, int64_t row) {
  const auto at = [&](int k, int64_t each) {
    return moments[k].defined() ? moments[k].const_data_ptr<T>() + row * each : nullptr;
  };
  return {at(0, p.axes), at(1, p.axes * p.axes), at(2, 1), at(3, 1)};
}

template <class T>
T logit_at(const Problem& p, int64_t row, int64_t cell) {
  T logit;
  portable::gather_cells(p, row, cell, cell + 1, &logit);
  return logit;
}

Tensor dense_or_none(const OptionalTensor& x) { return x ? x->contiguous() : Tensor(); }

// The gradient of one part's logits, whose own cell of the peak has more than the polynomial.
template <class T>
void part_backward(const Problem& p, int64_t row, MomentCells cells, const Moments& grads, const Moments& values,
                   T* scratch, T* grad_logits, T* grad_points) {
  const MomentRow<T> grad = moment_row<T>(grads, p, row), value = moment_row<T>(values, p, row);
  const int64_t mode = values[4].const_data_ptr<int64_t>()[row];
  const T top = logit_at<T>(p, row, mode);
  SA_RUN(plain_kernel, SoftArgmaxPartBackward, T, p, row, cells, grad, value, top, scratch, grad_logits, grad_points);
  if (grad.peak != nullptr && mode >= cells.begin && mode < cells.end)
    grad_logits[mode - cells.begin] += T(p.beta * double(*grad.peak) * double(*value.peak));
}

// As in sample's backward, with the gradient of points a thread has the cells of all rows of a batch element.
template <class T>
void soft_argmax_backward_all(const Problem& p, const Moments& grads, const Moments& values, Tensor& grad_logits,
                              Tensor& grad_points) {
  const bool with_logits = grad_logits.numel() > 0, with_points = grad_points.numel() > 0;
  const bool in_place = with_logits && grad_logits.scalar_type() == c10::CppTypeToScalarType<T>::value;
  const int64_t owners = with_points ? p.batch : p.rows(), rows_each = with_points ? p.keypoints : 1;
  for_each_part<T>(owners, parts_of(p), (2 + 2 * p.axes) * moment_cells, [&](int64_t owner, int64_t part, T* scratch) {
    const MomentCells cells = part_cells(p, part);
    T *own = scratch + (1 + p.axes) * moment_cells, *points = with_points ? own + moment_cells : nullptr;
    if (with_points) std::fill_n(points, p.axes * cells.padded, T(0));
    for (int64_t row = owner * rows_each; row < (owner + 1) * rows_each; ++row) {
      const int64_t at = row * p.cells + cells.begin;
      const bool direct = in_place && cells.end - cells.begin == cells.padded;
      T* out = direct ? grad_logits.mutable_data_ptr<T>() + at : own;
      part_backward(p, row, cells, grads, values, scratch, out, points);
      if (with_logits && !direct) write_cells(own, 0, cells.end - cells.begin, grad_logits, at);
    }
    if (with_points)
      write_points(p.axes, cells.padded, points, 0, cells.end - cells.begin,
                   grad_points.mutable_data_ptr<T>() + (owner * p.cells + cells.begin) * p.axes);
  });
}

std::tuple<Tensor, Tensor> soft_argmax_backward_cpu(const OptionalTensor& grad_mean,
                                                    const OptionalTensor& grad_covariance,
                                                    const OptionalTensor& grad_peak, const OptionalTensor& grad_entropy,
                                                    const Tensor& logits, const OptionalTensor& points,
                                                    const Tensor& mean, const Tensor& covariance, const Tensor& peak,
                                                    const Tensor& entropy, const Tensor& mode, double beta,
                                                    std::array<bool, 2> needs) {
  const Task task = moments_task(logits, points, beta);
  Tensor grad_logits = needs[0] ? at::empty(logits.sizes(), logits.options()) : empty_result(logits, {0});
  Tensor grad_points = empty_gradient(logits, points, needs[1]);
  const Moments grads{dense_or_none(grad_mean), dense_or_none(grad_covariance), dense_or_none(grad_peak),
                      dense_or_none(grad_entropy)};
  const Moments values{mean.contiguous(), covariance.contiguous(), peak.contiguous(), entropy.contiguous(),
                       mode.contiguous()};
  if (double_precision(task.p))
    soft_argmax_backward_all<double>(task.p, grads, values, grad_logits, grad_points);
  else
    soft_argmax_backward_all<float>(task.p, grads, values, grad_logits, grad_points);
  return {grad_logits, grad_points};
}

}  // namespace
}  // namespace sampling_argmax

TORCH_LIBRARY_IMPL(sampling_argmax, CPU, m) {
  m.impl("soft_argmax", &sampling_argmax::soft_argmax_cpu);
  m.impl("soft_argmax_backward", &sampling_argmax::soft_argmax_backward_cpu);
}
