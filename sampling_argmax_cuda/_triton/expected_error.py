"""expected_error: samples, their distance to the target and its gradient, in one pass over the noise.

Equations (14)-(16) of reference/README.md. A program takes a row of at most LONGEST cells and, sample after sample,
keeps its weights and positions in registers: summed to a sample, then multiplied into the gradient. Longer rows go
through sample and its backward, which draw the noise twice.
"""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from . import sample as sampler
from .launch import Rows, Sampling, define, dense, gradient, launch, result
from .noise import FIELD_REST, exp2, log_weight, standard_normal
from .philox import GUMBEL, load_key, philox
from .row import exponents, noise_words, positions, repeated, row_offset, row_start, row_top, store_gradient

LONGEST = 4096  # cells of a row


@triton.jit
def distance(difference, METRIC: tl.constexpr):
    """The distance of a sample to the target and its slope per axis; NaN stays NaN."""
    total, slopes = tl.zeros_like(difference[0]), ()
    norm = total
    if METRIC == "euclidean":
        square = total.to(tl.float64)  # that of 1e30 is no float32
        for axis in tl.static_range(len(difference)):
            square += difference[axis].to(tl.float64) * difference[axis].to(tl.float64)
        norm = tl.sqrt(square).to(tl.float32)
    for axis in tl.static_range(len(difference)):
        x = difference[axis]
        size, sign = tl.abs(x), tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))
        if METRIC == "l1":
            total, slopes = total + size, slopes + (sign,)
        elif METRIC == "l2":
            total, slopes = total + x * x, slopes + (2 * x,)
        elif METRIC == "euclidean":
            slopes = slopes + (tl.where(norm > 0, x / tl.where(norm > 0, norm, 1.0), norm),)
        else:
            total += tl.where(size < 1, 0.5 * x * x, size - 0.5)
            slopes = slopes + (tl.where(size < 1, x, sign),)
    if METRIC == "euclidean":
        total = norm
    return total, slopes


@triton.jit
def row_sum(x):
    return tl.sum(x, axis=1)


@triton.jit
def drawn_cells(logits, points, start, noise_row, sample_number, key_lo, key_hi, cells, top, scale, shift, neg_inv_tau,
                AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, POINTS: tl.constexpr,
                BASIS: tl.constexpr, FAST: tl.constexpr, QUADS: tl.constexpr, CHUNKS: tl.constexpr):  # fmt: skip
    """log2 of the weights of a row's cells in one sample, and their positions."""
    s = tl.zeros([1, 1], tl.int32) + sample_number
    powers, where = (), ()
    for chunk in tl.static_range(CHUNKS):
        quad = chunk * QUADS + tl.arange(0, QUADS)[None, :]
        words = philox(quad, noise_row, s, GUMBEL, key_lo, key_hi)
        noise = noise_words(quad, noise_row, s, key_lo, key_hi, AXES, BASIS)
        for j in tl.static_range(4):
            a = exponents(logits, 4 * quad + j, cells, top, scale, shift)
            powers = powers + (log_weight(words[j], a, neg_inv_tau, FAST),)
            where = where + positions(points, start, quad, j, noise, cells, AXES, WIDTH, HEIGHT, POINTS, BASIS, FAST)
    return powers, where


@triton.jit
def weighted_sums(powers, where, zero, lane, AXES: tl.constexpr, LOW: tl.constexpr, FAST: tl.constexpr):
    """The weights, their sum and that of their squares for each lane, the sums of positions over the row."""
    highest = lane
    if LOW:
        high = powers[0]
        for k in tl.static_range(len(powers)):
            high = tl.maximum(high, powers[k])
        highest = tl.max(high, axis=1)
    total, squares, kept, sums = zero, zero, (), ()
    for k in tl.static_range(len(powers)):
        w = exp2(powers[k] - highest[:, None] if LOW else powers[k], FAST)
        kept, total, squares = kept + (w,), total + w, tl.fma(w, w, squares)
    for axis in tl.static_range(AXES):
        of_axis = zero
        for k in tl.static_range(len(powers)):
            of_axis = tl.fma(kept[k], where[k * AXES + axis], of_axis)
        sums = sums + (row_sum(of_axis),)
    return kept, total, squares, sums


@triton.jit
def closed_sample(total, squares, sums, error_sum, sigma_sum, target_sums, targets, sigma, row, noise_row,
                  sample_number, key_lo, key_hi, chain, lane, AXES: tl.constexpr, BASIS: tl.constexpr,
                  METRIC: tl.constexpr, FAST: tl.constexpr):  # fmt: skip
    """From the sums of a sample: its distance, added to the row's totals, and the step of the gradient."""
    GAUSSIAN: tl.constexpr = BASIS == "gaussian"
    inverse = 1 / row_sum(total)
    spread, root = lane, lane
    if GAUSSIAN:
        root = tl.sqrt(row_sum(squares)) * inverse
        spread = tl.load(sigma + row) * root
    difference, mean, normals, new_targets = (), (), (), ()
    for axis in tl.static_range(AXES):
        y = sums[axis] * inverse
        mean = mean + (y,)
        if BASIS == "uniform":
            y += FIELD_REST
        if GAUSSIAN:
            f = tl.zeros([1], tl.int32) + axis
            normal = standard_normal(f, noise_row, tl.zeros([1], tl.int32) + sample_number, key_lo, key_hi, FAST)
            normals = normals + (normal,)
            y += spread * normal
        difference = difference + (y - tl.load(targets + row * AXES + axis),)
    size, slopes = distance(difference, METRIC)
    error_sum += size
    offset, noise_slope = lane, lane
    for axis in tl.static_range(AXES):
        new_targets = new_targets + (target_sums[axis] - slopes[axis],)
        offset -= slopes[axis] * mean[axis]
        if GAUSSIAN:
            noise_slope += slopes[axis] * normals[axis]
    sigma_sum += noise_slope * root
    factor = inverse * chain
    offset, curve = (offset - noise_slope * spread) * factor, lane
    if GAUSSIAN:
        curve = noise_slope * tl.load(sigma + row) / root * inverse * factor
    return error_sum, sigma_sum, new_targets, slopes, offset, curve, inverse, factor


@triton.jit
def added_gradients(grads, point_grads, kept, where, slopes, offset, curve, inverse, factor, zero, AXES: tl.constexpr,
                    GAUSSIAN: tl.constexpr, NEEDS_LOGITS: tl.constexpr, NEEDS_POINTS: tl.constexpr):  # fmt: skip
    """The gradients by a row's logits and points, one sample's added."""
    new_grads, new_points = (), ()
    for k in tl.static_range(len(kept)):
        if NEEDS_LOGITS:
            change = zero + offset[:, None]
            if GAUSSIAN:
                change = tl.fma(kept[k], zero + curve[:, None], change)
            for axis in tl.static_range(AXES):
                change = tl.fma(where[k * AXES + axis], zero + (slopes[axis] * factor)[:, None], change)
            new_grads = new_grads + (tl.fma(kept[k], change, grads[k]),)
        for axis in tl.static_range(AXES if NEEDS_POINTS else 0):
            of_point = kept[k] * (slopes[axis] * inverse)[:, None]
            new_points = new_points + (point_grads[k * AXES + axis] + of_point,)
    return new_grads, new_points


@triton.jit
def store_gradients(grad_logits, grad_points, grads, point_grads, row, cells, factor, AXES: tl.constexpr,
                    NEEDS_LOGITS: tl.constexpr, NEEDS_POINTS: tl.constexpr, QUADS: tl.constexpr,
                    CHUNKS: tl.constexpr):  # fmt: skip
    for k in tl.static_range(4 * CHUNKS):
        i = 4 * (k // 4 * QUADS + tl.arange(0, QUADS)[None, :]) + k % 4
        if NEEDS_LOGITS:
            store_gradient(grad_logits + row * cells + i, grads[k] * factor, i < cells)
        for axis in tl.static_range(AXES if NEEDS_POINTS else 0):
            at = (row * cells + i) * AXES + axis
            tl.store(grad_points + at, point_grads[k * AXES + axis] * factor, mask=i < cells)


@triton.jit
def expected_error_rows(
    logits, points, origins, sigma, seed, targets, weights, error, grad_logits, grad_target, grad_points, grad_sigma,
    keypoints, cells, num_samples, batch_stride, keypoint_stride, scale, shift, neg_inv_tau, chain,
    AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, POINTS: tl.constexpr, ORIGIN: tl.constexpr,
    BASIS: tl.constexpr, LOW: tl.constexpr, SEED_WORDS: tl.constexpr, FAST: tl.constexpr, METRIC: tl.constexpr,
    WEIGHTED: tl.constexpr, NEEDS_LOGITS: tl.constexpr, NEEDS_POINTS: tl.constexpr, NEEDS_SIGMA: tl.constexpr,
    QUADS: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Grid: rows. A row of weight 0 draws no samples: whatever it holds, its error and gradients are 0."""
    row = tl.program_id(0).to(tl.int64)
    logits += row_offset(row, keypoints, batch_stride, keypoint_stride)
    points += row // keypoints * cells * AXES
    key_lo, key_hi, first_row = load_key(seed, SEED_WORDS)
    noise_row = first_row + row
    top = row_top(logits, cells, 4 * QUADS)
    start = row_start(origins, row, WIDTH, HEIGHT, AXES, ORIGIN)
    count = num_samples
    if WEIGHTED:
        count = tl.where(tl.load(weights + row) == 0, 0, num_samples)
    GAUSSIAN: tl.constexpr = BASIS == "gaussian"
    zero, lane = tl.zeros([1, QUADS], tl.float32), tl.zeros([1], tl.float32)
    error_sum, sigma_sum, target_sums = lane, lane, repeated(lane, AXES)
    grads = repeated(zero, 4 * CHUNKS if NEEDS_LOGITS else 0)
    point_grads = repeated(zero, 4 * CHUNKS * AXES if NEEDS_POINTS else 0)
    for sample_number in range(count):
        powers, where = drawn_cells(logits, points, start, noise_row, sample_number, key_lo, key_hi, cells, top, scale, shift,
                                    neg_inv_tau, AXES, WIDTH, HEIGHT, POINTS, BASIS, FAST, QUADS, CHUNKS)  # fmt: skip
        kept, total, squares, sums = weighted_sums(powers, where, zero, lane, AXES, LOW, FAST)
        error_sum, sigma_sum, target_sums, slopes, offset, curve, inverse, factor = closed_sample(
            total, squares, sums, error_sum, sigma_sum, target_sums, targets, sigma, row, noise_row, sample_number,
            key_lo, key_hi, chain, lane, AXES, BASIS, METRIC, FAST,
        )  # fmt: skip
        grads, point_grads = added_gradients(grads, point_grads, kept, where, slopes, offset, curve, inverse, factor,
                                             zero, AXES, GAUSSIAN, NEEDS_LOGITS, NEEDS_POINTS)  # fmt: skip
    inverse_count = 1.0 / num_samples
    tl.store(error + row + tl.arange(0, 1), error_sum * inverse_count)
    for axis in tl.static_range(AXES):
        tl.store(grad_target + row * AXES + axis + tl.arange(0, 1), target_sums[axis] * inverse_count)
    if NEEDS_SIGMA:
        tl.store(grad_sigma + row + tl.arange(0, 1), sigma_sum * inverse_count)
    store_gradients(grad_logits, grad_points, grads, point_grads, row, cells, inverse_count, AXES, NEEDS_LOGITS,
                    NEEDS_POINTS, QUADS, CHUNKS)  # fmt: skip


@triton.jit
def error_of_samples(
    samples, targets, weights, error, grad_target, slopes, num_samples,
    AXES: tl.constexpr, METRIC: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The distance of samples that exist, and its slopes over the samples' number. Grid: rows."""
    row = tl.program_id(0).to(tl.int64)
    masked = tl.load(weights + row) == 0 if WEIGHTED else False
    total = tl.zeros([BLOCK], tl.float32)
    sums = repeated(total, AXES)
    for first in range(0, num_samples, BLOCK):
        s = first + tl.arange(0, BLOCK)
        at, real, difference = (row * num_samples + s) * AXES, s < num_samples, ()
        for axis in tl.static_range(AXES):
            off = tl.load(samples + at + axis, mask=real, other=0.0) - tl.load(targets + row * AXES + axis)
            difference = difference + (tl.where(real & (masked == 0), off, 0.0),)
        size, slope = distance(difference, METRIC)
        total, new = total + size, ()
        for axis in tl.static_range(AXES):
            new = new + (sums[axis] - slope[axis],)
            tl.store(slopes + at + axis, slope[axis] / num_samples, mask=real)
        sums = new
    tl.store(error + row, tl.sum(total, axis=0) / num_samples)
    for axis in tl.static_range(AXES):
        tl.store(grad_target + row * AXES + axis, tl.sum(sums[axis], axis=0) / num_samples)


def long_rows(
    logits: Tensor, target: Tensor, weight: Tensor | None, points: Tensor | None, sigma: Tensor | None, seed: Tensor,
    num_samples: int, tau: float, beta: float, basis: str, metric: str, needs: Sequence[bool],
    origins: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """sample, the distances, sample's backward. With points every row is a batch element with points of its own."""
    batch, keypoints, *shape = logits.shape
    z, widths = logits.reshape(batch * keypoints, 1, *shape), sigma
    if sigma is not None:
        widths = sigma.reshape(batch * keypoints, 1)
    if points is not None:
        points = points.unsqueeze(1).expand(-1, keypoints, -1, -1).reshape(batch * keypoints, *points.shape[1:])
    settings, first = (tau, beta, basis), None if origins is None else origins.reshape(-1, 1)
    samples, stats = sampler.sample(z, points, widths, seed, num_samples, *settings, first)
    error, grad_target = result(logits, batch, keypoints), result(logits, *target.shape)
    slopes = result(logits, *samples.shape)
    launch(error_of_samples, (batch * keypoints,), 1, samples=samples, targets=target.contiguous(),
           weights=dense(weight, target), error=error, grad_target=grad_target, slopes=slopes, num_samples=num_samples,
           AXES=samples.shape[3], METRIC=metric, WEIGHTED=weight is not None, BLOCK=32)  # fmt: skip
    grads = [result(logits, 0)] * 3
    if any(needs):
        grads = sampler.sample_backward(slopes, z, points, widths, seed, samples, stats, *settings, needs, first)
    grads = [g.reshape(batch, keypoints, *g.shape[1:]) if g.numel() else g for g in grads]
    if sigma is not None and needs[2]:
        grads[2] = grads[2].reshape(sigma.shape)
    if grads[0].numel():
        grads[0] = grads[0].reshape(logits.shape)
    if weight is not None:
        masked = weight == 0
        grads = [g.masked_fill(masked.reshape(*masked.shape, *(1,) * (g.dim() - 2)), 0) if g.numel() else g
                 for g in grads]  # fmt: skip
    return error, grads[0], grad_target, grads[1], grads[2]


def expected_error(
    logits: Tensor, target: Tensor, weight: Tensor | None, points: Tensor | None, sigma: Tensor | None, seed: Tensor,
    num_samples: int, tau: float, beta: float, basis: str, metric: str, needs: Sequence[bool],
    origins: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    rows = Rows.of("expected_error", logits, points, origins)
    if rows.cells > LONGEST:
        return long_rows(logits, target, weight, points, sigma, seed, num_samples, tau, beta, basis, metric, needs,
                         origins)  # fmt: skip
    sampling, quads = Sampling(seed, num_samples, tau, beta, basis), (rows.cells + 3) // 4
    at_once = min(256, triton.next_power_of_2(quads))
    error, grad_target = result(logits, *logits.shape[:2]), result(logits, *target.shape)
    per_row = None if points is None else points.unsqueeze(1).expand(-1, logits.shape[1], -1, -1)
    grads = [gradient(x, logits, needed) for x, needed in zip((logits, per_row, sigma), needs, strict=True)]
    launch(expected_error_rows, (rows.count,), max(1, at_once // 64), sigma=dense(sigma, logits),
           targets=target.contiguous(), weights=dense(weight, target), error=error, grad_logits=grads[0],
           grad_target=grad_target, grad_points=grads[1], grad_sigma=grads[2], chain=beta / tau, METRIC=metric,
           WEIGHTED=weight is not None, NEEDS_LOGITS=needs[0], NEEDS_POINTS=needs[1], NEEDS_SIGMA=needs[2],
           QUADS=at_once, CHUNKS=-(-quads // at_once), **rows.arguments(), **sampling.arguments())  # fmt: skip
    return error, grads[0], grad_target, grads[1], grads[2]


define("expected_error", expected_error)
