// soft_argmax, forward: mean, covariance, peak and entropy of p = softmax(beta z). Equation (25) of
// reference/README.md. A block takes a part of a row, whose logits are read once and stay in registers as weights; the
// covariance is about the part's own mean, so that nothing cancels. soft_argmax_combine puts the parts of long rows
// together.

#pragma once

#include "cuda/row.cuh"

namespace sampling_argmax::cuda {

constexpr double ln2 = 0.6931471805599453;
constexpr int moment_quads = 8;  // of a thread
constexpr int moment_threads = 128;
constexpr int moment_cells = 4 * moment_quads * moment_threads;  // of a part, at most

// How rows are cut: blocks of a row, and whether all its quads can be read at once. `quads` of the kernels: whether
// they lie in a line of the grid.
struct MomentParts {
  uint32_t count;
  bool aligned;
};

// Results of all rows, contiguous.
template <class T>
struct MomentResults {
  T *mean, *covariance, *peak, *entropy;
  int64_t* mode;
};

// From logits to exponents in base 2.
template <class T>
SA_INLINE T exponent_scale(const DeviceProblem& d) {
  return T(d.p.beta * 1.4426950408889634);
}
// For the entropy, where p log p -> 0: a cell of -inf must not give 0 * inf.
template <class T>
SA_INLINE T finite(T exponent) {
  return max(exponent, T(-1000));
}

template <class From>
struct alignas(4 * sizeof(From)) LogitQuad {
  From v[4];
};

// The logits of `count` quads first, first + blockDim, ... of a row, all loads in flight at once; -inf past its end.
template <int count, class T>
SA_INLINE void read_quads(const DeviceProblem& d, int64_t offset, uint32_t first, bool aligned, T (&out)[count][4]) {
  with_logits<T>(d, [&](const auto* logits, const auto& number) {
    using From = std::remove_cvref_t<decltype(*logits)>;
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const uint32_t i = 4 * (first + k * blockDim.x);
      if (aligned && i < d.p.cells) {
        const LogitQuad<From> quad = *reinterpret_cast<const LogitQuad<From>*>(logits + offset + i);
#pragma unroll
        for (int j = 0; j < 4; ++j) out[k][j] = T(number(quad.v[j]));
        continue;
      }
#pragma unroll
      for (int j = 0; j < 4; ++j)
        out[k][j] = i + j < d.p.cells ? T(number(logits[offset + element_of(d, i + j)])) : -T(__builtin_huge_val());
    }
  });
}

// Positions of the cells i .. i + 3 less a centre. Of a quad in a line of the grid y and z are found once.
template <bool quads, class T, int axes>
SA_INLINE void quad_positions(const DeviceProblem& d, const Start<axes>& start, int64_t row, uint32_t i,
                              const T (&centre)[axes], T (&out)[axes][4]) {
#pragma unroll
  for (int axis = 0; axis < axes; ++axis) {
    const T first = quads ? grid_coordinate<T>(d, start, i, axis) - centre[axis] : T(0);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if constexpr (quads)
        out[axis][j] = axis == 0 ? first + T(j) : first;
      else
        out[axis][j] = i + j < d.p.cells ? coordinate<T>(d, start, row, i + j, axis) - centre[axis] : T(0);
    }
  }
}

// Sums of (c - centre)(c - centre)^T over this thread's cells by their weights, of pairs a <= b by lines.
template <bool quads, class T, int axes>
SA_INLINE void add_squares(const DeviceProblem& d, const Start<axes>& start, int64_t row, uint32_t first,
                           const T (&weights)[moment_quads][4], const T (&centre)[axes], T (&square)[pairs_of(axes)]) {
#pragma unroll
  for (int k = 0; k < moment_quads; ++k) {
    T at[axes][4];
    quad_positions<quads>(d, start, row, 4 * (first + k * blockDim.x), centre, at);
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int a = 0, pair = 0; a < axes; ++a) {
        const T weighted = weights[k][j] * at[a][j];
#pragma unroll
        for (int b = a; b < axes; ++b, ++pair) square[pair] = fma(weighted, at[b][j], square[pair]);
      }
  }
}

// Sums over the row, of which `square` is about the mean. Equation (25).
template <class T, int axes>
SA_INLINE void write_moments(int64_t row, const MomentPart<T, axes>& sums, int64_t mode,
                             const MomentResults<T>& results) {
  const T inverse = 1 / sums.total;
#pragma unroll
  for (int a = 0, pair = 0; a < axes; ++a) {
    results.mean[row * axes + a] = sums.mean[a];
#pragma unroll
    for (int b = a; b < axes; ++b, ++pair) {
      const T entry = sums.square[pair] / sums.total;
      results.covariance[(row * axes + a) * axes + b] = results.covariance[(row * axes + b) * axes + a] = entry;
    }
  }
  results.peak[row] = inverse;
  results.entropy[row] = T(ln2) * (log2(sums.total) - sums.logs / sums.total);
  results.mode[row] = mode;
}

// Turns a thread's logits into weights and adds up them, their logarithms and their positions.
template <bool quads, class T, int axes>
SA_INLINE void add_weights(const DeviceProblem& d, const Start<axes>& start, int64_t row, uint32_t first, T top,
                           T (&z)[moment_quads][4], T (&sums)[2 + axes]) {
  const T scale = exponent_scale<T>(d);
#pragma unroll
  for (int k = 0; k < moment_quads; ++k) {
    T at[axes][4];
    const T centre[axes] = {};
    quad_positions<quads>(d, start, row, 4 * (first + k * blockDim.x), centre, at);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const T exponent = (z[k][j] - top) * scale, w = z[k][j] = exp2(exponent);
      sums[0] += w;
      sums[1] = fma(w, finite(exponent), sums[1]);
#pragma unroll
      for (int axis = 0; axis < axes; ++axis) sums[2 + axis] = fma(w, at[axis][j], sums[2 + axis]);
    }
  }
}

// The largest logit of the block's cells and its first cell, counted from the part's. NaNs are passed over here and
// spoil their row through its weights.
template <class T>
SA_INLINE void find_top(const T (&z)[moment_quads][4], T* result, T& top, T& first) {
  T of_thread[1] = {-T(__builtin_huge_val())};
#pragma unroll
  for (int k = 0; k < moment_quads; ++k)
#pragma unroll
    for (int j = 0; j < 4; ++j) of_thread[0] = max(of_thread[0], z[k][j]);
  block_reduce<true>(of_thread, result);
  top = result[0];
  T at[1] = {-T(moment_cells)};
  if (of_thread[0] == top)
#pragma unroll
    for (int k = moment_quads - 1; k >= 0; --k)
#pragma unroll
      for (int j = 3; j >= 0; --j)
        if (z[k][j] == top) at[0] = -T(4 * (threadIdx.x + k * blockDim.x) + j);
  block_reduce<true>(at, result);
  first = result[0] == -T(moment_cells) ? T(0) : -result[0];  // none of NaN alone
}

// Grid: parts of rows. Writes the moments of rows of one part, else `parts`.
template <class T, int axes, bool quads>
__global__ void __launch_bounds__(moment_threads)
    soft_argmax_forward(DeviceProblem d, MomentParts cut, MomentPart<T, axes>* parts, MomentResults<T> results) {
  SA_SHARED_MEMORY(memory);
  T* result = reinterpret_cast<T*>(memory);
  const int64_t row = blockIdx.x / cut.count;
  const uint32_t first = blockIdx.x % cut.count * moment_quads * blockDim.x + threadIdx.x;
  const Start<axes> start(d, row);
  T z[moment_quads][4], sums[2 + axes] = {}, square[pairs_of(axes)] = {};
  read_quads(d, logits_offset(d.p, row), first, cut.aligned, z);
  MomentPart<T, axes> part;
  find_top(z, result, part.top, part.first);
  // Of a part of -inf alone all weights are 0, since other parts may have some.
  const bool none = cut.count > 1 && part.top == -T(__builtin_huge_val());
  add_weights<quads, T, axes>(d, start, row, first, none ? T(0) : part.top, z, sums);
  block_reduce<false>(sums, result);
  part.total = result[0], part.logs = result[1];
#pragma unroll
  for (int axis = 0; axis < axes; ++axis) part.mean[axis] = none ? T(0) : result[2 + axis] / part.total;
  add_squares<quads>(d, start, row, first, z, part.mean, square);
  block_reduce<false>(square, result);
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int pair = 0; pair < pairs_of(axes); ++pair) part.square[pair] = result[pair];
  if (cut.count == 1)
    write_moments(row, part, int64_t(part.first), results);
  else
    parts[blockIdx.x] = part;
}

// Grid: rows; a warp each, whose lanes take parts. Each part has the mass that it has beside the row's largest logit.
template <class T, int axes>
__global__ void __launch_bounds__(warp_size)
    soft_argmax_combine(DeviceProblem d, uint32_t count, uint32_t part_cells, const MomentPart<T, axes>* parts,
                        MomentResults<T> results) {
  const int64_t row = blockIdx.x;
  parts += row * count;
  T top = -T(__builtin_huge_val()), first = -T(count);
  for (uint32_t k = threadIdx.x; k < count; k += warp_size) top = max(top, parts[k].top);
  top = warp_max(top);
  MomentPart<T, axes> sum{};
  for (uint32_t k = threadIdx.x; k < count; k += warp_size) {
    const MomentPart<T, axes> part = parts[k];
    if (part.top == top) first = max(first, -T(k));
    const T shift = (part.top - top) * exponent_scale<T>(d), factor = exp2(shift), mass = factor * part.total;
    sum.total += mass;
    sum.logs += fma(mass, finite(shift), factor * part.logs);
#pragma unroll
    for (int a = 0; a < axes; ++a) sum.mean[a] = fma(mass, part.mean[a], sum.mean[a]);
  }
  sum.total = warp_sum(sum.total), sum.logs = warp_sum(sum.logs);
#pragma unroll
  for (int a = 0; a < axes; ++a) sum.mean[a] = warp_sum(sum.mean[a]) / sum.total;
  for (uint32_t k = threadIdx.x; k < count; k += warp_size) {
    const MomentPart<T, axes> part = parts[k];
    const T factor = exp2((part.top - top) * exponent_scale<T>(d)), mass = factor * part.total;
#pragma unroll
    for (int a = 0, pair = 0; a < axes; ++a)
#pragma unroll
      for (int b = a; b < axes; ++b, ++pair)
        sum.square[pair] +=
            fma(mass * (part.mean[a] - sum.mean[a]), part.mean[b] - sum.mean[b], factor * part.square[pair]);
  }
#pragma unroll
  for (int pair = 0; pair < pairs_of(axes); ++pair) sum.square[pair] = warp_sum(sum.square[pair]);
  const uint32_t largest = uint32_t(-warp_max(first));
  if (threadIdx.x == 0) write_moments(row, sum, int64_t(largest) * part_cells + int64_t(parts[largest].first), results);
}

}  // namespace sampling_argmax::cuda
