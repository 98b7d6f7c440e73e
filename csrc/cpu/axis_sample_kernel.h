// axis_sample, forward and backward: the released estimator. Weights as in sample; they are summed to one marginal
// per axis, and all noise lives on the few bins of the marginals. Equations (17)-(24) of reference/README.md. A cell
// costs one word, its weight, and one pass over a scratch row of weights; the marginals are kept for backward
// (S (W + H + D) numbers a row). Forward work is split over (row, samples), backward over (row, lines of cells).
// No include guard (see foreach_isa.h).

template <class R>
void store_weights(const Problem& p, const typename R::Scalar* a, NoiseKey key, int64_t begin, int64_t end,
                   typename R::Scalar* weights) {
  using T = typename R::Scalar;
  for (int64_t i = begin; i < end; i += Block<R>::size)
    store(weights + i, exp2(weight_exponents<R>(a, i, key, T(-1 / p.tau))));
}

// marginal += line; returns the line's sum.
template <class R>
typename R::Scalar add_line(const typename R::Scalar* line, int64_t width, typename R::Scalar* marginal) {
  using T = typename R::Scalar;
  R total(T(0));
  int64_t x = 0;
  for (; x + R::lanes <= width; x += R::lanes) {
    const R w = load(line + x, R());
    store(marginal + x, load(marginal + x, R()) + w);
    total = total + w;
  }
  T sum = reduce_add(total);
  for (; x < width; ++x) {
    marginal[x] += line[x];
    sum += line[x];
  }
  return sum;
}

// Bins of all axes, one after another: x, y, z.
struct Bins {
  int64_t width, height, depth;
  int64_t total(int axes) const { return width + (axes > 1 ? height : 0) + (axes > 2 ? depth : 0); }
};

inline Bins bins_of(const Problem& p) { return {p.shape[2], p.shape[1], p.shape[0]}; }

// Normalised marginals of one sample; returns the sum of its weights.
template <class R, int axes>
double sum_marginals(const Problem& p, const typename R::Scalar* weights, typename R::Scalar* h) {
  using T = typename R::Scalar;
  const Bins bins = bins_of(p);
  const int64_t total_bins = bins.total(axes);
  for (int64_t j = 0; j < total_bins; ++j) h[j] = T(0);
  double sum = 0;
  for (int64_t z = 0; z < bins.depth; ++z) {
    double slice = 0;
    for (int64_t y = 0; y < bins.height; ++y) {
      const T line = add_line<R>(weights + (z * bins.height + y) * bins.width, bins.width, h);
      if constexpr (axes > 1) h[bins.width + y] += line;
      slice += double(line);
    }
    if constexpr (axes > 2) h[bins.width + bins.height + z] = T(slice);
    sum += slice;
  }
  const T scale = T(1 / sum);
  for (int64_t j = 0; j < total_bins; ++j) h[j] *= scale;
  return sum;
}

// The noise of every bin: a jitter of the basis, or standard normals for gaussian. `noise` is padded.
template <class R, Basis basis>
void bin_noise(int64_t bins, NoiseKey key, typename R::Scalar* noise) {
  using T = typename R::Scalar;
  using V = Block<R>;
  if constexpr (basis == Basis::gaussian) {
    for (int64_t f = 0; f < bins; f += 2) {
      const auto pair = standard_normals<double>(uint32_t(f), key);
      noise[f] = T(pair.even), noise[f + 1] = T(pair.odd);
    }
  } else if constexpr (basis != Basis::none) {
    const V origin = V(T(basis == Basis::uniform ? field_shift<V> : 0));
    for (int64_t f = 0; f < bins; f += V::size)
      store(noise + f, jittered<basis>(to_number<V>(cell_fields<R>(f, key)), origin));
  } else {
    for (int64_t f = 0; f < bins; ++f) noise[f] = T(0);
  }
}

// The bins of one axis: q_j, the weight of bin j before it is normalised, and u_j, its position.
template <class T, Basis basis>
struct Axis {
  const T *h, *noise;
  int64_t size;
  double sigma, reweight;

  SA_INLINE double u(int64_t j) const {
    return double(j) + (basis == Basis::gaussian ? sigma * double(noise[j]) : double(noise[j]));
  }
  SA_INLINE double factor(int64_t j) const {
    return reweight == 0 ? 1 : __builtin_exp(-reweight * double(noise[j]) * double(noise[j]));
  }
  // The bin that the jitter leans on; -1 or size where it leans out of the map, whose weight there is 0.
  SA_INLINE int64_t neighbour(int64_t j) const { return noise[j] < 0 ? j - 1 : j + 1; }
  SA_INLINE double lean(int64_t j) const { return __builtin_fabs(double(noise[j])); }

  SA_INLINE double q(int64_t j) const {
    if constexpr (basis == Basis::gaussian) return double(h[j]) * factor(j);
    if constexpr (basis == Basis::triangular) {
      const int64_t other = neighbour(j);
      const double beside = other < 0 || other >= size ? 0 : double(h[other]);
      return (1 - lean(j)) * double(h[j]) + lean(j) * beside;
    }
    return double(h[j]);
  }

  struct Sums {
    double q = 0, qu = 0;
    double coordinate() const { return qu / q; }
  };
  Sums sums() const {
    Sums out;
    for (int64_t j = 0; j < size; ++j) {
      const double weight = q(j);
      out.q += weight, out.qu += weight * u(j);
    }
    if (basis == Basis::none || basis == Basis::uniform) out.q = 1;  // h is normalised already
    return out;
  }

  // Adds grad * dc/dh to grad_h; returns grad * dc/dsigma.
  double backward(double grad, double clip, T* grad_h) const {
    const Sums total = sums();
    const double c = total.coordinate();
    double mean = 0, grad_sigma = 0;
    for (int64_t j = 0; j < size; ++j) {
      const double weight = q(j) / total.q;
      mean += weight * slope(j, c, clip);
      grad_sigma += weight * double(noise[j]);
    }
    for (int64_t j = 0; j < size; ++j) {
      const double dc_dq = (slope(j, c, clip) - mean) / total.q * grad;
      if constexpr (basis == Basis::triangular) {
        const int64_t other = neighbour(j);
        grad_h[j] += T((1 - lean(j)) * dc_dq);
        if (other >= 0 && other < size) grad_h[other] += T(lean(j) * dc_dq);
      } else {
        grad_h[j] += T(basis == Basis::gaussian ? dc_dq * factor(j) : dc_dq);
      }
    }
    return basis == Basis::gaussian ? grad * grad_sigma : 0;
  }

  // dc/dq_j times the sum of q, before the mean is taken off: the position, or the released +-A.
  SA_INLINE double slope(int64_t j, double c, double clip) const {
    if (clip == 0) return u(j);
    return u(j) >= c ? clip : -clip;
  }
};

template <class T, Basis basis, int axes>
void axes_of(const Problem& p, int64_t row, const AxisOptions& options, const T* h, const T* noise,
             Axis<T, basis> (&out)[axes]) {
  const Bins bins = bins_of(p);
  const int64_t sizes[3] = {bins.width, bins.height, bins.depth};
  int64_t first = 0;
  for (int axis = 0; axis < axes; ++axis) {
    out[axis] = {h + first, noise + first, sizes[axis], double(row_sigma<T>(p, row)), options.reweight};
    first += sizes[axis];
  }
}

template <class R, Basis basis, int axes>
struct AxisSampleRow {
  using T = typename R::Scalar;

  static int run(const Problem& p, AxisOptions options, int64_t row, int64_t first, int64_t last, T* scratch,
                 T* samples, T* marginals, T* stats) {
    const int64_t bins = bins_of(p).total(axes);
    T *a = scratch, *shifted = scratch + p.padded(), *weights = shifted + p.padded();
    T* noise = weights + p.padded();
    prepare_exponents<R>(p, row, a);
    for (int64_t s = first; s < last; ++s) {
      const NoiseKey key = noise_key(p.seed, p.first_row + uint64_t(row), uint32_t(s));
      const T shift = bounded_exponents(p) ? T(common_shift(p)) : sample_max<R>(p, a, key);
      store_weights<R>(p, shifted_exponents<R>(p, a, shift, shifted), key, 0, p.padded(), weights);
      const int64_t out = row * p.samples + s;
      T* h = marginals + out * bins;
      const double sum = sum_marginals<R, axes>(p, weights, h);
      bin_noise<R, basis>(bins, key, noise);
      Axis<T, basis> axis[axes];
      axes_of<T, basis, axes>(p, row, options, h, noise, axis);
      for (int i = 0; i < axes; ++i) samples[out * axes + i] = T(axis[i].sums().coordinate());
      stats[out] = T(__builtin_log2(sum) + double(shift));
    }
    return 0;
  }
};

// Adds the gradient of all samples of a row for the lines [begin, end) of cells to a padded table.
template <class R, Basis basis, int axes>
struct AxisSampleRowBackward {
  using T = typename R::Scalar;

  // dL/dz_i = chain w_i (dL/dh_x + dL/dh_y + dL/dh_z - mean), the softmax's derivative summed over the axes.
  static void add_lines(const Problem& p, const T* weights, const T* grad_h, double mean, double chain, int64_t begin,
                        int64_t end, T* grad_logits) {
    const Bins bins = bins_of(p);
    for (int64_t line = begin; line < end; ++line) {
      double base = -mean;
      if constexpr (axes > 1) base += double(grad_h[bins.width + line % bins.height]);
      if constexpr (axes > 2) base += double(grad_h[bins.width + bins.height + line / bins.height]);
      const T offset = T(base), factor = T(chain);
      const T* w = weights + line * bins.width;
      T* out = grad_logits + line * bins.width;
      int64_t x = 0;
      for (; x + R::lanes <= bins.width; x += R::lanes) {
        const R change = (load(grad_h + x, R()) + R(offset)) * R(factor);
        store(out + x, fma(load(w + x, R()), change, load(out + x, R())));
      }
      for (; x < bins.width; ++x) out[x] += w[x] * ((grad_h[x] + offset) * factor);
    }
  }

  static double run(const Problem& p, AxisOptions options, int64_t row, int64_t begin, int64_t end, const T* grad,
                    const T* marginals, const T* stats, T* scratch, T* grad_logits) {
    const int64_t bins = bins_of(p).total(axes), block = Block<R>::size;
    const int64_t first = begin * p.shape[2] / block * block, last = (end * p.shape[2] + block - 1) / block * block;
    T *a = scratch, *shifted = scratch + p.padded(), *weights = shifted + p.padded();
    T *noise = weights + p.padded(), *grad_h = noise + bins + cell_padding;
    prepare_exponents<R>(p, row, a);
    double grad_sigma = 0;
    for (int64_t s = 0; s < p.samples; ++s) {
      const NoiseKey key = noise_key(p.seed, p.first_row + uint64_t(row), uint32_t(s));
      const int64_t at = row * p.samples + s;
      store_weights<R>(p, shifted_exponents<R>(p, a, stats[at], shifted), key, first, last, weights);
      bin_noise<R, basis>(bins, key, noise);
      const T* h = marginals + at * bins;
      Axis<T, basis> axis[axes];
      axes_of<T, basis, axes>(p, row, options, h, noise, axis);
      for (int64_t j = 0; j < bins; ++j) grad_h[j] = T(0);
      for (int i = 0; i < axes; ++i)
        grad_sigma += axis[i].backward(double(grad[at * axes + i]), options.clip_grad, grad_h + (axis[i].h - h));
      double mean = 0;
      for (int64_t j = 0; j < bins; ++j) mean += double(h[j]) * double(grad_h[j]);
      const double inverse = bounded_exponents(p) ? __builtin_exp2(common_shift(p) - double(stats[at])) : 1;
      add_lines(p, weights, grad_h, mean, p.beta / p.tau * inverse, begin, end, grad_logits);
    }
    return grad_sigma;
  }
};
