// axis_sample, forward: the released estimator. Equations (17)-(20) of reference/README.md. A block takes a row and a
// range of samples. It reads a tile of logits; for each sample it puts the tile's weights into shared memory and adds
// them up to one marginal per axis; then it makes noise and coordinate of every bin. Nothing of size S N leaves the
// block, and no result depends on the grid.

#pragma once

#include "cuda/axis_bins.cuh"

namespace sampling_argmax::cuda {

template <class T, Basis basis, int axes, Weight weight>
struct AxisForward {
  const DeviceProblem& d;
  double reweight;
  T *samples, *marginals, *stats;
  const uint32_t* schedule;
  T *exponents, *weights, *lines, *result;  // shared memory: a tile's tables and sums, block_reduce
  int64_t row;
  T top;
  int tile;

  // Lines of a multiple of 16 cells would have their first cells in one or two of the 32 banks of shared memory. They
  // are added up by quads, whose sums lie behind those of lines, with a number left out after every 16: a branch around
  // them would cost other lines as much as the sums.
  SA_INLINE bool by_quads() const { return axes > 1 && d.width.divisor % 16 == 0; }
  SA_INLINE T* quad_sum(uint32_t q) const { return lines + tile / 4 + q + (q >> 4); }

  // Weights of the cells [begin, end) into shared memory, the first at begin % 4. Returns the new top.
  SA_INLINE void weigh_tile(uint32_t begin, uint32_t end, const LoopKey& key, T sample_top) const {
    const uint32_t first_quad = begin / 4;
    for (uint32_t q = threadIdx.x; q < (end + 3) / 4 - first_quad; q += blockDim.x) {
      const Quad<uint32_t> words = quad_words(first_quad + q, key, kGumbel);
      Quad<T> w = load_quad(exponents + 4 * q);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const T a = weight == Weight::low ? w.v[j] - sample_top : w.v[j];
        w.v[j] = weigh<weight>(exponential<T>(words.v[j]), a, d.template log_factor<T>());
      }
      store_quad(weights + 4 * q, w);
      if constexpr (axes > 1) *quad_sum(q) = (w.v[0] + w.v[1]) + (w.v[2] + w.v[3]);
    }
  }

  SA_INLINE void fill_exponents(uint32_t begin, uint32_t end) const {
    const uint32_t aligned = begin / 4 * 4, count = (end + 3) / 4 * 4 - aligned;
    for_logits<4, T>(d, logits_offset(d.p, row), aligned, count,
                     [&](uint32_t i, T logit) { exponents[i] = table_exponent<weight>(d, logit, top); });
  }

  // The largest exponent of a sample, from a pass of its own (Weight::low).
  SA_INLINE T sample_top(const LoopKey& key) const {
    const int64_t offset = logits_offset(d.p, row);
    T high[1] = {-T(__builtin_huge_val())};
    for (uint32_t q = threadIdx.x; q < (d.p.cells + 3) / 4; q += blockDim.x) {
      const Quad<uint32_t> words = quad_words(q, key, kGumbel);
      T z[4];
      read_logits(d, offset, 4 * q, 1, z);
      for (int j = 0; j < 4; ++j) {
        const T a = table_exponent<weight>(d, z[j], top);
        high[0] = max(high[0], fma(log2(exponential<T>(words.v[j])), d.template log_factor<T>(), a));
      }
    }
    block_reduce<true>(high, result);
    return result[0];
  }

  // Adds a tile of `count` lines from line `line` on, columns [x0, x1), to the marginals h.
  SA_INLINE void add_tile(T* h, uint32_t line, uint32_t count, uint32_t x0, uint32_t x1, uint32_t begin) const {
    const BinLayout bins = bin_layout<axes>(d.p);
    const T* w = weights + begin % 4;
    const uint32_t width = x1 - x0, height = uint32_t(bins.size[1]);
    for (uint32_t x = threadIdx.x; x < width; x += blockDim.x) {
      T sum = h[x0 + x];
      const T* cell = w + x;
      for (uint32_t k = 0; k < count; ++k, cell += width) sum += *cell;
      h[x0 + x] = sum;
    }
    for (uint32_t k = blockDim.x - 1 - threadIdx.x; k < count; k += blockDim.x) {  // from the idle threads on
      T sum = T(0);
      if (by_quads()) {
        for (uint32_t q = k * (width / 4); q < (k + 1) * (width / 4); q += 4) {
          const T* four = quad_sum(q);
          sum += (four[0] + four[1]) + (four[2] + four[3]);
        }
      } else {
        for (uint32_t x = 0; x < width; ++x) sum += w[k * width + x];
      }
      lines[k] = sum;
    }
    __syncthreads();  // the sums of lines are written
    // A marginal's bin is owned by one thread, which adds its lines in order.
    for (uint32_t y = threadIdx.x; y < height; y += blockDim.x)
      for (uint32_t k = (y + height - line % height) % height; k < count; k += height) h[bins.first[1] + y] += lines[k];
    if constexpr (axes == 3)
      for (uint32_t z = line / height + threadIdx.x; z <= (line + count - 1) / height; z += blockDim.x)
        for (uint32_t k = 0; k < count; ++k)
          if ((line + k) / height == z) h[bins.first[2] + z] += lines[k];
  }

  SA_INLINE int64_t place_of(uint32_t s) const { return row * d.p.samples + s; }
  SA_INLINE T* marginals_of(uint32_t s) const { return marginals + place_of(s) * bin_layout<axes>(d.p).total; }

  // A tile's weights of the samples [first, last), one after the other: add(h) finds them and adds them to marginals h.
  template <class Add>
  SA_INLINE void weigh_samples(uint32_t first, uint32_t last, uint32_t begin, uint32_t end, const Add& add) const {
    fill_exponents(begin, end);
#pragma unroll 1
    for (uint32_t s = first; s < last; ++s) {
      const T high = weight == Weight::low ? stats[place_of(s)] : T(0);
      __syncthreads();  // the tile is filled, and the last weights and line sums are used
      weigh_tile(begin, end, loop_key(row_key(d, row, s), schedule), high);
      __syncthreads();  // the weights are written
      add(marginals_of(s));
    }
  }

  // One axis: the weights are the marginal.
  SA_INLINE void fill_lines(uint32_t first, uint32_t last) const {
#pragma unroll 1
    for (uint32_t begin = 0; begin < d.p.cells; begin += tile) {
      const uint32_t end = uint32_t(min(int64_t(begin) + tile, d.p.cells));
      weigh_samples(first, last, begin, end, [&](T* h) {
        for (uint32_t i = threadIdx.x; i < end - begin; i += blockDim.x) h[begin + i] = weights[i];
      });
    }
  }

  SA_INLINE void fill_marginals(uint32_t first, uint32_t last) const {
    const BinLayout bins = bin_layout<axes>(d.p);
    for (int64_t j = threadIdx.x; j < (last - first) * bins.total; j += blockDim.x) marginals_of(first)[j] = T(0);
    const uint32_t width = uint32_t(bins.size[0]), columns = min(width, uint32_t(tile)), lines_at_once = tile / columns;
    const uint32_t all_lines = uint32_t(d.p.cells / width);
#pragma unroll 1
    for (uint32_t line = 0; line < all_lines; line += lines_at_once)
#pragma unroll 1
      for (uint32_t x0 = 0; x0 < width; x0 += columns) {
        const uint32_t x1 = min(x0 + columns, width), count = min(lines_at_once, all_lines - line);
        const uint32_t begin = line * width + x0, end = (line + count - 1) * width + x1;
        weigh_samples(first, last, begin, end, [&](T* h) { add_tile(h, line, count, x0, x1, begin); });
      }
  }

  // The sum of a sample's weights; then the marginals are divided by it.
  SA_INLINE T normalise(T* h) const {
    const BinLayout bins = bin_layout<axes>(d.p);
    T total[1] = {T(0)};  // of the x bins, which their own threads have written; block_reduce waits for the rest
    for (int64_t x = threadIdx.x; x < bins.size[0]; x += blockDim.x) total[0] += h[x];
    block_reduce<false>(total, result);
    const T sum = result[0], inverse = 1 / sum;
    for (int64_t j = threadIdx.x; j < bins.total; j += blockDim.x) h[j] *= inverse;
    __syncthreads();  // the marginals are normalised
    return sum;
  }

  // Coordinates: one axis a warp, or the block where there is but one.
  SA_INLINE void coordinates(const T* h, const NoiseKey& key, T* out) const {
    const int group = axes == 1 ? blockDim.x : warp_size, groups = blockDim.x / group;
    const int member = threadIdx.x % group;
    for (int a = threadIdx.x / group; a < axes; a += groups) {
      const Axis<basis, T> axis = axis_of<basis, axes>(d, row, a, h, reweight);
      T sums[2] = {T(0), T(0)};
      for (int64_t j = member; j < axis.size; j += group) {
        const T noise = bin_noise<basis, T>(axis.first + uint32_t(j), key), q = axis.weight(j, noise);
        sums[0] += q;
        sums[1] = fma(q, axis.position(j, noise), sums[1]);
      }
      if constexpr (axes == 1) {
        block_reduce<false>(sums, result);
        sums[0] = result[0], sums[1] = result[1];
      } else {
        sums[0] = warp_sum(sums[0]), sums[1] = warp_sum(sums[1]);
      }
      if (member == 0) out[a] = sums[1] / marginal_sum(basis, sums[0]);
    }
  }

  // The samples [first, last).
  SA_INLINE void run(uint32_t first, uint32_t last) const {
    if constexpr (weight == Weight::low) {
#pragma unroll 1
      for (uint32_t s = first; s < last; ++s) {
        const T high = sample_top(loop_key(row_key(d, row, s), schedule));
        if (threadIdx.x == 0) stats[place_of(s)] = high;  // all read it behind a barrier
      }
    }
    if constexpr (axes == 1)
      fill_lines(first, last);
    else
      fill_marginals(first, last);
#pragma unroll 1
    for (uint32_t s = first; s < last; ++s) {
      const T sum = normalise(marginals_of(s));
      if (threadIdx.x == 0) stats[place_of(s)] = log2(sum) + (weight == Weight::low ? stats[place_of(s)] : T(d.shift));
      coordinates(marginals_of(s), row_key(d, row, s), samples + place_of(s) * axes);
    }
  }
};

constexpr int axis_tile = 4096;

template <class T>
constexpr int axis_shared_bytes(int tile, int threads) {
  return schedule_bytes + int(sizeof(T)) * (2 * (tile + 8) + tile + 2 * (1 + threads / 32));
}

// Grid: rows, ranges of samples.
template <class T, Basis basis, int axes, Weight weight>
__global__ void __launch_bounds__(128, resident<T>(4))
    axis_sample_forward(DeviceProblem d, double reweight, int tile, int samples_per_block, T* samples, T* marginals,
                        T* stats) {
  SA_SHARED_MEMORY(memory);
  uint32_t* schedule = reinterpret_cast<uint32_t*>(memory);
  T* exponents = reinterpret_cast<T*>(memory + schedule_bytes);
  T *weights = exponents + tile + 8, *lines = weights + tile + 8, *result = lines + tile;
  const int64_t row = blockIdx.x;
  store_schedule(row_key(d, row, 0).seed, schedule);
  const T top = row_top(d, row, result);
  const AxisForward<T, basis, axes, weight> block{d,       reweight, samples, marginals, stats, schedule, exponents,
                                                  weights, lines,    result,  row,       top,   tile};
  const uint32_t last = uint32_t(min(int64_t(blockIdx.y + 1) * samples_per_block, d.p.samples));
  block.run(blockIdx.y * samples_per_block, last);
}

}  // namespace sampling_argmax::cuda
