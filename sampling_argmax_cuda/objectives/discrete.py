"""The expectation of the error over cells: what samples without noise and at temperature 0 have in expectation."""

from torch import Tensor

from .objective import Objective
from .rows import cell_offsets, metric_of
from .targets import Target


class Discrete(Objective):
    """``weight * sum_i p_i d(target, c_i)``, ``p = softmax(beta * z)``; read by soft-argmax.

    Eq. 4 of Li et al., "Localization with Sampling-Argmax", NeurIPS 2021. With ``d_i = d(target, c_i)`` its gradient is
    ``beta * p_i (d_i - sum_j p_j d_j)``.

    Args:
        beta: factor of the logits, > 0; ``tau``, the released form of samples, is 1 for a map without samples.
        metric, units: as :class:`.Objective`.
    """

    constrained = False

    def __init__(self, beta: float | str = 1.0, metric: str = "l1", units: str = "index") -> None:
        super().__init__(metric, units, beta)

    def row_loss(self, output: Tensor, target: Target, seed: int | Tensor | None) -> Tensor:
        offsets = cell_offsets(output, target.position, target.points)
        distances = metric_of(self.offsets(offsets, target, output.dim() - 2), self.metric)
        return (self.maps(output) * distances).flatten(2).sum(-1)


def discrete_expectation_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    beta: float = 1.0,
    metric: str = "l1",
    points: Tensor | None = None,
) -> Tensor:
    """The loss of :class:`Discrete` as a function; arguments, shapes and errors are those of :func:`.soft_argmax_loss`."""
    return Discrete(beta, metric).loss(logits, target, weight, points=points)
