// expected_error: samples, their distance to the target and its gradient, in one pass over the noise. For each
// sample the weights and positions of the first half are kept (4 (1 + d) bytes a cell of scratch, d = 0 for the
// bases without noise per cell), so that the gradient costs d + 1 multiply-adds a cell and no noise is drawn
// twice. Equations (14)-(16) of reference/README.md. Work is split over (row, groups of samples); groups are summed in
// their order. No include guard (see foreach_isa.h).

template <class R, Basis basis, int axes>
struct ExpectedErrorRow {
  using T = typename R::Scalar;
  using V = Block<R>;
  static constexpr bool noisy = basis == Basis::uniform || basis == Basis::triangular;

  // As sum_sample, but keeps what it computes for the gradient.
  static SampleSums<T, axes> sum_and_keep(const Problem& p, const T* a, const T* const (&coords)[3], NoiseKey key,
                                          T* weights, T* positions) {
    SampleSums<T, axes> sums;
    const Weights<R> weigh(p, a, key);
    constexpr int64_t panel = blocks_per_panel * V::size;
    for (int64_t begin = 0; begin < p.padded(); begin += panel) {
      const int64_t end = begin + panel < p.padded() ? begin + panel : p.padded();
      R weight(T(0)), square(T(0)), position[axes];
      for (R& sum : position) sum = R(T(0));
      for (int64_t i = begin; i < end; i += V::size) {
        const V w = weigh(i);
        V at[axes];
        block_positions<R, basis, axes>(coords, i, key, at);
        store(weights + i, w);
        weight = accumulate(weight, w);
        if constexpr (basis == Basis::gaussian) square = accumulate(square, w, w);
#pragma GCC unroll 3
        for (int axis = 0; axis < axes; ++axis) {
          if constexpr (noisy) store(positions + axis * p.padded() + i, at[axis]);
          position[axis] = accumulate(position[axis], w, at[axis]);
        }
      }
      sums.weight += reduce_add(weight);
      sums.square += reduce_add(square);
      for (int axis = 0; axis < axes; ++axis) sums.position[axis] += reduce_add(position[axis]);
    }
    return sums;
  }

  static void add_gradient(const Problem& p, const T* weights, const T* const (&at)[3], const SampleSlope<T>& slope,
                           T* grad_logits, T* grad_points) {
    for (int64_t i = 0; i < p.padded(); i += V::size) {
      const V w = load_block<R>(weights + i);
      V change = V(slope.offset);
      if constexpr (basis == Basis::gaussian) change = fma(w, V(slope.curve), change);
#pragma GCC unroll 3
      for (int axis = 0; axis < axes; ++axis) change = fma(load_block<R>(at[axis] + i), V(slope.slope[axis]), change);
      store(grad_logits + i, fma(w, change, load_block<R>(grad_logits + i)));
      if (grad_points == nullptr) continue;
      for (int axis = 0; axis < axes; ++axis) {
        T* out = grad_points + axis * p.padded() + i;
        store(out, fma(w, V(slope.point[axis]), load_block<R>(out)));
      }
    }
  }

  // One sample: adds its distance and gradients to the row's.
  static void add_sample(const Problem& p, Metric metric, int64_t row, int64_t s, const T* target, T* a,
                         const T* const (&coords)[3], T* scratch, ErrorPart<T>& out) {
    const int64_t padded = p.padded();
    T *shifted = scratch, *weights = scratch + padded, *positions = scratch + 2 * padded;
    const NoiseKey key = noise_key(p.seed, p.first_row + uint64_t(row), uint32_t(s));
    const T shift = bounded_exponents(p) ? T(common_shift(p)) : sample_max<R>(p, a, key);
    const T* exponents = shifted_exponents<R>(p, a, shift, shifted);
    const auto sums = sum_and_keep(p, exponents, coords, key, weights, positions);

    const double inverse = 1 / sums.weight, square = sums.square * inverse * inverse;
    const double sigma = row_sigma<T>(p, row), spread = __builtin_sqrt(square);
    double y[axes], n[axes] = {}, difference[axes], slope[axes];
    for (int axis = 0; axis < axes; ++axis) {
      if constexpr (basis == Basis::gaussian) n[axis] = standard_normal<double>(axis, key);
      y[axis] = sums.position[axis] * inverse + sigma * n[axis] * spread;
      difference[axis] = y[axis] - double(target[axis]);
    }
    out.error += distance<axes>(metric, difference, slope);

    const double chain = p.beta / p.tau * inverse / double(p.samples);
    SampleGradient<double, axes> gradient(slope, y, chain);
    if constexpr (basis == Basis::gaussian) gradient.add_gaussian(slope, n, sigma, spread, chain, inverse);
    for (int axis = 0; axis < axes; ++axis) out.grad_target[axis] -= slope[axis];
    out.grad_sigma += gradient.sigma;
    const SampleSlope<T> step(gradient, slope, inverse / double(p.samples));
    if (out.grad_logits != nullptr) {
      const T* at[3];
      for (int axis = 0; axis < axes; ++axis) at[axis] = noisy ? positions + axis * padded : coords[axis];
      add_gradient(p, weights, at, step, out.grad_logits, out.grad_points);
    }
  }

  static int run(const Problem& p, Metric metric, int64_t row, int64_t first, int64_t last, const T* target, T* scratch,
                 ErrorPart<T>* out) {
    T* a = scratch;
    const T* coords[3];
    prepare_coords<Block<R>>(p, row, scratch + p.padded(), coords);
    prepare_weights<R>(p, row, a);
    for (int64_t s = first; s < last; ++s)
      add_sample(p, metric, row, s, target, a, coords, scratch + (1 + p.axes) * p.padded(), *out);
    return 0;
  }
};
