"""Residual log-likelihood estimation: a regression loss whose density is learnt (Li et al., ICCV 2021).

The error in units of the predicted width, ``e = (prediction - target) / sigma``, has the density ``Q(e) G(e)``: Q a Laplacian
or a Gaussian of width 1, G a normalising flow (RealNVP, Dinh et al., ICLR 2017) that learns what Q leaves out.
"""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from ..checks import arithmetic_dtype
from ..coords import affine
from ..distances import weigh_rows
from .answers import Answer, OutputWithSigma
from .direct import Direct
from .objective import Objective
from .real_nvp import RealNVP
from .sampling import SamplingArgmax
from .soft import SoftArgmax
from .targets import Target

FORMS = ("corrected", "released")
DENSITIES = ("laplace", "gaussian", "released")
_FAR = 1e4  # errors further than this many widths are as far to the flow: their squares stay finite


def widths_of(objective: Objective, answer: Answer) -> OutputWithSigma:
    """A network's answer, which has to have widths."""
    if not isinstance(answer, OutputWithSigma):
        name = type(objective).__name__
        raise ValueError(f"{name}: the output must be an OutputWithSigma, got {type(answer).__name__}")
    return answer


def base_energy(scaled: Tensor, density: str) -> Tensor:
    """``-log Q`` of every coordinate."""
    if density == "laplace":
        return scaled.abs() + math.log(2)
    if density == "gaussian":
        return 0.5 * scaled.square() + 0.5 * math.log(2 * math.pi)
    return scaled.abs() / math.sqrt(2) + 0.5 * math.log(2 * math.pi)


class RLELoss(nn.Module):
    """Negative log-likelihood of points under a learnt density; it can be negative. Its parameters are to be trained too.

    With ``e = (prediction - target) / sigma`` and D known coordinates, per point

    - ``corrected``: ``sum_d (log sigma_d - log Q(e_d)) - log G(e)``, the paper's likelihood without its constant;
    - ``released``: ``sum_d (2 log sigma_d - log Q(e_d)) - D log G(e)``, what the published code computes: log sigma counts
      twice and the flow D times, so that ``released = corrected + sum_d log sigma_d - (D - 1) log G(e)``.

    ``-log Q(e)`` is ``|e| + log 2`` (``laplace``), ``e^2 / 2 + log(2 pi) / 2`` (``gaussian``), or the published code's
    ``|e| / sqrt(2) + log(2 pi) / 2`` (``released``: the integral of its Q is ``2 / sqrt(pi)``, not 1).

    A point counts if its x and y (with ``axes=3`` perhaps z too) are known; points with z have a flow of their own. Nothing
    else of a batch enters a flow, NaN included, and every parameter has a gradient whatever is known.

    Args:
        axes: 2 or 3, the coordinates of a point.
        form: ``corrected`` or ``released``.
        density: ``laplace``, ``gaussian`` or ``released``.
        min_sigma: the least width that counts, in the units of the coordinates; smaller ones are that wide.
    """

    def __init__(
        self, axes: int = 2, form: str = "corrected", density: str = "laplace", min_sigma: float = 1e-4
    ) -> None:
        super().__init__()
        if axes not in (2, 3):
            raise ValueError(f"RLELoss: axes must be 2 or 3, got {axes}")
        if form not in FORMS:
            raise ValueError(f"RLELoss: form must be one of {', '.join(FORMS)}, got {form!r}")
        if density not in DENSITIES:
            raise ValueError(f"RLELoss: density must be one of {', '.join(DENSITIES)}, got {density!r}")
        if not min_sigma > 0:
            raise ValueError(f"RLELoss: min_sigma must be > 0, got {min_sigma}")
        self.axes, self.form, self.density, self.min_sigma = axes, form, density, min_sigma
        self.flows = nn.ModuleList([RealNVP(n) for n in range(2, axes + 1)])

    def forward(
        self,
        prediction: Tensor,
        sigma: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """The loss of every point, times its weight.

        Args:
            prediction: ``[..., axes]``.
            sigma: ``[..., axes]``, the predicted widths in the same units.
            target: ``[..., axes]``.
            weight: ``[...]`` or None for 1; a point of weight 0 has loss and gradients 0, whatever it holds.
            known: ``[..., axes]`` or None for 1; 0 for a coordinate that the target does not have.

        Returns:
            ``[...]``, float32, or float64 for a float64 prediction.

        Raises:
            ValueError: for shapes that do not fit.
        """
        self._check(prediction, sigma, target, weight, known)
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        with torch.autocast(prediction.device.type, enabled=False):  # widths and flows need more than 16 bits
            which = self._which(prediction, weight, known)
            error = torch.where(which, prediction.to(dtype) - target.to(dtype), 0)
            width = torch.where(which, sigma.to(dtype), 1).clamp(min=self.min_sigma)
            log_flow = self._log_flow(error / width, which)
            per_axis = base_energy(error / width, self.density) + width.log()
            if self.form == "released":
                per_axis, log_flow = per_axis + width.log(), which.sum(-1) * log_flow
            loss = torch.where(which, per_axis, 0).sum(-1) - log_flow
        return loss if weight is None else weigh_rows(loss, weight)

    def _check(self, prediction, sigma, target, weight, known) -> None:
        shape = tuple(prediction.shape)
        if prediction.dim() < 1 or shape[-1] != self.axes or not prediction.is_floating_point():
            raise ValueError(f"RLELoss: prediction must be [..., {self.axes}] of floating point, got {shape}")
        others = {
            "sigma": (sigma, shape),
            "target": (target, shape),
            "weight": (weight, shape[:-1]),
            "known": (known, shape),
        }
        for name, (value, wanted) in others.items():
            if value is not None and tuple(value.shape) != wanted:
                raise ValueError(f"RLELoss: {name} must be {list(wanted)}, got {list(value.shape)}")

    @staticmethod
    def _which(prediction: Tensor, weight: Tensor | None, known: Tensor | None) -> Tensor:
        """Which coordinates count: those of points whose x and y do."""
        which = torch.ones_like(prediction, dtype=torch.bool) if known is None else known != 0
        if weight is not None:
            which = which & (weight != 0).unsqueeze(-1)
        return which & which[..., :2].all(-1, keepdim=True)

    def _log_flow(self, scaled: Tensor, which: Tensor) -> Tensor:
        """``log G`` of every point ``[...]`` by the flow of its known coordinates, 0 where none are."""
        scaled, axes = scaled.clamp(-_FAR, _FAR), which.sum(-1)
        total = torch.zeros_like(scaled[..., 0])
        for flow in cast("Iterable[RealNVP]", self.flows):
            own = axes == flow.axes
            # What is not known is 0 here already.
            log_prob = flow.log_prob(scaled[..., : flow.axes]).to(total.dtype)
            total = total + torch.where(own, log_prob, 0)
        return total


class LikelihoodOf(Objective):
    """Residual log-likelihood estimation of the positions of another objective; the subclasses say of which.

    The confidence of a position is ``1 - sigma``, the mean over axes.

    Args:
        inner: the objective whose positions they are, in the same units.
        form, density: as :class:`RLELoss`.
        flow_lr: learning rate of the flow as a factor of the network's, > 0.
        axes: 2 or 3, the coordinates of a point.
    """

    point_sets, predicts_sigma, averages = False, True, ("coords",)

    def __init__(self, inner: Objective, form: str, density: str, flow_lr: float, axes: int) -> None:
        super().__init__(inner.metric, inner.units, inner.beta)
        if not flow_lr > 0:
            raise ValueError(f"{type(self).__name__}: flow_lr must be > 0, got {flow_lr}")
        self.inner, self.likelihood, self.lr = inner, RLELoss(axes, form, density), flow_lr
        self.regresses, self.logits = inner.regresses, inner.logits

    @property
    def tau(self) -> float:  # type: ignore[override]  # follows the inner objective's, which nobody sets here
        return self.inner.tau

    def set_epoch(self, epoch: int, progress: float = 0.0) -> None:
        self.inner.set_epoch(epoch, progress)

    def samples(self, output: Tensor, points: Tensor | None = None, **options) -> Tensor | None:
        draws = self.inner.samples(output, points, **options)
        return None if draws is None else self.possible(draws)

    def target_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        output, target = widths_of(self, output), target.known()
        draws = self.possible(self.inner.draws(self.kept(output.output, target), target, seed))
        offsets = draws - target.position.unsqueeze(2)
        error = torch.stack(self.offsets(offsets.unbind(-1), target, extra=1), -1)
        sigma, known = (None if x is None else x.unsqueeze(2).expand_as(error) for x in (output.sigma, target.axes))
        weight = None if target.weight is None else target.weight.unsqueeze(2).expand(error.shape[:3])
        return self.likelihood(error, sigma, torch.zeros_like(error), weight, known).mean(2)

    def maps(self, output: Tensor) -> Tensor:
        return self.inner.maps(output)

    def covariance(self, output: Answer, size: tuple[int, int]) -> Tensor:
        """Of the maps; where there are none, the squares of the widths, which are the deviations along x and y."""
        output = widths_of(self, output)
        if not self.regresses:
            return self.inner.covariance(output.output, size)
        return self.in_cells(output.sigma[..., :2], size).square().diag_embed()

    def log_maps(self, maps: Tensor) -> Tensor:
        return self.inner.log_maps(maps)

    def locate(self, output: Answer, points: Tensor | None) -> tuple[Tensor, Tensor]:
        output = widths_of(self, output)
        confidence = 1 - output.sigma.to(arithmetic_dtype(output.sigma))
        return self.inner.locate(output.output, points)[0], confidence.mean(-1)

    def in_cells(self, sigma: Tensor, size: tuple[int, ...]) -> Tensor:
        """Widths ``[B, K, d]`` in cells of maps of ``size``."""
        return sigma / sigma.new_tensor([affine(type(self).__name__, self.units, n)[0] for n in size])


class Rle(LikelihoodOf):
    """The likelihood of regressed positions: the published RegressFlow.

    Args:
        form: ``corrected`` or ``released``: whether the width counts once, as in the paper, or twice, as in its code.
        density: what the flow is a residual of: ``laplace``, ``gaussian``, or the released code's mixture of both.
        flow_lr: learning rate of the flow as a factor of the network's, > 0.
        units: as :class:`.Objective`.
        axes: 2 or 3, the coordinates of a point.
    """

    def __init__(self, form: str = "corrected", density: str = "laplace", flow_lr: float = 1.0, units: str = "index",
                 axes: int = 2) -> None:  # fmt: skip
        super().__init__(Direct(units=units), form, density, flow_lr, axes)


class SoftRle(LikelihoodOf):
    """The likelihood of soft-argmax: positions from maps, widths from the features.

    Args:
        form: ``corrected`` or ``released``: whether the width counts once, as in the paper, or twice, as in its code.
        density: what the flow is a residual of: ``laplace``, ``gaussian``, or the released code's mixture of both.
        flow_lr: learning rate of the flow as a factor of the network's, > 0.
        beta, units, axes: as :class:`.SoftArgmax` and :class:`Rle`.
    """

    def __init__(self, form: str = "corrected", density: str = "laplace", flow_lr: float = 1.0, units: str = "index",
                 beta: float | str = 1.0, axes: int = 2) -> None:  # fmt: skip
        super().__init__(SoftArgmax(beta, units=units), form, density, flow_lr, axes)


class SamplingRle(LikelihoodOf):
    """The expectation of the negative log-likelihood over the samples of sampling-argmax.

    Args:
        form: ``corrected`` or ``released``: whether the width counts once, as in the paper, or twice, as in its code.
        density: what the flow is a residual of: ``laplace``, ``gaussian``, or the released code's mixture of both.
        flow_lr: learning rate of the flow as a factor of the network's, > 0.
        num_samples: samples S per row, >= 1.
        basis: ``none``, ``uniform``, ``triangular`` or ``gaussian``.
        tau: temperature: a number from 0.01 on, ``"coco"``, ``"h36m"`` or ``"fading"`` (:mod:`.schedules`).
        estimator: ``cell``, the paper's noise per cell, or ``axis``, the released estimator.
        sigma: width of the gaussian basis, >= 0, in cells.
        reweight: exponent, >= 0, of the released reweighting of the gaussian basis (axis estimator).
        clip_grad: A, > 0, of the released clipped gradient (axis estimator); None for the true one.
        beta, units, axes: as :class:`.SamplingArgmax` and :class:`Rle`.
    """

    def __init__(
        self,
        form: str = "corrected",
        density: str = "laplace",
        flow_lr: float = 1.0,
        units: str = "index",
        num_samples: int = 30,
        basis: str = "triangular",
        tau: float | str = 1.0,
        beta: float | str = 1.0,
        estimator: str = "cell",
        sigma: float = 1.0,
        reweight: float = 0.0,
        clip_grad: float | None = None,
        axes: int = 2,
    ) -> None:
        inner = SamplingArgmax(num_samples, basis, tau, beta, estimator, sigma, reweight, clip_grad, units=units)
        super().__init__(inner, form, density, flow_lr, axes)
