#include "cpu/launch.h"

#define SA_KERNELS "cpu/expected_error_kernels.h"
#include "cpu/foreach_isa.h"

#include <torch/library.h>

namespace sampling_argmax {
namespace {

struct ErrorTensors {
  Tensor error, grad_logits, grad_target, grad_points, grad_sigma;
};

template <class T>
T* data_or_null(Tensor& x) {
  return x.numel() > 0 ? x.mutable_data_ptr<T>() : nullptr;
}

// A row of weight 0 is not read at all: whatever it holds, its error and gradients are 0.
template <class T>
void zero_row(const Problem& p, int64_t row, ErrorTensors& out) {
  out.error.mutable_data_ptr<T>()[row] = T(0);
  std::fill_n(out.grad_target.mutable_data_ptr<T>() + row * p.axes, p.axes, T(0));
  if (T* sigma = data_or_null<T>(out.grad_sigma)) sigma[row] = T(0);
  const std::vector<T> zeros(out.grad_logits.numel() > 0 ? p.cells : 0, T(0));
  if (!zeros.empty()) write_cells(zeros.data(), 0, p.cells, out.grad_logits, row * p.cells);
  if (T* points = data_or_null<T>(out.grad_points))
    std::fill_n(points + row * p.cells * p.axes, p.cells * p.axes, T(0));
}

template <class T>
void expected_error_row(const Problem& p, Metric metric, int64_t row, const T* target, T* scratch, ErrorTensors& out) {
  const bool with_points = out.grad_points.numel() > 0;
  const bool with_logits = out.grad_logits.numel() > 0 || with_points;
  T* cells = scratch + (3 + 2 * p.axes) * p.padded();
  ErrorOutputs<T> row_out{out.error.mutable_data_ptr<T>() + row, out.grad_target.mutable_data_ptr<T>() + row * p.axes,
                          data_or_null<T>(out.grad_sigma), with_logits ? cells : nullptr,
                          with_points ? cells + p.padded() : nullptr};
  if (row_out.grad_sigma != nullptr) row_out.grad_sigma += row;
  std::fill_n(cells, (1 + p.axes) * p.padded(), T(0));
  SA_RUN(dispatch, ExpectedErrorRow, T, p, metric, row, target + row * p.axes, scratch, row_out);
  if (out.grad_logits.numel() > 0) write_cells(cells, 0, p.cells, out.grad_logits, row * p.cells);
  if (!with_points) return;
  write_points(p, row_out.grad_points, 0, p.cells, out.grad_points.mutable_data_ptr<T>() + row * p.cells * p.axes);
}

template <class T>
void expected_error_all(const Problem& p, Metric metric, const Tensor& target, const OptionalTensor& weight,
                        ErrorTensors& out) {
  const T* target_data = target.const_data_ptr<T>();
  const T* weight_data = weight ? weight->const_data_ptr<T>() : nullptr;
  const int64_t tables = 3 + 2 * p.axes + 1 + p.axes;
  for_each_part<T>(p.rows(), 1, tables * p.padded(), [&](int64_t row, int64_t, T* scratch) {
    if (weight_data != nullptr && weight_data[row] == T(0))
      zero_row<T>(p, row, out);
    else
      expected_error_row<T>(p, metric, row, target_data, scratch, out);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> expected_error_cpu(
    const Tensor& logits, const Tensor& target, const OptionalTensor& weight, const OptionalTensor& points,
    const OptionalTensor& sigma, const Tensor& seed, int64_t num_samples, double tau, double beta, std::string basis,
    std::string metric, std::array<bool, 3> needs) {
  const Task task = make_task(logits, points, sigma, seed, num_samples, tau, beta, basis);
  const Problem& p = task.p;
  ErrorTensors out;
  out.error = empty_result(logits, {p.batch, p.keypoints});
  out.grad_logits = needs[0] ? at::empty(logits.sizes(), logits.options()) : empty_result(logits, {0});
  out.grad_target = empty_result(logits, {p.batch, p.keypoints, p.axes});
  out.grad_points =
      needs[1] && points ? empty_result(logits, {p.batch, p.keypoints, p.cells, p.axes}) : empty_result(logits, {0});
  out.grad_sigma = empty_gradient(logits, sigma, needs[2]);
  const Tensor target_in = target.contiguous();
  const OptionalTensor weight_in = weight ? OptionalTensor(weight->contiguous()) : std::nullopt;
  if (double_precision(p))
    expected_error_all<double>(p, parse_metric(metric), target_in, weight_in, out);
  else
    expected_error_all<float>(p, parse_metric(metric), target_in, weight_in, out);
  return {out.error, out.grad_logits, out.grad_target, out.grad_points, out.grad_sigma};
}

}  // namespace
}  // namespace sampling_argmax

TORCH_LIBRARY_IMPL(sampling_argmax, CPU, m) { m.impl("expected_error", &sampling_argmax::expected_error_cpu); }
