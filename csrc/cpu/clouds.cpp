// Searches in point clouds, equations (31) and (32) of reference/README.md. farthest_points: a thread takes a cloud and
// reads it once a chosen point; neighbours: a thread takes centres, and each reads the cloud once. Distances are
// compared as the integers of their bits, which have the same order and whose maxima the compiler vectorises; points
// are kept axis by axis for the same reason. A NaN is never near.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tensors.h"

namespace sampling_argmax {
namespace {

constexpr int32_t infinity_bits = 0x7F800000, sign_off = 0x7FFFFFFF;

// A cloud [N, 3] axis by axis, and the squared distances of its points from one place.
struct Cloud {
  int64_t size;
  std::vector<float> x, y, z;
  std::vector<int32_t> bits;

  Cloud(const float* points, int64_t size) : size(size), x(size), y(size), z(size), bits(size) {
    for (int64_t i = 0; i < size; ++i) x[i] = points[3 * i], y[i] = points[3 * i + 1], z[i] = points[3 * i + 2];
  }

  // The bits of the squared distance; that of a NaN without its sign is above infinity's.
  int32_t distance(int64_t i, const float* from) const {
    const float dx = x[i] - from[0], dy = y[i] - from[1], dz = z[i] - from[2];
    return std::bit_cast<int32_t>(dx * dx + dy * dy + dz * dz) & sign_off;
  }
};

void choose_farthest(const float* points, int64_t first, int64_t size, int64_t count, int64_t* chosen) {
  Cloud cloud(points, size);
  int32_t* nearest = cloud.bits.data();
  std::fill(nearest, nearest + size, infinity_bits);
  chosen[0] = first;
  for (int64_t k = 1; k < count; ++k) {
    const float* last = points + 3 * chosen[k - 1];
    int32_t top = -1;
    for (int64_t i = 0; i < size; ++i) {
      nearest[i] = std::min(nearest[i], cloud.distance(i, last));
      top = std::max(top, nearest[i]);
    }
    chosen[k] = std::find(nearest, nearest + size, top) - nearest;
  }
}

// The nearest points within a radius, in order: (bits of the distance, index).
class Nearest {
 public:
  Nearest(int64_t room) : found(room) {}

  void search(Cloud& cloud, const float* centre, int32_t limit, int64_t wanted) {
    int32_t* bits = cloud.bits.data();
    for (int64_t i = 0; i < cloud.size; ++i) bits[i] = cloud.distance(i, centre);
    count = 0;
    for (int64_t i = 0; i < cloud.size; ++i) {
      if (bits[i] > limit || (count == wanted && bits[i] >= found[count - 1].bits)) continue;
      insert({bits[i], i}, wanted);
    }
  }

  void write(int64_t* out, int64_t wanted) const {
    for (int64_t k = 0; k < wanted; ++k) out[k] = found[k < count ? k : 0].index;
  }

  int64_t count = 0;

 private:
  struct Point {
    int32_t bits;
    int64_t index;
  };

  void insert(Point point, int64_t wanted) {
    int64_t place = count < wanted ? count++ : count - 1;
    for (; place > 0 && found[place - 1].bits > point.bits; --place) found[place] = found[place - 1];
    found[place] = point;
  }

  std::vector<Point> found;
};

Tensor farthest_points_cpu(const Tensor& points, const Tensor& first, int64_t count) {
  const Tensor clouds = dense(points), begin = dense(first);
  Tensor chosen = new_empty(begin, {clouds.size(0), count});
  const float* from = clouds.const_data_ptr<float>();
  const int64_t* start = begin.const_data_ptr<int64_t>();
  int64_t *to = chosen.mutable_data_ptr<int64_t>(), size = clouds.size(1);
  torch::stable::parallel_for(0, clouds.size(0), 1, [&](int64_t low, int64_t high) {
    for (int64_t b = low; b < high; ++b) choose_farthest(from + 3 * size * b, start[b], size, count, to + count * b);
  });
  return chosen;
}

Tensor neighbours_cpu(const Tensor& points, const Tensor& centers, double radius, int64_t count) {
  const Tensor clouds = dense(points), places = dense(centers);
  const int64_t size = clouds.size(1), each = places.size(1), wanted = std::min(count, size);
  Tensor index = new_empty(places, {clouds.size(0), each, wanted}, ScalarType::Long);
  const float *from = clouds.const_data_ptr<float>(), *around = places.const_data_ptr<float>();
  int64_t* to = index.mutable_data_ptr<int64_t>();
  const int32_t limit = std::bit_cast<int32_t>(float(radius) * float(radius));
  torch::stable::parallel_for(0, clouds.size(0) * each, 64, [&](int64_t low, int64_t high) {
    Nearest nearest(wanted);
    for (int64_t b = low / each; b * each < high; ++b) {
      Cloud cloud(from + 3 * size * b, size);
      for (int64_t c = std::max(low, b * each); c < std::min(high, (b + 1) * each); ++c) {
        nearest.search(cloud, around + 3 * c, limit, wanted);
        if (nearest.count == 0) nearest.search(cloud, around + 3 * c, sign_off, 1);
        nearest.write(to + wanted * c, wanted);
      }
    }
  });
  return index;
}

}  // namespace
}  // namespace sampling_argmax

STABLE_TORCH_LIBRARY_IMPL(sampling_argmax, CPU, m) {
  m.impl("farthest_points", TORCH_BOX(&sampling_argmax::farthest_points_cpu));
  m.impl("neighbours", TORCH_BOX(&sampling_argmax::neighbours_cpu));
}
