#include "cuda/soft_argmax_backward.cuh"

#include "cuda/launch.h"

namespace sampling_argmax::cuda {
namespace {

using Moments = std::array<Tensor, 5>;  // mean, covariance, peak, entropy, mode; contiguous

// How the rows of a problem are cut, by their cells alone (sums depend on it): into parts of as many full warps each.
struct MomentGrid {
  MomentParts cut;
  int threads;
  bool quads;

  int64_t part_cells() const { return 4 * moment_quads * threads; }

  explicit MomentGrid(const Problem& p) {
    const int64_t parts = (p.cells + moment_cells - 1) / moment_cells, of_warp = 4 * moment_quads * warp_size;
    threads = int((p.cells + parts * of_warp - 1) / (parts * of_warp)) * warp_size;
    quads = p.points == nullptr && p.shape[2] % 4 == 0;
    cut = {uint32_t((p.cells + part_cells() - 1) / part_cells()), quads && can_read_quads(p)};
  }
  static bool can_read_quads(const Problem& p) {
    const int64_t quad_bytes = p.dtype == Dtype::float64 ? 32 : p.dtype == Dtype::float32 ? 16 : 8;
    return p.contiguous() && p.batch_stride % 4 == 0 && p.keypoint_stride % 4 == 0 &&
           reinterpret_cast<uintptr_t>(p.logits) % quad_bytes == 0;
  }
};

Problem moments_problem(const Tensor& logits, const OptionalTensor& points, const Tensor& beta,
                        const OptionalTensor& origins) {
  return describe(logits, points, std::nullopt, 1, no_samples(beta), origins);
}

template <class Body>
void with_moment_kernel(const Problem& p, const MomentGrid& grid, const Body& body) {
  with_axes(p, [&](auto axes) {
    if (grid.quads)
      body(axes, Constant<true>());
    else
      body(axes, Constant<false>());
  });
}

template <class T>
void forward_into(const DeviceProblem& d, const Tensor& like, Moments& out) {
  const MomentGrid grid(d.p);
  const int64_t blocks_wanted = d.p.rows() * grid.cut.count;
  const MomentResults<T> results{out[0].mutable_data_ptr<T>(), out[1].mutable_data_ptr<T>(),
                                 out[2].mutable_data_ptr<T>(), out[3].mutable_data_ptr<T>(),
                                 out[4].mutable_data_ptr<int64_t>()};
  with_moment_kernel(d.p, grid, [&](auto axes, auto quads) {
    using Part = MomentPart<T, axes>;
    constexpr int reduced = std::max(2 + int(axes), pairs_of(axes));
    const bool whole = grid.cut.count == 1;
    Tensor parts = empty_result(like, {whole ? 0 : blocks_wanted * int64_t(sizeof(Part) / sizeof(T))});
    Part* data = reinterpret_cast<Part*>(data_or_null<T>(parts));
    launch(soft_argmax_forward<T, axes, quads>, blocks(blocks_wanted), grid.threads,
           int64_t(sizeof(T)) * reduced * (1 + grid.threads / warp_size), d, grid.cut, data, results);
    if (!whole)
      launch(soft_argmax_combine<T, axes>, blocks(d.p.rows()), warp_size, 0, d, grid.cut.count,
             uint32_t(grid.part_cells()), data, results);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> soft_argmax_cuda(const Tensor& logits, const OptionalTensor& points,
                                                                    const Tensor& beta, const OptionalTensor& origins) {
  const DeviceGuard guard(logits.get_device_index());
  const OptionalTensor cells = dense(points);
  const Problem p = moments_problem(logits, cells, beta, origins);
  const Tensor peak = empty_result(logits, {p.batch, p.keypoints});
  Moments out{empty_result(logits, {p.batch, p.keypoints, p.axes}),
              empty_result(logits, {p.batch, p.keypoints, p.axes, p.axes}), peak, new_empty(peak, peak.sizes()),
              new_empty(peak, peak.sizes(), ScalarType::Long)};
  const DeviceProblem d = device_problem(p, Tensor());
  if (double_precision(p))
    forward_into<double>(d, logits, out);
  else
    forward_into<float>(d, logits, out);
  return {out[0], out[1], out[2], out[3], out[4]};
}

template <class T>
MomentRow<T> pointers(const Moments& moments) {
  const auto at = [&](int k) { return moments[k].defined() ? moments[k].const_data_ptr<T>() : nullptr; };
  return {at(0), at(1), at(2), at(3)};
}

template <class T>
void backward_into(const DeviceProblem& d, const Moments& grads, const Moments& values, Tensor& grad_logits,
                   Tensor& grad_points) {
  const MomentGrid grid(d.p);
  const int64_t owners = grad_points.numel() > 0 ? d.p.batch : d.p.rows();
  with_moment_kernel(d.p, grid, [&](auto axes, auto quads) {
    launch(soft_argmax_backward<T, axes, quads>, blocks(owners * grid.cut.count), grid.threads, 0, d, grid.cut,
           pointers<T>(grads), pointers<T>(values), values[4].const_data_ptr<int64_t>(), raw_or_null(grad_logits),
           data_or_null<T>(grad_points));
  });
}

Tensor dense_or_none(const OptionalTensor& x) { return x ? dense(*x) : Tensor(); }

std::tuple<Tensor, Tensor> soft_argmax_backward_cuda(
    const OptionalTensor& grad_mean, const OptionalTensor& grad_covariance, const OptionalTensor& grad_peak,
    const OptionalTensor& grad_entropy, const Tensor& logits, const OptionalTensor& points, const Tensor& mean,
    const Tensor& covariance, const Tensor& peak, const Tensor& entropy, const Tensor& mode, const Tensor& beta,
    const Needs& needs, const OptionalTensor& origins) {
  const DeviceGuard guard(logits.get_device_index());
  const OptionalTensor cells = dense(points);
  const Problem p = moments_problem(logits, cells, beta, origins);
  Tensor grad_logits = empty_gradient(logits, logits, needs[0]);
  Tensor grad_points = empty_gradient(logits, points, needs[1]);
  const Moments grads{dense_or_none(grad_mean), dense_or_none(grad_covariance), dense_or_none(grad_peak),
                      dense_or_none(grad_entropy)};
  const Moments values{dense(mean), dense(covariance), dense(peak), dense(entropy), dense(mode)};
  const DeviceProblem d = device_problem(p, Tensor());
  if (double_precision(p))
    backward_into<double>(d, grads, values, grad_logits, grad_points);
  else
    backward_into<float>(d, grads, values, grad_logits, grad_points);
  return {grad_logits, grad_points};
}

}  // namespace
}  // namespace sampling_argmax::cuda

STABLE_TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("soft_argmax", TORCH_BOX(&sampling_argmax::cuda::soft_argmax_cuda));
  m.impl("soft_argmax_backward", TORCH_BOX(&sampling_argmax::cuda::soft_argmax_backward_cuda));
}
