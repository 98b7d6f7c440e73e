// axis_sample, forward and backward: the released estimator. Weights as in sample; they are summed to one marginal
// per axis, and all noise lives on the few bins of the marginals. Equations (17)-(24) of reference/README.md. A cell
// costs one word, its weight, and one pass over a scratch row of weights; the marginals are kept for backward
// (S (W + H + D) numbers a row). Forward work is split over (row, samples), backward over (row, lines of cells).
// No include guard (see foreach_isa.h).

template <class R>
void store_weights(const Problem& p, const typename R::Scalar* a, NoiseKey key, int64_t begin, int64_t end,
                   typename R::Scalar* weights) {
  const Weights<R> weigh(p, a, key);
  for (int64_t i = begin; i < end; i += Block<R>::size) store(weights + i, weigh(i));
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

template <class R>
double sum_products(const typename R::Scalar* a, const typename R::Scalar* b, int64_t count) {
  double out = 0;
  int64_t i = 0;
  for (; i + R::lanes <= count; i += R::lanes * 64) {
    R total(typename R::Scalar(0));
    const int64_t end = i + R::lanes * 64 < count ? i + R::lanes * 64 : count;
    for (int64_t k = i; k + R::lanes <= end; k += R::lanes) total = fma(load(a + k, R()), load(b + k, R()), total);
    out += double(reduce_add(total));
  }
  for (i = count / R::lanes * R::lanes; i < count; ++i) out += double(a[i]) * double(b[i]);
  return out;
}

// The noise of the bins of a block from the first one on: standard normals, equation (4).
template <class R>
Block<R> block_normals(int64_t first, NoiseKey key) {
  using T = typename R::Scalar;
  using V = Block<R>;
  T parity[V::size];
  uint32_t words[V::size], radii[V::size], angles[V::size];
  const Words<R> drawn = cell_words<R>(first, key, kNormal);
  SA_EACH(R) store(words + j * R::lanes, drawn.r[j]);
  for (int i = 0; i < V::size; ++i) {
    radii[i] = ~words[i & ~1];  // 1 - u, whose logarithm keeps all digits as the Gumbel noise's does
    angles[i] = words[i | 1];
    parity[i] = T(i & 1 ? 1 : -1);
  }
  Words<R> radius, angle;
  SA_EACH(R) {
    radius.r[j] = load_words(radii + j * R::lanes);
    angle.r[j] = load_words(angles + j * R::lanes);
  }
  const V turn = fma(to_number<V>(angle), V(T(0x1p-32)), V(T(0x1p-33)));  // in [-1/2, 1/2): words are signed numbers
  const V quarter = V(T(0.25)), from_quarter = quarter - abs(turn);       // cos(2 pi x) = sin(2 pi (1/4 - |x|))
  const V folded = where_negative(load_block<R>(parity), from_quarter, copysign(quarter - abs(from_quarter), turn));
  return sqrt(exponential<V>(radius) * V(T(1.3862943611198906))) * sin_turn(folded);
}

// The noise of every bin: a jitter of the basis, or standard normals for gaussian. `noise` is padded.
template <class R, Basis basis>
void bin_noise(int64_t bins, NoiseKey key, typename R::Scalar* noise) {
  using T = typename R::Scalar;
  using V = Block<R>;
  if constexpr (basis == Basis::gaussian && is_double<V>) {
    for (int64_t f = 0; f < bins; f += 2) {
      const auto pair = standard_normals<T>(uint32_t(f), key);
      noise[f] = pair.even, noise[f + 1] = pair.odd;
    }
  } else if constexpr (basis == Basis::gaussian) {
    for (int64_t f = 0; f < bins; f += V::size) store(noise + f, block_normals<R>(f, key));
  } else if constexpr (basis != Basis::none) {
    const V origin = V(T(basis == Basis::uniform ? field_shift<V> : 0));
    for (int64_t f = 0; f < bins; f += V::size)
      store(noise + f, jittered<basis>(to_number<V>(cell_fields<R>(f, key)), origin));
  }
}

constexpr int64_t padded_bins(int64_t size) { return (size + cell_padding - 1) / cell_padding * cell_padding; }

// A line of bins with zeros before and behind it: the axes take turns on one set of lines.
template <class T>
struct BinLine {
  T* data;
  BinLine(T*& scratch, int64_t longest) : data(scratch + cell_padding) {
    const int64_t behind = padded_bins(longest) + cell_padding;
    for (int64_t j = -cell_padding; j < behind; ++j) data[j] = T(0);
    scratch = data + behind;
  }
  void copy(const T* from, int64_t size) const {
    for (int64_t j = 0; j < size; ++j) data[j] = from[j];
    for (int64_t j = size; j < padded_bins(size) + cell_padding; ++j) data[j] = T(0);
  }
};

// Room of a thread: the bins' numbers, weights and noise, what of them leans up and what leans down; the noise of all
// axes.
template <class T>
struct BinScratch {
  BinLine<T> number, h, noise, up, down;
  T* all_noise;
  BinScratch(T* scratch, int64_t longest)
      : number(scratch, longest),
        h(scratch, longest),
        noise(scratch, longest),
        up(scratch, longest),
        down(scratch, longest),
        all_noise(scratch) {
    count_from(0, longest);
  }
  // The numbers of an axis' bins.
  void count_from(int64_t start, int64_t bins) const {
    for (int64_t j = 0; j < padded_bins(bins); ++j) number.data[j] = T(j - start);
  }
};

// The bins of one axis: q_j, the weight of bin j before it is normalised, and u_j, its position. Behind the last bin h
// and the noise are 0, and so is q.
template <class R, Basis basis>
struct Axis {
  using T = typename R::Scalar;
  using V = Block<R>;
  const BinScratch<T>& own;
  const T *number, *h, *noise;
  int64_t size;
  T sigma, exponent;  // the reweighting is 2^(exponent n^2)

  Axis(const BinScratch<T>& scratch, const T* from_h, const T* from_noise, int64_t bins, T width, double reweight)
      : own(scratch),
        number(scratch.number.data),
        h(scratch.h.data),
        noise(scratch.noise.data),
        size(bins),
        sigma(width),
        exponent(T(-reweight * 1.4426950408889634)) {
    own.h.copy(from_h, size);
    if constexpr (basis != Basis::none) own.noise.copy(from_noise, size);
  }

  SA_INLINE V u(int64_t j) const {
    const V centre = load_block<R>(number + j);
    if constexpr (basis == Basis::none) return centre;
    if constexpr (basis == Basis::gaussian) return fma(load_block<R>(noise + j), V(sigma), centre);
    return centre + load_block<R>(noise + j);
  }
  SA_INLINE V factor(int64_t j) const {
    const V n = load_block<R>(noise + j);
    return exp2(n * n * V(exponent));
  }
  SA_INLINE V q(int64_t j) const {
    const V plain = load_block<R>(h + j);
    if constexpr (basis == Basis::gaussian) return exponent == 0 ? plain : plain * factor(j);
    if constexpr (basis == Basis::triangular) {
      // The bin that the jitter leans on: the one below or above, whose weight outside of the map is 0.
      const V n = load_block<R>(noise + j);
      const V beside = where_negative(n, load_block<R>(h + j - 1), load_block<R>(h + j + 1));
      return fma(abs(n), beside - plain, plain);
    }
    return plain;
  }

  struct Sums {
    double q = 0, qu = 0, qn = 0, q_above = 0;
    double coordinate() const { return qu / q; }
  };
  // With `above`, also the sum of q over the bins at or above it; of gaussian q n too.
  Sums sums(const T* above = nullptr) const {
    Sums out;
    for (int64_t begin = 0; begin < size; begin += blocks_per_panel * V::size) {
      const int64_t end = begin + blocks_per_panel * V::size < size ? begin + blocks_per_panel * V::size : size;
      R weight(T(0)), position(T(0)), moved(T(0)), higher(T(0));
      for (int64_t j = begin; j < end; j += V::size) {
        const V own_q = q(j), own_u = u(j);
        weight = accumulate(weight, own_q);
        position = accumulate(position, own_q, own_u);
        if constexpr (basis == Basis::gaussian) moved = accumulate(moved, own_q, load_block<R>(noise + j));
        if (above != nullptr) higher = accumulate(higher, where_negative(own_u - V(*above), V(T(0)), own_q));
      }
      out.q += double(reduce_add(weight)), out.qu += double(reduce_add(position));
      out.qn += double(reduce_add(moved)), out.q_above += double(reduce_add(higher));
    }
    if (basis == Basis::none || basis == Basis::uniform) out.q = 1;  // h is normalised already
    return out;
  }

  // Writes grad * dc/dh to grad_h, which is padded; returns grad * dc/dsigma.
  double backward(double grad, double clip, T* grad_h) const {
    const Sums total = sums();
    const double c = total.coordinate();
    const T place = T(c);
    // The mean of the slopes: positions, or the released +-A by the side of c that a bin is on.
    const double mean = clip == 0 ? c : clip * (2 * sums(&place).q_above / total.q - 1);
    const V scale = V(T(grad / total.q)), low = V(T((-clip - mean) * grad / total.q)),
            high = V(T((clip - mean) * grad / total.q)), centre = V(place);
    for (int64_t j = 0; j < size; j += V::size) {
      const V from_centre = u(j) - centre;
      V slope = clip == 0 ? from_centre * scale : where_negative(from_centre, low, high);
      if constexpr (basis == Basis::gaussian)
        if (exponent != 0) slope = slope * factor(j);
      if constexpr (basis == Basis::triangular) {
        const V n = load_block<R>(noise + j), leaning = abs(n) * slope, zero = V(T(0));
        store(own.up.data + j, where_negative(n, zero, leaning));
        store(own.down.data + j, where_negative(n, leaning, zero));
        slope = slope - leaning;
      }
      store(grad_h + j, slope);
    }
    if constexpr (basis == Basis::triangular) add_leaning(grad_h);
    return basis == Basis::gaussian ? grad * total.qn / total.q : 0;
  }

  // What the bins below and above have of a bin's weight.
  void add_leaning(T* grad_h) const {
    own.down.data[(size + V::size - 1) / V::size * V::size] = T(0);  // a longer axis may have left something there
    for (int64_t j = 0; j < size; j += V::size)
      store(grad_h + j,
            load_block<R>(grad_h + j) + load_block<R>(own.up.data + j - 1) + load_block<R>(own.down.data + j + 1));
  }
};

// Calls body(axis, its number, its first bin) for every axis of one sample, in the order of its bins.
template <class R, Basis basis, int axes, class Body>
SA_INLINE void for_each_axis(const Problem& p, int64_t row, const AxisOptions& options,
                             const BinScratch<typename R::Scalar>& scratch, const typename R::Scalar* h,
                             const Body& body) {
  using T = typename R::Scalar;
  const Bins bins = bins_of(p);
  const int64_t sizes[3] = {bins.width, bins.height, bins.depth};
  int64_t first = 0;
  for (int axis = 0; axis < axes; ++axis) {
    if (p.origins != nullptr) scratch.count_from(p.start(row, axis), sizes[axis]);
    body(Axis<R, basis>(scratch, h + first, scratch.all_noise + first, sizes[axis], row_sigma<T>(p, row),
                        options.reweight),
         axis, first);
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
    const BinScratch<T> lines(weights + p.padded(), p.longest_axis());
    prepare_weights<R>(p, row, a);
    for (int64_t s = first; s < last; ++s) {
      const NoiseKey key = noise_key(p.seed, p.first_row + uint64_t(row), uint32_t(s));
      const T shift = bounded_exponents(p) ? T(common_shift(p)) : sample_max<R>(p, a, key);
      store_weights<R>(p, shifted_exponents<R>(p, a, shift, shifted), key, 0, p.padded(), weights);
      const int64_t out = row * p.samples + s;
      T* h = marginals + out * bins;
      const double sum = sum_marginals<R, axes>(p, weights, h);
      bin_noise<R, basis>(bins, key, lines.all_noise);
      for_each_axis<R, basis, axes>(p, row, options, lines, h, [&](const Axis<R, basis>& axis, int i, int64_t) {
        samples[out * axes + i] = T(axis.sums().coordinate());
      });
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
    T* grad_h = weights + p.padded();
    const BinScratch<T> lines(grad_h + bins + cell_padding, p.longest_axis());
    if constexpr (axes > 1) prepare_weights<R>(p, row, a);
    double grad_sigma = 0;
    for (int64_t s = 0; s < p.samples; ++s) {
      const NoiseKey key = noise_key(p.seed, p.first_row + uint64_t(row), uint32_t(s));
      const int64_t at = row * p.samples + s;
      const T* h = marginals + at * bins;
      bin_noise<R, basis>(bins, key, lines.all_noise);
      for_each_axis<R, basis, axes>(p, row, options, lines, h, [&](const Axis<R, basis>& axis, int i, int64_t bin) {
        grad_sigma += axis.backward(double(grad[at * axes + i]), options.clip_grad, grad_h + bin);
      });
      const double mean = sum_products<R>(h, grad_h, bins), chain = p.beta / p.tau;
      if constexpr (axes == 1) {  // the marginal is the weights
        add_lines(p, h, grad_h, mean, chain, begin, end, grad_logits);
        continue;
      }
      store_weights<R>(p, shifted_exponents<R>(p, a, stats[at], shifted), key, first, last, weights);
      const double inverse = bounded_exponents(p) ? __builtin_exp2(common_shift(p) - double(stats[at])) : 1;
      add_lines(p, weights, grad_h, mean, chain * inverse, begin, end, grad_logits);
    }
    return grad_sigma;
  }
};
