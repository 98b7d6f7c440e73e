// One row of logits made ready for its samples: exponents, coordinates, and the loop over blocks of cells.
// No include guard (see foreach_isa.h).

// Registers add up at most this many blocks before they are folded into float64.
constexpr int64_t blocks_per_panel = 32;

// Cells begin .. end of a row, line by line.
template <class T, class From>
void gather_cells(const From* from, const Problem& p, int64_t begin, int64_t end, T* out) {
  const int64_t width = p.shape[2], height = p.shape[1];
  int64_t x = begin % width, y = begin / width % height, z = begin / (width * height);
  for (int64_t i = begin; i < end; x = 0) {
    const From* line = from + z * p.stride[0] + y * p.stride[1] + x * p.stride[2];
    const int64_t count = end - i < width - x ? end - i : width - x;
    if (p.stride[2] == 1)
      for (int64_t k = 0; k < count; ++k) out[k] = static_cast<T>(line[k]);
    else
      for (int64_t k = 0; k < count; ++k) out[k] = static_cast<T>(line[k * p.stride[2]]);
    out += count, i += count;
    if (++y == height) y = 0, ++z;
  }
}

template <class T>
void gather_cells(const Problem& p, int64_t row, int64_t begin, int64_t end, T* out) {
  const int64_t offset = row / p.keypoints * p.batch_stride + row % p.keypoints * p.keypoint_stride;
  switch (p.dtype) {
    case Dtype::float32: return gather_cells(static_cast<const float*>(p.logits) + offset, p, begin, end, out);
    case Dtype::float64: return gather_cells(static_cast<const double*>(p.logits) + offset, p, begin, end, out);
    case Dtype::bfloat16: return gather_cells(static_cast<const c10::BFloat16*>(p.logits) + offset, p, begin, end, out);
    case Dtype::float16: return gather_cells(static_cast<const c10::Half*>(p.logits) + offset, p, begin, end, out);
  }
}

// The same padded with -inf: where they lie, if they can be read there, else in `scratch`.
template <class T>
const T* padded_cells(const Problem& p, int64_t row, int64_t begin, int64_t end, T* scratch) {
  constexpr Dtype own = sizeof(T) == 8 ? Dtype::float64 : Dtype::float32;
  const int64_t count = end - begin;
  if (p.dtype == own && count % cell_padding == 0 && p.contiguous())
    return static_cast<const T*>(p.logits) + row / p.keypoints * p.batch_stride +
           row % p.keypoints * p.keypoint_stride + begin;
  gather_cells(p, row, begin, end, scratch);
  for (int64_t i = count; i % cell_padding != 0; ++i) scratch[i] = -T(__builtin_inf());
  return scratch;
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
  gather_cells(p, row, 0, p.cells, a);
  for (int64_t i = p.cells; i < p.padded(); ++i) a[i] = -T(__builtin_inf());
  const Block<R> top(row_max<R>(a, p.padded())), factor = Block<R>(T(scale)), moved = Block<R>(T(shift));
  for (int64_t i = 0; i < p.padded(); i += Block<R>::size) store(a + i, (load_block<R>(a + i) - top) * factor - moved);
}

// The power of 1 / E in a weight 2^a E^(-1/tau): at the temperatures that training has most it is a division or a root
// of a table of 2^a, without a logarithm and an exponential a cell.
enum class Power { any, one, two, half };

inline Power power_of(const Problem& p) {
  if (!bounded_exponents(p)) return Power::any;
  return p.tau == 1 ? Power::one : p.tau == 0.5 ? Power::two : p.tau == 2 ? Power::half : Power::any;
}

// What no sample changes of the weights of a row: a or, for a power of its own, 2^a.
template <class R>
void prepare_weights(const Problem& p, int64_t row, typename R::Scalar* a) {
  prepare_exponents<R>(p, row, p.beta * 1.4426950408889634 / p.tau, common_shift(p), a);
  if (power_of(p) == Power::any) return;
  for (int64_t i = 0; i < p.padded(); i += Block<R>::size) store(a + i, exp2(load_block<R>(a + i)));
}

// The exponents of one sample less `shift`; they are `a` itself where there is nothing to take off.
template <class R>
const typename R::Scalar* shifted_exponents(const Problem& p, const typename R::Scalar* a, typename R::Scalar shift,
                                            typename R::Scalar* out) {
  if (bounded_exponents(p)) return a;
  for (int64_t i = 0; i < p.padded(); i += Block<R>::size) store(out + i, load_block<R>(a + i) - Block<R>(shift));
  return out;
}

// The grid's coordinates as a row counts them from its origin, in tables [d, padded]; the uniform basis takes them
// moved.
template <class V, class T>
void count_from_origin(const Problem& p, int64_t row, T* tables) {
  const double shift = p.basis == Basis::uniform ? field_shift<V> : 0;
  const int64_t start[3] = {p.start(row, 0), p.start(row, 1), p.start(row, 2)};
  int64_t at[3] = {};  // x, y, z
  for (int64_t i = 0; i < p.padded(); ++i) {
    for (int axis = 0; axis < p.axes; ++axis)
      tables[axis * p.padded() + i] = i < p.cells ? T(at[axis] - start[axis] + shift) : T(0);
    if (++at[0] < p.shape[2]) continue;
    at[0] = 0;
    if (++at[1] == p.shape[1]) at[1] = 0, ++at[2];
  }
}

// Coordinate tables of a row: the grid's, the row's own where it has an origin, or its points transposed to [d,
// padded].
template <class V, class T>
void prepare_coords(const Problem& p, int64_t row, T* scratch, const T* (&coords)[3]) {
  const T* points = static_cast<const T*>(p.points);
  if (p.origins != nullptr) count_from_origin<V>(p, row, scratch);
  for (int axis = 0; axis < p.axes; ++axis) {
    T* out = scratch + axis * p.padded();
    coords[axis] = p.coords == nullptr ? out : static_cast<const T*>(p.coords) + axis * p.padded();
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

// The weights of one sample, of what prepare_weights and shifted_exponents made.
template <class R>
struct Weights {
  using T = typename R::Scalar;
  using V = Block<R>;
  const T* a;
  NoiseKey key;
  T neg_inv_tau;
  Power power;
  Weights(const Problem& p, const T* prepared, NoiseKey sample)
      : a(prepared), key(sample), neg_inv_tau(T(-1 / p.tau)), power(power_of(p)) {}

  SA_INLINE V exponent(int64_t cell) const { return of_any(exponentials(cell), cell); }
  SA_INLINE V operator()(int64_t cell) const {
    const V e = exponentials(cell);
    switch (power) {
      case Power::one: return load_block<R>(a + cell) / e;
      case Power::two: return load_block<R>(a + cell) / (e * e);
      case Power::half: return load_block<R>(a + cell) / sqrt(e);
      default: return exp2(of_any(e, cell));
    }
  }

 private:
  SA_INLINE V exponentials(int64_t cell) const { return exponential<V>(cell_words<R>(cell, key, kGumbel)); }
  SA_INLINE V of_any(V e, int64_t cell) const { return fma(log2(e), V(neg_inv_tau), load_block<R>(a + cell)); }
};

// The largest exponent of a sample, for the temperatures whose exponents are not bounded.
template <class R>
typename R::Scalar sample_max(const Problem& p, const typename R::Scalar* a, NoiseKey key) {
  using T = typename R::Scalar;
  const Weights<R> weights(p, a, key);
  Block<R> m = Block<R>(-T(__builtin_inf()));
  for (int64_t i = 0; i < p.padded(); i += Block<R>::size) m = max(weights.exponent(i), m);
  return largest(m);
}

template <Basis basis, class V>
SA_INLINE V jittered(V field, V c) {
  if constexpr (basis == Basis::uniform)
    return uniform_position(field, c);
  else
    return triangular_position(centred_field(field), c);
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
