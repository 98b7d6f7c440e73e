// One 256-bit register of 8 lanes. See block.h for what a register type gives.

struct F {
  using Scalar = float;
  static constexpr int lanes = 8, per_block = 4;
  __m256 v;
  F() = default;
  SA_INLINE F(__m256 x) : v(x) {}
  SA_INLINE F(float x) : v(_mm256_set1_ps(x)) {}
};

struct U {
  __m256i v;
};

SA_INLINE F operator+(F a, F b) { return _mm256_add_ps(a.v, b.v); }
SA_INLINE F operator-(F a, F b) { return _mm256_sub_ps(a.v, b.v); }
SA_INLINE F operator*(F a, F b) { return _mm256_mul_ps(a.v, b.v); }
SA_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
SA_INLINE F max(F a, F b) { return _mm256_max_ps(a.v, b.v); }  // b where either is NaN
SA_INLINE F load(const float* p, F) { return _mm256_loadu_ps(p); }
SA_INLINE void store(float* p, F a) { _mm256_storeu_ps(p, a.v); }
SA_INLINE float reduce_add(F a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

SA_INLINE F sqrt(F a) { return _mm256_sqrt_ps(a.v); }
SA_INLINE F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v); }
SA_INLINE F copysign(F magnitude, F sign) {
  return _mm256_or_ps(magnitude.v, _mm256_and_ps(sign.v, _mm256_set1_ps(-0.0f)));
}

// 1 - u of a word read as a signed number, raised by 2^-23 where it is above one half.
SA_INLINE F survival(F number) {
  const __m256 below = _mm256_set1_ps(-0x1p-33f), above = _mm256_set1_ps(1 + 0x1p-23f);
  return _mm256_fmadd_ps(number.v, _mm256_set1_ps(-0x1p-32f), _mm256_blendv_ps(above, below, number.v));
}

SA_INLINE F to_number(U a) { return _mm256_cvtepi32_ps(a.v); }
SA_INLINE U low_field(U a) { return {_mm256_and_si256(a.v, _mm256_set1_epi32(0xFFFF))}; }
SA_INLINE U high_field(U a) { return {_mm256_srli_epi32(a.v, 16)}; }
SA_INLINE void expand_fields(U words, U* out) {
  out[0] = {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(words.v))};
  out[1] = {_mm256_cvtepu16_epi32(_mm256_extracti128_si256(words.v, 1))};
}
SA_INLINE void store(uint32_t* p, U a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
SA_INLINE U load_words(const uint32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }

// x = 2^exponent * (1 + t) with t in [sqrt(1/2) - 1, sqrt(2) - 1).
SA_INLINE void split_exponent(F x, F& exponent, F& t) {
  const __m256i bits = _mm256_sub_epi32(_mm256_castps_si256(x.v), _mm256_set1_epi32(0x3F3504F3));
  const __m256i e = _mm256_srai_epi32(bits, 23);
  exponent = _mm256_cvtepi32_ps(e);
  const __m256i m = _mm256_sub_epi32(_mm256_castps_si256(x.v), _mm256_slli_epi32(e, 23));
  t = _mm256_sub_ps(_mm256_castsi256_ps(m), _mm256_set1_ps(1.0f));
}

// 2^n from n + magic + 127, magic = 1.5 * 2^23: the sum's low bits are the exponent field.
SA_INLINE F power_of_two(F biased) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(biased.v), 23)); }

// ---- Philox: four counters a set, one in the low half of each 64-bit lane ----

struct W {
  __m256i v;
};

constexpr int regs_per_set = 2;

SA_INLINE W mul_wide(W a, uint32_t m) { return {_mm256_mul_epu32(a.v, _mm256_set1_epi64x(m))}; }
SA_INLINE W high(W a) { return {_mm256_srli_epi64(a.v, 32)}; }
SA_INLINE W xor3(W a, W b, uint32_t key) {
  return {_mm256_xor_si256(_mm256_xor_si256(a.v, b.v), _mm256_set1_epi32(int(key)))};
}
// A uniform word and the key meet as scalars, which leaves one instruction.
SA_INLINE W xor3(W a, uint64_t b, uint32_t key) {
  return {_mm256_xor_si256(a.v, _mm256_set1_epi32(int(uint32_t(b) ^ key)))};
}
SA_INLINE W xor3(uint64_t a, W b, uint32_t key) { return xor3(b, a, key); }

// Lanes are ordered so that interleave_words, which works within 128 bits, leaves words in their natural order.
SA_INLINE W group_set(uint32_t first, int set) {
  return {_mm256_add_epi64(_mm256_set1_epi64x(first + 4 * set), _mm256_setr_epi64x(0, 2, 1, 3))};
}
SA_INLINE __m256i wide(W a) { return a.v; }
SA_INLINE __m256i wide(uint64_t a) { return _mm256_set1_epi64x(int64_t(a & 0xFFFFFFFFu)); }
SA_INLINE void interleave_words(__m256i a, __m256i b, __m256i c, __m256i d, U* out) {
  const __m256i ab = _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xAA);
  const __m256i cd = _mm256_blend_epi32(c, _mm256_slli_epi64(d, 32), 0xAA);
  out[0] = {_mm256_unpacklo_epi64(ab, cd)};
  out[1] = {_mm256_unpackhi_epi64(ab, cd)};
}
