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
def philox(group, row, sample, stream, key_lo, key_hi):
    """Four words. What does not depend on the cell keeps its smaller shape for the first rounds."""
    a, b = group.to(tl.uint32), row.to(tl.uint32)
    c, d = sample.to(tl.uint32), ((row >> 32).to(tl.uint32) << 8) | stream
    for _ in tl.static_range(10):
        # One 64-bit product is one instruction; a high and a low multiplication would be two.
        p, q = a.to(tl.uint64) * 0xD2511F53, c.to(tl.uint64) * 0xCD9E8D57
        a, b = (q >> 32).to(tl.uint32) ^ b ^ key_lo, q.to(tl.uint32)
        c, d = (p >> 32).to(tl.uint32) ^ d ^ key_hi, p.to(tl.uint32)
        key_lo += 0x9E3779B9
        key_hi += 0xBB67AE85
    return a, b, c, d
