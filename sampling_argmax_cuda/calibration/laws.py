"""The law of a position that a map stands for: its temperature, its central intervals and its scores.

Each cell's probability is spread evenly over the cell (the uniform basis: Li et al., NeurIPS 2021, Eq. 7), in all of these.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..cells import cell_offsets
from ..objectives.density import log_density
from ..objectives.marginals import grid_marginals, marginal_scores


def tempered(law: Tensor, temperature: float) -> Tensor:
    """Maps of probabilities ``[B, K, *axes]`` at another temperature, > 0: ``p ** (1 / T)`` over its sum.

    Of ``softmax(beta z)`` that is ``softmax(beta z / T)``: above 1 it is wider.
    """
    return (law.log() / temperature).flatten(2).softmax(-1).view_as(law)


def in_plane(law: Tensor) -> Tensor:
    """The law ``[B, K, H, W]`` of x and y of maps ``[B, K, (D,) H, W]``."""
    return law.sum(2) if law.dim() == 5 else law


def quantile(marginal: Tensor, share: float) -> Tensor:
    """The place ``[...]`` in cells below which a marginal ``[..., n]`` has this share."""
    below = marginal.cumsum(-1)
    cell = (below < share).sum(-1, keepdim=True).clamp(max=marginal.shape[-1] - 1)
    own = marginal.gather(-1, cell)
    rest = share - (below.gather(-1, cell) - own)
    return (cell - 0.5 + torch.where(own > 0, rest / own, 1).clamp(0, 1)).squeeze(-1)


def central_region(law: Tensor, level: float) -> Tensor:
    """The corners ``[B, K, 2, 2]`` (low and high; x, y), in cells, of the central interval of this level on each axis.

    An axis' interval leaves ``(1 - level) / 2`` of its marginal out on either side; the rectangle holds less than ``level``.
    """
    marginals, out = (law.sum(2), law.sum(3)), (1 - level) / 2
    return torch.stack([torch.stack([quantile(p, q) for p in marginals], -1) for q in (out, 1 - out)], 2)


class LawScores(NamedTuple):
    """What :func:`law_scores` returns and explains."""

    crps: Tensor
    below: Tensor
    nll: Tensor


def law_scores(law: Tensor, target: Tensor) -> LawScores:
    """How laws ``[B, K, H, W]`` stand to targets ``[B, K, 2]`` in cells.

    ``crps`` ``[B, K]``, the continuous ranked probability score in cells, the sum over axes; ``below`` ``[B, K, 2]``, the
    probability below the target on each axis (its PIT value); ``nll`` ``[B, K]``, minus the log-density at the target.

    Of cells at points the score is ``E |y - t| - E |y - y'| / 2`` with distances between cells. Spread evenly, a cell x away has
    ``(1/2 - |x|)^2`` more where the target is within it, and two places of one cell are 1/3 apart.
    """
    scores, extra = marginal_scores(law, target), 0
    for p, x in grid_marginals(law, cell_offsets(law, target)):
        extra = extra + (p * (0.5 - x.abs()).clamp(min=0).square()).sum(-1) - p.square().sum(-1) / 6
    nll = -log_density(law.log(), target, basis="uniform")
    return LawScores(scores.crps.sum(-1) + extra, scores.below, nll)
