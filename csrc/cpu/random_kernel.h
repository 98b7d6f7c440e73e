// The raw random words and the exponential of a word, through the code that the operators use.
// No include guard (see foreach_isa.h).

template <class R, Basis, int>
struct RandomWord {
  // A whole block is drawn, as in the operators, and the asked-for word of it kept.
  static uint32_t run(const Problem&, uint64_t seed, uint64_t row, uint32_t sample, int64_t index, int stream) {
    constexpr int64_t size = Block<R>::size;
    uint32_t words[size];
    const Words<R> block = cell_words<R>(index / size * size, noise_key(seed, row, sample), Stream(stream));
    SA_EACH(R) store(words + j * R::lanes, block.r[j]);
    return words[index % size];
  }
};

template <class R, Basis, int>
struct Exponentials {
  using T = typename R::Scalar;
  static int run(const Problem&, const uint32_t* words, T* out, int64_t count) {
    for (int64_t i = 0; i + Block<R>::size <= count; i += Block<R>::size) {
      Words<R> block;
      SA_EACH(R) block.r[j] = load_words(words + i + j * R::lanes);
      store(out + i, exponential<Block<R>>(block));
    }
    return 0;
  }
};
