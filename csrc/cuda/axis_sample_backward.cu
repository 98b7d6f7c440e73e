#include "cuda/axis_sample_backward.cuh"

#include "cuda/launch.h"

namespace sampling_argmax::cuda {
namespace {

int64_t axis_stride(int64_t bins) { return (bins + 3) / 4 * 4; }

// How many samples' bins are in shared memory at once. All of them where they fit, since otherwise every range of cells
// has them made again; else what leaves room for four blocks a multiprocessor.
template <class T>
int64_t samples_at_once(const Problem& p, int64_t bins) {
  const int64_t room = (shared_limit() - 1024) / int64_t(sizeof(T)) - 3, each = axis_stride(bins) + 1;
  if (p.samples * each <= room) return p.samples;
  if (each <= room) return std::max<int64_t>(std::min<int64_t>(48 * 1024 / int64_t(sizeof(T)), room) / each, 1);
  check(p.axes == 1, "axis_sample: the axes of a map may have ", room - 1, " bins together on CUDA, got ", bins);
  return 0;
}

template <class T>
void backward_into(const DeviceProblem& problem, double reweight, double clip, const Tensor& marginals,
                   AxisGradients<T> grads) {
  const int64_t bins = marginals.size(3), fit = samples_at_once<T>(problem.p, bins);
  const int64_t at_once = fit > 0 ? fit : problem.p.samples, per_thread = 4 * quads_per_thread;
  Tensor workspace;
  if (fit == 0) {
    workspace = new_empty(marginals, {problem.p.rows() * at_once * axis_stride(bins)});
    grads.workspace = workspace.mutable_data_ptr<T>();
  }
  const int threads = threads_for(problem.p.cells, per_thread, 128);
  const int64_t ranges = (problem.p.cells + per_thread * threads - 1) / (per_thread * threads);
  // The blocks of a row would race for its part of the workspace: there is but one then.
  const dim3 grid = blocks(problem.p.rows(), fit > 0 ? parts_wanted(problem.p.rows(), ranges) : 1);
  const int64_t shared =
      schedule_bytes + int64_t(sizeof(T)) * (8 + (at_once + 3) / 4 * 4 + (fit > 0 ? at_once * axis_stride(bins) : 0));
  const ToppedProblem topped = find_tops<T>(problem, marginals);
  with_weight<T>(topped.problem, [&](auto weight, const DeviceProblem& d) {
    with_axes(d.p, [&](auto axes) {
      auto* kernel = d.p.shape[2] % 4 == 0 ? &axis_sample_backward<T, axes, weight, true>
                                           : &axis_sample_backward<T, axes, weight, false>;
      launch(kernel, grid, threads, shared, d, reweight, clip, grads, int(at_once), int(axis_stride(bins)));
    });
  });
}

std::tuple<Tensor, Tensor> axis_sample_backward_cuda(const Tensor& grad, const Tensor& logits,
                                                     const OptionalTensor& sigma, const Tensor& seed,
                                                     const Tensor& marginals, const Tensor& stats, const Tensor& tau,
                                                     const Tensor& beta, StringHandle basis, double reweight,
                                                     std::optional<double> clip_grad, const Needs& needs,
                                                     const OptionalTensor& origins) {
  const DeviceGuard guard(logits.get_device_index());
  const Problem p = describe(logits, std::nullopt, sigma, grad.size(2), law_of(tau, beta, basis), origins);
  Tensor grad_logits = empty_gradient(logits, logits, needs[0]);
  Tensor grad_sigma = empty_gradient(logits, sigma, needs[1]);
  const DeviceProblem d = device_problem(p, seed);
  const Tensor grad_in = dense(grad);
  const double clip = clip_grad.value_or(0);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    backward_into<T>(d, reweight, clip, marginals,
                     {grad_in.const_data_ptr<T>(), marginals.const_data_ptr<T>(), stats.const_data_ptr<T>(),
                      raw_or_null(grad_logits), data_or_null<T>(grad_sigma), nullptr});
  };
  if (double_precision(p))
    run(0.0);
  else
    run(0.0f);
  return {grad_logits, grad_sigma};
}

}  // namespace
}  // namespace sampling_argmax::cuda

STABLE_TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("axis_sample_backward", TORCH_BOX(&sampling_argmax::cuda::axis_sample_backward_cuda));
}
