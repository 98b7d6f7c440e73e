// sample, forward: weights, noise per cell and the weighted sums of several samples in one pass over the cells.
// Equations (5)-(8) of reference/README.md. A block takes a row and a range of samples, and of its segments where rows
// are split; a thread takes quads of cells, for `together` samples at a time. Per (sample, cell) nothing is read or
// written but a share of the tables in shared memory. Sums run over the cells of a thread, the threads of a block and
// the segments of a row, in an order that N alone decides: no result depends on the grid.

#pragma once

#include "cuda/row.cuh"

namespace sampling_argmax::cuda {

constexpr int tiles_per_segment = 16;

// Cells whose tables are in shared memory at once.
SA_BOTH constexpr int tile_cells(int axes) { return axes == 3 ? 2048 : 4096; }

// Unnormalised sums of one sample: weight, position along each axis, for gaussian the squared weight.
template <class T, Basis basis, int axes>
struct SampleSums {
  static constexpr int count = 1 + axes + (basis == Basis::gaussian ? 1 : 0);
  T v[count] = {};
  T top = T(-1e30);  // exponents are relative to it (Weight::low only); finite, so that differences are no NaN
};

template <class T, int axes>
struct Tables {
  T* exponents;
  T* coords[axes];

  SA_INLINE Tables(T* memory, int tile) : exponents(memory) {
#pragma unroll
    for (int axis = 0; axis < axes; ++axis) coords[axis] = memory + (1 + axis) * tile;
  }

  template <Basis basis, Weight weight>
  SA_INLINE void fill(const DeviceProblem& d, int64_t row, T top, uint32_t begin, int cells) const {
    const Start<axes> start(d, row);
    for_logits<4, T>(d, logits_offset(d.p, row), begin, uint32_t(cells), [&](uint32_t i, T logit) {
      exponents[i] = table_exponent<weight>(d, logit, top);
#pragma unroll
      for (int axis = 0; axis < axes; ++axis)
        coords[axis][i] = begin + i < d.p.cells ? table_coordinate<basis, T>(d, start, row, begin + i, axis) : T(0);
    });
  }
};

// Moves a sample's sums to the top of the four exponents e, where that is higher (online softmax).
template <class T, Basis basis, int axes>
SA_INLINE void raise_top(SampleSums<T, basis, axes>& sums, const T (&e)[4]) {
  const T top = max(sums.top, max(max(e[0], e[1]), max(e[2], e[3])));
  const T factor = exp2(sums.top - top);
#pragma unroll
  for (int k = 0; k <= axes; ++k) sums.v[k] *= factor;
  if constexpr (basis == Basis::gaussian) sums.v[axes + 1] *= factor * factor;
  sums.top = top;
}

template <Basis basis, int axes, class T>
SA_INLINE void add_cell(SampleSums<T, basis, axes>& sums, T w, const QuadNoise<basis, axes>& noise, int j,
                        const Quad<T> (&coords)[axes]) {
  sums.v[0] += w;
#pragma unroll
  for (int axis = 0; axis < axes; ++axis)
    sums.v[1 + axis] = fma(w, noise.move(j, axis, coords[axis].v[j]), sums.v[1 + axis]);
  if constexpr (basis == Basis::gaussian) sums.v[axes + 1] = fma(w, w, sums.v[axes + 1]);
}

// Adds quad g of the row, whose tables are a and coords, to one sample.
template <Weight weight, Basis basis, int axes, class T>
SA_INLINE void add_quad(SampleSums<T, basis, axes>& sums, uint32_t g, const LoopKey& key, const SampleStart& start,
                        const Quad<T>& a, const Quad<T> (&coords)[axes], T neg_inv_tau) {
  const Quad<uint32_t> words = quad_words(g, key, start, kGumbel);
  const QuadNoise<basis, axes> noise(g, key, start);
  if constexpr (weight == Weight::low) {
    T e[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) e[j] = fma(log2(exponential<T>(words.v[j])), neg_inv_tau, a.v[j]);
    raise_top(sums, e);
#pragma unroll
    for (int j = 0; j < 4; ++j) add_cell(sums, exp2(e[j] - sums.top), noise, j, coords);
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      add_cell(sums, weigh<weight>(exponential<T>(words.v[j]), a.v[j], neg_inv_tau), noise, j, coords);
  }
}

// Adds a tile to samples key.sample, key.sample + 1, ...
template <Weight weight, int together, Basis basis, int axes, class T>
SA_INLINE void add_tile(SampleSums<T, basis, axes> (&sums)[together], const Tables<T, axes>& tables,
                        uint32_t first_quad, int quads, const LoopKey& key, const SampleStart* starts, T neg_inv_tau) {
  for (int q = threadIdx.x; q < quads; q += blockDim.x) {
    const Quad<T> a = load_quad(tables.exponents + 4 * q);
    Quad<T> coords[axes];
#pragma unroll
    for (int axis = 0; axis < axes; ++axis) coords[axis] = load_quad(tables.coords[axis] + 4 * q);
#pragma unroll
    for (int k = 0; k < together; ++k)
      add_quad<weight>(sums[k], first_quad + q, key, starts[k], a, coords, neg_inv_tau);
  }
}

// Sums over segments, in order.
template <class T, Basis basis, int axes>
struct SampleTotal {
  static constexpr int count = SampleSums<T, basis, axes>::count;
  double v[count] = {};
  double top = -1e30;

  template <Weight weight>
  SA_INLINE void add(const T* sums, T sums_top) {
    double old = 1, fresh = 1;
    if constexpr (weight == Weight::low) {
      const double high = max(top, double(sums_top));
      old = exp2(top - high), fresh = exp2(double(sums_top) - high), top = high;
    }
    for (int k = 0; k < count; ++k) {
      const bool square = k > axes;
      v[k] = v[k] * (square ? old * old : old) + double(sums[k]) * (square ? fresh * fresh : fresh);
    }
  }

  // Writes the sample and its statistics: log2 of the sum of weights and, for gaussian, sum w^2 / (sum w)^2.
  template <Weight weight>
  SA_INLINE void finish(const DeviceProblem& d, int64_t row, uint32_t s, T* samples, T* stats) const {
    const int64_t at = row * d.p.samples + s;
    constexpr bool gaussian = basis == Basis::gaussian;
    const double square = gaussian ? v[count - 1] / (v[0] * v[0]) : 0;
    const double spread = gaussian ? double(row_sigma<T>(d.p, row)) * sqrt(square) : 0;
    const NoiseKey key = row_key(d, row, s);
    for (int axis = 0; axis < axes; ++axis) {
      double y = v[1 + axis] / v[0];
      if (basis == Basis::uniform) y += field_rest<T>;
      if (gaussian && d.p.basis == Basis::gaussian) y += spread * double(standard_normal<T>(axis, key));
      samples[at * axes + axis] = T(y);
    }
    const double reference = weight == Weight::low ? top : d.shift;
    const bool with_square = d.p.basis == Basis::gaussian;
    stats[at * (with_square ? 2 : 1)] = T(log2(v[0]) + reference);
    if (with_square) stats[at * 2 + 1] = T(square);
  }
};

// Where the segments of split rows meet: [row, sample, segment, count + 1].
template <class T>
struct Partials {
  T* data;  // null where a block has whole rows
  int64_t segments;

  template <int count>
  SA_INLINE T* of(const Problem& p, int64_t row, uint32_t s, int64_t segment) const {
    return data + ((row * p.samples + s) * segments + segment) * (count + 1);
  }
};

template <class T, Basis basis, int axes, Weight weight>
struct SampleForward {
  static constexpr int count = SampleSums<T, basis, axes>::count;
  const DeviceProblem& d;
  Partials<T> partials;
  T *samples, *stats, *shared;
  const uint32_t* schedule;
  SampleStart* starts;  // of the samples that are drawn together
  int64_t row;
  T top;

  // Shared memory: tables of a tile, then what block_reduce needs for `most` samples.
  static SA_BOTH int shared_numbers(int tile, int threads, int most) {
    return (1 + axes) * tile + most * (count + 1) * (1 + threads / 32);
  }

  template <int together>
  SA_INLINE void reduce(SampleSums<T, basis, axes> (&sums)[together], T* result) const {
    if constexpr (weight == Weight::low) {
      T tops[together];
      for (int k = 0; k < together; ++k) tops[k] = sums[k].top;
      T* high = result + together * count * (1 + blockDim.x / warp_size);
      block_reduce<true>(tops, high);
      for (int k = 0; k < together; ++k) {
        const T e[4] = {high[k], high[k], high[k], high[k]};
        raise_top(sums[k], e);
      }
    }
    T values[together * count];
    for (int k = 0; k < together; ++k)
      for (int v = 0; v < count; ++v) values[k * count + v] = sums[k].v[v];
    block_reduce<false>(values, result);
  }

  // Samples [s, s + together); `tables_ready` says that the only tile's tables are there already.
  template <int together>
  SA_INLINE void run(uint32_t s, int64_t first_segment, int64_t last_segment, bool tables_ready) const {
    const int tile = min(int64_t(tile_cells(axes)), (d.p.cells + 3) / 4 * 4);
    const Tables<T, axes> tables(shared, tile);
    T* result = shared + (1 + axes) * tile;
    SampleTotal<T, basis, axes> total;
    if (threadIdx.x < together) starts[threadIdx.x] = sample_start(row_key(d, row, s + threadIdx.x));
    __syncthreads();  // the starts are written; the last ones were used before the sums were reduced
    for (int64_t segment = first_segment; segment < last_segment; ++segment) {
      SampleSums<T, basis, axes> sums[together];
      for (int t = 0; t < tiles_per_segment; ++t) {
        const int64_t begin = (segment * tiles_per_segment + t) * tile;
        if (begin >= d.p.cells) break;
        const int cells = int(min(int64_t(tile), (d.p.cells - begin + 3) / 4 * 4));
        if (!tables_ready) {
          __syncthreads();  // all have used the tile before
          tables.template fill<basis, weight>(d, row, top, uint32_t(begin), cells);
          __syncthreads();  // the tables are filled
        }
        add_tile<weight>(sums, tables, uint32_t(begin / 4), cells / 4, loop_key(row_key(d, row, s), schedule), starts,
                         d.template log_factor<T>());
      }
      reduce(sums, result);
      if (threadIdx.x >= together) continue;
      const T* mine = result + threadIdx.x * count;
      const T mine_top =
          weight == Weight::low ? result[together * count * (1 + blockDim.x / warp_size) + threadIdx.x] : T(0);
      if (partials.data == nullptr) {
        total.template add<weight>(mine, mine_top);
      } else {
        T* out = partials.template of<count>(d.p, row, s + threadIdx.x, segment);
        for (int v = 0; v < count; ++v) out[v] = mine[v];
        out[count] = mine_top;
      }
    }
    if (partials.data == nullptr && threadIdx.x < together)
      total.template finish<weight>(d, row, s + threadIdx.x, samples, stats);
  }
};

constexpr int samples_together = 5;
constexpr int starts_bytes = samples_together * int(sizeof(SampleStart));

// Grid: rows, ranges of samples, segments (1 where a block has whole rows).
template <class T, Basis basis, int axes, Weight weight>
__global__ void __launch_bounds__(128, resident<T>(axes == 3 ? 3 : 4))
    sample_forward(DeviceProblem d, int samples_per_block, Partials<T> partials, T* samples, T* stats) {
  SA_SHARED_MEMORY(memory);
  uint32_t* schedule = reinterpret_cast<uint32_t*>(memory);
  auto* starts = reinterpret_cast<SampleStart*>(memory + schedule_bytes);
  T* shared = reinterpret_cast<T*>(starts + samples_together);
  const int64_t row = blockIdx.x;
  store_schedule(row_key(d, row, 0).seed, schedule);
  const T top = row_top(d, row, shared);
  const SampleForward<T, basis, axes, weight> block{d, partials, samples, stats, shared, schedule, starts, row, top};
  const uint32_t last = min(int64_t(blockIdx.y + 1) * samples_per_block, d.p.samples);
  uint32_t s = blockIdx.y * samples_per_block;
  const int64_t tile = tile_cells(axes),
                segments = (d.p.cells + tile * tiles_per_segment - 1) / (tile * tiles_per_segment);
  const int64_t first_segment = partials.data == nullptr ? 0 : blockIdx.z;
  const int64_t last_segment = partials.data == nullptr ? segments : first_segment + 1;
  const bool one_tile = d.p.cells <= tile;
  bool ready = false;
  for (; s + samples_together <= last; s += samples_together, ready = one_tile)
    block.template run<samples_together>(s, first_segment, last_segment, ready);
  for (; s < last; ++s, ready = one_tile) block.template run<1>(s, first_segment, last_segment, ready);
}

// Adds up the segments of split rows, one thread a sample.
template <class T, Basis basis, int axes, Weight weight>
__global__ void sample_combine(DeviceProblem d, Partials<T> partials, T* samples, T* stats) {
  using Total = SampleTotal<T, basis, axes>;
  const int64_t item = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (item >= d.p.rows() * d.p.samples) return;
  const int64_t row = item / d.p.samples;
  const uint32_t s = uint32_t(item % d.p.samples);
  Total total;
  for (int64_t segment = 0; segment < partials.segments; ++segment) {
    const T* sums = partials.template of<Total::count>(d.p, row, s, segment);
    total.template add<weight>(sums, sums[Total::count]);
  }
  total.template finish<weight>(d, row, s, samples, stats);
}

}  // namespace sampling_argmax::cuda
