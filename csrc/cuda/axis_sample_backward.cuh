// axis_sample, backward. Equations (21)-(24) of reference/README.md. One warp a sample turns the marginals into a
// gradient per bin, in shared memory; then a thread keeps 8 cells in registers and passes over the samples, each cell
// reading one bin of each axis. No result depends on the grid.

#pragma once

#include <type_traits>

#include "cuda/axis_bins.cuh"
#include "cuda/sample_backward.cuh"

namespace sampling_argmax::cuda {

template <class T>
struct AxisGradients {
  const T *samples, *marginals, *stats;
  void* logits;
  T* sigma;
  T* workspace;  // the bins of all samples, for an axis too long for shared memory
};

// The gradients of all bins of one (row, sample) by one warp; returns dL/dsigma.
template <Basis basis, int axes, class T>
SA_INLINE T sample_bins_backward(const DeviceProblem& d, const AxisGradients<T>& g, int64_t row, uint32_t s,
                                 double reweight, T chain, T clip, T* bins) {
  const int64_t at = row * d.p.samples + s;
  const NoiseKey key = row_key(d, row, s);
  T sigma = T(0);
#pragma unroll 1
  for (int a = 0; a < axes; ++a) {
    const T* h = g.marginals + at * bin_layout<axes>(d.p).total;
    const Axis<basis, T> axis = axis_of<basis, axes>(d, row, a, h, reweight);
    sigma += axis_backward(axis, key, g.samples[at * axes + a], chain, clip, bins + axis.first);
  }
  return sigma;
}

// `whole_quads`: the width is a multiple of 4, so that the cells of a quad share a line.
template <class T, int axes, Weight weight, bool whole_quads>
struct AxisBackward {
  const DeviceProblem& d;
  const AxisGradients<T>& grads;
  double reweight, clip;
  const uint32_t* schedule;
  T *sigmas, *bins;  // of `at_once` samples each
  int at_once, stride;
  int64_t row;
  T top;

  struct Own {
    Quad<T> exponent;
    uint32_t bin[axes][whole_quads ? 1 : 4];
    T grad[4];
  };

  SA_INLINE void load(Own& own, uint32_t quad) const {
    T z[4];
    read_logits(d, logits_offset(d.p, row), 4 * quad, 1, z);
    const BinLayout layout = bin_layout<axes>(d.p);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t i = 4 * quad + j, line = d.width.quotient(i), plane = d.height.quotient(line);
      own.exponent.v[j] = table_exponent<weight>(d, z[j], top);
      own.grad[j] = T(0);
      if (whole_quads && j > 0) continue;
      const uint32_t at[3] = {i - line * d.width.divisor, line - plane * d.height.divisor, plane};
#pragma unroll
      for (int axis = 0; axis < axes; ++axis)
        own.bin[axis][j] = i < d.p.cells ? uint32_t(layout.first[axis]) + at[axis] : 0;
    }
  }

  // dL/dh of the quad's cells, summed over the axes.
  SA_INLINE Quad<T> cell_slopes(const Own& own, const T* from) const {
    Quad<T> out;
    if constexpr (whole_quads) {
      T line = T(0);
#pragma unroll
      for (int axis = 1; axis < axes; ++axis) line += from[own.bin[axis][0]];
      out = load_quad(from + own.bin[0][0]);
#pragma unroll
      for (int j = 0; j < 4; ++j) out.v[j] += line;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        out.v[j] = from[own.bin[0][j]];
#pragma unroll
        for (int axis = 1; axis < axes; ++axis) out.v[j] += from[own.bin[axis][j]];
      }
    }
    return out;
  }

  // Replaces the bins by those of the samples [first, last), one sample a warp; with its sigmas to `sigma`, in order.
  SA_INLINE void fill_bins(uint32_t first, uint32_t last, T& sigma) const {
    __syncthreads();  // all have used the bins and the sigmas before
    for (uint32_t s = first + threadIdx.x / warp_size; s < last; s += blockDim.x / warp_size) {
      const double inverse = weight == Weight::low ? 1 : exp2(d.shift - double(grads.stats[row * d.p.samples + s]));
      const T own = sample_sigma(s, T(d.p.beta / d.p.tau * inverse), bins + (s - first) * stride);
      if (threadIdx.x % warp_size == 0) sigmas[s - first] = own;
    }
    __syncthreads();  // the bins and the sigmas are written
    for (uint32_t s = first; s < last; ++s) sigma += sigmas[s - first];
  }

  SA_INLINE T sample_sigma(uint32_t s, T chain, T* out) const {
    const auto run = [&](auto basis) {
      return sample_bins_backward<decltype(basis)::value, axes>(d, grads, row, s, reweight, chain, T(clip), out);
    };
    switch (d.p.basis) {
      case Basis::none: return run(std::integral_constant<Basis, Basis::none>());
      case Basis::uniform: return run(std::integral_constant<Basis, Basis::uniform>());
      case Basis::triangular: return run(std::integral_constant<Basis, Basis::triangular>());
      default: return run(std::integral_constant<Basis, Basis::gaussian>());
    }
  }

  // Adds the samples [first, last), whose bins are there, to the gradients of a thread's cells.
  SA_INLINE void pass(Own (&own)[quads_per_thread], uint32_t first, uint32_t last, uint32_t first_quad) const {
    LoopKey key = loop_key(row_key(d, row, first), schedule);
    const T* from = bins;
    for (uint32_t s = first; s < last; ++s, ++key.sample, from += stride) {
#pragma unroll
      for (int k = 0; k < quads_per_thread; ++k) {
        const Quad<uint32_t> words = quad_words(first_quad + k * blockDim.x, key, kGumbel);
        const Quad<T> slopes = cell_slopes(own[k], from);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const T a =
              weight == Weight::low ? own[k].exponent.v[j] - grads.stats[row * d.p.samples + s] : own[k].exponent.v[j];
          const T w = weigh<weight>(exponential<T>(words.v[j]), a, d.template log_factor<T>());
          own[k].grad[j] = fma(w, slopes.v[j], own[k].grad[j]);
        }
      }
    }
  }

  // The cells of this thread from quad `first_quad` on, over all samples. `filled`: all samples' bins are there.
  SA_INLINE void run_quads(uint32_t first_quad, bool filled, T& sigma) const {
    Own own[quads_per_thread];
#pragma unroll
    for (int k = 0; k < quads_per_thread; ++k) load(own[k], first_quad + k * blockDim.x);
    for (uint32_t s = 0; s < d.p.samples; s += at_once) {
      const uint32_t end = uint32_t(min(int64_t(s) + at_once, d.p.samples));
      if (!filled) fill_bins(s, end, sigma);
      if (grads.logits != nullptr) pass(own, s, end, first_quad);
    }
    if (grads.logits == nullptr) return;
    for (int k = 0; k < quads_per_thread; ++k)
      for (int j = 0; j < 4; ++j) {
        const uint32_t i = 4 * (first_quad + k * blockDim.x) + j;
        if (i < d.p.cells) write_gradient(d.p, grads.logits, row * d.p.cells + i, own[k].grad[j]);
      }
  }
};

// Grid: rows, ranges of cells. `stride`: the bins of a sample, rounded up to whole quads.
template <class T, int axes, Weight weight, bool whole_quads>
__global__ void __launch_bounds__(128, resident<T>(whole_quads ? 4 : 3))
    axis_sample_backward(DeviceProblem d, double reweight, double clip, AxisGradients<T> grads, int at_once,
                         int stride) {
  SA_SHARED_MEMORY(memory);
  uint32_t* schedule = reinterpret_cast<uint32_t*>(memory);
  T* scratch = reinterpret_cast<T*>(memory + schedule_bytes);
  T *sigmas = scratch + 8, *bins = sigmas + (at_once + 3) / 4 * 4;
  const int64_t row = blockIdx.x;
  if (axes == 1 && grads.workspace != nullptr) bins = grads.workspace + row * at_once * stride;
  store_schedule(row_key(d, row, 0).seed, schedule);
  const T top = row_top(d, row, scratch);
  const AxisBackward<T, axes, weight, whole_quads> block{d,    grads,   reweight, clip, schedule, sigmas,
                                                         bins, at_once, stride,   row,  top};
  const uint32_t quads = blockDim.x * quads_per_thread, ranges = uint32_t((d.p.cells + 4 * quads - 1) / (4 * quads));
  for (uint32_t range = blockIdx.y; range < ranges; range += gridDim.y) {
    T sigma = T(0);
    block.run_quads(range * quads + threadIdx.x, range != blockIdx.y && at_once == d.p.samples, sigma);
    if (grads.sigma != nullptr && range == 0 && threadIdx.x == 0) grads.sigma[row] = sigma;
  }
}

}  // namespace sampling_argmax::cuda
