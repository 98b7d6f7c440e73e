#include "cpu/launch.h"

namespace sampling_argmax {
// Cells of a part of a row, at most: its logits, weights and coordinates stay in a core's caches. The tables of these
// are so far apart that none lies a multiple of 4096 bytes from another: stores would hold up the other's loads.
constexpr int64_t moment_cells = 4096, moment_table = moment_cells + 80;
}  // namespace sampling_argmax

#define SA_KERNELS "cpu/soft_argmax_kernel.h"
#include "cpu/foreach_isa.h"

#include <cmath>

namespace sampling_argmax {
namespace {

using Moments = std::array<Tensor, 5>;  // mean, covariance, peak, entropy, mode; contiguous
using Part = MomentPart<double, 3>;

Task moments_task(const Tensor& logits, const OptionalTensor& points, const Tensor& beta,
                  const OptionalTensor& origins) {
  return make_task(logits, points, std::nullopt, Tensor(), 1, no_samples(beta), origins, /*tables=*/false);
}

int64_t parts_of(const Problem& p) { return (p.cells + moment_cells - 1) / moment_cells; }

// Cells of each part but the last, all of about one size.
int64_t part_cells(const Problem& p) {
  const int64_t each = (p.cells + parts_of(p) - 1) / parts_of(p);
  return (each + cell_padding - 1) / cell_padding * cell_padding;
}

// What a thread keeps from one part of a row to the next: room, and the coordinates of the part's cells, which are
// those of the same part of other rows too, unless each row counts from its own origin. Tables are moment_table apart.
template <class T>
class PartRoom {
 public:
  PartRoom(const Problem& p, int64_t tables) : p(p), scratch(make_scratch<T>((p.axes + tables) * moment_table)) {
    std::fill_n(scratch.get(), p.axes * moment_table, T(0));  // what lies past a part's end is a number
  }

  void move_to(int64_t part, int64_t batch, int64_t row) {
    if (part == part_ && (batch == batch_ || p.points == nullptr) && p.origins == nullptr) return;
    const int64_t begin = part * part_cells(p), end = std::min(begin + part_cells(p), p.cells);
    const bool only_z = part_ >= 0 && p.origins == nullptr && (begin - cells.begin) % (p.shape[1] * p.shape[2]) == 0 &&
                        end - begin <= cells.end - cells.begin;
    part_ = part, batch_ = batch;
    cells = {begin, end, (end - begin + cell_padding - 1) / cell_padding * cell_padding};
    if (p.points == nullptr)
      SA_RUN(plain_kernel, MomentCoords, T, p, row, cells, only_z, scratch.get());
    else
      point_coords();
  }
  const T* coords() const { return scratch.get(); }
  T* table(int64_t k) { return scratch.get() + (p.axes + k) * moment_table; }

  MomentCells cells{};

 private:
  void point_coords() {
    const T* from = static_cast<const T*>(p.points) + (batch_ * p.cells + cells.begin) * p.axes;
    for (int64_t i = 0; i < cells.end - cells.begin; ++i)
      for (int axis = 0; axis < p.axes; ++axis) scratch.get()[axis * moment_table + i] = *from++;
  }

  const Problem& p;
  Scratch<T> scratch;
  int64_t part_ = -1, batch_ = -1;
};

// Calls body(owner, room) for every part of every owner of rows, of which a batch element has `owners_each`, in the
// order in which they lie in memory.
template <class T, class Body>
void for_each_moment_part(const Problem& p, int64_t owners_each, int64_t tables, const Body& body) {
  const int64_t parts = parts_of(p);
  torch::stable::parallel_for(0, p.batch * owners_each * parts, 1, [&](int64_t begin, int64_t end) {
    PartRoom<T> room(p, tables);
    for (int64_t item = begin; item < end; ++item) {
      room.move_to(item % parts, item / parts / owners_each, item / parts);
      body(item / parts, room);
    }
  });
}

template <class T>
struct MomentResults {
  T *mean, *covariance, *peak, *entropy;
  int64_t* mode;
};

// Puts the parts of a row together, each with the mass that it has beside the largest logit of all, which is left in
// its total. Equation (25).
template <class T>
void combine_parts(const Problem& p, int64_t row, Part* parts, int64_t count, const MomentResults<T>& out) {
  int64_t largest = 0;
  for (int64_t k = 1; k < count; ++k)
    if (parts[k].top > parts[largest].top) largest = k;
  double total = 0, logs = 0, mean[3] = {}, square[6] = {};
  for (int64_t k = 0; k < count; ++k) {
    const double shift = (parts[k].top - parts[largest].top) * p.beta * 1.4426950408889634;
    const double factor = shift == 0 ? 1 : std::exp2(shift), mass = parts[k].total *= factor;
    total += mass, logs += factor * parts[k].logs + (mass == 0 ? 0 : mass * shift);
    for (int a = 0; a < p.axes; ++a) mean[a] += mass * parts[k].mean[a];
    for (int pair = 0; pair < pairs_of(p.axes); ++pair) square[pair] += factor * parts[k].square[pair];
  }
  for (double& x : mean) x /= total;
  T* covariance = out.covariance + row * p.axes * p.axes;
  for (int a = 0, pair = 0; a < p.axes; ++a)
    for (int b = a; b < p.axes; ++b, ++pair) {
      for (int64_t k = 0; k < count; ++k)
        square[pair] += parts[k].total * (parts[k].mean[a] - mean[a]) * (parts[k].mean[b] - mean[b]);
      covariance[a * p.axes + b] = covariance[b * p.axes + a] = T(square[pair] / total);
    }
  for (int a = 0; a < p.axes; ++a) out.mean[row * p.axes + a] = T(mean[a]);
  out.peak[row] = T(1 / total);
  out.entropy[row] = T(0.6931471805599453 * (std::log2(total) - logs / total));
  out.mode[row] = largest * part_cells(p) + int64_t(parts[largest].first);
}

template <class T>
void soft_argmax_all(const Problem& p, Moments& out) {
  const int64_t parts = parts_of(p);
  const Scratch<Part> of_rows = make_scratch<Part>(p.rows() * parts);
  for_each_moment_part<T>(p, p.keypoints, 1, [&](int64_t row, PartRoom<T>& room) {
    Part* part = &of_rows[row * parts + room.cells.begin / part_cells(p)];
    SA_RUN(plain_kernel, SoftArgmaxPart, T, p, row, room.cells, room.coords(), room.table(0), part);
  });
  const MomentResults<T> results{out[0].mutable_data_ptr<T>(), out[1].mutable_data_ptr<T>(),
                                 out[2].mutable_data_ptr<T>(), out[3].mutable_data_ptr<T>(),
                                 out[4].mutable_data_ptr<int64_t>()};
  torch::stable::parallel_for(0, p.rows(), 1024, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) combine_parts(p, row, &of_rows[row * parts], parts, results);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> soft_argmax_cpu(const Tensor& logits, const OptionalTensor& points,
                                                                   const Tensor& beta, const OptionalTensor& origins) {
  const Task task = moments_task(logits, points, beta, origins);
  const Problem& p = task.p;
  const Tensor peak = empty_result(logits, {p.batch, p.keypoints});
  Moments out{empty_result(logits, {p.batch, p.keypoints, p.axes}),
              empty_result(logits, {p.batch, p.keypoints, p.axes, p.axes}), peak, new_empty(peak, peak.sizes()),
              new_empty(peak, peak.sizes(), ScalarType::Long)};
  if (double_precision(p))
    soft_argmax_all<double>(p, out);
  else
    soft_argmax_all<float>(p, out);
  return {out[0], out[1], out[2], out[3], out[4]};
}

template <class T>
T logit_at(const Problem& p, int64_t row, int64_t cell) {
  T logit;
  portable::gather_cells(p, row, cell, cell + 1, &logit);
  return logit;
}

Tensor dense_or_none(const OptionalTensor& x) { return x ? dense(*x) : Tensor(); }

// Pointers to all rows' moments or gradients of them, null where there are none.
template <class T>
MomentRow<T> pointers(const Moments& moments) {
  const auto at = [&](int k) { return moments[k].defined() ? moments[k].const_data_ptr<T>() : nullptr; };
  return {at(0), at(1), at(2), at(3)};
}

// What backward takes and gives, of all rows.
template <class T>
struct MomentGradients {
  MomentRow<T> grads, values;
  const int64_t* mode;
  T *logits, *points;  // null where not needed; logits of another type are written through `rounded`
  const Tensor* rounded;
};

// The gradient of one part's logits, whose own cell of the peak has more than the polynomial.
template <class T>
void part_backward(const Problem& p, int64_t row, PartRoom<T>& room, const MomentGradients<T>& all, T* points) {
  const MomentCells& cells = room.cells;
  const MomentRow<T> grad = all.grads.of_row(row, p.axes), value = all.values.of_row(row, p.axes);
  const int64_t mode = all.mode[row], at = row * p.cells + cells.begin, count = cells.end - cells.begin;
  const bool direct = all.logits != nullptr && count == cells.padded;
  T *out = direct ? all.logits + at : room.table(1), top = logit_at<T>(p, row, mode);
  SA_RUN(plain_kernel, SoftArgmaxPartBackward, T, p, row, cells, room.coords(), grad, value, top, room.table(0), out,
         points);
  if (grad.peak != nullptr && mode >= cells.begin && mode < cells.end)
    out[mode - cells.begin] += T(p.beta * double(*grad.peak) * double(*value.peak));
  if (!direct && all.rounded->numel() > 0) write_cells(out, 0, count, *all.rounded, at);
}

// As in sample's backward, with the gradient of points a thread has the cells of all rows of a batch element.
template <class T>
void soft_argmax_backward_all(const Problem& p, const Moments& grads, const Moments& values, Tensor& grad_logits,
                              Tensor& grad_points) {
  const bool with_points = grad_points.numel() > 0;
  const bool own_type = grad_logits.numel() > 0 && grad_logits.element_size() == sizeof(T);
  const MomentGradients<T> all{pointers<T>(grads),
                               pointers<T>(values),
                               values[4].const_data_ptr<int64_t>(),
                               own_type ? grad_logits.mutable_data_ptr<T>() : nullptr,
                               with_points ? grad_points.mutable_data_ptr<T>() : nullptr,
                               &grad_logits};
  const int64_t rows_each = with_points ? p.keypoints : 1;
  for_each_moment_part<T>(p, p.keypoints / rows_each, 2 + p.axes, [&](int64_t owner, PartRoom<T>& room) {
    T* points = with_points ? room.table(2) : nullptr;
    if (with_points) std::fill_n(points, p.axes * moment_table, T(0));
    for (int64_t row = owner * rows_each; row < (owner + 1) * rows_each; ++row)
      part_backward(p, row, room, all, points);
    if (with_points)
      write_points(p.axes, moment_table, points, 0, room.cells.end - room.cells.begin,
                   all.points + (owner * p.cells + room.cells.begin) * p.axes);
  });
}

std::tuple<Tensor, Tensor> soft_argmax_backward_cpu(const OptionalTensor& grad_mean,
                                                    const OptionalTensor& grad_covariance,
                                                    const OptionalTensor& grad_peak, const OptionalTensor& grad_entropy,
                                                    const Tensor& logits, const OptionalTensor& points,
                                                    const Tensor& mean, const Tensor& covariance, const Tensor& peak,
                                                    const Tensor& entropy, const Tensor& mode, const Tensor& beta,
                                                    const Needs& needs, const OptionalTensor& origins) {
  const Task task = moments_task(logits, points, beta, origins);
  Tensor grad_logits = empty_gradient(logits, logits, needs[0]);
  Tensor grad_points = empty_gradient(logits, points, needs[1]);
  const Moments grads{dense_or_none(grad_mean), dense_or_none(grad_covariance), dense_or_none(grad_peak),
                      dense_or_none(grad_entropy)};
  const Moments values{dense(mean), dense(covariance), dense(peak), dense(entropy), dense(mode)};
  if (double_precision(task.p))
    soft_argmax_backward_all<double>(task.p, grads, values, grad_logits, grad_points);
  else
    soft_argmax_backward_all<float>(task.p, grads, values, grad_logits, grad_points);
  return {grad_logits, grad_points};
}

}  // namespace
}  // namespace sampling_argmax

STABLE_TORCH_LIBRARY_IMPL(sampling_argmax, CPU, m) {
  m.impl("soft_argmax", TORCH_BOX(&sampling_argmax::soft_argmax_cpu));
  m.impl("soft_argmax_backward", TORCH_BOX(&sampling_argmax::soft_argmax_backward_cpu));
}
