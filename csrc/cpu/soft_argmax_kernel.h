// soft_argmax, forward and backward: mean, covariance, peak and entropy of p = softmax(beta z). Equations (25)-(30) of
// reference/README.md. Work is split over parts of rows, which stay in the first cache: a part's logits are read from
// memory once and its covariance is taken about its own mean, so that nothing cancels. No include guard (see
// foreach_isa.h).

// log2 of a weight for the entropy, where p log p -> 0: a cell of -inf must not give 0 * inf.
template <class R>
SA_INLINE Block<R> finite(Block<R> a) {
  return max(Block<R>(typename R::Scalar(-1000)), a);
}

// The first cell of the largest logit; NaNs are passed over here and spoil their row through its weights.
template <class R>
int64_t first_largest(const typename R::Scalar* z, int64_t padded) {
  using T = typename R::Scalar;
  constexpr int64_t panel = 8 * Block<R>::size;
  T top = -T(__builtin_inf());
  int64_t from = 0;
  for (int64_t begin = 0; begin < padded; begin += panel) {
    const T here = row_max<R>(z + begin, begin + panel < padded ? panel : padded - begin);
    if (here > top) top = here, from = begin;
  }
  if (top == -T(__builtin_inf())) return 0;
  const int32_t count = int32_t(from + panel < padded ? panel : padded - from);
  int32_t at = count;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t here = z[from + i] == top ? i : count;
    at = here < at ? here : at;
  }
  return from + at;
}

// The grid's coordinates of a part, in tables, line by line, as a row counts them; `only_z` where another part left the
// same x and y.
template <class R, Basis, int axes>
struct MomentCoords {
  using T = typename R::Scalar;

  static int run(const Problem& p, int64_t row, MomentCells cells, bool only_z, T* tables) {
    const int64_t width = p.shape[2], height = p.shape[1];
    const int64_t start[3] = {p.start(row, 0), p.start(row, 1), p.start(row, 2)};
    int64_t x = cells.begin % width, y = cells.begin / width % height, z = cells.begin / (width * height);
    for (int64_t i = 0, end = cells.end - cells.begin; i < end; x = 0) {
      const int32_t count = int32_t(end - i < width - x ? end - i : width - x), first = int32_t(x - start[0]);
      const T at_y = T(y - start[1]), at_z = T(z - start[2]);
      T* at = tables + i;
      for (int32_t k = 0; !only_z && k < count; ++k) at[k] = T(first + k);
      for (int32_t k = 0; !only_z && axes > 1 && k < count; ++k) at[moment_table + k] = at_y;
      for (int32_t k = 0; axes > 2 && k < count; ++k) at[2 * moment_table + k] = at_z;
      i += count;
      if (++y == height) y = 0, ++z;
    }
    return 0;
  }
};

template <class R, Basis, int axes>
struct SoftArgmaxPart {
  using T = typename R::Scalar;
  using V = Block<R>;
  using Part = MomentPart<double, 3>;             // of fewer axes it has room to spare
  static constexpr int64_t panel = 32 * V::size;  // what is added up in single precision

  static int run(const Problem& p, int64_t row, MomentCells cells, const T* coords, T* scratch, Part* out) {
    const T* z = padded_cells(p, row, cells.begin, cells.end, scratch);
    Part part{};
    const int64_t first = first_largest<R>(z, cells.padded);
    part.first = double(first), part.top = z[first] == z[first] ? double(z[first]) : -__builtin_inf();
    // Of a part of -inf alone all weights are 0, and another part may have some.
    const T top = part.top > -__builtin_inf() ? z[first] : T(0);
    for (int64_t i = 0; i < cells.padded; i += panel)
      add_weights(p, z, top, coords, scratch, i, i + panel < cells.padded ? i + panel : cells.padded, part);
    for (int axis = 0; axis < axes; ++axis) part.mean[axis] = part.total > 0 ? part.mean[axis] / part.total : 0;
    for (int64_t i = 0; i < cells.padded; i += panel)
      add_squares(coords, scratch, i, i + panel < cells.padded ? i + panel : cells.padded, part);
    *out = part;
    return 0;
  }

  // Makes the weights of cells begin .. end and adds up them, their logarithms and their positions.
  static void add_weights(const Problem& p, const T* z, T top, const T* coords, T* weights, int64_t begin, int64_t end,
                          Part& part) {
    const V scale(T(p.beta * 1.4426950408889634)), moved(top);
    R total(T(0)), logs(T(0)), at[axes];
    for (R& sum : at) sum = R(T(0));
    for (int64_t i = begin; i < end; i += V::size) {
      const V exponent = (load_block<R>(z + i) - moved) * scale, w = exp2(exponent);
      store(weights + i, w);
      total = accumulate(total, w);
      logs = accumulate(logs, w, finite(exponent));
      for (int axis = 0; axis < axes; ++axis)
        at[axis] = accumulate(at[axis], w, load_block<R>(coords + axis * moment_table + i));
    }
    part.total += reduce_add(total), part.logs += reduce_add(logs);
    for (int axis = 0; axis < axes; ++axis) part.mean[axis] += reduce_add(at[axis]);
  }

  static void add_squares(const T* coords, const T* weights, int64_t begin, int64_t end, Part& part) {
    R square[pairs_of(axes)];
    for (R& sum : square) sum = R(T(0));
    for (int64_t i = begin; i < end; i += V::size) {
      V from_mean[axes];
      const V w = load_block<R>(weights + i);
      for (int a = 0; a < axes; ++a) from_mean[a] = load_block<R>(coords + a * moment_table + i) - V(T(part.mean[a]));
      for (int a = 0, pair = 0; a < axes; ++a) {
        const V weighted = w * from_mean[a];
        for (int b = a; b < axes; ++b, ++pair) square[pair] = accumulate(square[pair], weighted, from_mean[b]);
      }
    }
    for (int pair = 0; pair < pairs_of(axes); ++pair) part.square[pair] += reduce_add(square[pair]);
  }
};

// Equations (26) to (30): p_i times a polynomial in the cell's logarithm and its distance from the mean.
template <class R, Basis, int axes>
struct SoftArgmaxPartBackward {
  using T = typename R::Scalar;
  using V = Block<R>;
  using Slopes = MomentSlopes<double, axes>;

  static int run(const Problem& p, int64_t row, MomentCells cells, const T* coords, MomentRow<T> grad,
                 MomentRow<T> value, T top, T* scratch, T* grad_logits, T* grad_points) {
    const T* z = padded_cells(p, row, cells.begin, cells.end, scratch);
    const Slopes slopes(grad, value, __builtin_log2(double(*value.peak)));
    const V scale(T(p.beta * 1.4426950408889634)), moved(top), peak(*value.peak), beta = V(T(p.beta));
    for (int64_t i = 0; i < cells.padded; i += V::size) {
      const V exponent = (load_block<R>(z + i) - moved) * scale, probability = exp2(exponent) * peak;
      V from_mean[axes], change = fma(finite(exponent), V(T(slopes.of_log)), V(T(slopes.constant)));
      for (int a = 0; a < axes; ++a) from_mean[a] = load_block<R>(coords + a * moment_table + i) - V(value.mean[a]);
      for (int a = 0, pair = 0; a < axes; ++a) {
        V slope(T(slopes.mean[a]));
        for (int b = a; b < axes; ++b, ++pair) slope = fma(from_mean[b], V(T(slopes.square[pair])), slope);
        change = fma(slope, from_mean[a], change);
      }
      store(grad_logits + i, probability * change * beta);
      if (grad_points != nullptr) add_points(slopes, probability, from_mean, grad_points + i);
    }
    return 0;
  }

  static SA_INLINE void add_points(const Slopes& slopes, V probability, const V (&from_mean)[axes], T* out) {
    V slope[axes];
    for (int a = 0; a < axes; ++a) slope[a] = V(T(slopes.mean[a]));
    for (int a = 0, pair = 0; a < axes; ++a)
      for (int b = a; b < axes; ++b, ++pair) {  // of a = b twice
        slope[a] = fma(from_mean[b], V(T(slopes.square[pair])), slope[a]);
        slope[b] = fma(from_mean[a], V(T(slopes.square[pair])), slope[b]);
      }
    for (int a = 0; a < axes; ++a) {
      T* at = out + a * moment_table;
      store(at, fma(probability, slope[a], load_block<R>(at)));
    }
  }
};
