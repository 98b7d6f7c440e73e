// sample, backward: draws the noise again and adds up the gradient of a cell over all samples, in their order.
// Equations (10)-(13) of reference/README.md. A block takes a row (with points a batch element, whose keypoints add to
// the same points) and a range of its cells; a thread keeps 8 cells in registers and passes over the samples. Per
// (sample, cell) nothing is read but a share of the sample's slope in shared memory. No result depends on the grid.

#pragma once

#include "cuda/sample.cuh"

namespace sampling_argmax::cuda {

// The gradient of one sample (gradient.h) in the cells' precision.
template <class T>
struct alignas(16) SampleSlope {
  T slope[3], offset, curve;
  T log_sum;  // taken off the exponents (Weight::low only)
  T sigma;    // dL/dsigma
  T unused;
};

// Gradients that a backward kernel writes; null where not needed.
template <class T>
struct SampleGradients {
  void* logits;
  T *points, *sigma;
};

constexpr int slopes_at_once = 64;
constexpr int quads_per_thread = 2;

template <class T, Basis basis, int axes, Weight weight>
SA_INLINE SampleSlope<T> sample_slope(const DeviceProblem& d, int64_t row, uint32_t s, const T* grads, const T* samples,
                                      const T* stats) {
  const bool gaussian = d.p.basis == Basis::gaussian;
  const int64_t at = row * d.p.samples + s;
  const T *grad = grads + at * axes, *y = samples + at * axes, *stat = stats + at * (gaussian ? 2 : 1);
  const NoiseKey key = row_key(d, row, s);
  const double inverse = weight == Weight::low ? 1 : exp2(d.shift - double(stat[0]));  // 1 / sum of w
  const double chain = d.p.beta / d.p.tau * inverse;
  double g[axes], position[axes], n[axes];
  for (int axis = 0; axis < axes; ++axis) {
    g[axis] = double(grad[axis]);
    position[axis] = double(y[axis]) - (basis == Basis::uniform ? field_rest<T> : 0);
  }
  SampleGradient<double, axes> gradient(g, position, chain);
  if (gaussian) {
    for (int axis = 0; axis < axes; ++axis) n[axis] = double(standard_normal<T>(axis, key));
    gradient.add_gaussian(g, n, double(row_sigma<T>(d.p, row)), sqrt(double(stat[1])), chain, inverse);
  }
  SampleSlope<T> out{};
  for (int axis = 0; axis < axes; ++axis) out.slope[axis] = T(gradient.slope[axis]);
  out.offset = T(gradient.offset), out.curve = T(gradient.curve), out.sigma = T(gradient.sigma);
  out.log_sum = stat[0];
  return out;
}

// Four cells of a thread.
template <class T, int axes>
struct OwnQuad {
  Quad<T> exponent, coords[axes];
  T grad[4] = {}, points[axes][4] = {};
};

template <Basis basis, Weight weight, bool with_points, int axes, class T>
SA_INLINE void add_gradient(OwnQuad<T, axes>& own, uint32_t g, const LoopKey& key, const SampleSlope<T>& slope,
                            T neg_inv_tau) {
  const Quad<uint32_t> words = quad_words(g, key, kGumbel);
  const QuadNoise<basis, axes> noise(g, key);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const T a = weight == Weight::low ? own.exponent.v[j] - slope.log_sum : own.exponent.v[j];
    const T w = weigh<weight>(exponential<T>(words.v[j]), a, neg_inv_tau);
    T change = slope.offset;
    if constexpr (basis == Basis::gaussian) change = fma(w, slope.curve, change);
#pragma unroll
    for (int axis = 0; axis < axes; ++axis)
      change = fma(noise.move(j, axis, own.coords[axis].v[j]), slope.slope[axis], change);
    own.grad[j] = fma(w, change, own.grad[j]);
    if constexpr (with_points) {
#pragma unroll
      for (int axis = 0; axis < axes; ++axis) own.points[axis][j] = fma(w, slope.slope[axis], own.points[axis][j]);
    }
  }
}

template <class T, Basis basis, int axes, Weight weight, bool with_points>
struct SampleBackward {
  const DeviceProblem& d;
  const T *grads, *samples, *stats;
  SampleGradients<T> out;
  const uint32_t* schedule;
  SampleSlope<T>* slopes;
  T* scratch;

  // Gradients of samples [first, last) of a row, whose slopes are ready, for the thread's quads.
  SA_INLINE void pass(OwnQuad<T, axes> (&own)[quads_per_thread], int64_t row, uint32_t first, uint32_t last,
                      uint32_t first_quad) const {
    LoopKey key = loop_key(row_key(d, row, first), schedule);
    const T factor = d.template log_factor<T>();
    for (uint32_t s = first; s < last; ++s, ++key.sample) {
      const SampleSlope<T> slope = slopes[s - first];
#pragma unroll
      for (int k = 0; k < quads_per_thread; ++k)
        add_gradient<basis, weight, with_points>(own[k], first_quad + k * blockDim.x, key, slope, factor);
    }
  }

  SA_INLINE void load(OwnQuad<T, axes>& own, int64_t row, T top, uint32_t quad) const {
    const Start<axes> start(d, row);
    T z[4];
    read_logits(d, logits_offset(d.p, row), 4 * quad, 1, z);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t i = 4 * quad + j;
      own.exponent.v[j] = table_exponent<weight>(d, z[j], top);
      own.grad[j] = T(0);
#pragma unroll
      for (int axis = 0; axis < axes; ++axis)
        own.coords[axis].v[j] = i < d.p.cells ? table_coordinate<basis, T>(d, start, row, i, axis) : T(0);
    }
  }

  SA_INLINE void store(const OwnQuad<T, axes>& own, int64_t row, uint32_t quad) const {
    for (int j = 0; j < 4; ++j)
      if (4 * quad + j < d.p.cells) write_gradient(d.p, out.logits, row * d.p.cells + 4 * quad + j, own.grad[j]);
  }

  SA_INLINE void store_points(const OwnQuad<T, axes>& own, int64_t batch, uint32_t quad) const {
    for (int j = 0; j < 4; ++j)
      for (int axis = 0; axis < axes; ++axis)
        if (4 * quad + j < d.p.cells)
          out.points[(batch * d.p.cells + 4 * quad + j) * axes + axis] = own.points[axis][j] * T(d.p.tau / d.p.beta);
  }

  // Fills slopes [first, last) of a row; the first block of the row also adds up the gradient of sigma.
  SA_INLINE void fill_slopes(int64_t row, uint32_t first, uint32_t last, T& sigma) const {
    __syncthreads();  // all have used the slopes before
    for (uint32_t s = first + threadIdx.x; s < last; s += blockDim.x)
      slopes[s - first] = sample_slope<T, basis, axes, weight>(d, row, s, grads, samples, stats);
    __syncthreads();  // the slopes are filled
    if (out.sigma == nullptr || threadIdx.x != 0 || blockIdx.y != 0) return;
    for (uint32_t s = first; s < last; ++s) sigma += slopes[s - first].sigma;
  }

  SA_INLINE void run_quads(int64_t first_row, int64_t rows, uint32_t first_quad, bool first_time) const {
    OwnQuad<T, axes> own[quads_per_thread];
    for (int64_t row = first_row; row < first_row + rows; ++row) {
      const T top = row_top(d, row, scratch);
#pragma unroll
      for (int k = 0; k < quads_per_thread; ++k) load(own[k], row, top, first_quad + k * blockDim.x);
      T sigma = T(0);
      for (uint32_t s = 0; s < d.p.samples; s += slopes_at_once) {
        const uint32_t end = min(int64_t(s) + slopes_at_once, d.p.samples);
        fill_slopes(row, s, end, sigma);
        pass(own, row, s, end, first_quad);
      }
      if (out.logits != nullptr)
        for (int k = 0; k < quads_per_thread; ++k) store(own[k], row, first_quad + k * blockDim.x);
      if (out.sigma != nullptr && threadIdx.x == 0 && blockIdx.y == 0 && first_time) out.sigma[row] = sigma;
    }
    if constexpr (with_points)
      for (int k = 0; k < quads_per_thread; ++k)
        store_points(own[k], first_row / d.p.keypoints, first_quad + k * blockDim.x);
  }
};

template <class T>
constexpr int backward_shared_bytes(int threads) {
  return schedule_bytes + int(sizeof(SampleSlope<T>)) * slopes_at_once + int(sizeof(T)) * (1 + threads / 32);
}

// Grid: rows (with points: batch elements), ranges of cells.
template <class T, Basis basis, int axes, Weight weight, bool with_points>
__global__ void __launch_bounds__(128, resident<T>(4))
    sample_backward(DeviceProblem d, const T* grads, const T* samples, const T* stats, SampleGradients<T> out) {
  SA_SHARED_MEMORY(memory);
  uint32_t* schedule = reinterpret_cast<uint32_t*>(memory);
  auto* slopes = reinterpret_cast<SampleSlope<T>*>(memory + schedule_bytes);
  T* scratch = reinterpret_cast<T*>(slopes + slopes_at_once);
  store_schedule(row_key(d, 0, 0).seed, schedule);
  const SampleBackward<T, basis, axes, weight, with_points> block{d,   grads,    samples, stats,
                                                                  out, schedule, slopes,  scratch};
  const int64_t rows = with_points ? d.p.keypoints : 1;
  const uint32_t quads = blockDim.x * quads_per_thread, ranges_of_cells = (d.p.cells + 4 * quads - 1) / (4 * quads);
  for (uint32_t range = blockIdx.y; range < ranges_of_cells; range += gridDim.y)
    block.run_quads(blockIdx.x * rows, rows, range * quads + threadIdx.x, range == 0);
}

}  // namespace sampling_argmax::cuda
