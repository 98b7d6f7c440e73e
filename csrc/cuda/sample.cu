#include "cuda/sample_launch.h"

#include <torch/library.h>

namespace sampling_argmax::cuda {
namespace {

std::tuple<Tensor, Tensor> sample_cuda(const Tensor& logits, const OptionalTensor& points, const OptionalTensor& sigma,
                                  const Tensor& seed, int64_t num_samples, double tau, double beta, std::string basis) {
  const DeviceGuard guard(logits.device());
  const OptionalTensor cells = dense(points);
  const Problem p = describe(logits, cells, sigma, num_samples, tau, beta, basis);
  Tensor samples = empty_result(logits, {p.batch, p.keypoints, p.samples, p.axes});
  Tensor stats = empty_result(logits, {p.batch, p.keypoints, p.samples, p.basis == Basis::gaussian ? 2 : 1});
  const DeviceProblem d = device_problem(p, seed);
  if (double_precision(p))
    launch_sample<double>(d, samples, stats);
  else
    launch_sample<float>(d, samples, stats);
  return {samples, stats};
}

template <class T>
void backward_into(const DeviceProblem& d, const Tensor& grad, const Tensor& samples, const Tensor& stats,
                   Tensor& grad_logits, Tensor& grad_points, Tensor& grad_sigma) {
  const SampleGradients<T> out{raw_or_null(grad_logits), data_or_null<T>(grad_points), data_or_null<T>(grad_sigma)};
  launch_sample_backward<T>(d, grad, samples, stats, out);
}

std::tuple<Tensor, Tensor, Tensor> sample_backward_cuda(const Tensor& grad, const Tensor& logits, const OptionalTensor& points,
                                                   const OptionalTensor& sigma, const Tensor& seed,
                                                   const Tensor& samples, const Tensor& stats, double tau, double beta,
                                                   std::string basis, std::array<bool, 3> needs) {
  const DeviceGuard guard(logits.device());
  const OptionalTensor cells = dense(points);
  const Problem p = describe(logits, cells, sigma, samples.size(2), tau, beta, basis);
  Tensor grad_logits = needs[0] ? at::empty(logits.sizes(), logits.options()) : empty_result(logits, {0});
  Tensor grad_points = empty_gradient(logits, points, needs[1]);
  Tensor grad_sigma = empty_gradient(logits, sigma, needs[2]);
  const DeviceProblem d = device_problem(p, seed);
  const Tensor grad_in = grad.contiguous();
  if (double_precision(p))
    backward_into<double>(d, grad_in, samples, stats, grad_logits, grad_points, grad_sigma);
  else
    backward_into<float>(d, grad_in, samples, stats, grad_logits, grad_points, grad_sigma);
  return {grad_logits, grad_points, grad_sigma};
}

}  // namespace
}  // namespace sampling_argmax::cuda

TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("sample", &sampling_argmax::cuda::sample_cuda);
  m.impl("sample_backward", &sampling_argmax::cuda::sample_backward_cuda);
}
