#include "cuda/sample_launch.h"

namespace sampling_argmax::cuda {

template <class T>
void launch_sample_backward(const DeviceProblem& problem, const Tensor& grad, const Tensor& samples,
                            const Tensor& stats, const SampleGradients<T>& out) {
  const ToppedProblem topped = find_tops<T>(problem, samples);
  with_cell_kernel<T>(topped.problem, [&](auto basis, auto axes, auto weight, const DeviceProblem& d) {
    const bool with_points = out.points != nullptr;
    const int64_t owners = with_points ? d.p.batch : d.p.rows(), per_thread = 4 * quads_per_thread;
    int threads = threads_for(d.p.cells, per_thread, 128);
    const auto ranges = [&] { return (d.p.cells + per_thread * threads - 1) / (per_thread * threads); };
    while (threads > 32 && owners * ranges() < 2 * multiprocessors()) threads /= 2;  // few owners, as with points
    const dim3 grid = blocks(owners, parts_wanted(owners, ranges()));
    const T *grads = grad.const_data_ptr<T>(), *samples_data = samples.const_data_ptr<T>(),
            *stats_data = stats.const_data_ptr<T>();
    const int64_t shared = backward_shared_bytes<T>(threads);
    if constexpr (basis == Basis::gaussian) {
      if (with_points)
        return launch(sample_backward<T, basis, axes, weight, true>, grid, threads, shared, d, grads, samples_data,
                      stats_data, out);
    }
    launch(sample_backward<T, basis, axes, weight, false>, grid, threads, shared, d, grads, samples_data, stats_data,
           out);
  });
}

template void launch_sample_backward<float>(const DeviceProblem&, const Tensor&, const Tensor&, const Tensor&,
                                            const SampleGradients<float>&);
template void launch_sample_backward<double>(const DeviceProblem&, const Tensor&, const Tensor&, const Tensor&,
                                             const SampleGradients<double>&);

namespace {

template <class T>
void backward_into(const DeviceProblem& d, const Tensor& grad, const Tensor& samples, const Tensor& stats,
                   Tensor& grad_logits, Tensor& grad_points, Tensor& grad_sigma) {
  const SampleGradients<T> out{raw_or_null(grad_logits), data_or_null<T>(grad_points), data_or_null<T>(grad_sigma)};
  launch_sample_backward<T>(d, grad, samples, stats, out);
}

std::tuple<Tensor, Tensor, Tensor> sample_backward_cuda(const Tensor& grad, const Tensor& logits,
                                                        const OptionalTensor& points, const OptionalTensor& sigma,
                                                        const Tensor& seed, const Tensor& samples, const Tensor& stats,
                                                        const Tensor& tau, const Tensor& beta, StringHandle basis,
                                                        const Needs& needs, const OptionalTensor& origins) {
  const DeviceGuard guard(logits.get_device_index());
  const OptionalTensor cells = dense(points);
  const Problem p = describe(logits, cells, sigma, samples.size(2), law_of(tau, beta, basis), origins);
  Tensor grad_logits = empty_gradient(logits, logits, needs[0]);
  Tensor grad_points = empty_gradient(logits, points, needs[1]);
  Tensor grad_sigma = empty_gradient(logits, sigma, needs[2]);
  const DeviceProblem d = device_problem(p, seed);
  const Tensor grad_in = dense(grad);
  if (double_precision(p))
    backward_into<double>(d, grad_in, samples, stats, grad_logits, grad_points, grad_sigma);
  else
    backward_into<float>(d, grad_in, samples, stats, grad_logits, grad_points, grad_sigma);
  return {grad_logits, grad_points, grad_sigma};
}

}  // namespace
}  // namespace sampling_argmax::cuda

STABLE_TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("sample_backward", TORCH_BOX(&sampling_argmax::cuda::sample_backward_cuda));
}
