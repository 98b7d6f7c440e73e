// expected_error: samples, their distance to the target and its gradient, in one pass over the noise. Equations
// (14)-(16) of reference/README.md. A block takes a row. For each sample a first loop makes weights and positions,
// which stay in shared memory (4 (1 + d) bytes a cell; d = 0 for the bases without noise per cell), and sums them; a
// second loop multiplies them into the gradient, 4 bytes a cell. No noise is drawn twice, nothing of size S N leaves
// the block. A row must fit into shared memory; the launcher takes sample and its backward where it does not.

#pragma once

#include "cuda/sample_backward.cuh"

namespace sampling_argmax::cuda {

// Results of all rows; gradients may be null. The gradient of points is per row, [B, K, N, d].
template <class T>
struct ErrorResults {
  T *error, *grad_target;
  void* grad_logits;
  T *grad_points, *grad_sigma;
};

template <class T, Basis basis, int axes>
struct ErrorTables {
  static constexpr bool noisy = basis == Basis::uniform || basis == Basis::triangular;
  T *weights, *positions, *grad, *points;  // positions only where noisy, points only where they need a gradient

  static SA_BOTH int numbers_per_cell(bool with_points) {
    return 1 + axes + 1 + (noisy ? axes : 0) + 1 + (with_points ? axes : 0);
  }
  SA_INLINE ErrorTables(T* memory, int padded) {
    weights = memory + (1 + axes) * padded;  // after the Tables of the row
    positions = weights + padded;
    grad = positions + (noisy ? axes : 0) * padded;
    points = grad + padded;
  }
};

// What thread 0 hands to all after a sample is summed.
template <class T>
struct ErrorStep {
  T slope[3], offset, curve, top;
};

template <class T, Basis basis, int axes, Weight weight, bool with_points>
struct ExpectedError {
  using Kept = ErrorTables<T, basis, axes>;
  using Sums = SampleSums<T, basis, axes>;
  const DeviceProblem& d;
  Metric metric;
  int64_t row;
  int padded;
  const Tables<T, axes> tables;
  const Kept kept;
  const uint32_t* schedule;
  T* result;
  ErrorStep<T>* step;

  // As add_quad, but keeps weights (for Weight::low exponents) and positions.
  SA_INLINE void keep_quad(Sums& sums, uint32_t q, const LoopKey& key) const {
    const Quad<uint32_t> words = quad_words(q, key, kGumbel);
    const QuadNoise<basis, axes> noise(q, key);
    const Quad<T> a = load_quad(tables.exponents + 4 * q);
    Quad<T> w, coords[axes];
#pragma unroll
    for (int axis = 0; axis < axes; ++axis) coords[axis] = load_quad(tables.coords[axis] + 4 * q);
    T e[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const T exponential_j = exponential<T>(words.v[j]), factor = d.template log_factor<T>();
      if constexpr (weight == Weight::low)
        w.v[j] = e[j] = fma(log2(exponential_j), factor, a.v[j]);
      else
        w.v[j] = weigh<weight>(exponential_j, a.v[j], factor);
    }
    store_quad(kept.weights + 4 * q, w);
    if constexpr (weight == Weight::low) {
      raise_top(sums, e);
#pragma unroll
      for (int j = 0; j < 4; ++j) w.v[j] = exp2(e[j] - sums.top);
    }
#pragma unroll
    for (int axis = 0; axis < axes; ++axis) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        coords[axis].v[j] = noise.move(j, axis, coords[axis].v[j]);
        sums.v[1 + axis] = fma(w.v[j], coords[axis].v[j], sums.v[1 + axis]);
      }
      if constexpr (Kept::noisy) store_quad(kept.positions + axis * padded + 4 * q, coords[axis]);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      sums.v[0] += w.v[j];
      if constexpr (basis == Basis::gaussian) sums.v[axes + 1] = fma(w.v[j], w.v[j], sums.v[axes + 1]);
    }
  }

  SA_INLINE void add_gradient(uint32_t q, const ErrorStep<T>& now) const {
    Quad<T> w = load_quad(kept.weights + 4 * q), grad = load_quad(kept.grad + 4 * q), at[axes];
#pragma unroll
    for (int axis = 0; axis < axes; ++axis)
      at[axis] = load_quad((Kept::noisy ? kept.positions + axis * padded : tables.coords[axis]) + 4 * q);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if constexpr (weight == Weight::low) w.v[j] = exp2(w.v[j] - now.top);
      T change = now.offset;
      if constexpr (basis == Basis::gaussian) change = fma(w.v[j], now.curve, change);
#pragma unroll
      for (int axis = 0; axis < axes; ++axis) change = fma(at[axis].v[j], now.slope[axis], change);
      grad.v[j] = fma(w.v[j], change, grad.v[j]);
    }
    store_quad(kept.grad + 4 * q, grad);
    if constexpr (with_points) {
#pragma unroll
      for (int axis = 0; axis < axes; ++axis) {
        Quad<T> points = load_quad(kept.points + axis * padded + 4 * q);
#pragma unroll
        for (int j = 0; j < 4; ++j) points.v[j] = fma(w.v[j], now.slope[axis], points.v[j]);
        store_quad(kept.points + axis * padded + 4 * q, points);
      }
    }
  }

  // Thread 0, from the sums of sample s: its distance, and the step of the gradient. Adds to what the row's totals are.
  SA_INLINE void close_sample(uint32_t s, const T* sums, T top, const T* target, T (&totals)[axes + 2]) const {
    const NoiseKey key = row_key(d, row, s);
    const bool gaussian = d.p.basis == Basis::gaussian;
    const T inverse = 1 / sums[0], sigma = row_sigma<T>(d.p, row);
    const T square = basis == Basis::gaussian ? sums[axes + 1] * inverse * inverse : T(0), spread = sqrt(square);
    T y[axes], normals[axes] = {}, difference[axes], slope[axes];
    for (int axis = 0; axis < axes; ++axis) {
      if (gaussian) normals[axis] = standard_normal<T>(axis, key);
      y[axis] = sums[1 + axis] * inverse + sigma * normals[axis] * spread;
      difference[axis] = y[axis] + T(basis == Basis::uniform ? field_rest<T> : 0) - target[axis];
    }
    totals[0] += distance<axes>(metric, difference, slope);
    const T chain = T(d.p.beta / d.p.tau) * inverse / T(d.p.samples);
    SampleGradient<T, axes> gradient(slope, y, chain);
    if (gaussian) gradient.add_gaussian(slope, normals, sigma, spread, chain, inverse);
    *step = {};
    for (int axis = 0; axis < axes; ++axis) {
      totals[1 + axis] -= slope[axis];
      step->slope[axis] = gradient.slope[axis];
    }
    step->offset = gradient.offset, step->curve = gradient.curve, step->top = top;
    totals[axes + 1] += gradient.sigma;
  }

  SA_INLINE void run_sample(uint32_t s, const T* target, bool with_gradient, T (&totals)[axes + 2]) const {
    Sums sums[1];
    const LoopKey key = loop_key(row_key(d, row, s), schedule);
    for (int q = threadIdx.x; q < padded / 4; q += blockDim.x) keep_quad(sums[0], q, key);
    T top = T(0);
    if constexpr (weight == Weight::low) {
      const T tops[1] = {sums[0].top};
      block_reduce<true>(tops, result);
      top = result[0];
      const T e[4] = {top, top, top, top};
      raise_top(sums[0], e);
    }
    block_reduce<false>(sums[0].v, result);
    if (threadIdx.x == 0) close_sample(s, result, top, target, totals);
    __syncthreads();  // the step is written
    if (!with_gradient) return;
    const ErrorStep<T> now = *step;
    for (int q = threadIdx.x; q < padded / 4; q += blockDim.x) add_gradient(q, now);
  }
};

template <class T, Basis basis, int axes>
constexpr int error_shared_bytes(int padded, int threads, bool with_points) {
  constexpr int count = SampleSums<T, basis, axes>::count;
  return schedule_bytes + int(sizeof(T)) * (8 + ErrorTables<T, basis, axes>::numbers_per_cell(with_points) * padded +
                                            count * (1 + threads / 32));
}

// Grid: rows. A row of weight 0 is not read at all: whatever it holds, its error and gradients are 0.
template <class T, Basis basis, int axes, Weight weight, bool with_points>
__global__ void __launch_bounds__(256, 2)
    expected_error(DeviceProblem d, Metric metric, const T* targets, const T* weights, ErrorResults<T> out) {
  SA_SHARED_MEMORY(memory);
  using Block = ExpectedError<T, basis, axes, weight, with_points>;
  uint32_t* schedule = reinterpret_cast<uint32_t*>(memory);
  auto* step = reinterpret_cast<ErrorStep<T>*>(memory + schedule_bytes);
  T* shared = reinterpret_cast<T*>(memory + schedule_bytes) + 8;
  const int64_t row = blockIdx.x;
  const int padded = int((d.p.cells + 3) / 4 * 4);
  const Tables<T, axes> tables(shared, padded);
  const ErrorTables<T, basis, axes> kept(shared, padded);
  T* result = shared + ErrorTables<T, basis, axes>::numbers_per_cell(with_points) * padded;
  const bool masked = weights != nullptr && weights[row] == T(0);
  const bool with_gradient = out.grad_logits != nullptr || with_points;
  T totals[axes + 2] = {};
  for (int i = threadIdx.x; i < padded; i += blockDim.x) {
    kept.grad[i] = T(0);
    if constexpr (with_points)
      for (int axis = 0; axis < axes; ++axis) kept.points[axis * padded + i] = T(0);
  }
  if (!masked) {
    const Block block{d, metric, row, padded, tables, kept, schedule, result, step};
    store_schedule(row_key(d, row, 0).seed, schedule);
    const T top = row_top(d, row, result);
    tables.template fill<basis, weight>(d, row, top, 0, padded);
    __syncthreads();  // the tables are filled
    for (uint32_t s = 0; s < d.p.samples; ++s) block.run_sample(s, targets + row * axes, with_gradient, totals);
  }
  __syncthreads();  // the gradient, which threads own by quads, is complete
  for (int i = threadIdx.x; i < d.p.cells; i += blockDim.x) {
    if (out.grad_logits != nullptr) write_gradient(d.p, out.grad_logits, row * d.p.cells + i, kept.grad[i]);
    if constexpr (with_points)
      for (int axis = 0; axis < axes; ++axis)
        out.grad_points[(row * d.p.cells + i) * axes + axis] = kept.points[axis * padded + i] * T(d.p.tau / d.p.beta);
  }
  if (threadIdx.x != 0) return;
  out.error[row] = totals[0] / T(d.p.samples);
  for (int axis = 0; axis < axes; ++axis) out.grad_target[row * axes + axis] = totals[1 + axis] / T(d.p.samples);
  if (out.grad_sigma != nullptr) out.grad_sigma[row] = totals[axes + 1] / T(d.p.samples);
}

}  // namespace sampling_argmax::cuda
