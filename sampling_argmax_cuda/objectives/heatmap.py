"""Gaussian maps, squared error, read at the largest cell and a quarter (Xiao et al., "Simple Baselines", ECCV 2018)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import arithmetic_dtype
from .answers import Answer, output_of
from .objective import Objective
from .spread import plane_covariance
from .targets import Target, gaussian_maps


def over_unknown(maps: Tensor, axes: Tensor | None, reduce: Callable) -> Tensor:
    """Maps ``[B, K, *axes]`` reduced over the axes that are not known (``axes`` ``[B, K, d]``, 0 there), repeated along them."""
    for a, known in enumerate(() if axes is None else axes.unbind(-1)):
        rows = (known > 0).view(*known.shape, *[1] * (maps.dim() - 2))
        maps = torch.where(rows, maps, reduce(maps, -1 - a, keepdim=True))
    return maps


class Heatmap(Objective):
    """``weight`` times half the mean over cells of ``(h - g)^2``, g those of :func:`.gaussian_maps`.

    Where axes u are not known it is that of ``max_u h`` and the Gaussian over the other axes, which is ``max_u g`` wherever
    on them the point lies: a map without an error in space has none in the plane. A position is the largest cell, moved a
    quarter of a cell towards its larger neighbour on each axis.

    Args:
        target_sigma: width in cells of the Gaussian maps, > 0.
    """

    logits, point_sets, constrained = False, False, False

    def __init__(self, target_sigma: float = 2.0) -> None:
        super().__init__()
        if not target_sigma > 0:
            raise ValueError(f"Heatmap: target_sigma must be > 0, got {target_sigma}")
        self.target_sigma = target_sigma

    def row_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        output = output_of(output)
        maps = over_unknown(self.maps(output), target.axes, torch.amax)
        truth = gaussian_maps(target.position, tuple(reversed(output.shape[2:])), self.target_sigma, target.axes)
        return 0.5 * (maps - truth).square().flatten(2).mean(-1)

    def covariance(self, output: Answer, size: tuple[int, int]) -> Tensor:
        return plane_covariance(self.maps(output_of(output)), self.backend)

    def maps(self, output: Tensor) -> Tensor:
        return output.to(arithmetic_dtype(output))

    def log_maps(self, maps: Tensor) -> Tensor:
        return maps.clamp(min=torch.finfo(maps.dtype).tiny).log()

    def locate_maps(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        peak, cell = maps.flatten(2).max(-1)
        index = list(torch.unravel_index(cell, maps.shape[2:]))
        position: list[Tensor] = []
        for a, size in enumerate(maps.shape[2:]):
            below, above = (self._neighbour(maps, index, a, step) for step in (-1, 1))
            inside = (index[a] > 0) & (index[a] < size - 1)
            position.insert(0, index[a] + torch.where(inside, 0.25 * (above - below).sign(), 0))
        return torch.stack(position, -1), peak

    @staticmethod
    def _neighbour(maps: Tensor, index: list[Tensor], axis: int, step: int) -> Tensor:
        moved = [i if a != axis else (i + step).clamp(0, maps.shape[2 + a] - 1) for a, i in enumerate(index)]
        rows = [torch.arange(n, device=maps.device) for n in maps.shape[:2]]
        cells = (rows[0][:, None], rows[1], *moved)
        return maps[cells]

    def locate(self, output: Answer, points: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.locate_maps(self.maps(output_of(output)))
