#include "cuda/axis_sample.cuh"

#include "cuda/launch.h"

#include <torch/library.h>

namespace sampling_argmax::cuda {
namespace {

template <class Body>
void with_bin_basis(const Problem& p, const Body& body) {
  switch (p.basis) {
    case Basis::none: return body(Constant<Basis::none>());
    case Basis::uniform: return body(Constant<Basis::uniform>());
    case Basis::triangular: return body(Constant<Basis::triangular>());
    default: return body(Constant<Basis::gaussian>());
  }
}

int64_t total_bins(const Tensor& logits) {
  int64_t bins = 0;
  for (int64_t dim = 2; dim < logits.dim(); ++dim) bins += logits.size(dim);
  return bins;
}

template <class T>
void forward_into(const DeviceProblem& problem, double reweight, Tensor& samples, Tensor& marginals, Tensor& stats) {
  with_weight<T>(problem, [&](auto weight, const DeviceProblem& d) {
    with_axes(d.p, [&](auto axes) {
      with_bin_basis(d.p, [&](auto basis) {
        const int64_t parts = parts_wanted(d.p.rows(), d.p.samples), each = (d.p.samples + parts - 1) / parts;
        const int tile = int(std::min<int64_t>(axis_tile, (d.p.cells + 3) / 4 * 4));
        const int threads = threads_for(d.p.cells, 8, 128);
        launch(axis_sample_forward<T, basis, axes, weight>,
               dim3(unsigned(d.p.rows()), unsigned((d.p.samples + each - 1) / each)), threads,
               axis_shared_bytes<T>(tile, threads), d, reweight, tile, int(each), samples.mutable_data_ptr<T>(),
               marginals.mutable_data_ptr<T>(), stats.mutable_data_ptr<T>());
      });
    });
  });
}

std::tuple<Tensor, Tensor, Tensor> axis_sample_cuda(const Tensor& logits, const OptionalTensor& sigma,
                                                    const Tensor& seed, int64_t num_samples, double tau, double beta,
                                                    std::string basis, double reweight, std::optional<double>) {
  const DeviceGuard guard(logits.device());
  const Problem p = describe(logits, std::nullopt, sigma, num_samples, tau, beta, basis);
  Tensor samples = empty_result(logits, {p.batch, p.keypoints, p.samples, p.axes});
  Tensor marginals = empty_result(logits, {p.batch, p.keypoints, p.samples, total_bins(logits)});
  Tensor stats = empty_result(logits, {p.batch, p.keypoints, p.samples});
  const DeviceProblem d = device_problem(p, seed);
  if (double_precision(p))
    forward_into<double>(d, reweight, samples, marginals, stats);
  else
    forward_into<float>(d, reweight, samples, marginals, stats);
  return {samples, marginals, stats};
}

// Gradients of the bins and, per sample, of sigma.
template <class T>
void bins_backward(const DeviceProblem& problem, double reweight, double clip, const Tensor& grad,
                   const Tensor& marginals, const Tensor& stats, Tensor& grad_bins, Tensor& grad_sigmas) {
  with_weight<T>(problem, [&](auto weight, const DeviceProblem& d) {
    with_axes(d.p, [&](auto axes) {
      with_bin_basis(d.p, [&](auto basis) {
        launch(axis_bins_backward<T, basis, axes, weight>, dim3(unsigned((d.p.rows() * d.p.samples + 3) / 4)), 128, 0,
               d, reweight, clip, grad.const_data_ptr<T>(), marginals.const_data_ptr<T>(), stats.const_data_ptr<T>(),
               grad_bins.mutable_data_ptr<T>(), data_or_null<T>(grad_sigmas));
      });
    });
  });
}

template <class T>
void cells_backward(const DeviceProblem& problem, const Tensor& grad_bins, const Tensor& stats, Tensor& grad_logits) {
  const int64_t bins = problem.p.axes == 1 ? 0 : (grad_bins.size(3) + 3) / 4 * 4,
                room = (shared_limit() - 1024) / int64_t(sizeof(T));
  TORCH_CHECK_VALUE(bins <= room, "axis_sample: the axes of a map may have ", room, " bins together on CUDA, got ",
                    bins);
  const int64_t fit = std::min<int64_t>(8192, room) / std::max<int64_t>(bins, 1);
  const int at_once = int(std::clamp<int64_t>(fit, 1, problem.p.samples));
  with_weight<T>(problem, [&](auto weight, const DeviceProblem& d) {
    with_axes(d.p, [&](auto axes) {
      const int64_t per_thread = 4 * quads_per_thread;
      const int threads = threads_for(d.p.cells, per_thread, 128);
      const int64_t ranges = (d.p.cells + per_thread * threads - 1) / (per_thread * threads);
      const dim3 grid(unsigned(d.p.rows()), unsigned(parts_wanted(d.p.rows(), ranges)));
      const int64_t shared = schedule_bytes + int64_t(sizeof(T)) * (8 + at_once * bins);
      auto* kernel = d.p.shape[2] % 4 == 0 ? &axis_sample_backward<T, axes, weight, true>
                                           : &axis_sample_backward<T, axes, weight, false>;
      launch(kernel, grid, threads, shared, d, grad_bins.const_data_ptr<T>(), stats.const_data_ptr<T>(),
             grad_logits.mutable_data_ptr(), at_once);
    });
  });
}

template <class T>
void backward_into(const DeviceProblem& d, double reweight, double clip, const Tensor& grad, const Tensor& marginals,
                   const Tensor& stats, Tensor& grad_logits, Tensor& grad_sigma) {
  Tensor grad_bins = at::empty_like(marginals);
  Tensor grad_sigmas = at::empty({grad_sigma.numel() > 0 ? stats.numel() : 0}, stats.options());
  bins_backward<T>(d, reweight, clip, grad, marginals, stats, grad_bins, grad_sigmas);
  if (grad_logits.numel() > 0) cells_backward<T>(d, grad_bins, stats, grad_logits);
  if (grad_sigma.numel() > 0)
    launch(sum_samples<T>, dim3(unsigned((d.p.rows() + 127) / 128)), 128, 0, grad_sigmas.const_data_ptr<T>(),
           d.p.rows(), d.p.samples, grad_sigma.mutable_data_ptr<T>());
}

std::tuple<Tensor, Tensor> axis_sample_backward_cuda(const Tensor& grad, const Tensor& logits,
                                                     const OptionalTensor& sigma, const Tensor& seed,
                                                     const Tensor& marginals, const Tensor& stats, double tau,
                                                     double beta, std::string basis, double reweight,
                                                     std::optional<double> clip_grad, std::array<bool, 2> needs) {
  const DeviceGuard guard(logits.device());
  const Problem p = describe(logits, std::nullopt, sigma, grad.size(2), tau, beta, basis);
  Tensor grad_logits = needs[0] ? at::empty(logits.sizes(), logits.options()) : empty_result(logits, {0});
  Tensor grad_sigma = empty_gradient(logits, sigma, needs[1]);
  const DeviceProblem d = device_problem(p, seed);
  const Tensor grad_in = grad.contiguous();
  const double clip = clip_grad.value_or(0);
  if (double_precision(p))
    backward_into<double>(d, reweight, clip, grad_in, marginals, stats, grad_logits, grad_sigma);
  else
    backward_into<float>(d, reweight, clip, grad_in, marginals, stats, grad_logits, grad_sigma);
  return {grad_logits, grad_sigma};
}

}  // namespace
}  // namespace sampling_argmax::cuda

TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("axis_sample", &sampling_argmax::cuda::axis_sample_cuda);
  m.impl("axis_sample_backward", &sampling_argmax::cuda::axis_sample_backward_cuda);
}
