#include "cpu/launch.h"

#define SA_KERNELS "cpu/expected_error_kernels.h"
#include "cpu/foreach_isa.h"

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

// Samples are summed in groups of this many and the groups in their order, whether one thread makes all groups of a row
// or several do: no result depends on the number of threads.
constexpr int64_t samples_per_group = 8;

int64_t groups_of(const Problem& p) { return (p.samples + samples_per_group - 1) / samples_per_group; }

// Tables of a part's gradients, and how many numbers they are.
struct PartTables {
  bool logits, points;
  int64_t padded, axes;
  int64_t numbers() const { return (logits ? padded : 0) + (points ? axes * padded : 0); }
};

template <class T>
ErrorPart<T> make_part(const PartTables& tables, T* memory) {
  ErrorPart<T> part;
  if (tables.logits) part.grad_logits = memory;
  if (tables.points) part.grad_points = memory + tables.padded;
  std::fill_n(memory, tables.numbers(), T(0));
  return part;
}

template <class T>
void add_part(ErrorPart<T>& total, const ErrorPart<T>& part, const PartTables& tables) {
  total.error += part.error, total.grad_sigma += part.grad_sigma;
  for (int axis = 0; axis < 3; ++axis) total.grad_target[axis] += part.grad_target[axis];
  for (int64_t i = 0; i < tables.numbers(); ++i) total.grad_logits[i] += part.grad_logits[i];
}

template <class T>
struct ExpectedError {
  const Problem& p;
  Metric metric;
  const T *target, *weight;
  PartTables tables;
  ErrorTensors& out;

  int64_t kernel_numbers() const { return (3 + 2 * p.axes) * p.padded(); }

  bool masked(int64_t row) const { return weight != nullptr && weight[row] == T(0); }

  void run_group(int64_t row, int64_t group, T* scratch, ErrorPart<T>& part) const {
    const int64_t first = group * samples_per_group, last = std::min(first + samples_per_group, p.samples);
    SA_RUN(dispatch, ExpectedErrorRow, T, p, metric, row, first, last, target + row * p.axes, scratch, &part);
  }

  void write_row(int64_t row, const ErrorPart<T>& total) const {
    out.error.template mutable_data_ptr<T>()[row] = T(total.error / double(p.samples));
    for (int axis = 0; axis < p.axes; ++axis)
      out.grad_target.template mutable_data_ptr<T>()[row * p.axes + axis] =
          T(total.grad_target[axis] / double(p.samples));
    if (T* sigma = data_or_null<T>(out.grad_sigma)) sigma[row] = T(total.grad_sigma / double(p.samples));
    if (out.grad_logits.numel() > 0) write_cells(total.grad_logits, 0, p.cells, out.grad_logits, row * p.cells);
    if (tables.points)
      write_points(p.axes, p.padded(), total.grad_points, 0, p.cells,
                   out.grad_points.template mutable_data_ptr<T>() + row * p.cells * p.axes);
  }

  // Many rows: a thread makes the groups of a row one after another.
  void by_rows() const {
    const int64_t each = tables.numbers();
    for_each_part<T>(p.rows(), 1, kernel_numbers() + 2 * each, [&](int64_t row, int64_t, T* scratch) {
      if (masked(row)) return zero_row<T>(p, row, out);
      T* memory = scratch + kernel_numbers();
      ErrorPart<T> total = make_part(tables, memory);
      for (int64_t group = 0; group < groups_of(p); ++group) {
        ErrorPart<T> part = make_part(tables, memory + each);
        run_group(row, group, scratch, part);
        add_part(total, part, tables);
      }
      write_row(row, total);
    });
  }

  // Few rows: threads share the groups of all rows, then add them up.
  void by_groups() const {
    const int64_t each = tables.numbers(), groups = groups_of(p);
    const Scratch<T> memory = make_scratch<T>(p.rows() * (groups + 1) * each);
    std::vector<ErrorPart<T>> parts(size_t(p.rows() * groups));
    for_each_part<T>(p.rows(), groups, kernel_numbers(), [&](int64_t row, int64_t group, T* scratch) {
      if (masked(row)) return;
      ErrorPart<T>& part = parts[size_t(row * groups + group)];
      part = make_part(tables, memory.get() + (row * (groups + 1) + group) * each);
      run_group(row, group, scratch, part);
    });
    for_each_part<T>(p.rows(), 1, 1, [&](int64_t row, int64_t, T*) {
      if (masked(row)) return zero_row<T>(p, row, out);
      ErrorPart<T> total = make_part(tables, memory.get() + (row * (groups + 1) + groups) * each);
      for (int64_t group = 0; group < groups; ++group) add_part(total, parts[size_t(row * groups + group)], tables);
      write_row(row, total);
    });
  }
};

template <class T>
void expected_error_all(const Problem& p, Metric metric, const Tensor& target, const OptionalTensor& weight,
                        ErrorTensors& out) {
  const bool points = out.grad_points.numel() > 0, logits = out.grad_logits.numel() > 0 || points;
  const ExpectedError<T> call{p,
                              metric,
                              target.const_data_ptr<T>(),
                              weight ? weight->const_data_ptr<T>() : nullptr,
                              PartTables{logits, points, p.padded(), p.axes},
                              out};
  parts_per_row(p.rows(), groups_of(p)) > 1 ? call.by_groups() : call.by_rows();
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> expected_error_cpu(
    const Tensor& logits, const Tensor& target, const OptionalTensor& weight, const OptionalTensor& points,
    const OptionalTensor& sigma, const Tensor& seed, int64_t num_samples, const Tensor& tau, const Tensor& beta,
    StringHandle basis, StringHandle metric, const Needs& needs, const OptionalTensor& origins) {
  const Task task = make_task(logits, points, sigma, seed, num_samples, law_of(tau, beta, basis), origins);
  const Problem& p = task.p;
  ErrorTensors out;
  out.error = empty_result(logits, {p.batch, p.keypoints});
  out.grad_logits = empty_gradient(logits, logits, needs[0]);
  out.grad_target = empty_result(logits, {p.batch, p.keypoints, p.axes});
  out.grad_points =
      needs[1] && points ? empty_result(logits, {p.batch, p.keypoints, p.cells, p.axes}) : empty_result(logits, {0});
  out.grad_sigma = empty_gradient(logits, sigma, needs[2]);
  const Tensor target_in = dense(target);
  const OptionalTensor weight_in = dense(weight);
  if (double_precision(p))
    expected_error_all<double>(p, parse_metric(text_of(metric)), target_in, weight_in, out);
  else
    expected_error_all<float>(p, parse_metric(text_of(metric)), target_in, weight_in, out);
  return {out.error, out.grad_logits, out.grad_target, out.grad_points, out.grad_sigma};
}

}  // namespace
}  // namespace sampling_argmax

STABLE_TORCH_LIBRARY_IMPL(sampling_argmax, CPU, m) {
  m.impl("expected_error", TORCH_BOX(&sampling_argmax::expected_error_cpu));
}
