// What a kernel is asked to do: plain numbers and pointers, no torch.

#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SA_BOTH __host__ __device__
#else
#define SA_BOTH
#endif

namespace sampling_argmax {

enum class Basis { none, uniform, triangular, gaussian };
enum class Metric { l1, l2, euclidean, smooth_l1 };
enum class Dtype { float32, float64, bfloat16, float16 };

constexpr int64_t cell_padding = 64;  // the widest block; scratch rows are padded to it with cells of weight 0

struct Problem {
  const void* logits;  // [B, K, *axes], any strides
  Dtype dtype;
  int axes;                               // d: coordinates of a position
  int64_t shape[3], stride[3];            // z, y, x; leading ones for fewer axes
  int64_t batch_stride, keypoint_stride;  // of logits, in elements
  int64_t batch, keypoints, cells;
  const void* points;      // [B, N, d] contiguous, or null for a grid
  const void* coords;      // [d, padded] tables of the grid, or null for points
  const int64_t* origins;  // [B, K]: the cells of a grid from which rows count their positions, or null: the first
  int64_t origin_stride[2];
  const void* sigma;  // [B, K], gaussian only
  int64_t sigma_stride[2];
  uint64_t seed, first_row;
  int64_t samples;
  double tau, beta;
  Basis basis;

  SA_BOTH int64_t rows() const { return batch * keypoints; }
  int64_t longest_axis() const {
    const int64_t flat = shape[2] > shape[1] ? shape[2] : shape[1];
    return flat > shape[0] ? flat : shape[0];
  }
  bool contiguous() const {  // the cells of a row
    return stride[2] == 1 && (shape[1] == 1 || stride[1] == shape[2]) &&
           (shape[0] == 1 || stride[0] == shape[1] * shape[2]);
  }
  SA_BOTH int64_t origin(int64_t row) const {
    return origins[row / keypoints * origin_stride[0] + row % keypoints * origin_stride[1]];
  }
  // Where a row begins to count along an axis (x, y, z).
  int64_t start(int64_t row, int axis) const {
    if (origins == nullptr) return 0;
    const int64_t x = origin(row) % shape[2], line = origin(row) / shape[2];
    return axis == 0 ? x : axis == 1 ? line % shape[1] : line / shape[1];
  }
  SA_BOTH int64_t padded() const { return (cells + cell_padding - 1) / cell_padding * cell_padding; }
};

// With a = (beta z - max) log2(e) / tau, a cell's weight is 2^(a - log2(E) / tau). The cell of the largest logit has
// a = 0 and E in (2^-33, 33], so the largest exponent of a sample lies in [-5.1, 32.5] / tau whatever the logits:
// centred on 13.7 / tau it stays within 18.8 / tau of 0, and no running maximum is needed while float's exponent
// range allows (squares of weights need twice the room). Below that tau, a first pass finds each sample's maximum.
constexpr double exponent_centre = 13.7, exponent_spread = 18.8, exponent_room = 94;

inline bool bounded_exponents(const Problem& p) {
  const double power = p.basis == Basis::gaussian ? 2 : 1;
  return power * exponent_spread / p.tau <= exponent_room;
}
inline double common_shift(const Problem& p) { return bounded_exponents(p) ? exponent_centre / p.tau : 0; }

// What expected_error adds up over some samples of one row.
template <class T>
struct ErrorPart {
  double error = 0, grad_target[3] = {}, grad_sigma = 0;
  T *grad_logits = nullptr, *grad_points = nullptr;  // padded tables, or null where not needed
};

// What axis_sample asks for besides a Problem. No clipping is a clip of 0.
struct AxisOptions {
  double reweight, clip_grad;
};

// The moments of one row, or the gradients of them, of which those that are null are 0.
template <class T>
struct MomentRow {
  const T *mean, *covariance, *peak, *entropy;

  // Of one row, where these are of all.
  SA_BOTH MomentRow of_row(int64_t row, int axes) const {
    const auto moved = [&](const T* from, int64_t each) { return from == nullptr ? from : from + row * each; };
    return {moved(mean, axes), moved(covariance, axes * axes), moved(peak, 1), moved(entropy, 1)};
  }
};

// Soft-argmax takes rows in parts.
struct MomentCells {
  int64_t begin, end, padded;
};

SA_BOTH constexpr int pairs_of(int axes) { return axes * (axes + 1) / 2; }

// The moments of a part of a row: the largest logit and its first cell, counted from the part's; sums of the weights
// w = 2^((z - top) scale) and of w log2 w; the mean, and sums of w (c - mean)(c - mean)^T, of pairs a <= b by lines.
template <class T, int axes>
struct MomentPart {
  T top, first, total, logs, mean[axes], square[pairs_of(axes)];
};

// The derivative of a loss by cell i's logit, over beta p_i: constant + of_log log2(w_i) + sum_a mean[a] (c - m)_a
// + sum_{a <= b} square[ab] (c - m)_a (c - m)_b. The peak's own cell has beta at_mode more. Equations (26) to (30).
template <class T, int axes>
struct MomentSlopes {
  T constant = 0, of_log = 0, mean[axes] = {}, square[pairs_of(axes)] = {}, at_mode = 0;

  template <class From>
  SA_BOTH MomentSlopes(const MomentRow<From>& grad, const MomentRow<From>& value, T log2_peak) {
    constexpr double ln2 = 0.6931471805599453;
    const T peak = T(*value.peak);
    if (grad.peak != nullptr) at_mode = T(*grad.peak) * peak, constant -= at_mode;
    if (grad.entropy != nullptr) {
      of_log = T(*grad.entropy) * T(-ln2);
      constant += of_log * log2_peak - T(*grad.entropy) * T(*value.entropy);
    }
    for (int a = 0; a < axes && grad.mean != nullptr; ++a) mean[a] = T(grad.mean[a]);
    if (grad.covariance == nullptr) return;
    for (int a = 0, pair = 0; a < axes; ++a)
      for (int b = a; b < axes; ++b, ++pair) {
        const T both = T(grad.covariance[a * axes + b]) + T(a == b ? From(0) : grad.covariance[b * axes + a]);
        square[pair] = both, constant -= both * T(value.covariance[a * axes + b]);
      }
  }
};

}  // namespace sampling_argmax
