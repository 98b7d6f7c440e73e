// From random words to noise: the Gumbel weight's exponential and the three bases, for one lane or a vector.
// No include guard (see philox.h). A backend gives the primitives: fma, select, log2, sqrt, to_signed, …

// E = -log2(1 - u), u = (word + 1/2) / 2^32: a unit exponential in base 2, so that exp(g) = 1 / E up to a factor
// that the softmax cancels. Winners are small u. Read as a signed number, the word gives t = u below one half and
// t = u - 1 above, hence 1 - u keeps its relative precision at both ends and is never 0: E lies in (2^-33, 33].
// Below 2^-7, where log2 near 1 would lose the winners' digits, a two-term series has relative error 3e-6.
template <class V, class Words>
SA_INLINE V exponential(Words word) {
  const V t = fma(to_signed<V>(word), V(0x1p-32), V(0x1p-33));
  if constexpr (is_double<V>) {
    const V u = V(1) - complement(t);
    return (V(0) - log1p(V(0) - u)) * V(1.4426950408889634);
  } else {
    const V tail = t * fma(t, V(0x1.734390p-1f), V(0x1.715438p+0f));
    return select_below(word, 1u << 25, tail, V(0) - log2(complement(t)));
  }
}

// Positions of a cell: its coordinate c plus a basis' quantile function at u = (field + 1/2) / 2^16. The uniform
// basis takes c already moved by uniform_shift, which leaves one multiply-add; sums are exact for c < 128.
constexpr double uniform_shift = 0x1p-17 - 0.5;

template <class V>
SA_INLINE V uniform_position(V field, V shifted_c) {
  return fma(field, V(0x1p-16), shifted_c);
}

template <class V>
SA_INLINE V triangular_position(V field, V c) {
  const V v = fma(field, V(0x1p-15), V(0x1p-16) - V(1));  // 2 u - 1
  return c + copysign(V(1) - sqrt(V(1) - abs(v)), v);
}

struct NormalPair {
  double even, odd;
};

// Standard normals f (even) and f + 1 of a (row, sample): Box-Muller on the words f and f + 1.
SA_INLINE NormalPair standard_normals(uint32_t f, NoiseKey key) {
  const auto state = philox(uint64_t(f / 4), key, kNormal);
  const uint32_t radius_word = uint32_t(f & 2 ? state.c : state.a), angle_word = uint32_t(f & 2 ? state.d : state.b);
  const double radius = __builtin_sqrt(-2 * __builtin_log((radius_word + 0.5) * 0x1p-32));
  const double angle = 6.283185307179586 * (angle_word + 0.5) * 0x1p-32;
  return {radius * __builtin_cos(angle), radius * __builtin_sin(angle)};
}

SA_INLINE double standard_normal(uint32_t f, NoiseKey key) {
  const NormalPair pair = standard_normals(f & ~1u, key);
  return f & 1 ? pair.odd : pair.even;
}
