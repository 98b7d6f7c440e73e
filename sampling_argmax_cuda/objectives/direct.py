"""Positions from the network itself, without maps (the direct baseline of Sun et al., ECCV 2018)."""

import torch
from torch import Tensor

from ..checks import arithmetic_dtype
from .answers import Answer, output_of
from .objective import Objective
from .targets import Target


class Direct(Objective):
    """``weight * d(target, y)`` of the positions y ``[B, K, d]`` in cells that the network answers with.

    Args:
        metric, units: as :class:`.Objective`.
    """

    regresses, logits, point_sets, averages = True, False, False, ("coords",)

    def __init__(self, metric: str = "l1", units: str = "index") -> None:
        super().__init__(metric, units)

    def row_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        return self.distance(self.read_as_trained(output)[0], target)

    def covariance(self, output: Answer, size: tuple[int, int]) -> Tensor:
        output = output_of(output)
        return output.new_full((*output.shape[:2], 2, 2), torch.nan, dtype=arithmetic_dtype(output))

    def locate(self, output: Answer, points: Tensor | None) -> tuple[Tensor, Tensor]:
        output = output_of(output)
        return output.to(arithmetic_dtype(output)), torch.ones_like(output[..., 0], dtype=torch.float32)
