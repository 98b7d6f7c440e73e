#include "cuda/sample_launch.h"

namespace sampling_argmax::cuda {

template <class T>
void launch_sample(const DeviceProblem& problem, Tensor& samples, Tensor& stats) {
  const ToppedProblem topped = find_tops<T>(problem, samples);
  with_cell_kernel<T>(topped.problem, [&](auto basis, auto axes, auto weight, const DeviceProblem& d) {
    constexpr int count = SampleSums<T, basis, axes>::count;
    const int64_t rows = d.p.rows(), tile = tile_cells(axes), segment_cells = tile * tiles_per_segment;
    const int64_t groups_possible = (d.p.samples + samples_together - 1) / samples_together;
    const int64_t groups = parts_wanted(rows, groups_possible);
    const int64_t each = (groups_possible + groups - 1) / groups * samples_together;
    const int64_t blocks_of_samples = (d.p.samples + each - 1) / each;
    Partials<T> partials{nullptr, (d.p.cells + segment_cells - 1) / segment_cells};
    Tensor partial_sums;
    if (partials.segments > 1 && partials.segments <= most_blocks && rows * blocks_of_samples < blocks_wanted()) {
      partial_sums = new_empty(samples, {rows, d.p.samples, partials.segments, count + 1});
      partials.data = partial_sums.mutable_data_ptr<T>();
    }
    const int threads = threads_for(d.p.cells, 8, 128);
    const int64_t used_tile = std::min(tile, (d.p.cells + 3) / 4 * 4);
    const int64_t shared = schedule_bytes + starts_bytes +
                           int64_t(sizeof(T)) * SampleForward<T, basis, axes, weight>::shared_numbers(
                                                    int(used_tile), threads, samples_together);
    T *samples_data = samples.mutable_data_ptr<T>(), *stats_data = stats.mutable_data_ptr<T>();
    const int64_t splits = partials.data == nullptr ? 1 : partials.segments;
    launch(sample_forward<T, basis, axes, weight>, blocks(rows, blocks_of_samples, splits), threads, shared, d,
           int(each), partials, samples_data, stats_data);
    if (partials.data != nullptr)
      launch(sample_combine<T, basis, axes, weight>, blocks((rows * d.p.samples + 127) / 128), 128, 0, d, partials,
             samples_data, stats_data);
  });
}

template void launch_sample<float>(const DeviceProblem&, Tensor&, Tensor&);
template void launch_sample<double>(const DeviceProblem&, Tensor&, Tensor&);

namespace {

std::tuple<Tensor, Tensor> sample_cuda(const Tensor& logits, const OptionalTensor& points, const OptionalTensor& sigma,
                                       const Tensor& seed, int64_t num_samples, const Tensor& tau, const Tensor& beta,
                                       StringHandle basis, const OptionalTensor& origins) {
  const DeviceGuard guard(logits.get_device_index());
  const OptionalTensor cells = dense(points);
  const Problem p = describe(logits, cells, sigma, num_samples, law_of(tau, beta, basis), origins);
  Tensor samples = empty_result(logits, {p.batch, p.keypoints, p.samples, p.axes});
  Tensor stats = empty_result(logits, {p.batch, p.keypoints, p.samples, p.basis == Basis::gaussian ? 2 : 1});
  const DeviceProblem d = device_problem(p, seed);
  if (double_precision(p))
    launch_sample<double>(d, samples, stats);
  else
    launch_sample<float>(d, samples, stats);
  return {samples, stats};
}

}  // namespace
}  // namespace sampling_argmax::cuda

STABLE_TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("sample", TORCH_BOX(&sampling_argmax::cuda::sample_cuda));
}
