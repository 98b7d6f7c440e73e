"""Soft-argmax: the error of the expectation. With metric l1 or l2 it is integral regression (Sun et al., ECCV 2018)."""

from collections.abc import Sequence

from torch import Tensor

from .answers import Answer
from .objective import Objective
from .targets import Target


class SoftArgmax(Objective):
    """The error of the expectation: ``weight * d(target, sum_i p_i c_i)``, ``p = softmax(beta * z)``.

    Eq. 2 of Li et al., "Localization with Sampling-Argmax", NeurIPS 2021. Called as a module it gives the positions.

    Args:
        beta: factor of the logits, > 0; ``tau``, the released form of samples, is 1 for a map without samples.
        backend: auto, cpu, cuda, triton or reference.
        metric: as :class:`.Objective`.
        units: as :class:`.Objective`.
        coords: what positions and the distance are in, as :func:`.soft_argmax`.
        stride: as :func:`.soft_argmax`.
        periodic: as :func:`.soft_argmax`.

    A state dict of :class:`.SamplingArgmax` is loaded too, so that a model may be read without samples.
    """

    circles = True
    sub_distributions: tuple[str, ...] = ("offset",)

    def __init__(self, beta: float | str = 1.0, backend: str = "auto", metric: str = "l1", units: str = "index",
                 coords: str = "index", stride: float | Sequence[float] = 1.0, periodic: Sequence[int] = ()) -> None:  # fmt: skip
        super().__init__(metric, units, beta)
        self.backend = backend
        self.set_coords(coords, stride, periodic)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                              error_msgs) -> None:  # fmt: skip
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        for name in ("epoch", "progress"):  # of a temperature, which there is none of here
            if f"{prefix}{name}" in unexpected_keys:
                unexpected_keys.remove(f"{prefix}{name}")

    def forward(self, logits: Tensor, points: Tensor | None = None) -> Tensor:
        """Positions ``[B, K, d]`` of logits ``[B, K, *axes]``, or ``[B, K, N]`` with points ``[B, N, d]``."""
        return self.read(logits, points)[0]

    def row_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        return self.distance(self.read_as_trained(output, target.points)[0], target)

    def extra_repr(self) -> str:
        return f"beta={self.beta}" + self.coords_repr()


def soft_argmax_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    beta: float = 1.0,
    metric: str = "l1",
    points: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """The loss of :class:`SoftArgmax` as a function.

    Args:
        logits: ``[B, K, *axes]`` or ``[B, K, N]`` with ``points`` ``[B, N, d]``.
        target: ``[B, K, d]`` in cell-index units, or the points' units.
        weight: ``[B, K]`` or None for 1. Weight 0 gives loss and gradients 0, whatever the row holds.
        metric: ``l1``, ``l2``, ``euclidean`` or ``smooth_l1``, as :func:`.expected_error`.

    Returns:
        ``[B, K]``. Raises ValueError for arguments that do not fit.
    """
    return SoftArgmax(beta, backend, metric).loss(logits, target, weight, points=points)
