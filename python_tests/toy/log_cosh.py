"""The logarithm of the hyperbolic cosine of the error of the expectation: quadratic near 0, linear far away."""

import math

from torch import Tensor
from torch.nn.functional import softplus

from .soft import SoftArgmax
from .targets import Target


class LogCosh(SoftArgmax):
    """``weight * sum_axes s log cosh((y - target) / s)``, y by soft-argmax.

    Args:
        scale: the distance s, > 0, in the objective's units, beyond which the loss is linear.
        beta, backend, metric, units: as :class:`.SoftArgmax`.
    """

    def __init__(self, scale: float = 1.0, beta: float | str = 1.0, backend: str = "auto", metric: str = "l1",
                 units: str = "index") -> None:  # fmt: skip
        super().__init__(beta, backend, metric, units)
        if not scale > 0:
            raise ValueError(f"LogCosh: scale must be > 0, got {scale}")
        self.scale = scale

    def row_loss(self, output: Tensor, target: Target, seed: int | Tensor | None) -> Tensor:
        offsets = (self.read(output, target.points)[0] - target.position).unbind(-1)
        sizes = [x.abs() / self.scale for x in self.offsets(offsets, target)]
        return self.scale * sum(x + softplus(-2 * x) - math.log(2) for x in sizes)
