"""A row of logits as the kernels read it: four cells at a time, for which one call of the generator gives the words."""

import triton
import triton.language as tl

from .noise import FIELD_SHIFT, move
from .philox import PAIR, SINGLE, philox


@triton.jit
def repeated(x, COUNT: tl.constexpr):
    """A tuple of COUNT times x."""
    out = ()
    for _ in tl.static_range(COUNT):
        out = out + (x,)
    return out


@triton.jit
def row_offset(row, keypoints, batch_stride, keypoint_stride):
    return row // keypoints * batch_stride + row % keypoints * keypoint_stride


@triton.jit
def row_top(logits, cells, BLOCK: tl.constexpr):
    """The largest logit of a row."""
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    for first in range(0, cells, BLOCK):
        i = first + tl.arange(0, BLOCK)
        top = tl.maximum(top, tl.load(logits + i, mask=i < cells, other=float("-inf")).to(tl.float32))
    return tl.max(top, axis=0)


@triton.jit
def exponents(logits, i, cells, top, scale, shift):
    """(z - top) scale - shift; cells past the row's end weigh nothing."""
    z = tl.load(logits + i, mask=i < cells, other=float("-inf")).to(tl.float32)
    return tl.fma(z - top, scale, -shift)


@triton.jit
def store_gradient(out, value, mask):
    """In the logits' type, rounded to the nearest: by hand for bfloat16, which Triton's interpreter truncates."""
    if out.dtype.element_ty == tl.bfloat16:
        bits = value.to(tl.uint32, bitcast=True)
        bits = tl.where(value == value, bits + 0x7FFF + ((bits >> 16) & 1), 0x7FC00000)
        value = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    tl.store(out, value, mask=mask)


@triton.jit
def store_quads(out, i, grads, cells):
    """The gradients of cells i, i + 1, i + 2, i + 3, summed over the samples that are drawn together."""
    for j in tl.static_range(4):
        store_gradient(out + (i + j), tl.sum(grads[j], axis=0), i + j < cells)


@triton.jit
def bin_of(quad, J: tl.constexpr, AXIS: tl.constexpr, AXES: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr):
    """The bin of cells 4 quad + J along an axis (x, y, z)."""
    i = 4 * quad + J
    if AXES == 1:
        at = i
    elif WIDTH % 4 == 0:  # the cells of a quad share a line
        line = quad // (WIDTH // 4)
        at = (quad - line * (WIDTH // 4)) * 4 + J if AXIS == 0 else line
    else:
        line = i // WIDTH
        at = i - line * WIDTH if AXIS == 0 else line
    if AXES == 3 and AXIS == 1:
        at = at % HEIGHT
    elif AXIS == 2:
        at = at // HEIGHT
    return at


@triton.jit
def row_start(origins, row, width, height, AXES: tl.constexpr, ORIGIN: tl.constexpr):
    """The places (x, y, z) from which a row counts: 0, or those of its origin."""
    out = ()
    if ORIGIN:
        cell = tl.load(origins + row).to(tl.int32)
        out = (cell if AXES == 1 else cell % width,)
        if AXES >= 2:
            out = out + (cell // width if AXES == 2 else cell // width % height,)
        if AXES == 3:
            out = out + (cell // (width * height),)
    else:
        out = repeated(0, AXES)
    return out


@triton.jit
def coordinate(points, start, quad, J: tl.constexpr, AXIS: tl.constexpr, cells, AXES: tl.constexpr, WIDTH: tl.constexpr,
               HEIGHT: tl.constexpr, POINTS: tl.constexpr, BASIS: tl.constexpr):  # fmt: skip
    """The coordinate of cells 4 quad + J along an axis (x, y, z), moved by FIELD_SHIFT for the uniform basis."""
    if POINTS:
        i = 4 * quad + J
        return tl.load(points + i.to(tl.int64) * AXES + AXIS, mask=i < cells, other=0.0)
    else:
        shift: tl.constexpr = FIELD_SHIFT if BASIS == "uniform" else 0.0
        return (bin_of(quad, J, AXIS, AXES, WIDTH, HEIGHT) - start[AXIS]).to(tl.float32) + shift


@triton.jit
def noise_words(quad, row, sample, key_lo, key_hi, AXES: tl.constexpr, BASIS: tl.constexpr):
    """Of a quad: a word for x and y of each cell, and two words of which cells 0, 1 and 2, 3 share one for z (or x)."""
    a, b, c, d, e, f = quad, quad, quad, quad, quad, quad
    if BASIS == "uniform" or BASIS == "triangular":
        if AXES >= 2:
            a, b, c, d = philox(quad, row, sample, PAIR, key_lo, key_hi)
        if AXES != 2:
            s, t, u, v = philox(quad >> 1, row, sample, SINGLE, key_lo, key_hi)
            e, f = tl.where(quad & 1 == 1, u, s), tl.where(quad & 1 == 1, v, t)
    return a, b, c, d, e, f


@triton.jit
def positions(points, start, quad, J: tl.constexpr, words, cells, AXES: tl.constexpr, WIDTH: tl.constexpr,
              HEIGHT: tl.constexpr, POINTS: tl.constexpr, BASIS: tl.constexpr, FAST: tl.constexpr):  # fmt: skip
    """The positions of cells 4 quad + J along each axis, moved by their noise."""
    out = ()
    for axis in tl.static_range(AXES):
        at = coordinate(points, start, quad, J, axis, cells, AXES, WIDTH, HEIGHT, POINTS, BASIS)
        if AXES >= 2 and axis < 2:
            out = out + (move(words[J], at, axis == 1, BASIS, FAST),)
        else:
            out = out + (move(words[4 + J // 2], at, J % 2 == 1, BASIS, FAST),)
    return out
