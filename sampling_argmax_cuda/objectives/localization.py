"""The short way in: one loss and one reading of maps, with positions in the coordinates that a user's labels have."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..checks import arithmetic_dtype, channels_last, check_device, row_weight
from . import make_objective
from .objective import Objective

_SCORES = {"energy": {"name": "sampling", "spread": 0.5}, "crps": {"name": "discrete", "spread": 0.5}}
# The objectives that need maps alone, and proper scores of two of them.
METHODS = (
    "sampling",
    "energy",
    "crps",
    "soft",
    "soft_vr",
    "soft_dr",
    "debiased",
    "discrete",
    "heatmap",
    "cross_entropy",
)
REDUCTIONS = ("mean", "sum", "none")


class LocalizationLoss(nn.Module):
    """The loss of maps ``[B, K, *axes]`` for labels in your own coordinates; what is not labelled does not count.

    Args:
        method: ``sampling`` (sampling-argmax), ``energy`` (its energy score), ``crps`` (that of the map's marginals), ``soft``
            (soft-argmax), ``soft_vr`` and ``soft_dr`` (its regularisers), ``debiased``, ``discrete``, ``heatmap`` (squared error
            of Gaussian maps) or ``cross_entropy``.
        coords: what positions are in: ``pixels`` of the input image, the centre of its first one at 0, which needs ``stride``;
            ``unit``, from 0 to 1; ``index`` (cells), ``centered``, ``cell`` or ``corners`` (:mod:`.coords`).
        stride: pixels, > 0, of the input image a cell of the map, one number or one an axis (x, y, z). ``unit``, ``centered`` and
            ``corners`` are of the image too where it is given; None for those of the map.
        periodic: axes (0 is x) that are circles, as :func:`.sample`; of ``sampling``, ``soft`` and ``discrete``.
        reduction: ``mean`` over the labelled points, by weight; ``sum``; or ``none``.
        **options: those of the method's class in :mod:`.objectives`, e.g. ``num_samples=30, tau=1.0, metric="euclidean"``. The
            distance is in the units of ``coords``.

    Raises:
        ValueError: for an unknown method, option or reduction, and for coordinates that there are not.
    """

    def __init__(self, method: str = "sampling", *, coords: str = "unit", stride: float | Sequence[float] | None = None,
                 periodic: Sequence[int] = (), reduction: str = "mean", **options: object) -> None:  # fmt: skip
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"LocalizationLoss: method must be one of {', '.join(METHODS)}, got {method!r}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"LocalizationLoss: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        if coords == "pixels" and stride is None:
            raise ValueError("LocalizationLoss: coords 'pixels' need stride, the pixels of the image a cell of the map")
        self.method, self.coords, self.reduction = method, coords, reduction
        self.objective: Objective = make_objective({**_SCORES.get(method, {"name": method}), **options})
        self.objective.set_coords(
            "index" if coords == "pixels" else coords, 1.0 if stride is None else stride, periodic
        )

    def set_epoch(self, epoch: int, progress: float = 0.0) -> None:
        """Move on the temperature of samples, where it has a schedule."""
        self.objective.set_epoch(epoch, progress)

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None, *, seed: int | Tensor | None = None,
                generator: torch.Generator | None = None) -> Tensor:  # fmt: skip
        """The loss of labels.

        Args:
            logits: ``[B, K, W]``, ``[B, K, H, W]`` or ``[B, K, D, H, W]``; ``heatmap`` takes them as maps.
            target: ``[B, K, d]``, x, y, z. A point with a NaN is not labelled.
            weight: ``[B, K]`` or ``[B, K, 1]``, >= 0 or bool: 0 for a point that must not count, as one that is not visible
                (of COCO's flags ``visibility > 0``). None for 1.
            seed: of the noise, as :func:`.sample`.
            generator: as :func:`.sample`.

        Returns:
            One number, 0 where nothing is labelled; ``[B, K]``, weighted, for reduction ``none``.
        """
        shape = (*logits.shape[:2], logits.dim() - 2)
        if tuple(target.shape) != shape:
            hint = channels_last(logits, target)
            raise ValueError(
                f"LocalizationLoss: target must be [B, K, d] = {list(shape)}, got {tuple(target.shape)}{hint}"
            )
        labelled = ~target.isnan().any(-1)
        weight = row_weight(weight, shape[:2])
        if weight is not None:
            if tuple(weight.shape) != shape[:2]:
                expected = list(shape[:2])
                raise ValueError(f"LocalizationLoss: weight must be [B, K] = {expected}, got {tuple(weight.shape)}")
            check_device("LocalizationLoss", "weight", weight, logits)
            labelled = labelled * weight
        loss = self.objective.loss(
            logits, target, labelled.to(arithmetic_dtype(logits)), seed=seed, generator=generator
        )
        if self.reduction == "none":
            return loss
        if self.reduction == "sum":
            return loss.sum()
        total = labelled.sum().to(loss.dtype)
        return loss.sum() / torch.where(total > 0, total, 1)

    def decode(self, logits: Tensor) -> Tensor:
        """Positions ``[B, K, d]`` of maps, in the same coordinates, read as the method reads them."""
        return self.objective.read(logits)[0]

    def extra_repr(self) -> str:
        return f"method={self.method!r}, coords={self.coords!r}, reduction={self.reduction!r}"


def decode(logits: Tensor, *, method: str = "sampling", coords: str = "unit", stride: float | Sequence[float] | None = None,
           periodic: Sequence[int] = (), **options) -> Tensor:  # fmt: skip
    """Positions ``[B, K, d]`` of maps ``[B, K, *axes]``: :meth:`LocalizationLoss.decode` of a loss with these arguments."""
    return LocalizationLoss(method, coords=coords, stride=stride, periodic=periodic, **options).decode(logits)
