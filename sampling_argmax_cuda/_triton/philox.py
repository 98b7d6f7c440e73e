"""Philox4x32-10, bit for bit that of csrc/philox.h, in which the counter and the streams are explained."""

import triton
import triton.language as tl

GUMBEL, PAIR, SINGLE, NORMAL = (tl.constexpr(stream) for stream in range(4))


@triton.jit
def load_key(seed, SEED_WORDS: tl.constexpr):
    """The key's two words and the number of the first row."""
    key = tl.load(seed)
    first_row = tl.load(seed + 1) if SEED_WORDS > 1 else tl.zeros_like(key)
    return key.to(tl.uint32), (key >> 32).to(tl.uint32), first_row


@triton.jit
def _product(a, factor: tl.constexpr):
    """High and low word. One 64-bit product is one instruction; a high and a low multiplication would be two."""
    wide = a.to(tl.uint64) * factor
    return (wide >> 32).to(tl.uint32), wide.to(tl.uint32)


@triton.jit
def philox(group, row, sample, stream, key_lo, key_hi):
    """Four words. What does not depend on the cell keeps its smaller shape for the first rounds."""
    a, b = group.to(tl.uint32), row.to(tl.uint32)
    c, d = sample.to(tl.uint32), ((row >> 32).to(tl.uint32) << 8) | stream
    for _ in tl.static_range(10):
        p_hi, p_lo = _product(a, 0xD2511F53)
        q_hi, q_lo = _product(c, 0xCD9E8D57)
        a, b, c, d = q_hi ^ b ^ key_lo, q_lo, p_hi ^ d ^ key_hi, p_lo
        key_lo += 0x9E3779B9
        key_hi += 0xBB67AE85
    return a, b, c, d
