"""A row's weights added up to its marginals, sample by sample. Equations (17) and (18) of reference/README.md.

A tile is LINES lines of CHUNKS times COLUMNS units of PER cells: whole quads, or single cells where lines cut through
quads. Tiles are added up along x and along the lines in registers, so that only marginals are written.
"""

import triton
import triton.language as tl

from .noise import log_weight, weight
from .philox import GUMBEL, philox
from .row import exponents, repeated


@triton.jit
def unit_word(unit, j: tl.constexpr, words, PER: tl.constexpr):
    """The Gumbel word of a cell: of a quad's cell j, or, where lines cut through quads, of the cell ``unit``."""
    if PER == 4:
        return words[j]
    else:
        low = tl.where(unit & 1 == 1, words[1], words[0])
        return tl.where(unit & 2 == 2, tl.where(unit & 1 == 1, words[3], words[2]), low)


@triton.jit
def unit_weight(logits, unit, inside, j: tl.constexpr, words, cells, top, high, scale, shift, neg_inv_tau,
                PER: tl.constexpr, LOW: tl.constexpr, FAST: tl.constexpr):  # fmt: skip
    a = tl.where(inside, exponents(logits, PER * unit + j, cells, top, scale, shift), float("-inf"))
    return weight(unit_word(unit, j, words, PER), a - high if LOW else a, neg_inv_tau, FAST)


@triton.jit
def sample_top(logits, noise_row, s, key_lo, key_hi, cells, top, scale, neg_inv_tau, TOGETHER: tl.constexpr,
               QUADS: tl.constexpr, FAST: tl.constexpr):  # fmt: skip
    """The largest exponent of each sample, from a pass of its own."""
    high = tl.full([TOGETHER, QUADS], float("-inf"), tl.float32)
    for first in range(0, (cells + 3) // 4, QUADS):
        quad = first + tl.arange(0, QUADS)[None, :]
        words = philox(quad, noise_row, s, GUMBEL, key_lo, key_hi)
        for j in tl.static_range(4):
            a = exponents(logits, 4 * quad + j, cells, top, scale, 0.0)
            high = tl.maximum(high, log_weight(words[j], a, neg_inv_tau, FAST))
    return tl.max(high, axis=1)[:, None, None]


@triton.jit
def one_marginal(logits, h, first_row, row, s, real, key_lo, key_hi, cells, top, high, scale, shift, neg_inv_tau, zero,
                 PER: tl.constexpr, COLUMNS: tl.constexpr, LOW: tl.constexpr, FAST: tl.constexpr):  # fmt: skip
    """One axis: the weights are the marginal. Returns what they sum to, in the shape of ``zero``."""
    total = zero
    for start in range(0, (cells + PER - 1) // PER, COLUMNS):
        unit = start + tl.arange(0, COLUMNS)[None, None, :]
        words = philox(unit, first_row + row, s, GUMBEL, key_lo, key_hi)
        for j in tl.static_range(4):
            i = 4 * unit + j
            w = unit_weight(
                logits, unit, i < cells, j, words, cells, top, high, scale, shift, neg_inv_tau, PER, LOW, FAST
            )
            total += w
            tl.store(h + i, w, mask=real & (i < cells))
    return total


@triton.jit
def add_lines(h, lines, y, z, real, AXES: tl.constexpr, HEIGHT: tl.constexpr):
    """The sums of lines y to the marginal ``h`` of y, to which the slabs z add."""
    sums = tl.sum(lines, axis=2, keep_dims=True)
    if AXES == 3:
        sums += tl.load(h + y, mask=real & (y < HEIGHT) & (z > 0), other=0.0)
    tl.store(h + y, sums, mask=real & (y < HEIGHT))
    if AXES == 3:
        tl.debug_barrier()  # the next slab reads these sums, perhaps in other threads


@triton.jit
def marginals_of_lines(
    logits, h, first_row, row, s, real, key_lo, key_hi, cells, top, high, scale, shift, neg_inv_tau, zero,
    depth, AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, LOW: tl.constexpr, FAST: tl.constexpr,
    PER: tl.constexpr, COLUMNS: tl.constexpr, CHUNKS: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """The same of two or three axes: x, y, z one after another."""
    column = tl.arange(0, COLUMNS)[None, None, :]
    units: tl.constexpr = WIDTH // PER
    total, columns = zero, repeated(zero, CHUNKS * PER)
    for z in range(depth):
        slab = zero
        for y_first in range(0, HEIGHT, LINES):
            y = y_first + tl.arange(0, LINES)[None, :, None]
            lines = zero
            new = ()
            for chunk in tl.static_range(CHUNKS):
                x = chunk * COLUMNS + column
                unit = (z * HEIGHT + y) * units + x
                words = philox(unit if PER == 4 else unit >> 2, first_row + row, s, GUMBEL, key_lo, key_hi)
                for j in tl.static_range(PER):
                    inside = (y < HEIGHT) & (x < units)
                    w = unit_weight(
                        logits, unit, inside, j, words, cells, top, high, scale, shift, neg_inv_tau, PER, LOW, FAST
                    )
                    lines += w
                    new = new + (columns[chunk * PER + j] + w,)
            columns = new
            slab += lines
            add_lines(h + WIDTH, lines, y, z, real, AXES, HEIGHT)
        total += slab
        if AXES == 3:
            of_slab = tl.sum(tl.sum(slab, axis=2, keep_dims=True), axis=1, keep_dims=True)
            tl.store(h + WIDTH + HEIGHT + z, of_slab, mask=real)
    for chunk in tl.static_range(CHUNKS):
        for j in tl.static_range(PER):
            x = PER * (chunk * COLUMNS + column) + j
            sums = tl.sum(columns[chunk * PER + j], axis=1, keep_dims=True)
            tl.store(h + x, sums, mask=real & (x < WIDTH))
    return total


@triton.jit
def normalise(h, sums, bins, real, BINS: tl.constexpr):
    """Divides the marginals by the sums of the weights."""
    for start in range(0, bins, BINS):
        every = start + tl.arange(0, BINS)[None, :]
        mask = real & (every < bins)
        tl.store(h + every, tl.load(h + every, mask=mask, other=0.0) / sums, mask=mask)
