"""Methods whose positions are read at the largest cell."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import arithmetic_dtype
from .objective import Method
from .rows import cell_offsets
from .targets import Target, gaussian_maps, nearest_cell


def over_unknown(maps: Tensor, axes: Tensor | None, reduce: Callable) -> Tensor:
    """Maps ``[B, K, *axes]`` reduced over the axes that are not known (``axes`` ``[B, K, d]``, 0 there), repeated along them."""
    for a, known in enumerate(() if axes is None else axes.unbind(-1)):
        rows = (known > 0).view(*known.shape, *[1] * (maps.dim() - 2))
        maps = torch.where(rows, maps, reduce(maps, -1 - a, keepdim=True))
    return maps


class Heatmap(Method):
    """Squared error to Gaussian maps, read at the largest cell (Xiao et al., "Simple Baselines", ECCV 2018).

    The loss is half the mean over cells of ``(h - g)^2``, g those of :func:`.gaussian_maps`. Where axes u are not known it
    is that of ``max_u h`` and the Gaussian over the other axes, which is ``max_u g`` wherever on them the point lies: a map
    without an error in space has none in the plane. A position is the largest cell, moved a quarter of a cell towards its
    larger neighbour on each axis.
    """

    logits, clouds, constrained = False, False, False

    def __init__(self, metric: str, units: str, sigma: float) -> None:
        super().__init__(metric, units)
        if not sigma > 0:
            raise ValueError(f"model: target_sigma must be > 0, got {sigma}")
        self.sigma = sigma

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        maps = over_unknown(self.maps(output), target.axes, torch.amax)
        truth = gaussian_maps(target.position, tuple(reversed(output.shape[2:])), self.sigma, target.axes)
        return 0.5 * (maps - truth).square().flatten(2).mean(-1)

    def maps(self, output: Tensor) -> Tensor:
        return output.to(arithmetic_dtype(output))

    def read_maps(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        peak, cell = maps.flatten(2).max(-1)
        index = list(torch.unravel_index(cell, maps.shape[2:]))
        position = []
        for a, size in enumerate(maps.shape[2:]):
            below, above = (self._neighbour(maps, index, a, step) for step in (-1, 1))
            inside = (index[a] > 0) & (index[a] < size - 1)
            position.insert(0, index[a] + torch.where(inside, 0.25 * (above - below).sign(), 0))
        return self.possible(torch.stack(position, -1)), peak

    @staticmethod
    def _neighbour(maps: Tensor, index: list[Tensor], axis: int, step: int) -> Tensor:
        moved = [i if a != axis else (i + step).clamp(0, maps.shape[2 + a] - 1) for a, i in enumerate(index)]
        rows = [torch.arange(n, device=maps.device) for n in maps.shape[:2]]
        return maps[(rows[0][:, None], rows[1], *moved)]

    def read(self, output: Tensor, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check_points(points)
        return self.read_maps(self.maps(output))


def cell_entropy(output: Tensor, target: Target, beta: float) -> Tensor:
    """``-log p`` ``[B, K]`` of the cell nearest to each target, ``p = softmax(beta z)``.

    Where axes are not known (positions 0, as :meth:`.Target.known` has them) p is summed over them: that of the nearest line
    or plane.
    """
    if target.points is not None and target.axes is not None:
        raise ValueError("model: cross-entropy needs every coordinate where cells are points, got axes")
    place = nearest_cell(target.position) if target.points is None else target.position
    squared = sum(offset.square() for offset in cell_offsets(output, place, target.points)).expand_as(output)
    log_p = (output.to(arithmetic_dtype(output)).flatten(2) * beta).log_softmax(-1).view_as(output)
    log_p = over_unknown(log_p, target.axes, torch.logsumexp).flatten(2)
    return -log_p.gather(-1, squared.flatten(2).argmin(-1, keepdim=True)).squeeze(-1)


class CrossEntropy(Method):
    """Cross-entropy of the cell nearest to the target, read at the largest cell; over unknown axes :func:`cell_entropy`."""

    constrained = False

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        return cell_entropy(output, target, self.beta)

    def read_maps(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        position, peak = self._largest(maps, None)
        return self.possible(position), peak

    def locate(self, output: Tensor, points: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._largest(self.maps(output), points)

    @staticmethod
    def _largest(maps: Tensor, points: Tensor | None) -> tuple[Tensor, Tensor]:
        peak, cell = maps.flatten(2).max(-1)
        if points is not None:
            return points.gather(1, cell.unsqueeze(-1).expand(-1, -1, points.shape[2])), peak
        index = torch.unravel_index(cell, maps.shape[2:])
        return torch.stack(index[::-1], -1).to(peak.dtype), peak
