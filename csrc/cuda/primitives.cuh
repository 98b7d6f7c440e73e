// What the shared headers (philox.h, noise.h) ask of a backend, for one lane of a GPU: fast float arithmetic on the
// special-function unit, exact float64, 16-bit types without their libraries. Torch-free; nvcc or, on the host, g++.

#pragma once

#include <cstdint>

#include "cuda/runtime.h"
#include "problem.h"

#define SA_INLINE __device__ __forceinline__

namespace sampling_argmax::cuda {

template <class V>
constexpr bool is_double = sizeof(V) == 8;

#ifdef __CUDACC__
#define SA_SPECIAL_FUNCTION(name, instruction, host)               \
  SA_INLINE float name(float x) {                                  \
    float y;                                                       \
    asm(instruction ".approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); \
    return y;                                                      \
  }
#else
#define SA_SPECIAL_FUNCTION(name, instruction, host) \
  SA_INLINE float name(float x) { return shim::special(instruction, x, host); }
#endif

SA_SPECIAL_FUNCTION(log2, "lg2", ::log2f(x))
SA_SPECIAL_FUNCTION(exp2, "ex2", ::exp2f(x))
SA_SPECIAL_FUNCTION(sqrt, "sqrt", ::sqrtf(x))
SA_SPECIAL_FUNCTION(rsqrt, "rsqrt", 1.0f / ::sqrtf(x))
SA_SPECIAL_FUNCTION(reciprocal, "rcp", 1.0f / x)

SA_INLINE double log2(double x) { return ::log2(x); }
SA_INLINE double exp2(double x) { return ::exp2(x); }
SA_INLINE double sqrt(double x) { return ::sqrt(x); }
SA_INLINE double rsqrt(double x) { return 1 / ::sqrt(x); }
SA_INLINE double reciprocal(double x) { return 1 / x; }
SA_INLINE double log1p(double x) { return ::log1p(x); }

SA_INLINE float log(float x) { return ::logf(x); }
SA_INLINE double log(double x) { return ::log(x); }
SA_INLINE float exp(float x) { return ::expf(x); }
SA_INLINE double exp(double x) { return ::exp(x); }
SA_INLINE float cos_turn(float x) { return ::cospif(2 * x); }
SA_INLINE double cos_turn(double x) { return ::cospi(2 * x); }
SA_INLINE float sin_turn(float x) { return ::sinpif(2 * x); }
SA_INLINE double sin_turn(double x) { return ::sinpi(2 * x); }

SA_INLINE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
SA_INLINE double fma(double a, double b, double c) { return ::fma(a, b, c); }
SA_INLINE float max(float a, float b) { return ::fmaxf(a, b); }  // the other one where either is NaN
SA_INLINE double max(double a, double b) { return ::fmax(a, b); }
SA_INLINE float abs(float x) { return ::fabsf(x); }
SA_INLINE double abs(double x) { return ::fabs(x); }
SA_INLINE float copysign(float x, float sign) { return ::copysignf(x, sign); }
SA_INLINE double copysign(double x, double sign) { return ::copysign(x, sign); }

template <class V>
SA_INLINE V to_number(uint32_t word) {
  return V(word);
}
// 1 - u of a word as a number, raised by 2^-22, which is the documented error of lg2.approx beside 1 (noise.h).
SA_INLINE float survival(float number) { return fma(number, -0x1p-32f, 1 + 0x1p-22f); }

// A 16-bit field as a number. Float: its bits under the exponent of 128 are 128 + field / 2^16 in one byte
// permutation. Uniform positions then lie field_shift from the coordinate, and 2^-17 too low: that last bit would
// not fit beside 128, so field_rest is added to the weighted sums.
template <class V>
constexpr double field_scale = is_double<V> ? 0x1p-16 : 1;
template <class V>
constexpr double field_shift = is_double<V> ? 0x1p-17 - 0.5 : -128.5;
template <class V>
constexpr double field_rest = is_double<V> ? 0 : 0x1p-17;

constexpr uint32_t number_exponent = 0x43000000;
template <class V>
SA_INLINE V field_number(uint32_t word, bool high, uint32_t exponent) {
  if constexpr (is_double<V>) return V(high ? word >> 16 : word & 0xFFFF);
  return __uint_as_float(__byte_perm(word, exponent, high ? 0x7632 : 0x7610));
}

// The logits' types; 16-bit ones are plain bits here.
SA_INLINE float bfloat16_number(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }
SA_INLINE uint16_t bfloat16_bits(float x) {
  const uint32_t bits = __float_as_uint(x);
  if (x != x) return 0x7FC0;
  return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
#ifdef __CUDACC__
SA_INLINE float float16_number(uint16_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
SA_INLINE uint16_t float16_bits(float x) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
#else
SA_INLINE float float16_number(uint16_t bits) { return float(shim::bit_cast<_Float16>(bits)); }
SA_INLINE uint16_t float16_bits(float x) { return shim::bit_cast<uint16_t>(_Float16(x)); }
#endif

#include "philox.h"
#include "noise.h"
#include "distance.h"
#include "gradient.h"

// 2 u - 1 of a 16-bit field, whose bits lie under the exponent of 2^23 for one multiply-add: 257 - 2^-16 has a bit more
// than a float, so that half of it comes from the factor, 2^-15 less 2^-39. That is off by 2^-39 field, which moves a
// position by 1.5e-5 of a cell at the last field, u = 1 - 2^-17, and by less than 1e-6 where 1 - u > 2e-3.
constexpr uint32_t centred_exponent = 0x4B000000;
template <class V>
SA_INLINE V centred_field(uint32_t word, bool high, uint32_t exponent) {
  const V number = field_number<V>(word, high, exponent);
  if constexpr (is_double<V>) return centred_field(number);
  return fma(number, V(0x1p-15 - 0x1p-39), V(0x1p-15 - 257));
}

}  // namespace sampling_argmax::cuda
