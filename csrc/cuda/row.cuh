// One row of logits made ready for its samples: its maximum, and tables of exponents and coordinates in shared memory.

#pragma once

#include "cuda/quads.cuh"

namespace sampling_argmax::cuda {

// Blocks that a multiprocessor is to hold, whose registers they share; float64 takes twice as many.
template <class T>
SA_BOTH constexpr int resident(int most) {
  return is_double<T> ? 2 : most;
}

// n / divisor for n < 2^31 by a multiplication (Granlund and Montgomery, PLDI 1994).
struct Division {
  uint32_t divisor = 1, multiplier = 1, shift = 0;

  static Division by(int64_t d) {
    uint32_t bits = 0;
    while ((int64_t(1) << bits) < d) ++bits;
    const uint64_t excess = (uint64_t(1) << bits) - uint64_t(d);
    return {uint32_t(d), uint32_t((excess << 32) / uint64_t(d) + 1), bits};
  }
  SA_INLINE uint32_t quotient(uint32_t n) const { return (__umulhi(n, multiplier) + n) >> shift; }
};

// A Problem whose pointers are the device's; the seed is read there too, so that a captured graph sees new ones.
struct DeviceProblem {
  Problem p;
  const int64_t* seed;
  int seed_words;
  const void* tops;  // the largest logit of every row, or null where each block finds its row's
  Division width, height;
  bool contiguous;
  double scale, shift, neg_inv_tau;  // exponent = (z - max) scale - shift + neg_inv_tau log2(E)
  float neg_inv_tau_single;          // converted here: in a loop over cells ptxas would convert again each time

  template <class T>
  SA_INLINE T log_factor() const {
    if constexpr (is_double<T>) return neg_inv_tau;
    return neg_inv_tau_single;
  }
};

// How a weight E^(-1/tau) 2^a is made from E and the table. `low` is for temperatures whose exponents need a running
// maximum (csrc/problem.h); `one` and `two` are tau = 1 and 2, with one special function less.
enum class Weight { general, one, two, low };

template <Weight weight, class T>
SA_INLINE T weigh(T e, T a, T neg_inv_tau) {
  if constexpr (weight == Weight::one) return a * reciprocal(e);
  if constexpr (weight == Weight::two) return a * rsqrt(e);
  return exp2(fma(log2(e), neg_inv_tau, a));
}

SA_INLINE int64_t element_of(const DeviceProblem& d, uint32_t i) {
  if (d.contiguous) return i;
  const uint32_t line = d.width.quotient(i), z = d.height.quotient(line);
  return int64_t(z) * d.p.stride[0] + int64_t(line - z * d.height.divisor) * d.p.stride[1] +
         int64_t(i - line * d.width.divisor) * d.p.stride[2];
}

// Calls read(logits, number) with the logits' own type and what makes numbers of it, outside of all loops.
template <class T, class Read>
SA_INLINE void with_logits(const DeviceProblem& d, const Read& read) {
  const auto same = [](auto x) { return x; };
  if constexpr (is_double<T>) return read(static_cast<const double*>(d.p.logits), same);
  switch (d.p.dtype) {
    case Dtype::float32: return read(static_cast<const float*>(d.p.logits), same);
    case Dtype::bfloat16:
      return read(static_cast<const uint16_t*>(d.p.logits), [](uint16_t x) { return bfloat16_number(x); });
    default: return read(static_cast<const uint16_t*>(d.p.logits), [](uint16_t x) { return float16_number(x); });
  }
}

// The logits of cells first, first + step, ... of a row, all loads in flight at once; -inf past the row's end.
template <int count, class T>
SA_INLINE void read_logits(const DeviceProblem& d, int64_t offset, uint32_t first, uint32_t step, T (&out)[count]) {
  with_logits<T>(d, [&](auto* logits, const auto& number) {
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const uint32_t i = first + k * step;
      out[k] = i < d.p.cells ? T(number(logits[offset + element_of(d, i)])) : -T(__builtin_huge_val());
    }
  });
}

template <class T>
SA_INLINE void write_gradient(const Problem& p, void* out, int64_t at, T value) {
  if constexpr (is_double<T>) {
    static_cast<double*>(out)[at] = value;
    return;
  }
  switch (p.dtype) {
    case Dtype::float32: static_cast<float*>(out)[at] = float(value); return;
    case Dtype::bfloat16: static_cast<uint16_t*>(out)[at] = bfloat16_bits(float(value)); return;
    default: static_cast<uint16_t*>(out)[at] = float16_bits(float(value)); return;
  }
}

// body(i, logit) for those of the cells begin + i, i < count, of a row that are this thread's, in their order.
template <int at_once, class T, class Body>
SA_INLINE void for_logits(const DeviceProblem& d, int64_t offset, uint32_t begin, uint32_t count, const Body& body) {
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < count; i += at_once * blockDim.x) {
    T z[at_once];
    read_logits(d, offset, begin + i, blockDim.x, z);
#pragma unroll
    for (int k = 0; k < at_once; ++k)
      if (i + k * blockDim.x < count) body(i + k * blockDim.x, z[k]);
  }
}
template <class T, class Body>
SA_INLINE void for_cells(const DeviceProblem& d, int64_t offset, const Body& body) {
  for_logits<4, T>(d, offset, 0, uint32_t(d.p.cells), body);
}

SA_INLINE int64_t logits_offset(const Problem& p, int64_t row) {
  return row / p.keypoints * p.batch_stride + row % p.keypoints * p.keypoint_stride;
}

template <class T>
SA_INLINE T row_sigma(const Problem& p, int64_t row) {
  if (p.sigma == nullptr) return T(0);
  return static_cast<const T*>(p.sigma)[row / p.keypoints * p.sigma_stride[0] + row % p.keypoints * p.sigma_stride[1]];
}

SA_INLINE NoiseKey row_key(const DeviceProblem& d, int64_t row, uint32_t sample) {
  const uint64_t first = d.seed_words > 1 ? uint64_t(d.seed[1]) : 0;
  return noise_key(uint64_t(d.seed[0]), first + uint64_t(row), sample);
}

// The place of a cell along an axis (x, y, z).
SA_INLINE uint32_t grid_place(const DeviceProblem& d, uint32_t i, int axis) {
  const uint32_t line = d.width.quotient(i), z = d.height.quotient(line);
  if (axis == 0) return i - line * d.width.divisor;
  return axis == 1 ? line - z * d.height.divisor : z;
}

// The places from which a row counts.
template <int axes>
struct Start {
  uint32_t at[axes] = {};
  SA_INLINE Start(const DeviceProblem& d, int64_t row) {
    if (d.p.origins == nullptr) return;
#pragma unroll
    for (int axis = 0; axis < axes; ++axis) at[axis] = grid_place(d, uint32_t(d.p.origin(row)), axis);
  }
};

template <class T, int axes>
SA_INLINE T grid_coordinate(const DeviceProblem& d, const Start<axes>& start, uint32_t i, int axis) {
  return T(int32_t(grid_place(d, i, axis) - start.at[axis]));
}
template <class T, int axes>
SA_INLINE T coordinate(const DeviceProblem& d, const Start<axes>& start, int64_t row, uint32_t i, int axis) {
  if (d.p.points != nullptr)
    return static_cast<const T*>(d.p.points)[(row / d.p.keypoints * d.p.cells + i) * d.p.axes + axis];
  return grid_coordinate<T>(d, start, i, axis);
}

// The same as the basis takes it.
template <Basis basis, class T, int axes>
SA_INLINE T table_coordinate(const DeviceProblem& d, const Start<axes>& start, int64_t row, uint32_t i, int axis) {
  return coordinate<T>(d, start, row, i, axis) + T(basis == Basis::uniform ? field_shift<T> : 0);
}

// The exponent of a cell, or for tau = 1 and 2 its power of two. Of -inf, which stands past the row's end too, a weight
// of 0.
template <Weight weight, class T>
SA_INLINE T table_exponent(const DeviceProblem& d, T logit, T top) {
  const T a = (logit - top) * T(d.scale) - T(d.shift);
  return weight == Weight::one || weight == Weight::two ? exp2(a) : a;
}

// ---- the block's threads together ----

constexpr int warp_size = 32;
constexpr unsigned whole_warp = 0xFFFFFFFFu;

template <class T>
SA_INLINE T warp_max(T x) {
#pragma unroll
  for (int step = warp_size / 2; step > 0; step /= 2) x = max(x, __shfl_xor_sync(whole_warp, x, step));
  return x;
}
template <class T>
SA_INLINE T warp_sum(T x) {
#pragma unroll
  for (int step = warp_size / 2; step > 0; step /= 2) x += __shfl_xor_sync(whole_warp, x, step);
  return x;
}

// Reduces n values of every thread over the block into `result`, which all may read afterwards. `result` has room for
// n (1 + warps) numbers.
template <bool maximum, int n, class T>
SA_INLINE void block_reduce(const T (&values)[n], T* result) {
  const int warps = blockDim.x / warp_size, warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
  T* parts = result + n;
  __syncthreads();  // earlier readers of `result` are done
#pragma unroll
  for (int k = 0; k < n; ++k) {
    const T x = maximum ? warp_max(values[k]) : warp_sum(values[k]);
    if (lane == 0) parts[warp * n + k] = x;
  }
  __syncthreads();  // all parts are written
  for (int k = threadIdx.x; k < n; k += blockDim.x) {
    T x = parts[k];
    for (int other = 1; other < warps; ++other) x = maximum ? max(x, parts[other * n + k]) : x + parts[other * n + k];
    result[k] = x;
  }
  __syncthreads();  // the result is written
}

// The largest logit of a row; NaNs are passed over here and spoil their row through its weights. A barrier of the
// block.
template <class T>
SA_INLINE T row_top(const DeviceProblem& d, int64_t row, T* scratch) {
  if (d.tops != nullptr) {
    __syncthreads();  // as in the reduction below: what was written to shared memory is seen
    return static_cast<const T*>(d.tops)[row];
  }
  T top[1] = {-T(__builtin_huge_val())};
  for_logits<8, T>(d, logits_offset(d.p, row), 0, uint32_t(d.p.cells),
                   [&](uint32_t, T logit) { top[0] = max(top[0], logit); });
  block_reduce<true>(top, scratch);
  return scratch[0];
}

// Grid: rows. For rows that several blocks, or one block several times, would pass over.
template <class T>
__global__ void __launch_bounds__(256) row_tops(DeviceProblem d, T* tops) {
  SA_SHARED_MEMORY(memory);
  const T top = row_top(d, blockIdx.x, reinterpret_cast<T*>(memory));
  if (threadIdx.x == 0) tops[blockIdx.x] = top;
}

}  // namespace sampling_argmax::cuda
