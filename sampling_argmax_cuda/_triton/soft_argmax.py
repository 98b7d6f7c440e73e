"""soft_argmax: mean, covariance, peak and entropy of p = softmax(beta z); equations (25)-(30) of reference/README.md.

A program takes a row; backward with points a batch element, whose keypoints add to the same points. Logits are read
three times forward (maximum, sums, covariance about the mean, so that nothing cancels) and once backward.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Rows, define, dense, gradient, launch, result
from .row import coordinate, repeated, row_offset, row_start, row_top, store_gradient

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def plain_exponents(logits, quad, J: tl.constexpr, cells, top, scale):
    """Exponents in base 2, and the same kept finite for the entropy, where -inf must not give 0 inf."""
    i = 4 * quad + J
    a = (tl.load(logits + i, mask=i < cells, other=float("-inf")).to(tl.float32) - top) * scale
    return a, tl.where(a < -1000, -1000.0, a)


@triton.jit
def from_mean(points, start, quad, J: tl.constexpr, centre, cells, AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr,
              POINTS: tl.constexpr):  # fmt: skip
    """Coordinates of cells 4 quad + J less the mean's."""
    out = ()
    for axis in tl.static_range(AXES):
        out = out + (
            coordinate(points, start, quad, J, axis, cells, AXES, WIDTH, HEIGHT, POINTS, "none") - centre[axis],
        )
    return out


@triton.jit
def moments_forward(
    logits, points, origins, mean, covariance, peak, entropy, mode, keypoints, cells, batch_stride, keypoint_stride, scale,
    AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, POINTS: tl.constexpr, ORIGIN: tl.constexpr,
    FAST: tl.constexpr, QUADS: tl.constexpr,
):  # fmt: skip
    """Grid: rows."""
    row = tl.program_id(0).to(tl.int64)
    logits += row_offset(row, keypoints, batch_stride, keypoint_stride)
    points += row // keypoints * cells * AXES
    top = row_top(logits, cells, 4 * QUADS)
    start = row_start(origins, row, WIDTH, HEIGHT, AXES, ORIGIN)
    total = tl.zeros([QUADS], tl.float32)
    first_peak = tl.zeros([QUADS], tl.int32) + cells
    logs, sums, squares = total, repeated(total, AXES), repeated(total, AXES * (AXES + 1) // 2)
    for first in range(0, (cells + 3) // 4, QUADS):
        quad = first + tl.arange(0, QUADS)
        for j in tl.static_range(4):
            a, finite = plain_exponents(logits, quad, j, cells, top, scale)
            first_peak = tl.minimum(first_peak, tl.where(a == 0, 4 * quad + j, cells))
            w = tl.exp2(a)
            total += w
            logs = tl.fma(w, finite, logs)
            new = ()
            for axis in tl.static_range(AXES):
                c = coordinate(points, start, quad, j, axis, cells, AXES, WIDTH, HEIGHT, POINTS, "none")
                new = new + (tl.fma(w, c, sums[axis]),)
            sums = new
    whole, centre = tl.sum(total, axis=0), ()
    for axis in tl.static_range(AXES):
        centre = centre + (tl.sum(sums[axis], axis=0) / whole,)
    for first in range(0, (cells + 3) // 4, QUADS):
        quad = first + tl.arange(0, QUADS)
        for j in tl.static_range(4):
            w, new = tl.exp2(plain_exponents(logits, quad, j, cells, top, scale)[0]), ()
            delta = from_mean(points, start, quad, j, centre, cells, AXES, WIDTH, HEIGHT, POINTS)
            for a in tl.static_range(AXES):
                for b in tl.static_range(a, AXES):
                    new = new + (tl.fma(w * delta[a], delta[b], squares[a * AXES - a * (a + 1) // 2 + b]),)
            squares = new
    for a in tl.static_range(AXES):
        tl.store(mean + row * AXES + a, centre[a])
        for b in tl.static_range(a, AXES):
            entry = tl.sum(squares[a * AXES - a * (a + 1) // 2 + b], axis=0) / whole
            tl.store(covariance + (row * AXES + a) * AXES + b, entry)
            tl.store(covariance + (row * AXES + b) * AXES + a, entry)
    tl.store(peak + row, 1 / whole)
    tl.store(entropy + row, (tl.log2(whole) - tl.sum(logs, axis=0) / whole) * LN2)
    at = tl.min(first_peak, axis=0)  # of a row that NaN or infinity spoils no cell has the exponent 0
    tl.store(mode + row, tl.where(at < cells, at, 0).to(tl.int64))


@triton.jit
def gradient_of(gradient, at, GIVEN: tl.constexpr):
    """An incoming gradient, which is 0 where nobody needed the output."""
    return tl.load(gradient + at) if GIVEN else 0.0


@triton.jit
def moments_backward(
    logits, points, origins, mean, covariance, peak, entropy, mode, grad_mean, grad_covariance, grad_peak, grad_entropy,
    grad_logits, grad_points, keypoints, cells, batch_stride, keypoint_stride, scale, beta,
    AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, POINTS: tl.constexpr, ORIGIN: tl.constexpr,
    FAST: tl.constexpr, QUADS: tl.constexpr, OF_MEAN: tl.constexpr, OF_COVARIANCE: tl.constexpr, OF_PEAK: tl.constexpr,
    OF_ENTROPY: tl.constexpr, NEEDS_LOGITS: tl.constexpr, NEEDS_POINTS: tl.constexpr,
):  # fmt: skip
    """dL/dz_i = beta p_i ((gm + G (c - m)) (c - m) - sum G C - gh (ln p_i + H) - gp peak) + beta gp peak [i = mode]; points add
    p_i (gm + (G + G^T)(c - m)). Grid: rows, with points' gradient batch elements."""
    rows = keypoints if NEEDS_POINTS else 1
    for member in range(rows):
        row = tl.program_id(0).to(tl.int64) * rows + member
        z = logits + row_offset(row, keypoints, batch_stride, keypoint_stride)
        p = points + row // keypoints * cells * AXES
        at_peak = tl.load(mode + row)
        top = tl.load(z + at_peak).to(tl.float32)
        start = row_start(origins, row, WIDTH, HEIGHT, AXES, ORIGIN)
        of_peak, of_entropy = gradient_of(grad_peak, row, OF_PEAK), gradient_of(grad_entropy, row, OF_ENTROPY)
        height = tl.load(peak + row)
        constant = -of_entropy * (tl.log2(height) * LN2 + tl.load(entropy + row)) - of_peak * height
        centre, of_mean, both = (), (), ()
        for a in tl.static_range(AXES):
            centre = centre + (tl.load(mean + row * AXES + a),)
            of_mean = of_mean + (gradient_of(grad_mean, row * AXES + a, OF_MEAN),)
            for b in tl.static_range(AXES):
                ab, ba = (row * AXES + a) * AXES + b, (row * AXES + b) * AXES + a
                one = gradient_of(grad_covariance, ab, OF_COVARIANCE)
                constant -= one * (tl.load(covariance + ab) if OF_COVARIANCE else 0.0)
                both = both + (one + gradient_of(grad_covariance, ba, OF_COVARIANCE),)
        for first in range(0, (cells + 3) // 4, QUADS):
            quad = first + tl.arange(0, QUADS)
            for j in tl.static_range(4):
                i = 4 * quad + j
                exponent, finite = plain_exponents(z, quad, j, cells, top, scale)
                probability = tl.exp2(exponent) * height
                change = tl.fma(finite, -of_entropy * LN2, constant)
                delta = from_mean(p, start, quad, j, centre, cells, AXES, WIDTH, HEIGHT, POINTS)
                for a in tl.static_range(AXES):
                    turn = tl.zeros([QUADS], tl.float32)
                    for b in tl.static_range(AXES):
                        turn = tl.fma(delta[b], both[a * AXES + b], turn)
                    change = tl.fma(tl.fma(turn, 0.5, of_mean[a]), delta[a], change)
                    if NEEDS_POINTS:
                        out = grad_points + (tl.program_id(0).to(tl.int64) * cells + i) * AXES + a
                        before = tl.load(out, mask=(i < cells) & (member > 0), other=0.0)
                        tl.store(out, before + probability * (turn + of_mean[a]), mask=i < cells)
                grad = probability * change * beta + tl.where(i == at_peak, beta * of_peak * height, 0.0)
                if NEEDS_LOGITS:
                    store_gradient(grad_logits + row * cells + i, grad, i < cells)
        if NEEDS_POINTS:
            tl.debug_barrier()  # the next row adds to the points' gradients


def soft_argmax(
    logits: Tensor, points: Tensor | None, beta: float, origins: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, count = Rows.of("soft_argmax", logits, points, origins), logits.shape[:2]
    mean, covariance = result(logits, *count, rows.axes), result(logits, *count, rows.axes, rows.axes)
    peak, entropy, mode = result(logits, *count), result(logits, *count), logits.new_empty(count, dtype=torch.int64)
    launch(moments_forward, (rows.count,), rows.num_warps, mean=mean, covariance=covariance, peak=peak, entropy=entropy,
           mode=mode, scale=beta / LN2.value, QUADS=rows.quads(), **rows.arguments())  # fmt: skip
    return mean, covariance, peak, entropy, mode


def soft_argmax_backward(
    grad_mean: Tensor | None, grad_covariance: Tensor | None, grad_peak: Tensor | None, grad_entropy: Tensor | None,
    logits: Tensor, points: Tensor | None, mean: Tensor, covariance: Tensor, peak: Tensor, entropy: Tensor, mode: Tensor,
    beta: float, needs: Sequence[bool], origins: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rows = Rows.of("soft_argmax", logits, points, origins)
    grads = [gradient(x, logits, needed) for x, needed in zip((logits, points), needs, strict=True)]
    incoming = {"mean": grad_mean, "covariance": grad_covariance, "peak": grad_peak, "entropy": grad_entropy}
    launch(moments_backward, (logits.shape[0] if needs[1] else rows.count,), rows.num_warps, mean=mean,
           covariance=covariance, peak=peak, entropy=entropy, mode=mode, grad_logits=grads[0], grad_points=grads[1],
           beta=beta, scale=beta / LN2.value, QUADS=rows.quads(), NEEDS_LOGITS=needs[0], NEEDS_POINTS=needs[1],
           **{f"grad_{name}": dense(x, peak) for name, x in incoming.items()},
           **{f"OF_{name.upper()}": x is not None for name, x in incoming.items()}, **rows.arguments())  # fmt: skip
    return grads[0], grads[1]


define("soft_argmax", soft_argmax)
define("soft_argmax_backward", soft_argmax_backward)
