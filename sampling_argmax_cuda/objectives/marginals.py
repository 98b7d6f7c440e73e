"""The marginals of maps: the law of each coordinate, and how it stands to where the point is."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..cells import cell_offsets
from ..distances import mean_difference


def grid_marginals(maps: Tensor, offsets: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities and positions ``[B, K, n]`` of each axis of maps, with the positions of :func:`.cell_offsets`."""
    for axis, offset in enumerate(offsets):
        others = [dim for dim in range(2, maps.dim()) if dim != maps.dim() - 1 - axis]
        yield maps.sum(others) if others else maps, offset.flatten(2)


def point_marginals(maps: Tensor, offsets: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities and rising positions ``[B, K, N]`` of the points, axis by axis."""
    for offset in offsets:
        offset, order = offset.sort(-1)
        yield maps.gather(-1, order), offset


class MarginalScores(NamedTuple):
    """What :func:`marginal_scores` returns and explains."""

    crps: Tensor
    below: Tensor
    spread: Tensor


def marginal_scores(maps: Tensor, target: Tensor) -> MarginalScores:
    """How the marginals of maps of probabilities ``[B, K, *axes]`` stand to targets ``[B, K, d]`` in cells; all ``[B, K, d]``.

    ``crps``, the continuous ranked probability score ``sum_j p_j |j - t| - sum_j F_j (1 - F_j)`` in cells (Gneiting and
    Raftery, JASA 2007); ``below``, the probability below the target (its PIT value), each cell's spread evenly over its width;
    ``spread``, the standard deviation in cells.
    """
    scores = []
    for p, x in grid_marginals(maps, cell_offsets(maps, target)):
        mean = (p * x).sum(-1, keepdim=True)
        crps = (p * x.abs()).sum(-1) - mean_difference(p, x) / 2
        below = (p * (0.5 - x).clamp(0, 1)).sum(-1)
        scores.append((crps, below, (p * (x - mean).square()).sum(-1).sqrt()))
    return MarginalScores(*(torch.stack(x, -1) for x in zip(*scores, strict=True)))
