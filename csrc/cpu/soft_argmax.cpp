#include "cpu/launch.h"

#define SA_KERNELS "cpu/soft_argmax_kernel.h"
#include "cpu/foreach_isa.h"

#include <torch/library.h>

namespace sampling_argmax {
namespace {

Task moments_task(const Tensor& logits, const OptionalTensor& points, double beta) {
  return make_task(logits, points, std::nullopt, Tensor(), 1, 1.0, beta, "none");
}

template <class T>
void soft_argmax_all(const Problem& p, Tensor& mean, Tensor& variance, Tensor& peak, Tensor& entropy) {
  T *mean_data = mean.mutable_data_ptr<T>(), *variance_data = variance.mutable_data_ptr<T>(),
    *peak_data = peak.mutable_data_ptr<T>(), *entropy_data = entropy.mutable_data_ptr<T>();
  for_each_part<T>(p.rows(), 1, (2 + p.axes) * p.padded(), [&](int64_t row, int64_t, T* scratch) {
    SA_RUN(plain_kernel, SoftArgmaxRow, T, p, row, scratch, mean_data, variance_data, peak_data, entropy_data);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> soft_argmax_cpu(const Tensor& logits, const OptionalTensor& points,
                                                           double beta) {
  const Task task = moments_task(logits, points, beta);
  const Problem& p = task.p;
  Tensor mean = empty_result(logits, {p.batch, p.keypoints, p.axes}), variance = at::empty_like(mean);
  Tensor peak = empty_result(logits, {p.batch, p.keypoints}), entropy = at::empty_like(peak);
  if (double_precision(p))
    soft_argmax_all<double>(p, mean, variance, peak, entropy);
  else
    soft_argmax_all<float>(p, mean, variance, peak, entropy);
  return {mean, variance, peak, entropy};
}

using Moments = std::array<Tensor, 4>;  // mean, variance, peak, entropy, contiguous

template <class T>
MomentRow<T> moment_row(const Moments& moments, const Problem& p, int64_t row) {
  return {moments[0].const_data_ptr<T>() + row * p.axes, moments[1].const_data_ptr<T>() + row * p.axes,
          moments[2].const_data_ptr<T>() + row, moments[3].const_data_ptr<T>() + row};
}

// As in sample's backward, the gradient of points makes one thread own a batch element.
template <class T>
void soft_argmax_backward_all(const Problem& p, const Moments& grads, const Moments& values, Tensor& grad_logits,
                              Tensor& grad_points) {
  const bool with_logits = grad_logits.numel() > 0, with_points = grad_points.numel() > 0;
  const int64_t owners = with_points ? p.batch : p.rows(), rows_each = with_points ? p.keypoints : 1;
  for_each_part<T>(owners, 1, (2 + 2 * p.axes) * p.padded(), [&](int64_t owner, int64_t, T* scratch) {
    T* cells = scratch + (1 + p.axes) * p.padded();
    T* point_cells = with_points ? cells + p.padded() : nullptr;
    if (with_points) std::fill_n(point_cells, p.axes * p.padded(), T(0));
    for (int64_t row = owner * rows_each; row < (owner + 1) * rows_each; ++row) {
      SA_RUN(plain_kernel, SoftArgmaxRowBackward, T, p, row, moment_row<T>(grads, p, row),
             moment_row<T>(values, p, row), scratch, cells, point_cells);
      if (with_logits) write_cells(cells, 0, p.cells, grad_logits, row * p.cells);
    }
    if (!with_points) return;
    T* out = grad_points.mutable_data_ptr<T>() + owner * p.cells * p.axes;
    write_points(p, point_cells, 0, p.cells, out);
  });
}

std::tuple<Tensor, Tensor> soft_argmax_backward_cpu(const Tensor& grad_mean, const Tensor& grad_variance,
                                                    const Tensor& grad_peak, const Tensor& grad_entropy,
                                                    const Tensor& logits, const OptionalTensor& points,
                                                    const Tensor& mean, const Tensor& variance, const Tensor& peak,
                                                    const Tensor& entropy, double beta, std::array<bool, 2> needs) {
  const Task task = moments_task(logits, points, beta);
  Tensor grad_logits = needs[0] ? at::empty(logits.sizes(), logits.options()) : empty_result(logits, {0});
  Tensor grad_points = empty_gradient(logits, points, needs[1]);
  const Moments grads{grad_mean.contiguous(), grad_variance.contiguous(), grad_peak.contiguous(),
                      grad_entropy.contiguous()};
  const Moments values{mean.contiguous(), variance.contiguous(), peak.contiguous(), entropy.contiguous()};
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
