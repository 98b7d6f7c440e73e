// What AVX2 and AVX-512 have in common: SA_MM(add_ps) is _mm256_add_ps or _mm512_add_ps. simd_avx2.h and simd_avx512.h
// include it where SA_MM, Floats, Integers, wide, counter_order and alternate are defined. No include guard (see
// foreach_isa.h).

struct F {
  using Scalar = float;
  static constexpr int lanes = sizeof(Floats) / sizeof(float), per_block = 4;
  Floats v;
  F() = default;
  SA_INLINE F(Floats x) : v(x) {}
  SA_INLINE F(float x) : v(SA_MM(set1_ps)(x)) {}
};

struct U {
  Integers v;
};

SA_INLINE F operator+(F a, F b) { return SA_MM(add_ps)(a.v, b.v); }
SA_INLINE F operator-(F a, F b) { return SA_MM(sub_ps)(a.v, b.v); }
SA_INLINE F operator*(F a, F b) { return SA_MM(mul_ps)(a.v, b.v); }
SA_INLINE F operator/(F a, F b) { return SA_MM(div_ps)(a.v, b.v); }
SA_INLINE F fma(F a, F b, F c) { return SA_MM(fmadd_ps)(a.v, b.v, c.v); }
SA_INLINE F max(F a, F b) { return SA_MM(max_ps)(a.v, b.v); }  // b where either is NaN
SA_INLINE F load(const float* p, F) { return SA_MM(loadu_ps)(p); }
SA_INLINE void store(float* p, F a) { SA_MM(storeu_ps)(p, a.v); }

SA_INLINE U all_lanes(uint32_t x) { return {SA_MM(set1_epi32)(int(x))}; }
SA_INLINE U operator-(U a, U b) { return {SA_MM(sub_epi32)(a.v, b.v)}; }
template <int n>
SA_INLINE U shift_left(U a) {
  return {SA_MM(slli_epi32)(a.v, n)};
}
template <int n>
SA_INLINE U shift_right(U a) {  // with copies of the sign
  return {SA_MM(srai_epi32)(a.v, n)};
}

SA_INLINE F to_number(U a) { return SA_MM(cvtepi32_ps)(a.v); }
SA_INLINE U high_field(U a) { return {SA_MM(srli_epi32)(a.v, 16)}; }

// ---- Philox: a counter in the low half of each 64-bit lane ----

struct W {
  Integers v;
};

constexpr int regs_per_set = 2;

SA_INLINE Integers wide(W a) { return a.v; }
SA_INLINE W mul_wide(W a, uint32_t m) { return {SA_MM(mul_epu32)(a.v, wide(uint64_t(m)))}; }
SA_INLINE W high(W a) { return {SA_MM(srli_epi64)(a.v, 32)}; }
SA_INLINE W group_set(uint32_t first, int set) {
  return {SA_MM(add_epi64)(wide(uint64_t(first + F::lanes / 2 * set)), counter_order())};
}
// Four words of each counter, in natural order.
SA_INLINE void interleave_words(Integers a, Integers b, Integers c, Integers d, U* out) {
  const Integers ab = alternate(a, b), cd = alternate(c, d);
  out[0] = {SA_MM(unpacklo_epi64)(ab, cd)};
  out[1] = {SA_MM(unpackhi_epi64)(ab, cd)};
}
