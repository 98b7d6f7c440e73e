"""From random words to noise, as in csrc/noise.h: the Gumbel weight's exponential and the bases.

``FAST`` takes the special-function unit of an NVIDIA GPU by its own instructions; without it the same functions of
Triton serve every other device, and the interpreter.
"""

import triton
import triton.language as tl

from .philox import NORMAL, philox

FIELD_SHIFT = tl.constexpr(-128.5)  # uniform positions lie that far from the coordinate, and
FIELD_REST = tl.constexpr(2.0**-17)  # this much too low: the bit would not fit beside 128 (csrc/cuda/primitives.cuh)


@triton.jit
def special(x, INSTRUCTION: tl.constexpr):
    text: tl.constexpr = INSTRUCTION + ".approx.ftz.f32 $0, $1;"
    return tl.inline_asm_elementwise(text, "=f,f", [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def log2(x, FAST: tl.constexpr):
    return special(x, "lg2") if FAST else tl.log2(x)


@triton.jit
def exp2(x, FAST: tl.constexpr):
    return special(x, "ex2") if FAST else tl.exp2(x)


@triton.jit
def sqrt(x, FAST: tl.constexpr):
    return special(x, "sqrt") if FAST else tl.sqrt(x)


@triton.jit
def cos(x, FAST: tl.constexpr):
    return special(x, "cos") if FAST else tl.cos(x)


@triton.jit
def sin(x, FAST: tl.constexpr):
    return special(x, "sin") if FAST else tl.sin(x)


@triton.jit
def exponential(word, FAST: tl.constexpr):
    """E = -log2(1 - u), u = (word + 1/2) / 2^32: the larger of a series for small u and of the logarithm."""
    r = word.to(tl.float32)
    tail = tl.fma(r, tl.fma(r, 3.9309096123985985e-20, 3.35902750059347e-10), 1.679513750296735e-10)
    survival = tl.fma(r, -(2.0**-32), 1.0 + 2.0**-22)  # raised by the error of lg2.approx
    return tl.maximum(tail, -log2(survival, FAST))


@triton.jit
def log_weight(word, exponent, neg_inv_tau, FAST: tl.constexpr):
    """log2 of the weight E^(-1/tau) 2^exponent."""
    return tl.fma(log2(exponential(word, FAST), FAST), neg_inv_tau, exponent)


@triton.jit
def weight(word, exponent, neg_inv_tau, FAST: tl.constexpr):
    return exp2(log_weight(word, exponent, neg_inv_tau, FAST), FAST)


@triton.jit
def field(word, HIGH: tl.constexpr):
    """A 16-bit field as 128 + field / 2^16: its bits under an exponent."""
    bits = word >> 16 if HIGH else word & 0xFFFF
    return (bits | 0x43000000).to(tl.float32, bitcast=True)


@triton.jit
def move(word, coordinate, HIGH: tl.constexpr, BASIS: tl.constexpr, FAST: tl.constexpr):
    """A cell's position: its coordinate (for the uniform basis moved by FIELD_SHIFT) plus noise."""
    if BASIS == "uniform":
        return field(word, HIGH) + coordinate
    elif BASIS == "triangular":
        v = tl.fma(field(word, HIGH) - 128.5, 2.0, 2.0**-16)  # 2 u - 1
        step = 1 - sqrt(1 - tl.abs(v), FAST)
        sign = v.to(tl.uint32, bitcast=True) & 0x80000000
        return coordinate + (step.to(tl.uint32, bitcast=True) | sign).to(tl.float32, bitcast=True)
    else:
        return coordinate


@triton.jit
def standard_normal(f, row, sample, key_lo, key_hi, FAST: tl.constexpr):
    """Normal f of a (row, sample): Box-Muller on the words f and f + 1 for f even."""
    a, b, c, d = philox(f // 4, row, sample, NORMAL, key_lo, key_hi)
    radius_word, angle_word = tl.where(f & 2 == 2, c, a), tl.where(f & 2 == 2, d, b)
    radius = tl.sqrt(-2 * tl.log((radius_word.to(tl.float32) + 0.5) * 2.0**-32))
    turn = (angle_word.to(tl.float32) + 0.5) * 2.0**-32
    angle = (turn - tl.where(turn < 0.5, 0.0, 1.0)) * 6.283185307179586  # near 0, where fast functions are exact
    return radius * tl.where(f & 1 == 1, sin(angle, FAST), cos(angle, FAST))
