// sample, forward and backward: Gumbel-softmax weights, noise per cell and the weighted sums in one pass over the
// cells of a (row, sample). Equations (5)-(8) of reference/README.md. Reads 4 (1 + d) bytes a cell from tables
// that stay in cache; writes d + 1 numbers a sample (d + 2 for gaussian: the log-sum and the sum of squares).
// Forward work is split over (row, samples), backward over (row, cells), each cell summing its samples in order:
// no result depends on the split. No include guard (see foreach_isa.h).

template <class T, int axes>
struct SampleSums {
  double weight = 0, square = 0, position[axes] = {};
};

template <class R, Basis basis, int axes>
SampleSums<typename R::Scalar, axes> sum_sample(const Problem& p, const typename R::Scalar* a,
                                                const typename R::Scalar* const (&coords)[3], NoiseKey key) {
  using T = typename R::Scalar;
  SampleSums<T, axes> sums;
  const Weights<R> weights(p, a, key);
  constexpr int64_t panel = blocks_per_panel * Block<R>::size;
  for (int64_t begin = 0; begin < p.padded(); begin += panel) {
    const int64_t end = begin + panel < p.padded() ? begin + panel : p.padded();
    R weight(T(0)), square(T(0)), position[axes];
    for (R& sum : position) sum = R(T(0));
    for (int64_t i = begin; i < end; i += Block<R>::size) {
      const Block<R> w = weights(i);
      Block<R> at[axes];
      block_positions<R, basis, axes>(coords, i, key, at);
      weight = accumulate(weight, w);
      if constexpr (basis == Basis::gaussian) square = accumulate(square, w, w);
#pragma GCC unroll 3
      for (int axis = 0; axis < axes; ++axis) position[axis] = accumulate(position[axis], w, at[axis]);
    }
    sums.weight += reduce_add(weight);
    sums.square += reduce_add(square);
    for (int axis = 0; axis < axes; ++axis) sums.position[axis] += reduce_add(position[axis]);
  }
  return sums;
}

template <class R, Basis basis, int axes>
struct SampleRow {
  using T = typename R::Scalar;

  static void run(const Problem& p, int64_t row, int64_t first, int64_t last, T* scratch, T* samples, T* stats) {
    constexpr int stat_count = basis == Basis::gaussian ? 2 : 1;
    T *a = scratch, *shifted = scratch + p.padded();
    const T* coords[3];
    prepare_coords<Block<R>>(p, row, scratch + 2 * p.padded(), coords);
    prepare_weights<R>(p, row, a);
    for (int64_t s = first; s < last; ++s) {
      const NoiseKey key = noise_key(p.seed, p.first_row + uint64_t(row), uint32_t(s));
      const T shift = bounded_exponents(p) ? T(common_shift(p)) : sample_max<R>(p, a, key);
      const auto sums = sum_sample<R, basis, axes>(p, shifted_exponents<R>(p, a, shift, shifted), coords, key);
      const double square = sums.square / (sums.weight * sums.weight);
      const int64_t out = row * p.samples + s;
      for (int axis = 0; axis < axes; ++axis) {
        double y = sums.position[axis] / sums.weight;
        if constexpr (basis == Basis::gaussian)
          y += double(row_sigma<T>(p, row)) * standard_normal<double>(axis, key) * __builtin_sqrt(square);
        samples[out * axes + axis] = T(y);
      }
      stats[out * stat_count] = T(__builtin_log2(sums.weight) + double(shift));
      if constexpr (basis == Basis::gaussian) stats[out * stat_count + 1] = T(square);
    }
  }
};

// The gradient of one sample (gradient.h) in the cells' precision.
template <class T>
struct SampleSlope {
  T slope[3] = {}, offset = 0, curve = 0;
  T point[3] = {};   // dL/dpoint_ia = point_a w_i
  double sigma = 0;  // dL/dsigma

  SampleSlope() = default;
  template <int axes>
  SampleSlope(const SampleGradient<double, axes>& from, const double (&g)[axes], double inverse)
      : offset(T(from.offset)), curve(T(from.curve)), sigma(from.sigma) {
    for (int axis = 0; axis < axes; ++axis) slope[axis] = T(from.slope[axis]), point[axis] = T(g[axis] * inverse);
  }
};

template <class T, Basis basis, int axes>
SampleSlope<T> sample_slope(const Problem& p, int64_t row, NoiseKey key, const T* grad, const T* y, const T* stats) {
  const double inverse = bounded_exponents(p) ? __builtin_exp2(common_shift(p) - double(stats[0])) : 1;  // 1 / sum of w
  const double chain = p.beta / p.tau * inverse;
  double g[axes], position[axes], n[axes];
  for (int axis = 0; axis < axes; ++axis) g[axis] = grad[axis], position[axis] = y[axis];
  SampleGradient<double, axes> out(g, position, chain);
  if constexpr (basis == Basis::gaussian) {
    for (int axis = 0; axis < axes; ++axis) n[axis] = standard_normal<double>(axis, key);
    out.add_gaussian(g, n, row_sigma<T>(p, row), __builtin_sqrt(double(stats[1])), chain, inverse);
  }
  return {out, g, inverse};
}

template <class R, Basis basis, int axes>
void add_sample_gradient(const Problem& p, const typename R::Scalar* a, const typename R::Scalar* const (&coords)[3],
                         NoiseKey key, int64_t begin, int64_t end, const SampleSlope<typename R::Scalar>& slope,
                         typename R::Scalar* grad_logits, typename R::Scalar* grad_points) {
  using T = typename R::Scalar;
  using V = Block<R>;
  const Weights<R> weights(p, a, key);
  for (int64_t i = begin; i < end; i += V::size) {
    const V w = weights(i);
    V at[axes];
    block_positions<R, basis, axes>(coords, i, key, at);
    V change = V(slope.offset);
    if constexpr (basis == Basis::gaussian) change = fma(w, V(slope.curve), change);
#pragma GCC unroll 3
    for (int axis = 0; axis < axes; ++axis) change = fma(at[axis], V(slope.slope[axis]), change);
    store(grad_logits + i, fma(w, change, load_block<R>(grad_logits + i)));
    if (grad_points == nullptr) continue;
    for (int axis = 0; axis < axes; ++axis) {
      T* out = grad_points + axis * p.padded() + i;
      store(out, fma(w, V(slope.point[axis]), load_block<R>(out)));
    }
  }
}

// Adds the gradient of all samples of a row for the cells [begin, end) to padded tables; returns dL/dsigma.
template <class R, Basis basis, int axes>
struct SampleRowBackward {
  using T = typename R::Scalar;

  static double run(const Problem& p, int64_t row, int64_t begin, int64_t end, const T* grad, const T* samples,
                    const T* stats, T* scratch, T* grad_logits, T* grad_points) {
    constexpr int stat_count = basis == Basis::gaussian ? 2 : 1;
    T *a = scratch, *shifted = scratch + p.padded();
    const T* coords[3];
    prepare_coords<Block<R>>(p, row, scratch + 2 * p.padded(), coords);
    prepare_weights<R>(p, row, a);
    double grad_sigma = 0;
    for (int64_t s = 0; s < p.samples; ++s) {
      const NoiseKey key = noise_key(p.seed, p.first_row + uint64_t(row), uint32_t(s));
      const int64_t at = row * p.samples + s;
      const auto slope =
          sample_slope<T, basis, axes>(p, row, key, grad + at * axes, samples + at * axes, stats + at * stat_count);
      const T* exponents = shifted_exponents<R>(p, a, stats[at * stat_count], shifted);
      add_sample_gradient<R, basis, axes>(p, exponents, coords, key, begin, end, slope, grad_logits, grad_points);
      grad_sigma += slope.sigma;
    }
    return grad_sigma;
  }
};
