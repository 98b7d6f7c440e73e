"""soft_argmax: mean, variance, peak and entropy of p = softmax(beta z); equations (25)-(30) of reference/README.md.

A program takes a row; backward with points a batch element, whose keypoints add to the same points. Logits are read
three times forward (maximum, sums, variance about the mean, so that nothing cancels) and three times backward.
"""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .launch import Rows, define, gradient, launch, result
from .row import coordinate, repeated, row_offset, row_top, store_gradient

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def plain_exponents(logits, quad, J: tl.constexpr, cells, top, scale):
    """Exponents in base 2, and the same kept finite for the entropy, where -inf must not give 0 inf."""
    i = 4 * quad + J
    a = (tl.load(logits + i, mask=i < cells, other=float("-inf")).to(tl.float32) - top) * scale
    return a, tl.where(a < -1000, -1000.0, a)


@triton.jit
def moments_forward(
    logits, points, mean, variance, peak, entropy, keypoints, cells, batch_stride, keypoint_stride, scale,
    AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, POINTS: tl.constexpr, FAST: tl.constexpr,
    QUADS: tl.constexpr,
):  # fmt: skip
    """Grid: rows."""
    row = tl.program_id(0).to(tl.int64)
    logits += row_offset(row, keypoints, batch_stride, keypoint_stride)
    points += row // keypoints * cells * AXES
    top = row_top(logits, cells, 4 * QUADS)
    total = tl.zeros([QUADS], tl.float32)
    logs, sums, squares = total, repeated(total, AXES), repeated(total, AXES)
    for first in range(0, (cells + 3) // 4, QUADS):
        quad = first + tl.arange(0, QUADS)
        for j in tl.static_range(4):
            a, finite = plain_exponents(logits, quad, j, cells, top, scale)
            w = tl.exp2(a)
            total += w
            logs = tl.fma(w, finite, logs)
            new = ()
            for axis in tl.static_range(AXES):
                c = coordinate(points, quad, j, axis, cells, AXES, WIDTH, HEIGHT, POINTS, "none")
                new = new + (tl.fma(w, c, sums[axis]),)
            sums = new
    whole, centre = tl.sum(total, axis=0), ()
    for axis in tl.static_range(AXES):
        centre = centre + (tl.sum(sums[axis], axis=0) / whole,)
    for first in range(0, (cells + 3) // 4, QUADS):
        quad = first + tl.arange(0, QUADS)
        for j in tl.static_range(4):
            a = plain_exponents(logits, quad, j, cells, top, scale)[0]
            w, new = tl.exp2(a), ()
            for axis in tl.static_range(AXES):
                c = coordinate(points, quad, j, axis, cells, AXES, WIDTH, HEIGHT, POINTS, "none") - centre[axis]
                new = new + (tl.fma(w * c, c, squares[axis]),)
            squares = new
    for axis in tl.static_range(AXES):
        tl.store(mean + row * AXES + axis, centre[axis])
        tl.store(variance + row * AXES + axis, tl.sum(squares[axis], axis=0) / whole)
    tl.store(peak + row, 1 / whole)
    tl.store(entropy + row, (tl.log2(whole) - tl.sum(logs, axis=0) / whole) * LN2)


@triton.jit
def moments_backward(
    logits, points, mean, variance, peak, entropy, grad_mean, grad_variance, grad_peak, grad_entropy,
    grad_logits, grad_points, keypoints, cells, batch_stride, keypoint_stride, scale, beta,
    AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, POINTS: tl.constexpr, FAST: tl.constexpr,
    QUADS: tl.constexpr, NEEDS_LOGITS: tl.constexpr, NEEDS_POINTS: tl.constexpr,
):  # fmt: skip
    """dL/dz_i = beta p_i (sum_a gm (c - m) + gv ((c - m)^2 - v) - gh (ln p_i + H) - gp peak) + beta gp peak [i first peak];
    points add p_i (gm + 2 gv (c - m)). Grid: rows, with points' gradient batch elements."""
    rows = keypoints if NEEDS_POINTS else 1
    for member in range(rows):
        row = tl.program_id(0).to(tl.int64) * rows + member
        z = logits + row_offset(row, keypoints, batch_stride, keypoint_stride)
        p = points + row // keypoints * cells * AXES
        top = row_top(z, cells, 4 * QUADS)
        of_peak, of_entropy, height = tl.load(grad_peak + row), tl.load(grad_entropy + row), tl.load(peak + row)
        constant = -of_entropy * (tl.log2(height) * LN2 + tl.load(entropy + row)) - of_peak * height
        for axis in tl.static_range(AXES):
            constant -= tl.load(grad_variance + row * AXES + axis) * tl.load(variance + row * AXES + axis)
        first_peak = tl.zeros([QUADS], tl.int32) + cells
        for first in range(0, (cells + 3) // 4, QUADS):
            quad = first + tl.arange(0, QUADS)
            for j in tl.static_range(4):
                a = plain_exponents(z, quad, j, cells, top, scale)[0]
                first_peak = tl.minimum(first_peak, tl.where(a == 0, 4 * quad + j, cells))
        at_peak = tl.min(first_peak, axis=0)
        for first in range(0, (cells + 3) // 4, QUADS):
            quad = first + tl.arange(0, QUADS)
            for j in tl.static_range(4):
                i = 4 * quad + j
                a, finite = plain_exponents(z, quad, j, cells, top, scale)
                probability = tl.exp2(a) * height
                change = tl.fma(finite, -of_entropy * LN2, constant)
                for axis in tl.static_range(AXES):
                    at = row * AXES + axis
                    c = coordinate(p, quad, j, axis, cells, AXES, WIDTH, HEIGHT, POINTS, "none") - tl.load(mean + at)
                    of_mean, of_variance = tl.load(grad_mean + at), tl.load(grad_variance + at)
                    change = tl.fma(tl.fma(c, of_variance, of_mean), c, change)
                    if NEEDS_POINTS:
                        out = grad_points + (tl.program_id(0).to(tl.int64) * cells + i) * AXES + axis
                        before = tl.load(out, mask=(i < cells) & (member > 0), other=0.0)
                        tl.store(out, before + probability * tl.fma(c, 2 * of_variance, of_mean), mask=i < cells)
                grad = probability * change * beta + tl.where(i == at_peak, beta * of_peak * height, 0.0)
                if NEEDS_LOGITS:
                    store_gradient(grad_logits + row * cells + i, grad, i < cells)
        if NEEDS_POINTS:
            tl.debug_barrier()  # the next row adds to the points' gradients


def soft_argmax(logits: Tensor, points: Tensor | None, beta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = Rows.of("soft_argmax", logits, points)
    mean, variance = (result(logits, *logits.shape[:2], rows.axes) for _ in range(2))
    peak, entropy = (result(logits, *logits.shape[:2]) for _ in range(2))
    launch(moments_forward, (rows.count,), rows.num_warps, mean=mean, variance=variance, peak=peak, entropy=entropy,
           scale=beta / LN2.value, QUADS=rows.quads(), **rows.arguments())  # fmt: skip
    return mean, variance, peak, entropy


def soft_argmax_backward(
    grad_mean: Tensor, grad_variance: Tensor, grad_peak: Tensor, grad_entropy: Tensor, logits: Tensor,
    points: Tensor | None, mean: Tensor, variance: Tensor, peak: Tensor, entropy: Tensor, beta: float,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rows = Rows.of("soft_argmax", logits, points)
    grads = [gradient(x, logits, needed) for x, needed in zip((logits, points), needs, strict=True)]
    launch(moments_backward, (logits.shape[0] if needs[1] else rows.count,), rows.num_warps, mean=mean,
           variance=variance, peak=peak, entropy=entropy, grad_mean=grad_mean.contiguous(),
           grad_variance=grad_variance.contiguous(), grad_peak=grad_peak.contiguous(),
           grad_entropy=grad_entropy.contiguous(), grad_logits=grads[0], grad_points=grads[1], beta=beta,
           scale=beta / LN2.value, QUADS=rows.quads(), NEEDS_LOGITS=needs[0], NEEDS_POINTS=needs[1],
           **rows.arguments())  # fmt: skip
    return grads[0], grads[1]


define("soft_argmax", soft_argmax)
define("soft_argmax_backward", soft_argmax_backward)
