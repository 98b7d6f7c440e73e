// Philox4x32-10 (Salmon et al., SC'11), the counter-based generator of every backend.
// No include guard: each instruction set of the CPU build includes it once, inside its own namespace.
//
//   word(stream, i) = philox(key = seed, counter = (i >> 2, row, sample, stream))[i & 3]
//
// A value is held in the low half of a 64-bit lane whose high half may hold anything: a round's product gives
// both halves at once, and the next multiplication reads low halves only. Types may differ among the four
// counter words, so what is uniform over the cells of a row (row, sample, stream) stays scalar for the first
// rounds. Check: key 0, counter 0 gives 6627e8d5 e169c58d bc57ac4c 9b00dbd8.

enum Stream : uint32_t { kGumbel = 0, kPair = 1, kSingle = 2, kNormal = 3 };

// A key gives the two words of each round; this one adds them up when asked.
struct PhiloxKey {
  uint32_t first_lo, first_hi;
  SA_INLINE uint32_t lo(uint32_t round) const { return first_lo + round * 0x9E3779B9u; }
  SA_INLINE uint32_t hi(uint32_t round) const { return first_hi + round * 0xBB67AE85u; }
};

// What stays the same for all cells of one (row, sample).
template <class Key>
struct NoiseKeyOf {
  Key seed;
  uint32_t row_lo, sample, row_hi;

  // Rows above 2^32 continue in the bits above the stream number.
  SA_INLINE uint32_t tag(Stream stream) const { return stream | row_hi << 8; }
};

using NoiseKey = NoiseKeyOf<PhiloxKey>;

SA_INLINE NoiseKey noise_key(uint64_t seed, uint64_t row, uint32_t sample) {
  return {{uint32_t(seed), uint32_t(seed >> 32)}, uint32_t(row), sample, uint32_t(row >> 32)};
}

SA_INLINE uint64_t mul_wide(uint64_t a, uint32_t m) {
#ifdef __CUDACC__
  uint64_t product;  // said outright: from the 64-bit product nvcc adds the high half's zero, 8 instructions a call
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(uint32_t(a)), "r"(m));
  return product;
#else
  return uint64_t(uint32_t(a)) * m;
#endif
}
SA_INLINE uint64_t high(uint64_t product) { return product >> 32; }
SA_INLINE uint64_t xor3(uint64_t a, uint64_t b, uint32_t key) { return a ^ b ^ key; }

template <class A, class B, class C, class D>
struct PhiloxState {
  A a;
  B b;
  C c;
  D d;
};

template <int round, class A, class B, class C, class D, class Key>
SA_INLINE auto philox_rounds(A a, B b, C c, D d, const Key& key) {
  if constexpr (round == 10) {
    return PhiloxState<A, B, C, D>{a, b, c, d};
  } else {
    const auto p = mul_wide(a, 0xD2511F53u);
    const auto q = mul_wide(c, 0xCD9E8D57u);
    return philox_rounds<round + 1>(xor3(high(q), b, key.lo(round)), q, xor3(high(p), d, key.hi(round)), p, key);
  }
}

template <class Group, class Key>
SA_INLINE auto philox(Group group, const NoiseKeyOf<Key>& key, Stream stream) {
  return philox_rounds<0>(group, uint64_t(key.row_lo), uint64_t(key.sample), uint64_t(key.tag(stream)), key.seed);
}
