"""sample: weights, noise and weighted sums of each sample in one pass over the cells; backward draws them again.

Equations (6)-(16) of reference/README.md. Forward: a program takes a row, TOGETHER samples and a segment of cells, and
reads each logit once for all its samples. Backward: a program keeps its cells' gradients and passes over the samples.
Nothing of size S N is written; no result depends on the grid.
"""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .launch import SEGMENT, Rows, Sampling, define, dense, gradient, launch, result
from .noise import FIELD_REST, exp2, log_weight, standard_normal, weight
from .philox import GUMBEL, load_key, philox
from .row import exponents, noise_words, positions, repeated, row_offset, row_start, row_top, store_quads


@triton.jit
def add_cell(sums, high, power, where, LOW: tl.constexpr, SQUARES: tl.constexpr, FAST: tl.constexpr):
    """Adds a cell of weight 2^power at positions ``where``; LOW keeps sums relative to 2^high."""
    if LOW:
        higher = tl.maximum(high, power)
        sums = scaled(sums, exp2(high - higher, FAST), SQUARES)
        high, power = higher, power - higher
    w = exp2(power, FAST)
    out = (sums[0] + w,)
    for axis in tl.static_range(len(where)):
        out = out + (tl.fma(w, where[axis], sums[1 + axis]),)
    if SQUARES:
        out = out + (tl.fma(w, w, sums[1 + len(where)]),)
    return out, high


@triton.jit
def scaled(sums, factor, SQUARES: tl.constexpr):
    """Sums of weights multiplied by a factor; the last, of their squares, twice."""
    out = ()
    for k in tl.static_range(len(sums)):
        out = out + (sums[k] * factor * (factor if SQUARES and k == len(sums) - 1 else 1.0),)
    return out


@triton.jit
def finish(sums, high, samples, stats, sigma, row, s, noise_row, num_samples, shift, key_lo, key_hi,
           AXES: tl.constexpr, BASIS: tl.constexpr, LOW: tl.constexpr, FAST: tl.constexpr):  # fmt: skip
    """From the sums of samples s to their positions, the logarithm of the sum and, for a gaussian, of w^2."""
    at, real = row * num_samples + s, s < num_samples
    GAUSSIAN: tl.constexpr = BASIS == "gaussian"
    tl.store(stats + at * (2 if GAUSSIAN else 1), tl.log2(sums[0]) + (high if LOW else shift), mask=real)
    if GAUSSIAN:
        square = sums[1 + AXES] / sums[0] / sums[0]
        tl.store(stats + at * 2 + 1, square, mask=real)
        spread = tl.load(sigma + row) * tl.sqrt(square)
    for axis in tl.static_range(AXES):
        y = sums[1 + axis] / sums[0]
        if BASIS == "uniform":
            y += FIELD_REST
        if GAUSSIAN:
            y += spread * standard_normal(tl.zeros_like(s) + axis, noise_row, s, key_lo, key_hi, FAST)
        tl.store(samples + at * AXES + axis, y, mask=real)


@triton.jit
def sample_forward(
    logits, points, origins, sigma, seed, samples, stats, partials,
    keypoints, cells, num_samples, batch_stride, keypoint_stride, scale, shift, neg_inv_tau,
    AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, POINTS: tl.constexpr, ORIGIN: tl.constexpr,
    BASIS: tl.constexpr, LOW: tl.constexpr, SEED_WORDS: tl.constexpr, FAST: tl.constexpr,
    TOGETHER: tl.constexpr, QUADS: tl.constexpr, SEGMENT: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Grid: rows, groups of samples, segments. With SPLIT the sums go to ``partials`` for sample_combine."""
    row, segment = tl.program_id(0).to(tl.int64), tl.program_id(2)
    logits += row_offset(row, keypoints, batch_stride, keypoint_stride)
    points += row // keypoints * cells * AXES
    key_lo, key_hi, first_row = load_key(seed, SEED_WORDS)
    noise_row = first_row + row
    top = row_top(logits, cells, 4 * QUADS)
    s = tl.program_id(1) * TOGETHER + tl.arange(0, TOGETHER)[:, None]
    start = row_start(origins, row, WIDTH, HEIGHT, AXES, ORIGIN)
    SQUARES: tl.constexpr = BASIS == "gaussian"
    zero = tl.zeros([TOGETHER, QUADS], tl.float32)
    high = zero - 1e30  # finite, so that the first difference is
    sums = repeated(zero, 1 + AXES + (1 if SQUARES else 0))
    last = tl.minimum((segment + 1) * (SEGMENT // 4), (cells + 3) // 4)
    for first in range(segment * (SEGMENT // 4), last, QUADS):
        quad = first + tl.arange(0, QUADS)[None, :]
        words = philox(quad, noise_row, s, GUMBEL, key_lo, key_hi)
        noise = noise_words(quad, noise_row, s, key_lo, key_hi, AXES, BASIS)
        for j in tl.static_range(4):
            a = exponents(logits, 4 * quad + j, cells, top, scale, shift)
            power = log_weight(words[j], a, neg_inv_tau, FAST)
            where = positions(points, start, quad, j, noise, cells, AXES, WIDTH, HEIGHT, POINTS, BASIS, FAST)
            sums, high = add_cell(sums, high, power, where, LOW, SQUARES, FAST)
    highest = tl.max(high, axis=1)
    if LOW:
        sums = scaled(sums, exp2(high - highest[:, None], FAST), SQUARES)
    rows = ()
    for k in tl.static_range(len(sums)):
        rows = rows + (tl.sum(sums[k], axis=1),)
    s = tl.program_id(1) * TOGETHER + tl.arange(0, TOGETHER)
    if SPLIT:
        at = ((row * num_samples + s) * tl.num_programs(2) + segment) * 6
        for k in tl.static_range(len(rows)):
            tl.store(partials + at + k, rows[k], mask=s < num_samples)
        tl.store(partials + at + 5, highest, mask=s < num_samples)
    else:
        finish(rows, highest, samples, stats, sigma, row, s, noise_row, num_samples, shift, key_lo, key_hi,
               AXES, BASIS, LOW, FAST)  # fmt: skip


@triton.jit
def sample_combine(
    sigma, seed, samples, stats, partials, segments, num_samples, shift,
    AXES: tl.constexpr, BASIS: tl.constexpr, LOW: tl.constexpr, SEED_WORDS: tl.constexpr, FAST: tl.constexpr,
    TOGETHER: tl.constexpr,
):  # fmt: skip
    """Adds up the segments of split rows. Grid: rows, groups of samples."""
    row = tl.program_id(0).to(tl.int64)
    key_lo, key_hi, first_row = load_key(seed, SEED_WORDS)
    s = tl.program_id(1) * TOGETHER + tl.arange(0, TOGETHER)
    SQUARES: tl.constexpr = BASIS == "gaussian"
    zero = tl.zeros([TOGETHER], tl.float32)
    high = zero - 1e30
    sums = repeated(zero, 1 + AXES + (1 if SQUARES else 0))
    for segment in range(segments):
        at = partials + ((row * num_samples + s) * segments + segment) * 6
        other = tl.load(at + 5, mask=s < num_samples, other=0.0)
        higher = tl.maximum(high, other)
        values = ()
        for k in tl.static_range(len(sums)):
            values = values + (tl.load(at + k, mask=s < num_samples, other=0.0),)
        before = scaled(sums, exp2(high - higher, FAST), SQUARES)
        values = scaled(values, exp2(other - higher, FAST), SQUARES)
        sums = ()
        for k in tl.static_range(len(values)):
            sums = sums + (before[k] + values[k],)
        high = higher
    finish(sums, high, samples, stats, sigma, row, s, first_row + row, num_samples, shift, key_lo, key_hi,
           AXES, BASIS, LOW, FAST)  # fmt: skip


@triton.jit
def sample_slopes(
    grads, sigma, seed, samples, stats, slopes, grad_sigma, num_samples, shift, chain,
    AXES: tl.constexpr, BASIS: tl.constexpr, LOW: tl.constexpr, SEED_WORDS: tl.constexpr, FAST: tl.constexpr,
    NEEDS_SIGMA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What a cell's gradient needs of each sample: per axis, offset, curve (times w) and log-sum. Grid: rows."""
    row = tl.program_id(0).to(tl.int64)
    key_lo, key_hi, first_row = load_key(seed, SEED_WORDS)
    sigma_sum = tl.zeros([BLOCK], tl.float32)
    for first in range(0, num_samples, BLOCK):
        s = first + tl.arange(0, BLOCK)
        at, real = row * num_samples + s, s < num_samples
        GAUSSIAN: tl.constexpr = BASIS == "gaussian"
        log_sum = tl.load(stats + at * (2 if GAUSSIAN else 1), mask=real, other=0.0)
        inverse = tl.full([BLOCK], 1.0, tl.float32) if LOW else tl.exp2(shift - log_sum)
        offset, noise = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
        for axis in tl.static_range(AXES):
            g = tl.load(grads + at * AXES + axis, mask=real, other=0.0)
            y = tl.load(samples + at * AXES + axis, mask=real, other=0.0)
            offset -= g * (y - (FIELD_REST if BASIS == "uniform" else 0.0))
            if GAUSSIAN:
                noise += g * standard_normal(tl.zeros_like(s) + axis, first_row + row, s, key_lo, key_hi, FAST)
            tl.store(slopes + at * 6 + axis, g * (chain * inverse), mask=real)
        tl.store(slopes + at * 6 + 3, offset * (chain * inverse), mask=real)
        tl.store(slopes + at * 6 + 5, log_sum, mask=real)
        if GAUSSIAN:
            spread = tl.sqrt(tl.load(stats + at * 2 + 1, mask=real, other=1.0))
            curve = noise * tl.load(sigma + row) / spread * (chain * inverse) * inverse
            tl.store(slopes + at * 6 + 4, curve, mask=real)
            sigma_sum += noise * spread
    if NEEDS_SIGMA:
        tl.store(grad_sigma + row, tl.sum(sigma_sum, axis=0))


@triton.jit
def store_points(grad_points, grads, factor, cells, AXES: tl.constexpr, QUADS: tl.constexpr):
    """The gradients of the program's points, summed over the samples drawn together."""
    for j in tl.static_range(4):
        for axis in tl.static_range(AXES):
            i = 4 * (tl.program_id(1) * QUADS + tl.arange(0, QUADS)) + j
            at = (tl.program_id(0).to(tl.int64) * cells + i) * AXES + axis
            total = tl.sum(grads[j * AXES + axis], axis=0)
            tl.store(grad_points + at, total * factor, mask=i < cells)


@triton.jit
def sample_backward_cells(
    logits, points, origins, seed, slopes, grad_logits, grad_points,
    keypoints, cells, num_samples, batch_stride, keypoint_stride, scale, shift, neg_inv_tau, inverse_chain,
    AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, POINTS: tl.constexpr, ORIGIN: tl.constexpr,
    BASIS: tl.constexpr, LOW: tl.constexpr, SEED_WORDS: tl.constexpr, FAST: tl.constexpr,
    TOGETHER: tl.constexpr, QUADS: tl.constexpr, NEEDS_LOGITS: tl.constexpr, NEEDS_POINTS: tl.constexpr,
):  # fmt: skip
    """Grid: rows (batch elements where the points need their gradient, which all rows add to), ranges of cells."""
    rows = keypoints if NEEDS_POINTS else 1
    key_lo, key_hi, first_row = load_key(seed, SEED_WORDS)
    quad = tl.program_id(1) * QUADS + tl.arange(0, QUADS)[None, :]
    # Samples are added up at the end: a sum over lanes of products would be contracted otherwise in each lane.
    zero = tl.zeros([TOGETHER, QUADS], tl.float32)
    point_grads = repeated(zero, 4 * AXES if NEEDS_POINTS else 0)
    for member in range(rows):
        row = tl.program_id(0).to(tl.int64) * rows + member
        z = logits + row_offset(row, keypoints, batch_stride, keypoint_stride)
        p = points + row // keypoints * cells * AXES
        top = row_top(z, cells, 4 * QUADS)
        start = row_start(origins, row, WIDTH, HEIGHT, AXES, ORIGIN)
        grads = (zero, zero, zero, zero)
        for first in range(0, num_samples, TOGETHER):
            s = (first + tl.arange(0, TOGETHER))[:, None]
            at, real = slopes + (row * num_samples + s) * 6, s < num_samples
            slope = ()
            for part in tl.static_range(5):
                slope = slope + (tl.load(at + part, mask=real, other=0.0),)
            log_sum = tl.load(at + 5, mask=real, other=1e30)  # no weight after the last sample
            words = philox(quad, first_row + row, s, GUMBEL, key_lo, key_hi)
            noise = noise_words(quad, first_row + row, s, key_lo, key_hi, AXES, BASIS)
            new_grads, new_points = (), ()
            for j in tl.static_range(4):
                a = exponents(z, 4 * quad + j, cells, top, scale, shift)
                w = weight(words[j], a - log_sum if LOW else a, neg_inv_tau, FAST)
                where = positions(p, start, quad, j, noise, cells, AXES, WIDTH, HEIGHT, POINTS, BASIS, FAST)
                change = tl.fma(w, slope[4], slope[3]) if BASIS == "gaussian" else slope[3]
                for axis in tl.static_range(AXES):
                    change = tl.fma(where[axis], slope[axis], change)
                    if NEEDS_POINTS:
                        new_points = new_points + (tl.fma(w, slope[axis], point_grads[j * AXES + axis]),)
                new_grads = new_grads + (tl.fma(w, change, grads[j]),)
            grads = new_grads
            if NEEDS_POINTS:
                point_grads = new_points
        if NEEDS_LOGITS:
            i = 4 * (tl.program_id(1) * QUADS + tl.arange(0, QUADS))
            store_quads(grad_logits + row * cells, i, grads, cells)
    if NEEDS_POINTS:
        store_points(grad_points, point_grads, inverse_chain, cells, AXES, QUADS)


def sample(
    logits: Tensor, points: Tensor | None, sigma: Tensor | None, seed: Tensor, num_samples: int, tau: float, beta: float,
    basis: str, origins: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rows, sampling = Rows.of("sample", logits, points, origins), Sampling(seed, num_samples, tau, beta, basis)
    samples = result(logits, *logits.shape[:2], num_samples, rows.axes)
    stats = result(logits, *logits.shape[:2], num_samples, 2 if basis == "gaussian" else 1)
    segments, quads = -(-rows.cells // SEGMENT), rows.quads(sampling.most_quads)
    partials = result(logits, rows.count, num_samples, segments, 6) if segments > 1 else samples
    groups = -(-num_samples // sampling.together)
    outputs = dict(samples=samples, stats=stats, partials=partials, sigma=dense(sigma, logits))
    launch(sample_forward, (rows.count, groups, segments), rows.num_warps, TOGETHER=sampling.together, QUADS=quads,
           SEGMENT=SEGMENT, SPLIT=segments > 1, **rows.arguments(), **sampling.arguments(), **outputs)  # fmt: skip
    if segments > 1:
        launch(sample_combine, (rows.count, groups), 1, segments=segments, num_samples=num_samples,
               shift=sampling.shift, AXES=rows.axes, BASIS=basis, LOW=sampling.low, FAST=rows.fast,
               TOGETHER=sampling.together, **sampling.seed_arguments(), **outputs)  # fmt: skip
    return samples, stats


def sample_backward(
    grad: Tensor, logits: Tensor, points: Tensor | None, sigma: Tensor | None, seed: Tensor, samples: Tensor,
    stats: Tensor, tau: float, beta: float, basis: str, needs: Sequence[bool],
    origins: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    rows, sampling = Rows.of("sample", logits, points, origins), Sampling(seed, grad.shape[2], tau, beta, basis)
    grads = [gradient(x, logits, needed) for x, needed in zip((logits, points, sigma), needs, strict=True)]
    slopes = result(logits, rows.count, sampling.num_samples, 6)
    launch(sample_slopes, (rows.count,), 1, grads=grad.contiguous(), samples=samples, stats=stats, slopes=slopes,
           sigma=dense(sigma, logits), grad_sigma=grads[2], num_samples=sampling.num_samples, shift=sampling.shift,
           chain=beta / tau, AXES=rows.axes, BASIS=basis, LOW=sampling.low, FAST=rows.fast, NEEDS_SIGMA=needs[2],
           BLOCK=32, **sampling.seed_arguments())  # fmt: skip
    if needs[0] or needs[1]:
        quads = rows.quads(sampling.most_quads)
        grid = (logits.shape[0] if needs[1] else rows.count, -(-rows.cells // (4 * quads)))
        launch(sample_backward_cells, grid, rows.num_warps, slopes=slopes, grad_logits=grads[0], grad_points=grads[1],
               inverse_chain=tau / beta, TOGETHER=sampling.together, QUADS=quads, NEEDS_LOGITS=needs[0],
               NEEDS_POINTS=needs[1], **rows.arguments(), **sampling.arguments())  # fmt: skip
    return tuple(grads)


define("sample", sample)
define("sample_backward", sample_backward)
