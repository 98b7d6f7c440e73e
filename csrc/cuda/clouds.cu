#include "cuda/clouds.cuh"

#include "cuda/launch.h"

namespace sampling_argmax::cuda {
namespace {

constexpr int chooser_threads = 1024, neighbour_threads = 256;

Tensor farthest_points_cuda(const Tensor& points, const Tensor& first, int64_t count) {
  const DeviceGuard guard(points.get_device_index());
  const Tensor clouds = dense(points), begin = dense(first);
  const int64_t batch = clouds.size(0), size = clouds.size(1);
  Tensor chosen = new_empty(begin, {batch, count});
  Tensor nearest = new_empty(begin, {batch, size}, ScalarType::Int);
  launch(farthest_points<float>, blocks(batch), threads_for(size, 2, chooser_threads), 2 * 32 * sizeof(Candidate),
         clouds.const_data_ptr<float>(), begin.const_data_ptr<int64_t>(), size, count,
         reinterpret_cast<uint32_t*>(nearest.mutable_data_ptr<int32_t>()), chosen.mutable_data_ptr<int64_t>());
  return chosen;
}

Tensor neighbours_cuda(const Tensor& points, const Tensor& centers, double radius, int64_t count) {
  const DeviceGuard guard(points.get_device_index());
  const Tensor clouds = dense(points), places = dense(centers);
  const int64_t size = clouds.size(1), each = places.size(1), total = clouds.size(0) * each;
  const int64_t wanted = std::min(count, size), warps = neighbour_threads / 32;
  Tensor index = new_empty(places, {clouds.size(0), each, wanted}, ScalarType::Long);
  const float limit = float(radius) * float(radius);
  launch(neighbours<float>, blocks((total + warps - 1) / warps), neighbour_threads, 0, clouds.const_data_ptr<float>(),
         places.const_data_ptr<float>(), size, each, total, std::bit_cast<uint32_t>(limit), wanted,
         index.mutable_data_ptr<int64_t>());
  return index;
}

}  // namespace
}  // namespace sampling_argmax::cuda

STABLE_TORCH_LIBRARY_IMPL(SA_LIBRARY, SA_DEVICE, m) {
  m.impl("farthest_points", TORCH_BOX(&sampling_argmax::cuda::farthest_points_cuda));
  m.impl("neighbours", TORCH_BOX(&sampling_argmax::cuda::neighbours_cuda));
}
