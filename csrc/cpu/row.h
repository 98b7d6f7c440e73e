// One row of logits made ready for its samples: exponents, coordinates, and the loop over blocks of cells.
// No include guard (see foreach_isa.h).

template <class T, class From>
void gather_row(const From* from, const Problem& p, T* out) {
  for (int64_t z = 0; z < p.shape[0]; ++z)
    for (int64_t y = 0; y < p.shape[1]; ++y) {
      const From* line = from + z * p.stride[0] + y * p.stride[1];
      if (p.stride[2] == 1)
        for (int64_t x = 0; x < p.shape[2]; ++x) out[x] = static_cast<T>(line[x]);
      else
        for (int64_t x = 0; x < p.shape[2]; ++x) out[x] = static_cast<T>(line[x * p.stride[2]]);
      out += p.shape[2];
    }
}

template <class T>
void gather_row(const Problem& p, int64_t row, T* out) {
  const int64_t offset = row / p.keypoints * p.batch_stride + row % p.keypoints * p.keypoint_stride;
  switch (p.dtype) {
    case Dtype::float32: return gather_row(static_cast<const float*>(p.logits) + offset, p, out);
    case Dtype::float64: return gather_row(static_cast<const double*>(p.logits) + offset, p, out);
    case Dtype::bfloat16: return gather_row(static_cast<const c10::BFloat16*>(p.logits) + offset, p, out);
    case Dtype::float16: return gather_row(static_cast<const c10::Half*>(p.logits) + offset, p, out);
  }
}

template <class R>
SA_INLINE typename R::Scalar largest(const Block<R>& block) {
  using T = typename R::Scalar;
  T lanes[Block<R>::size];
  store(lanes, block);
  T result = lanes[0];
  for (T x : lanes) result = x > result ? x : result;
  return result;
}

// The largest element; NaNs are passed over here and spoil their row through its weights.
template <class R>
typename R::Scalar row_max(const typename R::Scalar* a, int64_t padded) {
  Block<R> m = Block<R>(-typename R::Scalar(__builtin_inf()));
  for (int64_t i = 0; i < padded; i += Block<R>::size) m = max(load_block<R>(a + i), m);
  return largest(m);
}

// a = (z - max) * scale - shift, padded with -inf, whose weight is exactly 0.
template <class R>
void prepare_exponents(const Problem& p, int64_t row, double scale, double shift, typename R::Scalar* a) {
  using T = typename R::Scalar;
  gather_row(p, row, a);
  for (int64_t i = p.cells; i < p.padded(); ++i) a[i] = -T(__builtin_inf());
  const Block<R> top(row_max<R>(a, p.padded())), factor = Block<R>(T(scale)), moved = Block<R>(T(shift));
  for (int64_t i = 0; i < p.padded(); i += Block<R>::size) store(a + i, (load_block<R>(a + i) - top) * factor - moved);
}

template <class R>
void prepare_exponents(const Problem& p, int64_t row, typename R::Scalar* a) {
  prepare_exponents<R>(p, row, p.beta * 1.4426950408889634 / p.tau, common_shift(p), a);
}

// The exponents of one sample less `shift`; they are `a` itself where there is nothing to take off.
template <class R>
const typename R::Scalar* shifted_exponents(const Problem& p, const typename R::Scalar* a, typename R::Scalar shift,
                                            typename R::Scalar* out) {
  if (bounded_exponents(p)) return a;
  for (int64_t i = 0; i < p.padded(); i += Block<R>::size) store(out + i, load_block<R>(a + i) - Block<R>(shift));
  return out;
}

// Coordinate tables of a row: the grid's, or the row's points transposed to [d, padded].
template <class T>
void prepare_coords(const Problem& p, int64_t row, T* scratch, const T* (&coords)[3]) {
  const T* points = static_cast<const T*>(p.points);
  for (int axis = 0; axis < p.axes; ++axis) {
    T* out = scratch + axis * p.padded();
    coords[axis] = points ? out : static_cast<const T*>(p.coords) + axis * p.padded();
    if (points == nullptr) continue;
    const T* from = points + row / p.keypoints * p.cells * p.axes + axis;
    for (int64_t i = 0; i < p.padded(); ++i) out[i] = i < p.cells ? from[i * p.axes] : T(0);
  }
}

template <class T>
T row_sigma(const Problem& p, int64_t row) {
  if (p.sigma == nullptr) return T(0);
  return static_cast<const T*>(p.sigma)[row / p.keypoints * p.sigma_stride[0] + row % p.keypoints * p.sigma_stride[1]];
}

template <class R>
SA_INLINE Block<R> weight_exponents(const typename R::Scalar* a, int64_t cell, NoiseKey key,
                                    typename R::Scalar neg_inv_tau) {
  const Block<R> e = exponential<Block<R>>(cell_words<R>(cell, key, kGumbel));
  return fma(log2(e), Block<R>(neg_inv_tau), load_block<R>(a + cell));
}

// The largest exponent of a sample, for the temperatures whose exponents are not bounded.
template <class R>
typename R::Scalar sample_max(const Problem& p, const typename R::Scalar* a, NoiseKey key) {
  using T = typename R::Scalar;
  Block<R> m = Block<R>(-T(__builtin_inf()));
  for (int64_t i = 0; i < p.padded(); i += Block<R>::size) m = max(weight_exponents<R>(a, i, key, T(-1 / p.tau)), m);
  return largest(m);
}

template <Basis basis, class V>
SA_INLINE V jittered(V field, V c) {
  if constexpr (basis == Basis::uniform)
    return uniform_position(field, c);
  else
    return triangular_position(field, c);
}

// Positions of a block's cells along each axis, with the noise of the bases that have it per cell.
template <class R, Basis basis, int axes>
SA_INLINE void block_positions(const typename R::Scalar* const (&coords)[3], int64_t cell, NoiseKey key,
                               Block<R> (&out)[axes]) {
  using V = Block<R>;
#pragma GCC unroll 3
  for (int axis = 0; axis < axes; ++axis) out[axis] = load_block<R>(coords[axis] + cell);
  if constexpr (basis == Basis::uniform || basis == Basis::triangular) {
    if constexpr (axes >= 2) {
      const Words<R> pair = cell_words<R>(cell, key, kPair);
      out[0] = jittered<basis>(to_number<V>(low_fields(pair)), out[0]);
      out[1] = jittered<basis>(to_number<V>(high_fields(pair)), out[1]);
    }
    if constexpr (axes % 2 == 1)
      out[axes - 1] = jittered<basis>(to_number<V>(cell_fields<R>(cell, key)), out[axes - 1]);
  }
}
