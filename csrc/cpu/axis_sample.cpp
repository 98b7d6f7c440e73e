#include "cpu/launch.h"

#define SA_KERNELS "cpu/axis_sample_kernel.h"
#include "cpu/foreach_isa.h"

namespace sampling_argmax {
namespace {

int64_t total_bins(const Tensor& logits) {
  int64_t bins = 0;
  for (int64_t dim = 2; dim < logits.dim(); ++dim) bins += logits.size(dim);
  return bins;
}

// Room for the bins of a sample: five lines as long as the longest axis, padded on both sides, and the noise of all.
int64_t bin_scratch(const Problem& p, int64_t bins) {
  return 5 * (p.longest_axis() + 3 * cell_padding) + bins + cell_padding;
}

template <class T>
void axis_sample_all(const Problem& p, AxisOptions options, int64_t bins, Tensor& samples, Tensor& marginals,
                     Tensor& stats) {
  T *samples_data = samples.mutable_data_ptr<T>(), *marginals_data = marginals.mutable_data_ptr<T>(),
    *stats_data = stats.mutable_data_ptr<T>();
  const int64_t parts = parts_per_row(p.rows(), p.samples);
  for_each_part<T>(p.rows(), parts, 3 * p.padded() + bin_scratch(p, bins), [&](int64_t row, int64_t part, T* scratch) {
    const int64_t first = p.samples * part / parts, last = p.samples * (part + 1) / parts;
    SA_RUN(dispatch, AxisSampleRow, T, p, options, row, first, last, scratch, samples_data, marginals_data, stats_data);
  });
}

std::tuple<Tensor, Tensor, Tensor> axis_sample_cpu(const Tensor& logits, const OptionalTensor& sigma,
                                                   const Tensor& seed, int64_t num_samples, const Tensor& tau,
                                                   const Tensor& beta, StringHandle basis, double reweight,
                                                   std::optional<double>, const OptionalTensor& origins) {
  const Task task =
      make_task(logits, std::nullopt, sigma, seed, num_samples, law_of(tau, beta, basis), origins, /*tables=*/false);
  const Problem& p = task.p;
  const int64_t bins = total_bins(logits);
  Tensor samples = empty_result(logits, {p.batch, p.keypoints, p.samples, p.axes});
  Tensor marginals = empty_result(logits, {p.batch, p.keypoints, p.samples, bins});
  Tensor stats = empty_result(logits, {p.batch, p.keypoints, p.samples});
  const AxisOptions options{reweight, 0};
  if (double_precision(p))
    axis_sample_all<double>(p, options, bins, samples, marginals, stats);
  else
    axis_sample_all<float>(p, options, bins, samples, marginals, stats);
  return {samples, marginals, stats};
}

template <class T>
void axis_sample_backward_all(const Problem& p, AxisOptions options, int64_t bins, const Tensor& grad,
                              const Tensor& marginals, const Tensor& stats, Tensor& grad_logits, Tensor& grad_sigma) {
  const T *grad_data = grad.const_data_ptr<T>(), *marginals_data = marginals.const_data_ptr<T>(),
          *stats_data = stats.const_data_ptr<T>();
  T* sigma_data = grad_sigma.numel() > 0 ? grad_sigma.mutable_data_ptr<T>() : nullptr;
  const bool with_logits = grad_logits.numel() > 0;
  const int64_t lines = p.shape[0] * p.shape[1], width = p.shape[2], parts = parts_per_row(p.rows(), lines);
  const int64_t scratch_size = 4 * p.padded() + bins + cell_padding + bin_scratch(p, bins);
  for_each_part<T>(p.rows(), parts, scratch_size, [&](int64_t row, int64_t part, T* scratch) {
    const int64_t begin = lines * part / parts, end = lines * (part + 1) / parts;
    T *cells = scratch, *rest = scratch + p.padded();
    std::fill(cells + begin * width, cells + end * width, T(0));
    const double sigma = SA_RUN(dispatch, AxisSampleRowBackward, T, p, options, row, begin, end, grad_data,
                                marginals_data, stats_data, rest, cells);
    if (with_logits) write_cells(cells, begin * width, end * width, grad_logits, row * p.cells);
    if (sigma_data != nullptr && part == 0) sigma_data[row] = T(sigma);
  });
}

std::tuple<Tensor, Tensor> axis_sample_backward_cpu(const Tensor& grad, const Tensor& logits,
                                                    const OptionalTensor& sigma, const Tensor& seed,
                                                    const Tensor& marginals, const Tensor& stats, const Tensor& tau,
                                                    const Tensor& beta, StringHandle basis, double reweight,
                                                    std::optional<double> clip_grad, const Needs& needs,
                                                    const OptionalTensor& origins) {
  const Task task =
      make_task(logits, std::nullopt, sigma, seed, grad.size(2), law_of(tau, beta, basis), origins, /*tables=*/false);
  Tensor grad_logits = empty_gradient(logits, logits, needs[0]);
  Tensor grad_sigma = empty_gradient(logits, sigma, needs[1]);
  const AxisOptions options{reweight, clip_grad.value_or(0)};
  const Tensor grad_in = dense(grad);
  if (double_precision(task.p))
    axis_sample_backward_all<double>(task.p, options, total_bins(logits), grad_in, marginals, stats, grad_logits,
                                     grad_sigma);
  else
    axis_sample_backward_all<float>(task.p, options, total_bins(logits), grad_in, marginals, stats, grad_logits,
                                    grad_sigma);
  return {grad_logits, grad_sigma};
}

}  // namespace
}  // namespace sampling_argmax

STABLE_TORCH_LIBRARY_IMPL(sampling_argmax, CPU, m) {
  m.impl("axis_sample", TORCH_BOX(&sampling_argmax::axis_sample_cpu));
  m.impl("axis_sample_backward", TORCH_BOX(&sampling_argmax::axis_sample_backward_cpu));
}
