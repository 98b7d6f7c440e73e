"""The expectation of the error over cells: what samples without noise and at temperature 0 have in expectation."""

from torch import Tensor

from ..cells import cell_offsets
from ..distances import mean_difference, metric_of, total
from .answers import Answer, cells_of, output_of
from .marginals import grid_marginals, point_marginals
from .objective import Objective
from .targets import Target


class Discrete(Objective):
    """``weight * sum_i p_i d(target, c_i)``, ``p = softmax(beta * z)``; read by soft-argmax.

    Eq. 4 of Li et al., "Localization with Sampling-Argmax", NeurIPS 2021. With ``d_i = d(target, c_i)`` its gradient is
    ``beta * p_i (d_i - sum_j p_j d_j)``.

    ``spread`` takes off that many times the mean distance ``2 sum_j F_j (1 - F_j)`` between two draws of each axis' marginal,
    F its distribution function. 0.5 makes it the continuous ranked probability score of the marginals, which is proper: the
    energy score of samples (:mod:`.energy`) without samples.

    Args:
        beta: factor of the logits, > 0; ``tau``, the released form of samples, is 1 for a map without samples.
        spread: factor, >= 0, of the mean distance between two draws that is taken off; metric ``l1`` then.
        metric, units: as :class:`.Objective`.
    """

    constrained = False
    sub_distributions: tuple[str, ...] = ("offset",)

    def __init__(self, beta: float | str = 1.0, spread: float = 0.0, metric: str = "l1", units: str = "index") -> None:
        super().__init__(metric, units, beta)
        if not 0 <= spread < float("inf"):
            raise ValueError(f"Discrete: spread must be >= 0, got {spread}")
        if spread > 0 and metric != "l1":
            raise ValueError(f"Discrete: the score of marginals needs metric l1, got {metric!r}")
        self.spread, self.circles = spread, spread == 0

    def row_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        logits, moved = output_of(output), cells_of(output).get("offset")
        apart = cell_offsets(logits, target.position, target.points)
        if moved is not None:  # a marginal's cells are no line any more, but points
            steps = moved.to(apart[0].dtype).unbind(2 if target.points is None else -1)
            apart = tuple(x + step for x, step in zip(apart, steps, strict=True))
        offsets, maps = self.offsets(apart, target, logits.dim() - 2), self.maps(logits)
        error = (maps * metric_of(offsets, self.metric)).flatten(2).sum(-1)
        if self.spread == 0:
            return error
        if moved is not None:
            laws = point_marginals(maps.flatten(2), [x.flatten(2) for x in offsets])
        else:
            laws = point_marginals(maps, offsets) if target.points is not None else grid_marginals(maps, offsets)
        return error - self.spread * total(mean_difference(p, x) for p, x in laws)


def discrete_expectation_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    beta: float = 1.0,
    spread: float = 0.0,
    metric: str = "l1",
    points: Tensor | None = None,
) -> Tensor:
    """The loss of :class:`Discrete` as a function; arguments, shapes and errors are those of :func:`.soft_argmax_loss`."""
    return Discrete(beta, spread, metric).loss(logits, target, weight, points=points)
