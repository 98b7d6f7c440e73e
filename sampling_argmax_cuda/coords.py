"""Coordinate conventions, each an affine map of the cell index e on an axis of W cells.

| name | formula | pixel of an input of s*W pixels |
|---|---|---|
| ``index`` | e | s e |
| ``centered`` | e/W - 1/2 | (c + 1/2) s W |
| ``unit`` | e/W | c s W |
| ``cell`` | (2e + 1)/W - 1 | ((c + 1) s W - 1)/2 |
| ``corners`` | 2e/(W - 1) - 1 | (c + 1)/2 (s W - 1) |

The first three put cell 0 at the first pixel (left edge), ``cell`` aligns the borders of map and image
(``align_corners=False``), ``corners`` the centres of their outer cells and pixels (``align_corners=True``).

A :class:`Frame` goes to the image first. With s pixels a cell the borders of map and image are aligned: cell e covers s pixels
and its centre is at pixel ``x = s (e + 1/2) - 1/2``, the centre of pixel 0 at 0; the convention is then applied to x on an axis
of ``s W`` pixels. So ``index`` gives pixels, ``unit`` is ``x / (s W)``, and ``cell`` is the same for every stride.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

CONVENTIONS = ("index", "centered", "unit", "cell", "corners")
_LEFT_EDGE = ("index", "centered", "unit")


def affine(op: str, convention: str, size: float) -> tuple[float, float]:
    """``(scale, offset)`` with coordinate = scale * index + offset on an axis of ``size`` cells; ``op`` names errors."""
    if convention == "index":
        return 1.0, 0.0
    if convention == "centered":
        return 1 / size, -0.5
    if convention == "unit":
        return 1 / size, 0.0
    if convention == "cell":
        return 2 / size, 1 / size - 1
    if size < 2:
        raise ValueError(f"{op}: convention 'corners' needs every size to be >= 2, got {size}")
    return 2 / (size - 1), -1.0


class Frame(NamedTuple):
    """A user's coordinates, one affine map an axis (x, y, z): coordinate = scale * cell + offset, scale > 0."""

    scales: tuple[float, ...]
    offsets: tuple[float, ...]

    def from_cells(self, x: Tensor) -> Tensor:
        """``[..., d]`` in cells to ``[..., d]`` in the user's coordinates."""
        pairs = zip(x.unbind(-1), self.scales, self.offsets, strict=True)
        return torch.stack([values * scale + offset for values, scale, offset in pairs], -1)

    def to_cells(self, x: Tensor) -> Tensor:
        """``[..., d]`` in the user's coordinates to ``[..., d]`` in cells."""
        pairs = zip(x.unbind(-1), self.scales, self.offsets, strict=True)
        return torch.stack([(values - offset) / scale for values, scale, offset in pairs], -1)

    def factor(self, metric: str) -> float | None:
        """What a distance in cells is multiplied by to be that of the user's units; None where no factor does it.

        None if the scales differ by axis, and for ``smooth_l1``, whose threshold is 1 in the user's units.
        """
        scale = self.scales[0]
        if any(other != scale for other in self.scales) or (metric == "smooth_l1" and scale != 1):
            return None
        return scale**2 if metric == "l2" else scale


def frame_of(
    op: str, coords: str, stride: float | Sequence[float], size: Sequence[int], points: Tensor | None = None
) -> Frame | None:
    """The frame of maps of ``size`` W(, H, D) cells, or None for cells; raises ValueError for what none is of."""
    if coords not in CONVENTIONS:
        raise ValueError(f"{op}: coords must be one of {', '.join(CONVENTIONS)}, got {coords!r}")
    strides = tuple(stride) if isinstance(stride, Sequence) else (stride,)
    if any(isinstance(s, bool) or not isinstance(s, Real) or not 0 < s < math.inf for s in strides):
        raise ValueError(f"{op}: stride must be > 0, one number or one an axis, got {stride!r}")
    if coords == "index" and all(s == 1 for s in strides):
        return None
    if points is not None:
        raise ValueError(f"{op}: points have units of their own, so coords and stride must be left out, got {coords!r}")
    if len(strides) not in (1, len(size)):
        raise ValueError(f"{op}: stride must be one number or {len(size)} (x, y, z order), got {stride!r}")
    strides = strides * len(size) if len(strides) == 1 else strides
    maps = [(s, *affine(op, coords, s * n)) for s, n in zip(strides, size, strict=True)]
    return Frame(
        tuple(s * scale for s, scale, _ in maps), tuple((s - 1) / 2 * scale + shift for s, scale, shift in maps)
    )


def _check(op: str, x: Tensor, size: int | Sequence[int], *conventions: str) -> tuple[int, ...]:
    """The size of each axis of ``x``, after the checks every function here needs."""
    if not isinstance(x, Tensor) or x.dim() == 0:
        got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{op}: x must be a tensor [..., d], got {got}")
    for convention in conventions:
        if convention not in CONVENTIONS:
            raise ValueError(f"{op}: convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    sizes = tuple(size) if isinstance(size, Sequence) else (size,) * x.shape[-1]
    if len(sizes) != x.shape[-1]:
        raise ValueError(f"{op}: size must be one number or {x.shape[-1]} (x, y, z order), got {size}")
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise ValueError(f"{op}: size must hold integers >= 1, got {size}")
    return sizes


def convert_coords(x: Tensor, size: int | Sequence[int], src: str = "index", dst: str = "centered") -> Tensor:
    """Convert coordinates between ``index``, ``centered``, ``unit``, ``cell`` and ``corners``.

    Args:
        x: ``[..., d]``, the axes in the order x, y, z.
        size: cells per axis in the same order, ``(W, H, D)``; one integer stands for every axis.
        src: convention of ``x``.
        dst: convention of the result.

    Returns:
        ``[..., d]``, differentiable in ``x``; ``x`` itself where ``src == dst``.

    Raises:
        ValueError: for an unknown convention, a size that does not fit ``x``, or ``corners`` on an axis of
            one cell, which has no corners.
    """
    sizes = _check("convert_coords", x, size, src, dst)
    maps = [(affine("convert_coords", src, n), affine("convert_coords", dst, n)) for n in sizes]
    if src == dst or not maps:
        return x
    columns = []
    for values, ((scale, offset), (new_scale, new_offset)) in zip(x.unbind(-1), maps, strict=True):
        ratio = new_scale / scale
        columns.append(values * ratio + (new_offset - offset * ratio))
    return torch.stack(columns, -1)


def flip_coords(
    x: Tensor, size: int | Sequence[int], convention: str = "centered", *, axis: int = 0, stride: float = 1.0
) -> Tensor:
    """Coordinates after the input image is mirrored along ``axis`` (0 is x, a horizontal flip).

    The mirror is taken at input pixels, ``stride`` of them per cell, with the alignment the convention
    implies: left-edge conventions (``index``, ``centered``, ``unit``) map e to ``W - 1/stride - e``; ``cell``
    and ``corners`` are symmetric, so their coordinates change sign whatever the stride. In ``centered`` units
    this is ``-x - 1/(stride W)``: the released flip test with ``stride=4``, and with ``stride=1`` its form
    without shift.

    Args:
        x: ``[..., d]`` in ``convention``.
        size: cells per axis ``(W, H, D)`` or one integer.
        convention: convention of ``x`` and of the result.
        axis: the mirrored axis, ``0 <= axis < d``.
        stride: input pixels per cell, > 0.

    Raises:
        ValueError: as :func:`convert_coords`, and for an axis or stride out of range.
    """
    sizes = _check("flip_coords", x, size, convention)
    if not 0 <= axis < x.shape[-1]:
        raise ValueError(f"flip_coords: axis must be in [0, {x.shape[-1]}), got {axis}")
    if not stride > 0:
        raise ValueError(f"flip_coords: stride must be > 0, got {stride}")
    scale, offset = affine("flip_coords", convention, sizes[axis])
    last = sizes[axis] - (1 / stride if convention in _LEFT_EDGE else 1)
    columns = list(x.unbind(-1))
    columns[axis] = (scale * last + 2 * offset) - columns[axis]
    return torch.stack(columns, -1)
