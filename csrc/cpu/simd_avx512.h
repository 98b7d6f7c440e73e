// One 512-bit register of 16 lanes: what AVX-512 does in its own way. See block.h for what a register type gives.

#define SA_MM(name) _mm512_##name
using Floats = __m512;
using Integers = __m512i;

SA_INLINE Integers wide(uint64_t a) { return _mm512_set1_epi64(int64_t(a & 0xFFFFFFFFu)); }
SA_INLINE Integers counter_order() { return _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7); }
SA_INLINE Integers alternate(Integers a, Integers b) { return _mm512_mask_shuffle_epi32(a, 0xAAAA, b, _MM_PERM_CCAA); }

#include "simd_x86.h"
#undef SA_MM

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
SA_INLINE F where_negative(F x, F yes, F no) {
  return _mm512_mask_mov_ps(no.v, _mm512_movepi32_mask(_mm512_castps_si512(x.v)), yes.v);
}

SA_INLINE U bits_of(F a) { return {_mm512_castps_si512(a.v)}; }
SA_INLINE F number_of(U bits) { return _mm512_castsi512_ps(bits.v); }
SA_INLINE U low_field(U a) { return {_mm512_and_si512(a.v, _mm512_set1_epi32(0xFFFF))}; }
SA_INLINE void expand_fields(U words, U* out) {
  out[0] = {_mm512_cvtepu16_epi32(_mm512_castsi512_si256(words.v))};
  out[1] = {_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words.v, 1))};
}
SA_INLINE void store(uint32_t* p, U a) { _mm512_storeu_si512(p, a.v); }
SA_INLINE U load_words(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }

template <class A, class B>
SA_INLINE W xor3(A a, B b, uint32_t key) {
  return {_mm512_ternarylogic_epi32(wide(a), wide(b), _mm512_set1_epi32(int(key)), 0x96)};
}
