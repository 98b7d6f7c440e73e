#include "cuda/soft_argmax.cuh"

#include "cuda/launch.h"

#include <torch/library.h>

namespace sampling_argmax::cuda {
namespace {

constexpr int moment_threads = 256;

Problem moments_problem(const Tensor& logits, const OptionalTensor& points, double beta) {
  return describe(logits, points, std::nullopt, 1, 1.0, beta, "none");
}

template <class T>
void forward_into(const DeviceProblem& d, Tensor& mean, Tensor& variance, Tensor& peak, Tensor& entropy) {
  with_axes(d.p, [&](auto axes) {
    launch(soft_argmax_forward<T, axes>, blocks(d.p.rows()), threads_for(d.p.cells, 4, moment_threads),
           int64_t(sizeof(T)) * (2 + axes) * (1 + moment_threads / 32), d, mean.mutable_data_ptr<T>(),
           variance.mutable_data_ptr<T>(), peak.mutable_data_ptr<T>(), entropy.mutable_data_ptr<T>());
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> soft_argmax_cuda(const Tensor& logits, const OptionalTensor& points,
                                                            double beta) {
  const DeviceGuard guard(logits.device());
  const OptionalTensor cells = dense(points);
  const Problem p = moments_problem(logits, cells, beta);
  Tensor mean = empty_result(logits, {p.batch, p.keypoints, p.axes}), variance = at::empty_like(mean);
  Tensor peak = empty_result(logits, {p.batch, p.keypoints}), entropy = at::empty_like(peak);
  const DeviceProblem d = device_problem(p, Tensor());
  if (double_precision(p))
    forward_into<double>(d, mean, variance, peak, entropy);
  else
    forward_into<float>(d, mean, variance, peak, entropy);
  return {mean, variance, peak, entropy};
}

using MomentTensors = std::array<Tensor, 4>;  // mean, variance, peak, entropy, contiguous

template <class T>
MomentRow<T> pointers(const MomentTensors& moments) {
  return {moments[0].const_data_ptr<T>(), moments[1].const_data_ptr<T>(), moments[2].const_data_ptr<T>(),
          moments[3].const_data_ptr<T>()};
}

template <class T>
void backward_into(const DeviceProblem& d, const MomentTensors& grads, const MomentTensors& values, Tensor& grad_logits,
                   Tensor& grad_points) {
  with_axes(d.p, [&](auto axes) {
    const int64_t owners = grad_points.numel() > 0 ? d.p.batch : d.p.rows();
    launch(soft_argmax_backward<T, axes>, blocks(owners), threads_for(d.p.cells, 4, moment_threads),
           int64_t(sizeof(T)) * (1 + moment_threads / 32), d, pointers<T>(grads), pointers<T>(values),
           raw_or_null(grad_logits), data_or_null<T>(grad_points));
  });
}

std::tuple<Tensor, Tensor> soft_argmax_backward_cuda(const Tensor& grad_mean, const Tensor& grad_variance,
                                                     const Tensor& grad_peak, const Tensor& grad_entropy,
                                                     const Tensor& logits, const OptionalTensor& points,
                                                     const Tensor& mean, const Tensor& variance, const Tensor& peak,
                                                     const Tensor& entropy, double beta, std::array<bool, 2> needs) {
  const DeviceGuard guard(logits.device());
  const OptionalTensor cells = dense(points);
  const Problem p = moments_problem(logits, cells, beta);
  Tensor grad_logits = needs[0] ? at::empty(logits.sizes(), logits.options()) : empty_result(logits, {0});
  Tensor grad_points = empty_gradient(logits, points, needs[1]);
  const MomentTensors grads{grad_mean.contiguous(), grad_variance.contiguous(), grad_peak.contiguous(),
                            grad_entropy.contiguous()};
  const MomentTensors values{mean.contiguous(), variance.contiguous(), peak.contiguous(), entropy.contiguous()};
  const DeviceProblem d = device_problem(p, Tensor());
  if (double_precision(p))
    backward_into<double>(d, grads, values, grad_logits, grad_points);
  else
    backward_into<float>(d, grads, values, grad_logits, grad_points);
  return {grad_logits, grad_points};
}

}  // namespace
}  // namespace sampling_argmax::cuda

TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("soft_argmax", &sampling_argmax::cuda::soft_argmax_cuda);
  m.impl("soft_argmax_backward", &sampling_argmax::cuda::soft_argmax_backward_cuda);
}
