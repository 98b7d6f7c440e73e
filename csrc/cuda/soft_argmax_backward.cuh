// soft_argmax's backward. A block takes a part of a row and reads its logits once: the largest one is that of the mode.
// Equations (26)-(30) of reference/README.md.

#pragma once

#include "cuda/soft_argmax.cuh"

namespace sampling_argmax::cuda {

// A row's polynomial, and what its cells are compared with.
template <class T, int axes>
struct MomentSlope {
  MomentSlopes<T, axes> of;
  T top, scale, peak, factor, mean[axes];  // factor: peak times beta
  Start<axes> start;
  uint32_t mode;

  SA_INLINE MomentSlope(const DeviceProblem& d, int64_t row, const MomentRow<T>& grads, const MomentRow<T>& values,
                        const int64_t* modes)
      : of(grads.of_row(row, axes), values.of_row(row, axes), log2(values.peak[row])),
        scale(exponent_scale<T>(d)),
        peak(values.peak[row]),
        factor(peak * T(d.p.beta)),
        start(d, row),
        mode(uint32_t(modes[row])) {
    T logit[1];
    read_logits(d, logits_offset(d.p, row), mode, 0, logit);
    top = logit[0], of.at_mode *= T(d.p.beta);
#pragma unroll
    for (int a = 0; a < axes; ++a) mean[a] = values.mean[row * axes + a];
  }

  // The gradient of the logit of a cell, over beta p; of its position over p.
  SA_INLINE T polynomial(T exponent, const T (&from_mean)[axes]) const {
    T change = of.constant;
#pragma unroll
    for (int a = axes - 1; a >= 0; --a) {  // the last axes first: a quad shares them
      T slope = of.mean[a];
#pragma unroll
      for (int b = axes - 1; b >= a; --b) slope = fma(from_mean[b], of.square[pair(a, b)], slope);
      change = fma(slope, from_mean[a], change);
    }
    return fma(finite(exponent), of.of_log, change);
  }
  SA_INLINE T position_slope(int a, const T (&from_mean)[axes]) const {
    T slope = fma(from_mean[a], of.square[pair(a, a)], of.mean[a]);
#pragma unroll
    for (int b = 0; b < axes; ++b) slope = fma(from_mean[b], of.square[b < a ? pair(b, a) : pair(a, b)], slope);
    return slope;
  }
  static SA_BOTH constexpr int pair(int a, int b) { return a * axes - a * (a + 1) / 2 + b; }
};

// Four gradients of a row, i a multiple of four.
template <bool quads, class T>
SA_INLINE void write_quad(const Problem& p, void* out, int64_t row, uint32_t i, const T (&grads)[4]) {
  const int64_t at = row * p.cells + i;
  if constexpr (quads && !is_double<T>) {
    if (p.dtype == Dtype::float32) {
      *reinterpret_cast<LogitQuad<float>*>(static_cast<float*>(out) + at) = {grads[0], grads[1], grads[2], grads[3]};
    } else {
      LogitQuad<uint16_t> bits;
#pragma unroll
      for (int j = 0; j < 4; ++j)
        bits.v[j] = p.dtype == Dtype::bfloat16 ? bfloat16_bits(grads[j]) : float16_bits(grads[j]);
      *reinterpret_cast<LogitQuad<uint16_t>*>(static_cast<uint16_t*>(out) + at) = bits;
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (i + j < p.cells) write_gradient(p, out, at + j, grads[j]);
}

// The gradients of the logits of cells i .. i + 3 in place of these; with `points`, of their positions too.
template <bool quads, class T, int axes>
SA_INLINE void differentiate_quad(const DeviceProblem& d, int64_t row, uint32_t i, const MomentSlope<T, axes>& slope,
                                  T (&z)[4], T* points, bool first_row) {
  T at[axes][4];
  quad_positions<quads>(d, slope.start, row, i, slope.mean, at);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    T from_mean[axes];
#pragma unroll
    for (int a = 0; a < axes; ++a) from_mean[a] = at[a][j];
    const T exponent = (z[j] - slope.top) * slope.scale, w = exp2(exponent);
    z[j] = w * slope.factor * slope.polynomial(exponent, from_mean);
    if constexpr (!quads) {
      if (points == nullptr || i + j >= d.p.cells) continue;
#pragma unroll
      for (int a = 0; a < axes; ++a) {
        T& out = points[(i + j) * axes + a];
        const T add = w * slope.peak * slope.position_slope(a, from_mean);
        out = first_row ? add : out + add;
      }
    }
  }
  if (slope.mode - i < 4)
#pragma unroll
    for (int j = 0; j < 4; ++j) z[j] += i + j == slope.mode ? slope.of.at_mode : T(0);
}

// Grid: parts of rows, with points' gradients of batch elements, whose rows add to the same points: a thread's own.
// Equations (26) to (30).
template <class T, int axes, bool quads>
__global__ void __launch_bounds__(moment_threads)
    soft_argmax_backward(DeviceProblem d, MomentParts cut, MomentRow<T> grads, MomentRow<T> values,
                         const int64_t* modes, void* grad_logits, T* grad_points) {
  const int64_t owner = blockIdx.x / cut.count, rows = grad_points == nullptr ? 1 : d.p.keypoints;
  T* points = grad_points == nullptr ? nullptr : grad_points + owner * d.p.cells * axes;
  const uint32_t part = blockIdx.x % cut.count, cells = uint32_t(d.p.cells);
  constexpr int at_once = moment_quads / 2;
  for (int64_t row = owner * rows; row < (owner + 1) * rows; ++row) {
    const MomentSlope<T, axes> slope(d, row, grads, values, modes);
#pragma unroll 1
    for (int k = 0; k < moment_quads; k += at_once) {
      const uint32_t first = (part * moment_quads + k) * blockDim.x + threadIdx.x;
      T z[at_once][4];
      read_quads(d, logits_offset(d.p, row), first, cut.aligned, z);
#pragma unroll
      for (int m = 0; m < at_once; ++m) {
        const uint32_t i = 4 * (first + m * blockDim.x);
        if (i >= cells) break;
        differentiate_quad<quads>(d, row, i, slope, z[m], points, row == owner * rows);
        if (grad_logits != nullptr) write_quad<quads>(d.p, grad_logits, row, i, z[m]);
      }
    }
  }
}

}  // namespace sampling_argmax::cuda
