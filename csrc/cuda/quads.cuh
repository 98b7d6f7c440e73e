// Four cells at a time: the words that one call of the generator gives them, and the noise of their bases.

#pragma once

#include "cuda/primitives.cuh"

namespace sampling_argmax::cuda {

// The words of all rounds. Read from shared memory into registers before a loop over cells, they stay there; ptxas
// would add the sums of PhiloxKey up again for every quad.
struct KeySchedule {
  uint32_t words[20];
  uint32_t exponents[2];  // number_exponent and centred_exponent, which as literals would cost moves with every use
  SA_INLINE uint32_t lo(uint32_t round) const { return words[2 * round]; }
  SA_INLINE uint32_t hi(uint32_t round) const { return words[2 * round + 1]; }
};
constexpr int schedule_bytes = 96;
using LoopKey = NoiseKeyOf<KeySchedule>;

SA_INLINE void store_schedule(const PhiloxKey& key, uint32_t* shared) {
  for (uint32_t i = threadIdx.x; i < 20; i += blockDim.x) shared[i] = i & 1 ? key.hi(i / 2) : key.lo(i / 2);
  if (threadIdx.x == 0) shared[20] = number_exponent, shared[21] = centred_exponent;
}
SA_INLINE LoopKey loop_key(const NoiseKey& key, const uint32_t* shared) {
  LoopKey out{{}, key.row_lo, key.sample, key.row_hi};
#pragma unroll
  for (int i = 0; i < 20; ++i) out.seed.words[i] = shared[i];
  out.seed.exponents[0] = shared[20], out.seed.exponents[1] = shared[21];
  return out;
}

template <class T>
struct alignas(16) Quad {
  T v[4];
};

template <class T>
SA_INLINE Quad<T> load_quad(const T* from) {
  return *reinterpret_cast<const Quad<T>*>(from);
}
template <class T>
SA_INLINE void store_quad(T* to, const Quad<T>& quad) {
  *reinterpret_cast<Quad<T>*>(to) = quad;
}

// What of the first two rounds no cell takes part in. It is read from shared memory: ptxas would work it out again for
// every quad, three instructions for the load's one.
struct alignas(16) SampleStart {
  uint32_t a, c, d, unused;
};

SA_INLINE SampleStart sample_start(const NoiseKey& key) {
  const uint64_t q = mul_wide(key.sample, 0xCD9E8D57u);
  const uint64_t p = mul_wide(uint32_t(high(q)) ^ key.row_lo ^ key.seed.lo(0), 0xD2511F53u);
  return {uint32_t(q) ^ key.seed.lo(1), uint32_t(high(p)) ^ key.seed.hi(1), uint32_t(p), 0};
}

// philox() from a sample's start on.
SA_INLINE Quad<uint32_t> quad_words(uint32_t group, const LoopKey& key, const SampleStart& start, Stream stream) {
  const uint64_t p = mul_wide(group, 0xD2511F53u);
  const uint64_t q = mul_wide(high(p) ^ key.tag(stream) ^ key.seed.hi(0), 0xCD9E8D57u);
  const auto state =
      philox_rounds<2>(high(q) ^ start.a, q, uint64_t(uint32_t(p) ^ start.c), uint64_t(start.d), key.seed);
  return {uint32_t(state.a), uint32_t(state.b), uint32_t(state.c), uint32_t(state.d)};
}

SA_INLINE Quad<uint32_t> quad_words(uint32_t group, const LoopKey& key, Stream stream) {
  const auto state = philox(uint64_t(group), key, stream);
  return {uint32_t(state.a), uint32_t(state.b), uint32_t(state.c), uint32_t(state.d)};
}

// The words of the bases of quad g: a pair of fields a cell, and single fields 4 g .. 4 g + 3 in two words.
template <Basis basis, int axes>
struct QuadNoise {
  static constexpr bool noisy = basis == Basis::uniform || basis == Basis::triangular;
  Quad<uint32_t> pair;
  uint32_t single[2], exponent;

  // From a sample's start on where there is one.
  template <class... Start>
  SA_INLINE QuadNoise(uint32_t g, const LoopKey& key, const Start&... start)
      : exponent(key.seed.exponents[basis == Basis::triangular]) {
    if constexpr (noisy && axes >= 2) pair = quad_words(g, key, start..., kPair);
    if constexpr (noisy && axes % 2 == 1) {
      const Quad<uint32_t> words = quad_words(g >> 1, key, start..., kSingle);
      single[0] = g & 1 ? words.v[2] : words.v[0];
      single[1] = g & 1 ? words.v[3] : words.v[1];
    }
  }

  // Moves the coordinate of cell j of the quad.
  template <class T>
  SA_INLINE T move(int j, int axis, T c) const {
    if constexpr (!noisy) return c;
    const bool of_pair = axes >= 2 && axis < 2;
    return moved(of_pair ? pair.v[j] : single[j >> 1], of_pair ? axis == 1 : (j & 1) == 1, c);
  }

  template <class T>
  SA_INLINE T moved(uint32_t word, bool high, T c) const {
    if constexpr (basis == Basis::triangular) return triangular_position(centred_field<T>(word, high, exponent), c);
    return uniform_position(field_number<T>(word, high, exponent), c);
  }
};

}  // namespace sampling_argmax::cuda
