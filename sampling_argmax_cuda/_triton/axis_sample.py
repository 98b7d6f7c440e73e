"""axis_sample: the released estimator. Equations (17)-(24) of reference/README.md.

Forward: a program takes a row and TOGETHER samples and writes their marginals (marginals.py); then noise and coordinate
of every bin are made (bins.py). Backward: a gradient per bin, then a program keeps its cells' gradients and passes over
the samples, each cell reading one bin of each axis.
"""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .bins import axis_sums, bin_gradient, clipped_mean
from .launch import Rows, Sampling, define, dense, gradient, launch, result
from .marginals import marginals_of_lines, normalise, one_marginal, sample_top
from .noise import weight
from .philox import GUMBEL, load_key, philox
from .row import bin_of, exponents, row_offset, row_start, row_top, store_quads

# ---- forward ----


@triton.jit
def store_samples(samples, at, h, start_of, sums, sigma, reweight, row, first_row, s, group, num_samples, key_lo, key_hi,
                  width, height, depth, AXES: tl.constexpr, BASIS: tl.constexpr, TOGETHER: tl.constexpr, BINS: tl.constexpr,
                  FAST: tl.constexpr):  # fmt: skip
    """The coordinates of samples s, whose marginals are to be divided by ``sums``."""
    size, first = width, 0
    for axis in tl.static_range(AXES):
        inverse = 1 / sums
        spread = tl.load(sigma + row) if BASIS == "gaussian" else 0.0
        q, moment, _ = axis_sums(h + first, first, size, start_of[axis], inverse, spread, reweight, first_row + row,
                                 s, key_lo, key_hi, BASIS, TOGETHER, BINS, FAST)  # fmt: skip
        tl.store(samples + at * AXES + axis, moment / q, mask=group < num_samples)
        first += size
        size = height if axis == 0 else depth


@triton.jit
def axis_forward(
    logits, points, origins, sigma, seed, samples, marginals, stats,
    keypoints, cells, num_samples, batch_stride, keypoint_stride, scale, shift, neg_inv_tau, reweight,
    AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, POINTS: tl.constexpr, ORIGIN: tl.constexpr,
    BASIS: tl.constexpr, LOW: tl.constexpr, SEED_WORDS: tl.constexpr, FAST: tl.constexpr, TOGETHER: tl.constexpr,
    QUADS: tl.constexpr, PER: tl.constexpr, COLUMNS: tl.constexpr, CHUNKS: tl.constexpr, LINES: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Grid: rows, groups of samples. Tiles are those of marginals.py."""
    row = tl.program_id(0).to(tl.int64)
    logits += row_offset(row, keypoints, batch_stride, keypoint_stride)
    key_lo, key_hi, first_row = load_key(seed, SEED_WORDS)
    top = row_top(logits, cells, 4 * QUADS)
    group = tl.program_id(1) * TOGETHER + tl.arange(0, TOGETHER)
    s = group[:, None, None]
    height: tl.constexpr = HEIGHT if AXES >= 2 else 1
    width = WIDTH if AXES >= 2 else cells
    depth = cells // (width * height)
    bins = width + (height if AXES >= 2 else 0) + (depth if AXES == 3 else 0)
    h = marginals + (row * num_samples + s) * bins
    real = s < num_samples
    high = tl.zeros([TOGETHER, 1, 1], tl.float32)
    if LOW:
        high = sample_top(logits, first_row + row, group[:, None], key_lo, key_hi, cells, top, scale, neg_inv_tau,
                          TOGETHER, QUADS, FAST)  # fmt: skip
    zero = tl.zeros([TOGETHER, LINES, COLUMNS], tl.float32)
    if AXES == 1:
        total = one_marginal(logits, h, first_row, row, s, real, key_lo, key_hi, cells, top, high, scale, shift,
                             neg_inv_tau, zero, PER, COLUMNS, LOW, FAST)  # fmt: skip
    else:
        total = marginals_of_lines(
            logits, h, first_row, row, s, real, key_lo, key_hi, cells, top, high, scale, shift, neg_inv_tau, zero,
            depth, AXES, WIDTH, HEIGHT, LOW, FAST, PER, COLUMNS, CHUNKS, LINES,
        )  # fmt: skip
    sums = tl.sum(tl.sum(total, axis=2), axis=1)
    at = row * num_samples + group
    highest = tl.reshape(high, [TOGETHER])
    tl.store(stats + at, tl.log2(sums) + (highest if LOW else shift), mask=group < num_samples)
    tl.debug_barrier()  # the marginals are written
    s = tl.minimum(group, num_samples - 1)[:, None]  # the last group may be too large: it reads the last sample's
    h = marginals + (row * num_samples + s) * bins
    start_of = row_start(origins, row, width, height, AXES, ORIGIN)
    store_samples(samples, at[:, None], h, start_of, sums[:, None], sigma, reweight, row, first_row, s, group[:, None],
                  num_samples, key_lo, key_hi, width, height, depth, AXES, BASIS, TOGETHER, BINS, FAST)  # fmt: skip
    tl.debug_barrier()  # all have used the sums as they were
    normalise(h, sums[:, None], bins, group[:, None] < num_samples, BINS)


# ---- backward ----


@triton.jit
def axis_bins_backward(
    grads, origins, sigma, seed, marginals, stats, grad_bins, grad_sigmas,
    num_samples, width, height, depth, shift, chain, reweight, clip,
    AXES: tl.constexpr, ORIGIN: tl.constexpr, BASIS: tl.constexpr, LOW: tl.constexpr, CLIP: tl.constexpr, SEED_WORDS: tl.constexpr,
    FAST: tl.constexpr, NEEDS_SIGMA: tl.constexpr, TOGETHER: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Grid: rows, groups of samples."""
    row = tl.program_id(0).to(tl.int64)
    key_lo, key_hi, first_row = load_key(seed, SEED_WORDS)
    noise_row = first_row + row
    s = (tl.program_id(1) * TOGETHER + tl.arange(0, TOGETHER))[:, None]
    real, at = s < num_samples, row * num_samples + s
    bins = width + (height if AXES >= 2 else 0) + (depth if AXES == 3 else 0)
    log_sum = tl.load(stats + at, mask=real, other=0.0)
    scale = chain if LOW else chain * tl.exp2(shift - log_sum)
    spread = tl.load(sigma + row) if BASIS == "gaussian" else 0.0
    of_sigma = tl.zeros([TOGETHER, 1], tl.float32)
    start_of = row_start(origins, row, width, height, AXES, ORIGIN)
    size, first = width, 0
    for axis in tl.static_range(AXES):
        h = marginals + tl.where(real, at, 0) * bins + first
        q, moment, noises = axis_sums(h, first, size, start_of[axis], 1.0, spread, reweight, noise_row, s, key_lo, key_hi, BASIS,
                                      TOGETHER, BINS, FAST)  # fmt: skip
        grad = tl.load(grads + at * AXES + axis, mask=real, other=0.0)
        centre = moment / q
        mean = centre
        if CLIP:
            mean = clipped_mean(h, first, size, start_of[axis], centre, q, spread, reweight, clip, noise_row, s, key_lo, key_hi,
                                BASIS, TOGETHER, BINS, FAST)  # fmt: skip
        of_sigma += grad * noises / q
        factor = grad / q * scale
        for start in range(0, size, BINS):
            j = start + tl.arange(0, BINS)[None, :]
            own = bin_gradient(j, first, size, start_of[axis], mean, centre, factor, spread, reweight, clip, noise_row, s,
                               key_lo, key_hi, BASIS, CLIP, FAST)  # fmt: skip
            tl.store(grad_bins + at * bins + first + j, own, mask=real & (j < size))
        first += size
        size = height if axis == 0 else depth
    if NEEDS_SIGMA:
        tl.store(grad_sigmas + at, of_sigma, mask=real)


@triton.jit
def axis_backward_cells(
    logits, points, origins, seed, stats, grad_bins, grad_logits,
    keypoints, cells, num_samples, batch_stride, keypoint_stride, scale, shift, neg_inv_tau, bins,
    AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, POINTS: tl.constexpr, ORIGIN: tl.constexpr,
    BASIS: tl.constexpr, LOW: tl.constexpr, SEED_WORDS: tl.constexpr, FAST: tl.constexpr, TOGETHER: tl.constexpr,
    QUADS: tl.constexpr,
):  # fmt: skip
    """Grid: rows, ranges of cells."""
    row = tl.program_id(0).to(tl.int64)
    logits += row_offset(row, keypoints, batch_stride, keypoint_stride)
    key_lo, key_hi, first_row = load_key(seed, SEED_WORDS)
    top = row_top(logits, cells, 4 * QUADS)
    quad = (tl.program_id(1) * QUADS + tl.arange(0, QUADS))[None, :]
    zero = tl.zeros([TOGETHER, QUADS], tl.float32)  # samples are added up at the end, as in sample.py
    grads = (zero, zero, zero, zero)
    for first in range(0, num_samples, TOGETHER):
        s = (first + tl.arange(0, TOGETHER))[:, None]
        at, real = row * num_samples + s, s < num_samples
        words = philox(quad, first_row + row, s, GUMBEL, key_lo, key_hi)
        log_sum = tl.load(stats + at, mask=real, other=1e30) if LOW else 0.0
        new = ()
        for j in tl.static_range(4):
            mask = real & (4 * quad + j < cells)
            a = exponents(logits, 4 * quad + j, cells, top, scale, shift)
            w = weight(words[j], a - log_sum if LOW else a, neg_inv_tau, FAST)
            change = tl.zeros([TOGETHER, QUADS], tl.float32)
            start = at * bins
            for axis in tl.static_range(AXES):
                change += tl.load(grad_bins + start + bin_of(quad, j, axis, AXES, WIDTH, HEIGHT), mask=mask, other=0.0)
                start += WIDTH if axis == 0 else HEIGHT
            new = new + (tl.fma(w, change, grads[j]),)
        grads = new
    i = 4 * tl.program_id(1) * QUADS + 4 * tl.arange(0, QUADS)
    store_quads(grad_logits + row * cells, i, grads, cells)


def line_tiles(width: int, height: int, num_warps: int) -> dict[str, int]:
    """How lines are cut: into units of whole quads where those fit, and these into few idle and few live columns."""
    per = 4 if width % 4 == 0 else 1
    units, most = width // per, 4
    sizes = [2**k for k in range(6) if -(-units // 2**k) <= most] or [triton.next_power_of_2(-(-units // most))]
    # Few columns make sums along x cheap; single cells cost so much more that fewer chunks are better.
    columns = min(sizes, key=lambda size: (-(-units // size) * size, size if per == 4 else -size))
    lines = max(1, min(32 * num_warps // columns, triton.next_power_of_2(height)))
    return dict(PER=per, COLUMNS=columns, CHUNKS=-(-units // columns), LINES=lines)


def tiles(rows: Rows) -> dict[str, int]:
    if rows.axes == 1:
        return dict(PER=4, COLUMNS=rows.quads(), CHUNKS=1, LINES=1)
    return line_tiles(rows.logits.shape[-1], rows.logits.shape[-2], rows.num_warps)


def axis_sample(
    logits: Tensor, sigma: Tensor | None, seed: Tensor, num_samples: int, tau: float, beta: float, basis: str,
    reweight: float, clip_grad: float | None, origins: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    rows, sampling = Rows.of("axis_sample", logits, None, origins), Sampling(seed, num_samples, tau, beta, basis)
    samples = result(logits, *logits.shape[:2], num_samples, rows.axes)
    marginals = result(logits, *logits.shape[:2], num_samples, sum(logits.shape[2:]))
    stats = result(logits, *logits.shape[:2], num_samples)
    launch(axis_forward, (rows.count, -(-num_samples // sampling.together)), rows.num_warps, samples=samples, marginals=marginals,
           stats=stats, sigma=dense(sigma, logits), reweight=reweight, TOGETHER=sampling.together, QUADS=rows.quads(),
           BINS=32, **tiles(rows), **rows.arguments(), **sampling.arguments())  # fmt: skip
    return samples, marginals, stats


def axis_sample_backward(
    grad: Tensor, logits: Tensor, sigma: Tensor | None, seed: Tensor, marginals: Tensor, stats: Tensor, tau: float,
    beta: float, basis: str, reweight: float, clip_grad: float | None, needs: Sequence[bool], origins: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rows, sampling = Rows.of("axis_sample", logits, None, origins), Sampling(seed, grad.shape[2], tau, beta, basis)
    grad_logits = gradient(logits, logits, needs[0])
    grad_bins = result(logits, *marginals.shape)
    grad_sigmas = result(logits, *stats.shape) if needs[1] else stats
    size = (*reversed(logits.shape[2:]), 1, 1)
    launch(axis_bins_backward, (rows.count, -(-sampling.num_samples // sampling.together)), 1, grads=grad.contiguous(),
           origins=dense(origins, logits), ORIGIN=origins is not None, sigma=dense(sigma, logits), marginals=marginals,
           stats=stats, grad_bins=grad_bins, grad_sigmas=grad_sigmas,
           num_samples=sampling.num_samples, width=size[0], height=size[1], depth=size[2], shift=sampling.shift,
           chain=beta / tau, reweight=reweight, clip=clip_grad or 0.0, AXES=rows.axes, BASIS=basis, LOW=sampling.low,
           CLIP=clip_grad is not None, FAST=rows.fast, NEEDS_SIGMA=needs[1], TOGETHER=sampling.together, BINS=32,
           **sampling.seed_arguments())  # fmt: skip
    if needs[0]:
        quads = rows.quads(32)
        launch(axis_backward_cells, (rows.count, -(-rows.cells // (4 * quads))), rows.num_warps, stats=stats,
               grad_bins=grad_bins, grad_logits=grad_logits, bins=marginals.shape[3], TOGETHER=sampling.together,
               QUADS=quads, **rows.arguments(), **sampling.arguments())  # fmt: skip
    return grad_logits, grad_sigmas.sum(2) if needs[1] else result(logits, 0)


define("axis_sample", axis_sample)
define("axis_sample_backward", axis_sample_backward)
