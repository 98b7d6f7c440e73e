"""Positions on axes that are circles, of n cells each: equations (50) to (54) of reference/README.md.

    m = n / 2 pi * atan2(sum_i w_i sin(2 pi c_i / n), sum_i w_i cos(2 pi c_i / n))   (mod n)

The sums are what the operators compute for point sets, so that they are read as the mean of points on the circle.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .checks import arithmetic_dtype
from .reference.sample import grid_points

_MOST = 3  # coordinates that a point set may have


def wrap(x: Tensor, period: float) -> Tensor:
    """A difference on a circle: the way round it that is the shorter one, in ``[-period / 2, period / 2]``."""
    return x - period * (x / period).round().detach()


def soft_argmax_on_circles(read: Callable, logits: Tensor, periodic: Sequence[int]) -> Tensor:
    """Positions ``[B, K, d]`` in cells; ``read(logits, points=)`` is the soft-argmax of a point set."""
    columns = []
    for axis in range(logits.dim() - 2):
        columns += _on_circle(logits, axis) if axis in periodic else [_along(logits, axis)]
    found = iter(_means(read, logits, columns))
    position = [
        _angle(next(found), next(found), _cells(logits, axis)) if axis in periodic else next(found)
        for axis in range(logits.dim() - 2)
    ]
    return torch.stack(position, -1)


def samples_on_circles(draw: Callable, logits: Tensor, periodic: Sequence[int], basis: str) -> Tensor:
    """Samples ``[B, K, S, d]`` in cells; ``draw(logits, points=, basis=)`` draws them on lines, each time of the same noise.

    The cells' noise is what samples with and without a basis differ by: their weights are the same.
    """
    position = list(draw(logits, basis=basis).unbind(-1))
    for axis in periodic:
        columns = [*_on_circle(logits, axis), _along(logits, axis)]
        sine, cosine, cell = _means(partial(draw, basis="none"), logits, columns)
        noise = 0.0 if basis == "none" else position[axis] - cell
        position[axis] = _angle(sine, cosine, _cells(logits, axis), noise)
    return torch.stack(position, -1)


def _cells(logits: Tensor, axis: int) -> int:
    return logits.shape[logits.dim() - 1 - axis]


def _along(logits: Tensor, axis: int) -> Tensor:
    """The coordinate ``[N]`` of every cell on an axis."""
    return grid_points(logits.shape[2:], logits.device)[:, axis].to(arithmetic_dtype(logits))


def _on_circle(logits: Tensor, axis: int) -> list[Tensor]:
    angle = _along(logits, axis) * (2 * math.pi / _cells(logits, axis))
    return [angle.sin(), angle.cos()]


def _means(read: Callable, logits: Tensor, columns: list[Tensor]) -> list[Tensor]:
    """What ``read`` gives for each column ``[N]`` of coordinates, as many at once as a point set has.

    All rows share one set of points, so that they are one batch of ``B K``, with the numbers that their noise goes by.
    """
    flat, found = logits.reshape(1, -1, len(columns[0])), []
    for first in range(0, len(columns), _MOST):
        points = torch.stack(columns[first : first + _MOST], -1).unsqueeze(0)
        found += [x.view(*logits.shape[:2], *x.shape[2:]) for x in read(flat, points=points).unbind(-1)]
    return found


def _angle(sine: Tensor, cosine: Tensor, cells: int, noise: Tensor | float = 0.0) -> Tensor:
    """The position in ``[0, cells)`` of a direction, after its noise in cells.

    Where the sums are no longer than their rounding there is no direction: the position is 0, without gradient.
    """
    rounding = 8 * torch.finfo(sine.dtype).eps
    known = sine.square() + cosine.square() > rounding**2
    turn = torch.atan2(torch.where(known, sine, 0), torch.where(known, cosine, 1))
    position = torch.remainder(turn * (cells / (2 * math.pi)) + noise, cells)
    return torch.where(position < cells, position, position - cells)  # a little below 0 the remainder rounds up
