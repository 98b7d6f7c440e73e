#include "cuda/axis_sample.cuh"

#include "cuda/launch.h"

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
  const ToppedProblem topped = find_tops<T>(problem, samples);
  with_weight<T>(topped.problem, [&](auto weight, const DeviceProblem& d) {
    with_axes(d.p, [&](auto axes) {
      with_bin_basis(d.p, [&](auto basis) {
        const int64_t parts = parts_wanted(d.p.rows(), d.p.samples), each = (d.p.samples + parts - 1) / parts;
        const int tile = int(std::min<int64_t>(axis_tile, (d.p.cells + 3) / 4 * 4));
        const int threads = threads_for(d.p.cells, 8, 128);
        launch(axis_sample_forward<T, basis, axes, weight>, blocks(d.p.rows(), (d.p.samples + each - 1) / each),
               threads, axis_shared_bytes<T>(tile, threads), d, reweight, tile, int(each),
               samples.mutable_data_ptr<T>(), marginals.mutable_data_ptr<T>(), stats.mutable_data_ptr<T>());
      });
    });
  });
}

std::tuple<Tensor, Tensor, Tensor> axis_sample_cuda(const Tensor& logits, const OptionalTensor& sigma,
                                                    const Tensor& seed, int64_t num_samples, const Tensor& tau,
                                                    const Tensor& beta, StringHandle basis, double reweight,
                                                    std::optional<double>, const OptionalTensor& origins) {
  const DeviceGuard guard(logits.get_device_index());
  const Problem p = describe(logits, std::nullopt, sigma, num_samples, law_of(tau, beta, basis), origins);
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

}  // namespace
}  // namespace sampling_argmax::cuda

STABLE_TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("axis_sample", TORCH_BOX(&sampling_argmax::cuda::axis_sample_cuda));
}
