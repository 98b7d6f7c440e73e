#include "cpu/launch.h"

#define SA_KERNELS "cpu/sample_kernel.h"
#include "cpu/foreach_isa.h"

namespace sampling_argmax {
namespace {

template <class T>
void sample_all(const Problem& p, Tensor& samples, Tensor& stats) {
  T* samples_data = samples.mutable_data_ptr<T>();
  T* stats_data = stats.mutable_data_ptr<T>();
  const int64_t parts = parts_per_row(p.rows(), p.samples);
  for_each_part<T>(p.rows(), parts, (2 + p.axes) * p.padded(), [&](int64_t row, int64_t part, T* scratch) {
    const int64_t first = p.samples * part / parts, last = p.samples * (part + 1) / parts;
    SA_RUN(dispatch, SampleRow, T, p, row, first, last, scratch, samples_data, stats_data);
  });
}

std::tuple<Tensor, Tensor> sample_cpu(const Tensor& logits, const OptionalTensor& points, const OptionalTensor& sigma,
                                      const Tensor& seed, int64_t num_samples, const Tensor& tau, const Tensor& beta,
                                      StringHandle basis, const OptionalTensor& origins) {
  const Task task = make_task(logits, points, sigma, seed, num_samples, law_of(tau, beta, basis), origins);
  const Problem& p = task.p;
  Tensor samples = empty_result(logits, {p.batch, p.keypoints, p.samples, p.axes});
  Tensor stats = empty_result(logits, {p.batch, p.keypoints, p.samples, p.basis == Basis::gaussian ? 2 : 1});
  if (double_precision(p))
    sample_all<double>(p, samples, stats);
  else
    sample_all<float>(p, samples, stats);
  return {samples, stats};
}

// The gradient of points sums the keypoints of a batch element, one after another, so one thread owns a batch
// element's cells; without it every row is on its own.
template <class T>
void sample_backward_all(const Problem& p, const Tensor& grad, const Tensor& samples, const Tensor& stats,
                         Tensor& grad_logits, Tensor& grad_points, Tensor& grad_sigma) {
  const bool with_logits = grad_logits.numel() > 0, with_points = grad_points.numel() > 0;
  const T *grad_data = grad.const_data_ptr<T>(), *samples_data = samples.const_data_ptr<T>(),
          *stats_data = stats.const_data_ptr<T>();
  T* sigma_data = grad_sigma.numel() > 0 ? grad_sigma.mutable_data_ptr<T>() : nullptr;
  const int64_t owners = with_points ? p.batch : p.rows(), rows_each = with_points ? p.keypoints : 1;
  const int64_t blocks = p.padded() / cell_padding, parts = parts_per_row(owners, blocks);
  const int64_t tables = 2 + p.axes + 1 + p.axes;
  for_each_part<T>(owners, parts, tables * p.padded(), [&](int64_t owner, int64_t part, T* scratch) {
    const int64_t begin = blocks * part / parts * cell_padding, end = blocks * (part + 1) / parts * cell_padding;
    const int64_t stop = std::min(end, p.cells);
    T* cells = scratch + (2 + p.axes) * p.padded();
    T* point_cells = with_points ? cells + p.padded() : nullptr;
    if (with_points) std::fill_n(point_cells, p.axes * p.padded(), T(0));
    for (int64_t row = owner * rows_each; row < (owner + 1) * rows_each; ++row) {
      std::fill(cells + begin, cells + end, T(0));
      const double sigma = SA_RUN(dispatch, SampleRowBackward, T, p, row, begin, end, grad_data, samples_data,
                                  stats_data, scratch, cells, point_cells);
      if (with_logits) write_cells(cells, begin, stop, grad_logits, row * p.cells);
      if (sigma_data != nullptr && part == 0) sigma_data[row] = T(sigma);
    }
    if (!with_points) return;
    T* out = grad_points.mutable_data_ptr<T>() + owner * p.cells * p.axes;
    write_points(p.axes, p.padded(), point_cells, begin, stop, out);
  });
}

std::tuple<Tensor, Tensor, Tensor> sample_backward_cpu(const Tensor& grad, const Tensor& logits,
                                                       const OptionalTensor& points, const OptionalTensor& sigma,
                                                       const Tensor& seed, const Tensor& samples, const Tensor& stats,
                                                       const Tensor& tau, const Tensor& beta, StringHandle basis,
                                                       const Needs& needs, const OptionalTensor& origins) {
  const Task task = make_task(logits, points, sigma, seed, samples.size(2), law_of(tau, beta, basis), origins);
  Tensor grad_logits = empty_gradient(logits, logits, needs[0]);
  Tensor grad_points = empty_gradient(logits, points, needs[1]);
  Tensor grad_sigma = empty_gradient(logits, sigma, needs[2]);
  const Tensor grad_in = dense(grad);
  if (double_precision(task.p))
    sample_backward_all<double>(task.p, grad_in, samples, stats, grad_logits, grad_points, grad_sigma);
  else
    sample_backward_all<float>(task.p, grad_in, samples, stats, grad_logits, grad_points, grad_sigma);
  return {grad_logits, grad_points, grad_sigma};
}

}  // namespace
}  // namespace sampling_argmax

STABLE_TORCH_LIBRARY_IMPL(sampling_argmax, CPU, m) {
  m.impl("sample", TORCH_BOX(&sampling_argmax::sample_cpu));
  m.impl("sample_backward", TORCH_BOX(&sampling_argmax::sample_backward_cpu));
}
