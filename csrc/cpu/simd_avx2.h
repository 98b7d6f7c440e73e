// One 256-bit register of 8 lanes: what AVX2 does in its own way. See block.h for what a register type gives.

#define SA_MM(name) _mm256_##name
using Floats = __m256;
using Integers = __m256i;

SA_INLINE Integers wide(uint64_t a) { return _mm256_set1_epi64x(int64_t(a & 0xFFFFFFFFu)); }
// interleave_words works within 128 bits: from counters in this order it leaves words in their natural order.
SA_INLINE Integers counter_order() { return _mm256_setr_epi64x(0, 2, 1, 3); }
// The low halves of 64-bit lanes: a, b, a, b, ...
SA_INLINE Integers alternate(Integers a, Integers b) { return _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xAA); }

#include "simd_x86.h"
#undef SA_MM

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
SA_INLINE F where_negative(F x, F yes, F no) { return _mm256_blendv_ps(no.v, yes.v, x.v); }

SA_INLINE U bits_of(F a) { return {_mm256_castps_si256(a.v)}; }
SA_INLINE F number_of(U bits) { return _mm256_castsi256_ps(bits.v); }
SA_INLINE U low_field(U a) { return {_mm256_and_si256(a.v, _mm256_set1_epi32(0xFFFF))}; }
SA_INLINE void expand_fields(U words, U* out) {
  out[0] = {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(words.v))};
  out[1] = {_mm256_cvtepu16_epi32(_mm256_extracti128_si256(words.v, 1))};
}
SA_INLINE void store(uint32_t* p, U a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
SA_INLINE U load_words(const uint32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }

SA_INLINE W xor3(W a, W b, uint32_t key) {
  return {_mm256_xor_si256(_mm256_xor_si256(a.v, b.v), _mm256_set1_epi32(int(key)))};
}
// A uniform word and the key meet as scalars, which leaves one instruction.
SA_INLINE W xor3(W a, uint64_t b, uint32_t key) {
  return {_mm256_xor_si256(a.v, _mm256_set1_epi32(int(uint32_t(b) ^ key)))};
}
SA_INLINE W xor3(uint64_t a, W b, uint32_t key) { return xor3(b, a, key); }
