// The bins of one axis of axis_sample: noise, weight and position, and the gradient of the coordinate by the marginals.
// Equations (18)-(24) of reference/README.md. A bin's noise comes from one field of the single-field stream; backward
// is one warp an axis, which passes over its bins two or three times.

#pragma once

#include "cuda/row.cuh"

namespace sampling_argmax::cuda {

template <Basis basis, class T>
SA_INLINE T bin_noise(uint32_t f, const NoiseKey& key) {
  if constexpr (basis == Basis::none) return T(0);
  if constexpr (basis == Basis::gaussian) return standard_normal<T>(f, key);
  const auto state = philox(uint64_t(f >> 3), key, kSingle);
  const uint32_t word = uint32_t(f & 4 ? (f & 2 ? state.d : state.c) : (f & 2 ? state.b : state.a));
  if constexpr (basis == Basis::triangular)
    return triangular_position(centred_field<T>(word, f & 1, centred_exponent), T(0));
  return uniform_position(field_number<T>(word, f & 1, number_exponent), T(field_shift<T>)) + T(field_rest<T>);
}

// The bins [first, first + size) of one axis of a (row, sample).
template <Basis basis, class T>
struct Axis {
  uint32_t first;
  int64_t size;
  const T* h;  // the axis' own part of the marginals
  T sigma, reweight;
  int64_t start;  // the bin from which positions are counted

  SA_INLINE T position(int64_t j, T noise) const {
    return T(j - start) + (basis == Basis::gaussian ? sigma * noise : noise);
  }
  SA_INLINE T factor(T noise) const { return reweight == T(0) ? T(1) : exp(-reweight * noise * noise); }
  SA_INLINE T weight(int64_t j, T noise) const {
    if constexpr (basis == Basis::gaussian) return h[j] * factor(noise);
    if constexpr (basis == Basis::triangular) {
      const int64_t other = noise < 0 ? j - 1 : j + 1;  // the weight out of the map is 0
      const T beside = other < 0 || other >= size ? T(0) : h[other];
      return (1 - abs(noise)) * h[j] + abs(noise) * beside;
    }
    return h[j];
  }
};

template <class T>
SA_INLINE T marginal_sum(Basis basis, T sum) {
  return basis == Basis::none || basis == Basis::uniform ? T(1) : sum;  // h is normalised already
}

struct BinLayout {
  int64_t size[3], first[3], total;
};

template <int axes>
SA_INLINE BinLayout bin_layout(const Problem& p) {
  BinLayout out{};
  for (int axis = 0; axis < axes; ++axis) {
    out.size[axis] = p.shape[2 - axis];
    out.first[axis] = out.total;
    out.total += out.size[axis];
  }
  return out;
}

template <Basis basis, int axes, class T>
SA_INLINE Axis<basis, T> axis_of(const DeviceProblem& d, int64_t row, int axis, const T* marginals, double reweight) {
  const BinLayout bins = bin_layout<axes>(d.p);
  return {uint32_t(bins.first[axis]), bins.size[axis], marginals + bins.first[axis],
          row_sigma<T>(d.p, row),     T(reweight),     int64_t(Start<axes>(d, row).at[axis])};
}

// One warp: replaces noise, which it first writes there, by dL/dh of one axis in grad_h; returns dL/dsigma. Everything
// is scaled by `chain`, beta / tau over the sum of the weights as they are made again.
template <Basis basis, class T>
SA_INLINE T axis_backward(const Axis<basis, T>& axis, const NoiseKey& key, T grad, T chain, T clip, T* grad_h) {
  const int lane = threadIdx.x % warp_size;
  T q_sum = T(0), qu_sum = T(0), noise_sum = T(0);
#pragma unroll 1  // registers are for the loop over cells
  for (int64_t j = lane; j < axis.size; j += warp_size) {
    const T noise = bin_noise<basis, T>(axis.first + uint32_t(j), key), q = axis.weight(j, noise);
    grad_h[j] = noise;
    q_sum += q;
    qu_sum = fma(q, axis.position(j, noise), qu_sum);
    noise_sum = fma(q, noise, noise_sum);
  }
  __syncwarp();  // the noise is written
  const T total = marginal_sum(basis, warp_sum(q_sum)), c = warp_sum(qu_sum) / total;
  const auto slope = [&](int64_t j, T noise) {
    const T u = axis.position(j, noise);
    return clip == T(0) ? u : u >= c ? clip : -clip;
  };
  T mean = c;
  if (clip != T(0)) {
    mean = T(0);
#pragma unroll 1
    for (int64_t j = lane; j < axis.size; j += warp_size)
      mean = fma(axis.weight(j, grad_h[j]), slope(j, grad_h[j]), mean);
    mean = warp_sum(mean) / total;
  }
  // A bin collects its own share and those of the neighbours that lean on it.
  T left_lean = T(0), left_change = T(0);  // of the bin before this group of 32
#pragma unroll 1
  for (int64_t first = 0; first < axis.size; first += warp_size) {
    const int64_t j = first + lane;
    const bool inside = j < axis.size;
    const T noise = inside ? grad_h[j] : T(0);
    const T change = inside ? (slope(j, noise) - mean) / total * grad * chain : T(0);
    T own = change;
    if constexpr (basis == Basis::gaussian) own *= axis.factor(noise);
    if constexpr (basis == Basis::triangular) {
      const T beyond = j + 1 < axis.size ? grad_h[j + 1] : T(0);  // not replaced yet
      const T beyond_change = (slope(j + 1, beyond) - mean) / total * grad * chain;
      T lean = __shfl_up_sync(whole_warp, noise, 1), lean_change = __shfl_up_sync(whole_warp, change, 1);
      if (lane == 0) lean = left_lean, lean_change = left_change;
      own *= 1 - abs(noise);
      if (lean >= 0) own += lean * lean_change;  // 0 before the first bin
      if (j + 1 < axis.size && beyond < 0) own -= beyond * beyond_change;
      left_lean = __shfl_sync(whole_warp, noise, warp_size - 1);
      left_change = __shfl_sync(whole_warp, change, warp_size - 1);
      __syncwarp();  // all have read the noise beyond
    }
    if (inside) grad_h[j] = own;
  }
  return basis == Basis::gaussian ? grad * warp_sum(noise_sum) / total : T(0);
}

}  // namespace sampling_argmax::cuda
