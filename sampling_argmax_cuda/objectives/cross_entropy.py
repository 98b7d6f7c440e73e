"""Cross-entropy of the cell nearest to the target, read at the largest cell."""

import torch
from torch import Tensor

from ..cells import cell_offsets, largest_cell
from ..checks import arithmetic_dtype
from ..distances import total
from .answers import Answer, output_of
from .heatmap import over_unknown
from .objective import Objective
from .targets import Target, nearest_cell


def cell_entropy(output: Tensor, target: Target, beta: float) -> Tensor:
    """``-log p`` ``[B, K]`` of the cell nearest to each target, ``p = softmax(beta z)``.

    Where axes are not known (positions 0, as :meth:`.Target.known` has them) p is summed over them: that of the nearest line
    or plane.
    """
    if target.points is not None and target.axes is not None:
        raise ValueError("cell_entropy: where cells are points every coordinate must be known, got axes")
    position = nearest_cell(target.position) if target.points is None else target.position
    squared = total(offset.square() for offset in cell_offsets(output, position, target.points)).expand_as(output)
    log_p = (output.to(arithmetic_dtype(output)).flatten(2) * beta).log_softmax(-1).view_as(output)
    log_p = over_unknown(log_p, target.axes, torch.logsumexp).flatten(2)
    return -log_p.gather(-1, squared.flatten(2).argmin(-1, keepdim=True)).squeeze(-1)


class CrossEntropy(Objective):
    """``weight`` times :func:`cell_entropy`; a position is the largest cell.

    Args:
        beta: factor of the logits, > 0; ``tau``, the released form of samples, is 1 for a map without samples.
    """

    constrained = False

    def __init__(self, beta: float | str = 1.0) -> None:
        super().__init__(beta=beta)

    def row_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        return cell_entropy(output_of(output), target, self.beta)

    def locate_maps(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        return largest_cell(maps, None)

    def locate(self, output: Answer, points: Tensor | None) -> tuple[Tensor, Tensor]:
        return largest_cell(self.maps(output_of(output)), points)
