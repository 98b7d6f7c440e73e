// A block is a few registers worked on together, so that their long dependency chains overlap. A register type R
// (simd_*.h) gives Scalar, lanes, per_block, arithmetic, load/store and the bit tricks; a block repeats them.

template <class R>
struct Block {
  using Scalar = typename R::Scalar;
  static constexpr int size = R::lanes * R::per_block;
  R r[R::per_block];
  Block() = default;
  SA_INLINE Block(Scalar x) {
    for (R& register_ : r) register_ = R(x);
  }
};

template <class R>
struct Words {
  U r[R::per_block];
};

template <class V>
constexpr bool is_double = sizeof(typename V::Scalar) == 8;

// Fields are plain numbers here (noise.h).
template <class V>
constexpr double field_scale = 0x1p-16;
template <class V>
constexpr double field_shift = 0x1p-17 - 0.5;

// ---- what float registers make of their bit tricks ----

// 1 - u of a word read as a signed number, raised by 2^-23 where it is above one half.
SA_INLINE F survival(F number) {
  return fma(number, F(-0x1p-32f), where_negative(number, F(-0x1p-33f), F(1 + 0x1p-23f)));
}

// x = 2^exponent * (1 + t) with t in [sqrt(1/2) - 1, sqrt(2) - 1).
SA_INLINE void split_exponent(F x, F& exponent, F& t) {
  const U e = shift_right<23>(bits_of(x) - all_lanes(0x3F3504F3));
  exponent = to_number(e);
  t = number_of(bits_of(x) - shift_left<23>(e)) - F(1.0f);
}

// 2^n from n + magic + 127, magic = 1.5 * 2^23: the sum's low bits are the exponent field.
SA_INLINE F power_of_two(F biased) { return number_of(shift_left<23>(bits_of(biased))); }

// ---- what blocks do ----

SA_INLINE double abs(double x) { return __builtin_fabs(x); }
SA_INLINE double sqrt(double x) { return __builtin_sqrt(x); }
SA_INLINE double log(double x) { return __builtin_log(x); }
SA_INLINE double cos_turn(double x) { return __builtin_cos(6.283185307179586 * x); }
SA_INLINE double sin_turn(double x) { return __builtin_sin(6.283185307179586 * x); }

#define SA_EACH(R) _Pragma("GCC unroll 16") for (int j = 0; j < R::per_block; ++j)
#define SA_UNARY(name)                  \
  template <class R>                    \
  SA_INLINE Block<R> name(Block<R> a) { \
    Block<R> out;                       \
    SA_EACH(R) out.r[j] = name(a.r[j]); \
    return out;                         \
  }
#define SA_BINARY(name)                             \
  template <class R>                                \
  SA_INLINE Block<R> name(Block<R> a, Block<R> b) { \
    Block<R> out;                                   \
    SA_EACH(R) out.r[j] = name(a.r[j], b.r[j]);     \
    return out;                                     \
  }

SA_UNARY(sqrt)
SA_UNARY(abs)
SA_UNARY(survival)
SA_UNARY(log1p)
SA_BINARY(operator+)
SA_BINARY(operator-)
SA_BINARY(operator*)
SA_BINARY(operator/)
SA_BINARY(max)
SA_BINARY(copysign)

template <class R>
SA_INLINE Block<R> operator-(Block<R> a) {
  return Block<R>(typename R::Scalar(0)) - a;
}

template <class R>
SA_INLINE Block<R> fma(Block<R> a, Block<R> b, Block<R> c) {
  Block<R> out;
  SA_EACH(R) out.r[j] = fma(a.r[j], b.r[j], c.r[j]);
  return out;
}

template <class R>
SA_INLINE Block<R> where_negative(Block<R> x, Block<R> yes, Block<R> no) {
  Block<R> out;
  SA_EACH(R) out.r[j] = where_negative(x.r[j], yes.r[j], no.r[j]);
  return out;
}

template <class R>
SA_INLINE Block<R> load_block(const typename R::Scalar* p) {
  Block<R> out;
  SA_EACH(R) out.r[j] = load(p + j * R::lanes, R());
  return out;
}

template <class R>
SA_INLINE void store(typename R::Scalar* p, Block<R> a) {
  SA_EACH(R) store(p + j * R::lanes, a.r[j]);
}

template <class V, class R>
SA_INLINE V to_number(Words<R> words) {
  V out;
  SA_EACH(R) {
    if constexpr (is_double<V>)
      out.r[j] = to_double(words.r[j]);
    else
      out.r[j] = to_number(words.r[j]);
  }
  return out;
}

template <class R>
SA_INLINE Words<R> low_fields(Words<R> words) {
  SA_EACH(R) words.r[j] = low_field(words.r[j]);
  return words;
}

template <class R>
SA_INLINE Words<R> high_fields(Words<R> words) {
  SA_EACH(R) words.r[j] = high_field(words.r[j]);
  return words;
}

// Sums over a block go into one register: the few additions in a row hide behind the rest of the block.
template <class R>
SA_INLINE R accumulate(R total, Block<R> a) {
  SA_EACH(R) total = total + a.r[j];
  return total;
}
template <class R>
SA_INLINE R accumulate(R total, Block<R> a, Block<R> b) {
  SA_EACH(R) total = fma(a.r[j], b.r[j], total);
  return total;
}

// ---- elementary functions: minimax polynomials, absolute error of log2 5e-8, relative error of exp2 8e-8 ----

template <class R>
SA_INLINE Block<R> log2(Block<R> x) {
  Block<R> out;
  if constexpr (is_double<R>) {
    SA_EACH(R) out.r[j] = log2(x.r[j]);
  } else {
    constexpr float c[] = {0x1.715472p+0f, -0x1.7155b8p-1f, 0x1.ec7b60p-2f, -0x1.70baf0p-2f,
                           0x1.2596ecp-2f, -0x1.00100ap-2f, 0x1.e522acp-3f, -0x1.2a82fcp-3f};
    Block<R> exponent, t;
    SA_EACH(R) split_exponent(x.r[j], exponent.r[j], t.r[j]);
    out = Block<R>(c[7]);
#pragma GCC unroll 8
    for (int i = 6; i >= 0; --i) out = fma(out, t, Block<R>(c[i]));
    out = fma(out, t, exponent);
  }
  return out;
}

// -inf gives exactly 0, NaN gives NaN; x < 127.
template <class R>
SA_INLINE Block<R> exp2(Block<R> x) {
  Block<R> out;
  if constexpr (is_double<R>) {
    SA_EACH(R) out.r[j] = exp2(x.r[j]);
  } else {
    constexpr float c[] = {0x1.000002p+0f, 0x1.62e428p-1f, 0x1.ebf918p-3f,
                           0x1.c6b6e4p-5f, 0x1.3d0c52p-7f, 0x1.5c08e6p-10f};
    const Block<R> magic(0x1.8p23f + 127.0f);
    x = max(Block<R>(-127.0f), x);  // the second operand wins where one is NaN
    const Block<R> biased = x + magic;
    const Block<R> t = x - (biased - magic);
    out = Block<R>(c[5]);
#pragma GCC unroll 8
    for (int i = 4; i >= 0; --i) out = fma(out, t, Block<R>(c[i]));
    Block<R> power;
    SA_EACH(R) power.r[j] = power_of_two(biased.r[j]);
    out = out * power;
  }
  return out;
}

// sin(2 pi x) for |x| <= 1/4; absolute error 2e-7.
template <class R>
SA_INLINE Block<R> sin_turn(Block<R> x) {
  constexpr float c[] = {0x1.921fb4p+2f, -0x1.4abbb6p+5f, 0x1.46676ep+6f, -0x1.3232fap+6f, 0x1.3c4b2cp+5f};
  const Block<R> square = x * x;
  Block<R> out = Block<R>(c[4]);
#pragma GCC unroll 4
  for (int i = 3; i >= 0; --i) out = fma(out, square, Block<R>(c[i]));
  return out * x;
}

// ---- random words of a block, in the order of its cells ----

template <int count>
SA_INLINE void random_words(U (&out)[count], uint32_t first_group, NoiseKey key, Stream stream) {
#pragma GCC unroll 4
  for (int set = 0; set < count / regs_per_set; ++set) {
    const auto state = philox(group_set(first_group, set), key, stream);
    interleave_words(wide(state.a), wide(state.b), wide(state.c), wide(state.d), out + set * regs_per_set);
  }
}

// Word i for the cells i of a block.
template <class R>
SA_INLINE Words<R> cell_words(int64_t cell, NoiseKey key, Stream stream) {
  Words<R> out;
  random_words(out.r, uint32_t(cell / 4), key, stream);
  return out;
}

// The 16-bit field i for the cells i of a block; field f lives in word f / 2.
template <class R>
SA_INLINE Words<R> cell_fields(int64_t cell, NoiseKey key) {
  U words[R::per_block / 2];
  random_words(words, uint32_t(cell / 8), key, kSingle);
  Words<R> out;
#pragma GCC unroll 8
  for (int j = 0; j < R::per_block / 2; ++j) expand_fields(words[j], out.r + 2 * j);
  return out;
}
