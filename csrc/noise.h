// From random words to noise: the Gumbel weight's exponential and the three bases, for one lane or a vector.
// No include guard (see philox.h). A backend gives the primitives: to_number, survival, fma, max, log2, sqrt, …

// E = -log2(1 - u), u = (word + 1/2) / 2^32: a unit exponential in base 2, so that exp(g) = 1 / E up to a factor
// that the softmax cancels. Winners are small u, where log2 near 1 would lose their digits; there a two-term series
// has relative error 3e-6. It never exceeds E by more, and survival() is 1 - u raised by more than all errors of the
// backend's logarithm, so the larger of the two is within 4e-5 of E everywhere, and E is never 0.
template <class V, class Words>
SA_INLINE V exponential(Words word) {
  if constexpr (is_double<V>) {
    return log1p(fma(to_number<V>(word), V(-0x1p-32), V(-0x1p-33))) * V(-1.4426950408889634);
  } else {
    const V r = to_number<V>(word);
    const V tail = fma(r, fma(r, V(0x1.734390p-65f), V(0x1.715438p-32f)), V(0x1.715438p-33f));
    return max(tail, -log2(survival(r)));
  }
}

// Positions of a cell: its coordinate c plus a basis' quantile function at u = (field + 1/2) / 2^16. The uniform
// basis takes the field as the backend's field_number and c already moved by its field_shift, which leaves one
// multiply-add; the triangular one takes v = 2 u - 1.
template <class V>
SA_INLINE V uniform_position(V field, V shifted_c) {
  return fma(field, V(field_scale<V>), shifted_c);
}

template <class V>
SA_INLINE V centred_field(V field) {
  return fma(field, V(0x1p-15), V(0x1p-16 - 1));
}
template <class V>
SA_INLINE V triangular_position(V v, V c) {
  return c + copysign(V(1) - sqrt(V(1) - abs(v)), v);
}

template <class T>
struct NormalPair {
  T even, odd;
};

// Standard normals f (even) and f + 1 of a (row, sample): Box-Muller on the words f and f + 1.
template <class T>
SA_INLINE NormalPair<T> standard_normals(uint32_t f, NoiseKey key) {
  const auto state = philox(uint64_t(f / 4), key, kNormal);
  const uint32_t radius_word = uint32_t(f & 2 ? state.c : state.a), angle_word = uint32_t(f & 2 ? state.d : state.b);
  const T radius = sqrt(T(-2) * log((T(radius_word) + T(0.5)) * T(0x1p-32)));
  const T angle = (T(angle_word) + T(0.5)) * T(0x1p-32);
  return {radius * cos_turn(angle), radius * sin_turn(angle)};
}

template <class T>
SA_INLINE T standard_normal(uint32_t f, NoiseKey key) {
  const NormalPair<T> pair = standard_normals<T>(f & ~1u, key);
  return f & 1 ? pair.odd : pair.even;
}
