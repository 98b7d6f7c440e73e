// One 512-bit register of 16 lanes. See block.h for what a register type gives.

struct F {
  using Scalar = float;
  static constexpr int lanes = 16, per_block = 4;
  __m512 v;
  F() = default;
  SA_INLINE F(__m512 x) : v(x) {}
  SA_INLINE F(float x) : v(_mm512_set1_ps(x)) {}
};

struct U {
  __m512i v;
};

SA_INLINE F operator+(F a, F b) { return _mm512_add_ps(a.v, b.v); }
SA_INLINE F operator-(F a, F b) { return _mm512_sub_ps(a.v, b.v); }
SA_INLINE F operator*(F a, F b) { return _mm512_mul_ps(a.v, b.v); }
SA_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
SA_INLINE F max(F a, F b) { return _mm512_max_ps(a.v, b.v); }  // b where either is NaN
SA_INLINE F load(const float* p, F) { return _mm512_loadu_ps(p); }
SA_INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
SA_INLINE float reduce_add(F a) { return _mm512_reduce_add_ps(a.v); }

// sqrt(x) = x / sqrt(x) with one Newton step: vsqrtps occupies its port for 24 cycles.
SA_INLINE F sqrt(F a) {
  const __m512 r = _mm512_rsqrt14_ps(a.v);
  const __m512 s = _mm512_mul_ps(a.v, r);
  const __m512 half = _mm512_mul_ps(r, _mm512_set1_ps(0.5f));
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(s, s, a.v), half, s);
}
SA_INLINE F abs(F a) { return _mm512_abs_ps(a.v); }
SA_INLINE F copysign(F magnitude, F sign) {
  const __m512i mask = _mm512_set1_epi32(int(0x80000000u));
  return _mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(mask, _mm512_castps_si512(sign.v), _mm512_castps_si512(magnitude.v), 0xCA));
}

// 1 - u of a word read as a signed number, raised by 2^-23 where it is above one half.
SA_INLINE F survival(F number) {
  const __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(number.v));
  const __m512 rest = _mm512_mask_mov_ps(_mm512_set1_ps(1 + 0x1p-23f), negative, _mm512_set1_ps(-0x1p-33f));
  return _mm512_fmadd_ps(number.v, _mm512_set1_ps(-0x1p-32f), rest);
}

SA_INLINE F to_number(U a) { return _mm512_cvtepi32_ps(a.v); }
SA_INLINE U low_field(U a) { return {_mm512_and_si512(a.v, _mm512_set1_epi32(0xFFFF))}; }
SA_INLINE U high_field(U a) { return {_mm512_srli_epi32(a.v, 16)}; }
SA_INLINE void expand_fields(U words, U* out) {
  out[0] = {_mm512_cvtepu16_epi32(_mm512_castsi512_si256(words.v))};
  out[1] = {_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words.v, 1))};
}
SA_INLINE void store(uint32_t* p, U a) { _mm512_storeu_si512(p, a.v); }
SA_INLINE U load_words(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }

// x = 2^exponent * (1 + t) with t in [sqrt(1/2) - 1, sqrt(2) - 1).
SA_INLINE void split_exponent(F x, F& exponent, F& t) {
  const __m512i bits = _mm512_sub_epi32(_mm512_castps_si512(x.v), _mm512_set1_epi32(0x3F3504F3));
  const __m512i e = _mm512_srai_epi32(bits, 23);
  exponent = _mm512_cvtepi32_ps(e);
  const __m512i m = _mm512_sub_epi32(_mm512_castps_si512(x.v), _mm512_slli_epi32(e, 23));
  t = _mm512_sub_ps(_mm512_castsi512_ps(m), _mm512_set1_ps(1.0f));
}

// 2^n from n + magic + 127, magic = 1.5 * 2^23: the sum's low bits are the exponent field.
SA_INLINE F power_of_two(F biased) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(biased.v), 23)); }

// ---- Philox: eight counters a set, one in the low half of each 64-bit lane ----

struct W {
  __m512i v;
};

constexpr int regs_per_set = 2;

SA_INLINE W mul_wide(W a, uint32_t m) { return {_mm512_mul_epu32(a.v, _mm512_set1_epi64(m))}; }
SA_INLINE W high(W a) { return {_mm512_srli_epi64(a.v, 32)}; }
SA_INLINE __m512i wide(W a) { return a.v; }
SA_INLINE __m512i wide(uint64_t a) { return _mm512_set1_epi64(int64_t(a & 0xFFFFFFFFu)); }
template <class A, class B>
SA_INLINE W xor3(A a, B b, uint32_t key) {
  return {_mm512_ternarylogic_epi32(wide(a), wide(b), _mm512_set1_epi32(int(key)), 0x96)};
}

// Lanes are ordered so that interleave_words, which works within 128 bits, leaves words in their natural order.
SA_INLINE W group_set(uint32_t first, int set) {
  return {_mm512_add_epi64(_mm512_set1_epi64(first + 8 * set), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7))};
}
SA_INLINE void interleave_words(__m512i a, __m512i b, __m512i c, __m512i d, U* out) {
  const __m512i ab = _mm512_mask_shuffle_epi32(a, 0xAAAA, b, _MM_PERM_CCAA);
  const __m512i cd = _mm512_mask_shuffle_epi32(c, 0xAAAA, d, _MM_PERM_CCAA);
  out[0] = {_mm512_unpacklo_epi64(ab, cd)};
  out[1] = {_mm512_unpackhi_epi64(ab, cd)};
}
