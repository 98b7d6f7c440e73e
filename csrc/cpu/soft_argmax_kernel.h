// soft_argmax, forward and backward: mean, variance, peak and entropy of p = softmax(beta z). Equations (25)-(30) of
// reference/README.md. One pass over the row makes the weights and all sums but the variance, which takes a second
// pass over the weights kept in scratch, about the mean, so that nothing cancels. Work is split over rows.
// No include guard (see foreach_isa.h).

// log2 of a weight for the entropy, where p log p -> 0: a cell of -inf must not give 0 * inf.
template <class R>
SA_INLINE Block<R> finite(Block<R> a) {
  return max(Block<R>(typename R::Scalar(-1000)), a);
}

template <class R, Basis, int axes>
struct SoftArgmaxRow {
  using T = typename R::Scalar;
  using V = Block<R>;

  static int run(const Problem& p, int64_t row, T* scratch, T* mean, T* variance, T* peak, T* entropy) {
    T *a = scratch, *weights = scratch + p.padded();
    const T* coords[3];
    prepare_coords(p, row, scratch + 2 * p.padded(), coords);
    prepare_exponents<R>(p, row, p.beta * 1.4426950408889634, 0, a);
    constexpr int64_t panel = 32 * V::size;
    double total = 0, log_sum = 0, position[axes] = {}, square[axes] = {};
    for (int64_t begin = 0; begin < p.padded(); begin += panel) {
      const int64_t end = begin + panel < p.padded() ? begin + panel : p.padded();
      R weight(T(0)), logs(T(0)), at[axes];
      for (R& sum : at) sum = R(T(0));
      for (int64_t i = begin; i < end; i += V::size) {
        const V exponent = load_block<R>(a + i), w = exp2(exponent);
        store(weights + i, w);
        weight = accumulate(weight, w);
        logs = accumulate(logs, w, finite(exponent));
        for (int axis = 0; axis < axes; ++axis) at[axis] = accumulate(at[axis], w, load_block<R>(coords[axis] + i));
      }
      total += reduce_add(weight), log_sum += reduce_add(logs);
      for (int axis = 0; axis < axes; ++axis) position[axis] += reduce_add(at[axis]);
    }
    for (int axis = 0; axis < axes; ++axis) position[axis] /= total;
    for (int64_t begin = 0; begin < p.padded(); begin += panel) {
      const int64_t end = begin + panel < p.padded() ? begin + panel : p.padded();
      for (int axis = 0; axis < axes; ++axis) {
        const V centre = V(T(position[axis]));
        R sum(T(0));
        for (int64_t i = begin; i < end; i += V::size) {
          const V from_mean = load_block<R>(coords[axis] + i) - centre;
          sum = accumulate(sum, load_block<R>(weights + i), from_mean * from_mean);
        }
        square[axis] += reduce_add(sum);
      }
    }
    for (int axis = 0; axis < axes; ++axis) {
      mean[row * axes + axis] = T(position[axis]);
      variance[row * axes + axis] = T(square[axis] / total);
    }
    peak[row] = T(1 / total);
    entropy[row] = T(0.6931471805599453 * (__builtin_log2(total) - log_sum / total));
    return 0;
  }
};

// dL/dz_i = beta p_i (sum_a gm_a (c - m) + gv_a ((c - m)^2 - v) - gh (ln p_i + H) - gp peak) + beta gp peak [i first
// peak]; points add p_i (gm_a + 2 gv_a (c - m)).
template <class R, Basis, int axes>
struct SoftArgmaxRowBackward {
  using T = typename R::Scalar;
  using V = Block<R>;

  static int run(const Problem& p, int64_t row, MomentRow<T> grad, MomentRow<T> value, T* scratch, T* grad_logits,
                 T* grad_points) {
    constexpr double ln2 = 0.6931471805599453;
    T* a = scratch;
    const T* coords[3];
    prepare_coords(p, row, scratch + p.padded(), coords);
    prepare_exponents<R>(p, row, p.beta * 1.4426950408889634, 0, a);
    const double peak = *value.peak, grad_peak = *grad.peak, grad_entropy = *grad.entropy;
    double constant = -grad_entropy * (ln2 * __builtin_log2(peak) + double(*value.entropy)) - grad_peak * peak;
    for (int axis = 0; axis < axes; ++axis) constant -= double(grad.variance[axis]) * double(value.variance[axis]);
    for (int64_t i = 0; i < p.padded(); i += V::size) {
      const V exponent = load_block<R>(a + i), probability = exp2(exponent) * V(T(peak));
      V change = fma(finite(exponent), V(T(-grad_entropy * ln2)), V(T(constant)));
      for (int axis = 0; axis < axes; ++axis) {
        const V from_mean = load_block<R>(coords[axis] + i) - V(value.mean[axis]);
        const V slope = fma(from_mean, V(grad.variance[axis]), V(grad.mean[axis]));
        change = fma(slope, from_mean, change);
        if (grad_points == nullptr) continue;
        T* out = grad_points + axis * p.padded() + i;
        const V point_slope = fma(from_mean, V(2 * grad.variance[axis]), V(grad.mean[axis]));
        store(out, fma(probability, point_slope, load_block<R>(out)));
      }
      store(grad_logits + i, probability * change * V(T(p.beta)));
    }
    for (int64_t i = 0; i < p.cells; ++i) {
      if (a[i] != 0) continue;
      grad_logits[i] += T(p.beta * grad_peak * peak);
      break;
    }
    return 0;
  }
};
