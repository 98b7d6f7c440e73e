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
  const void* points;  // [B, N, d] contiguous, or null for a grid
  const void* coords;  // [d, padded] tables of the grid, or null for points
  const void* sigma;   // [B, K], gaussian only
  int64_t sigma_stride[2];
  uint64_t seed, first_row;
  int64_t samples;
  double tau, beta;
  Basis basis;

  SA_BOTH int64_t rows() const { return batch * keypoints; }
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

// The moments of one row, or the gradients of them.
template <class T>
struct MomentRow {
  const T *mean, *variance, *peak, *entropy;
};

}  // namespace sampling_argmax
