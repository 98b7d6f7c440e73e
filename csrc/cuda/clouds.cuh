// Searches in point clouds, equations (31) and (32) of reference/README.md. farthest_points: a block takes a cloud; a
// turn reads every point and its distance from those chosen (written back), two reductions and one barrier find the
// next one. neighbours: a warp takes a centre and finds the nearest point, then the next, each time reading the whole
// cloud. Distances are compared as the integers of their bits, which have the same order; equal ones go by the lower
// index.

#pragma once

#include "cuda/row.cuh"

namespace sampling_argmax::cuda {

constexpr uint32_t all_lanes = 0xFFFFFFFF, nothing = 0xFFFFFFFF;

// The bits of the squared distance, without multiply-adds: those of the other backends.
template <class T>
SA_INLINE uint32_t distance_bits(const T* a, const T* b) {
  const T x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
  const T sum = __fadd_rn(__fadd_rn(__fmul_rn(x, x), __fmul_rn(y, y)), __fmul_rn(z, z));
  return __float_as_uint(sum) & 0x7FFFFFFF;
}

// A distance and whose it is; `nothing` for both where there is none.
struct Candidate {
  uint32_t bits, index;
};

// The least of a warp's numbers. GPUs before sm_80 have no instruction for it.
SA_INLINE uint32_t warp_least(uint32_t own) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  for (int step = 16; step > 0; step /= 2) own = min(own, __shfl_xor_sync(all_lanes, own, step));
  return own;
#else
  return __reduce_min_sync(all_lanes, own);
#endif
}

SA_INLINE uint32_t warp_largest(uint32_t own) { return ~warp_least(~own); }

SA_INLINE Candidate warp_farthest(Candidate own) {
  const uint32_t top = warp_largest(own.bits);
  return {top, warp_least(own.bits == top ? own.index : nothing)};
}

template <class T>
__global__ void __launch_bounds__(1024) farthest_points(const T* points, const int64_t* first, int64_t size,
                                                        int64_t count, uint32_t* nearest, int64_t* chosen) {
  SA_SHARED_MEMORY(memory);
  Candidate* warps = reinterpret_cast<Candidate*>(memory);  // [2, 32]
  points += blockIdx.x * 3 * size, nearest += blockIdx.x * size, chosen += blockIdx.x * count;
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32), in_block = int(blockDim.x / 32);
  uint32_t last = uint32_t(first[blockIdx.x]);
  for (int64_t k = 0; k < count; ++k) {
    if (threadIdx.x == 0) chosen[k] = last;
    Candidate own{0, nothing};
    for (uint32_t i = threadIdx.x; i < size; i += blockDim.x) {
      const uint32_t bits = distance_bits(points + 3 * i, points + 3 * last);
      const uint32_t least = k > 0 && nearest[i] < bits ? nearest[i] : bits;
      nearest[i] = least;
      if (own.index == nothing || least > own.bits) own = {least, i};
    }
    // Two sets of results in turn: a slow warp may still read those of the turn before.
    Candidate* results = warps + k % 2 * 32;
    own = warp_farthest(own);
    if (lane == 0) results[warp] = own;
    __syncthreads();  // every warp's result is written
    last = warp_farthest(results[lane < in_block ? lane : 0]).index;
  }
}

// The nearest point behind `last` in the order of (bits, index), over the lanes of a warp.
template <class T>
SA_INLINE Candidate next_nearest(const T* points, const T* centre, int64_t size, Candidate last) {
  Candidate own{nothing, nothing};
  for (uint32_t i = threadIdx.x % 32; i < size; i += 32) {
    const uint32_t bits = distance_bits(points + 3 * i, centre);
    const bool taken = last.index != nothing && (bits < last.bits || (bits == last.bits && i <= last.index));
    if (!taken && bits < own.bits) own = {bits, i};
  }
  const uint32_t least = warp_least(own.bits);
  return {least, warp_least(own.bits == least ? own.index : nothing)};
}

template <class T>
__global__ void __launch_bounds__(256) neighbours(const T* points, const T* centers, int64_t size, int64_t each,
                                                  int64_t total, uint32_t limit, int64_t wanted, int64_t* index) {
  const int64_t centre = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  if (centre >= total) return;  // the whole warp
  points += centre / each * 3 * size, centers += 3 * centre, index += wanted * centre;
  const Candidate nearest = next_nearest(points, centers, size, {nothing, nothing});
  if (threadIdx.x % 32 == 0) index[0] = nearest.index;
  Candidate next = nearest;
  int64_t found = 1;
  for (; found < wanted; ++found) {
    next = next_nearest(points, centers, size, next);
    if (next.bits > limit) break;
    if (threadIdx.x % 32 == 0) index[found] = next.index;
  }
  for (int64_t k = found + threadIdx.x % 32; k < wanted; k += 32) index[k] = nearest.index;
}

}  // namespace sampling_argmax::cuda
