"""One axis of axis_sample: noise, weight, position and gradient of its bins. Equations (18)-(24) of reference/README.md."""

import triton
import triton.language as tl

from .noise import FIELD_REST, FIELD_SHIFT, field, move, standard_normal
from .philox import SINGLE, philox


@triton.jit
def bin_noise(f, row, s, key_lo, key_hi, BASIS: tl.constexpr, FAST: tl.constexpr):
    """Noise of bins f of a (row, sample), all axes' bins counted on."""
    if BASIS == "gaussian":
        return standard_normal(f, row, s, key_lo, key_hi, FAST)
    elif BASIS == "none":
        return f.to(tl.float32) * 0.0 + s.to(tl.float32) * 0.0
    else:
        a, b, c, d = philox(f >> 3, row, s, SINGLE, key_lo, key_hi)
        word = tl.where(f & 4 == 4, tl.where(f & 2 == 2, d, c), tl.where(f & 2 == 2, b, a))
        word = tl.where(f & 1 == 1, word >> 16, word)
        if BASIS == "uniform":
            return field(word, False) + FIELD_SHIFT + FIELD_REST
        else:
            return move(word, 0.0, False, BASIS, FAST)


@triton.jit
def bin_weight(h, j, size, scale, noise, factor, BASIS: tl.constexpr):
    """Weight of bins j whose marginals, times ``scale``, are at ``h``; out of the map it is 0."""
    own = tl.load(h + j, mask=j < size, other=0.0) * scale
    if BASIS == "gaussian":
        return own * factor
    elif BASIS == "triangular":
        other = tl.where(noise < 0, j - 1, j + 1)
        beside = tl.load(h + other, mask=(j < size) & (other >= 0) & (other < size), other=0.0) * scale
        return (1 - tl.abs(noise)) * own + tl.abs(noise) * beside
    else:
        return own


@triton.jit
def bin_position(j, begin, noise, sigma, BASIS: tl.constexpr):
    """Positions of bins j, counted from the bin ``begin``."""
    return (j - begin).to(tl.float32) + (sigma * noise if BASIS == "gaussian" else noise)


@triton.jit
def axis_sums(h, first, size, begin, scale, sigma, reweight, row, s, key_lo, key_hi, BASIS: tl.constexpr,
              TOGETHER: tl.constexpr, BINS: tl.constexpr, FAST: tl.constexpr):  # fmt: skip
    """Sums over the bins of one axis: of the weights q (1 where they are the marginals), of q u and of q noise."""
    total = tl.zeros([TOGETHER, BINS], tl.float32)
    moment, noises = total, total
    for start in range(0, size, BINS):
        j = start + tl.arange(0, BINS)[None, :]
        noise = bin_noise(first + j, row, s, key_lo, key_hi, BASIS, FAST)
        q = bin_weight(h, j, size, scale, noise, tl.exp(-reweight * noise * noise), BASIS)
        total += q
        moment = tl.fma(q, bin_position(j, begin, noise, sigma, BASIS), moment)
        noises = tl.fma(q, noise, noises)
    sums = tl.sum(total, axis=1)
    if BASIS == "none" or BASIS == "uniform":
        sums = tl.full([TOGETHER], 1.0, tl.float32)
    return sums[:, None], tl.sum(moment, axis=1)[:, None], tl.sum(noises, axis=1)[:, None]


@triton.jit
def clipped_mean(h, first, size, begin, centre, total, sigma, reweight, clip, row, s, key_lo, key_hi, BASIS: tl.constexpr,
                 TOGETHER: tl.constexpr, BINS: tl.constexpr, FAST: tl.constexpr):  # fmt: skip
    """The mean of the clipped derivatives: the weights above the centre less those below."""
    above = tl.zeros([TOGETHER, BINS], tl.float32)
    for start in range(0, size, BINS):
        j = start + tl.arange(0, BINS)[None, :]
        noise = bin_noise(first + j, row, s, key_lo, key_hi, BASIS, FAST)
        weights = bin_weight(h, j, size, 1.0, noise, tl.exp(-reweight * noise * noise), BASIS)
        above += tl.where(bin_position(j, begin, noise, sigma, BASIS) >= centre, weights, -weights) * clip
    return tl.sum(above, axis=1)[:, None] / total


@triton.jit
def bin_change(j, first, size, begin, mean, centre, factor_of, sigma, clip, row, s, key_lo, key_hi,
               BASIS: tl.constexpr, CLIP: tl.constexpr, FAST: tl.constexpr):  # fmt: skip
    """Noise of bins j and the derivative of the coordinate by their weights; both 0 out of the map."""
    inside = (j >= 0) & (j < size)
    noise = tl.where(inside, bin_noise(first + tl.where(inside, j, 0), row, s, key_lo, key_hi, BASIS, FAST), 0.0)
    u = bin_position(j, begin, noise, sigma, BASIS)
    slope = tl.where(u >= centre, clip, -clip) if CLIP else u
    return noise, tl.where(inside, (slope - mean) * factor_of, 0.0)


@triton.jit
def bin_gradient(j, first, size, begin, mean, centre, factor_of, sigma, reweight, clip, row, s, key_lo, key_hi,
                 BASIS: tl.constexpr, CLIP: tl.constexpr, FAST: tl.constexpr):  # fmt: skip
    """The gradient of bins j: their own share and those of the neighbours that lean on them."""
    noise, own = bin_change(j, first, size, begin, mean, centre, factor_of, sigma, clip, row, s, key_lo, key_hi, BASIS, CLIP,
                            FAST)  # fmt: skip
    if BASIS == "gaussian":
        own *= tl.exp(-reweight * noise * noise)
    if BASIS == "triangular":
        left, left_change = bin_change(j - 1, first, size, begin, mean, centre, factor_of, sigma, clip, row, s,
                                       key_lo, key_hi, BASIS, CLIP, FAST)  # fmt: skip
        right, right_change = bin_change(j + 1, first, size, begin, mean, centre, factor_of, sigma, clip, row, s,
                                         key_lo, key_hi, BASIS, CLIP, FAST)  # fmt: skip
        own *= 1 - tl.abs(noise)
        own += tl.where(left >= 0, left * left_change, 0.0) - tl.where(right < 0, right * right_change, 0.0)
    return own
