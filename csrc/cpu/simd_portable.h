// One lane a register: every machine, and float64 on all of them. The compiler may vectorise over a block.

template <class T>
struct Lane {
  using Scalar = T;
  static constexpr int lanes = 1, per_block = 16;
  T v;
  Lane() = default;
  SA_INLINE Lane(T x) : v(x) {}
};
using F = Lane<float>;
using Double = Lane<double>;

struct U {
  uint32_t v;
};

template <class T>
SA_INLINE Lane<T> operator+(Lane<T> a, Lane<T> b) {
  return a.v + b.v;
}
template <class T>
SA_INLINE Lane<T> operator-(Lane<T> a, Lane<T> b) {
  return a.v - b.v;
}
template <class T>
SA_INLINE Lane<T> operator*(Lane<T> a, Lane<T> b) {
  return a.v * b.v;
}
template <class T>
SA_INLINE Lane<T> operator/(Lane<T> a, Lane<T> b) {
  return a.v / b.v;
}
template <class T>
SA_INLINE Lane<T> fma(Lane<T> a, Lane<T> b, Lane<T> c) {
  return a.v * b.v + c.v;
}
template <class T>
SA_INLINE Lane<T> max(Lane<T> a, Lane<T> b) {  // b where either is NaN
  return a.v > b.v ? a.v : b.v;
}
template <class T>
SA_INLINE Lane<T> load(const T* p, Lane<T>) {
  return *p;
}
template <class T>
SA_INLINE void store(T* p, Lane<T> a) {
  *p = a.v;
}
template <class T>
SA_INLINE T reduce_add(Lane<T> a) {
  return a.v;
}
SA_INLINE F sqrt(F a) { return __builtin_sqrtf(a.v); }
SA_INLINE Double sqrt(Double a) { return __builtin_sqrt(a.v); }
SA_INLINE F abs(F a) { return __builtin_fabsf(a.v); }
SA_INLINE Double abs(Double a) { return __builtin_fabs(a.v); }
SA_INLINE F copysign(F magnitude, F sign) { return __builtin_copysignf(magnitude.v, sign.v); }
SA_INLINE Double copysign(Double magnitude, Double sign) { return __builtin_copysign(magnitude.v, sign.v); }
SA_INLINE Double log1p(Double a) { return __builtin_log1p(a.v); }
SA_INLINE Double log2(Double a) { return __builtin_log2(a.v); }
SA_INLINE Double exp2(Double a) { return __builtin_exp2(a.v); }

template <class T>
SA_INLINE Lane<T> where_negative(Lane<T> x, Lane<T> yes, Lane<T> no) {
  return x.v < 0 ? yes.v : no.v;
}

SA_INLINE U bits_of(F a) { return __builtin_bit_cast(U, a); }
SA_INLINE F number_of(U bits) { return __builtin_bit_cast(F, bits); }
SA_INLINE U all_lanes(uint32_t x) { return {x}; }
SA_INLINE U operator-(U a, U b) { return {a.v - b.v}; }
template <int n>
SA_INLINE U shift_left(U a) {
  return {a.v << n};
}
template <int n>
SA_INLINE U shift_right(U a) {  // with copies of the sign
  return {uint32_t(int32_t(a.v) >> n)};
}

SA_INLINE F to_number(U a) { return float(int32_t(a.v)); }
SA_INLINE Double to_double(U a) { return double(a.v); }
SA_INLINE U low_field(U a) { return {a.v & 0xFFFF}; }
SA_INLINE U high_field(U a) { return {a.v >> 16}; }
SA_INLINE void expand_fields(U words, U* out) {
  out[0] = low_field(words);
  out[1] = high_field(words);
}
SA_INLINE void store(uint32_t* p, U a) { *p = a.v; }
SA_INLINE U load_words(const uint32_t* p) { return {*p}; }

// ---- Philox: one counter a set ----

struct W {
  uint64_t v;
};

constexpr int regs_per_set = 4;

SA_INLINE W mul_wide(W a, uint32_t m) { return {uint64_t(uint32_t(a.v)) * m}; }
SA_INLINE W high(W a) { return {a.v >> 32}; }
SA_INLINE uint64_t wide(W a) { return a.v; }
SA_INLINE uint64_t wide(uint64_t a) { return a; }
template <class A, class B>
SA_INLINE W xor3(A a, B b, uint32_t key) {
  return {wide(a) ^ wide(b) ^ key};
}
SA_INLINE W group_set(uint32_t first, int set) { return {uint64_t(uint32_t(first + set))}; }
SA_INLINE void interleave_words(uint64_t a, uint64_t b, uint64_t c, uint64_t d, U* out) {
  out[0] = {uint32_t(a)};
  out[1] = {uint32_t(b)};
  out[2] = {uint32_t(c)};
  out[3] = {uint32_t(d)};
}
