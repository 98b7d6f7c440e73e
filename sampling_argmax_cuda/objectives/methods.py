"""The localization methods that the trainers compare, each a class here or in :mod:`.peaks`.

Equation numbers are those of Li et al., "Localization with Sampling-Argmax", NeurIPS 2021.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..checks import arithmetic_dtype
from ..coords import affine
from .modules import SamplingArgmax
from .objective import Located, Method
from .peaks import CrossEntropy, Heatmap
from .regularized import distribution_regularizer, variance_regularizer
from .rle import RLELoss
from .rows import cell_offsets, metric_of
from .targets import Target


class Soft(Method):
    """The error of the expectation (Eq. 2), with metric l1 or l2 integral regression (Sun et al., ECCV 2018).

    Args:
        regularizer: none, ``variance`` (Eq. 15; the map's own on every axis, wherever its target is) or ``distribution``
            (Eq. 16, of the points of which every coordinate is known; with the Euclidean metric in ``cell`` units DSNT's
            loss, Nibali et al., 2018).
        factor: factor of the regulariser.
        sigma: width in cells that the regulariser wants.
    """

    def __init__(self, metric: str, units: str, regularizer: str = "none", factor: float = 1.0, sigma: float = 2.0,
                 beta: float | str = 1.0) -> None:  # fmt: skip
        super().__init__(metric, units, beta)
        self.regularizer, self.factor, self.sigma = regularizer, factor, sigma

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        loss = self.distance(self.read(output, target.points)[0], target)
        sigma = self.sigma if target.sigma is None else target.sigma
        options = dict(beta=self.beta, points=target.points)
        if self.regularizer == "variance":
            loss = loss + self.factor * variance_regularizer(output, sigma, **options)
        if self.regularizer == "distribution":
            penalty = distribution_regularizer(output, target.position, sigma, target.complete(), **options)
            loss = loss + self.factor * penalty
        return loss


class Debiased(Soft):
    """Soft-argmax without the pull of the background to the middle (Gu et al., ICCV 2021).

    A background of zeros holds the share ``r = 1 / C`` of the probability, ``C`` the mean of ``exp(beta z)`` over the cells,
    and has its mean in the middle: ``(mean - r * middle) / (1 - r)``. There is a pole at r = 1, a map without a peak: a
    share above one half counts as one half. Averaged maps have no such background.
    """

    clouds, averages = False, ("coords",)

    def locate(self, output: Tensor, points: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, peak = super().locate(output, points)
        flat = output.to(arithmetic_dtype(output)).flatten(2) * self.beta
        share = (math.log(flat.shape[-1]) - flat.logsumexp(-1)).exp().clamp(max=0.5).unsqueeze(-1)
        middle = mean.new_tensor([(n - 1) / 2 for n in reversed(output.shape[2:])])
        return (mean - share * middle) / (1 - share), peak


class Discrete(Method):
    """The expectation of the error over cells (Eq. 4)."""

    constrained = False

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        offsets = cell_offsets(output, target.position, target.points)
        distances = metric_of(self.offsets(offsets, target, output.dim() - 2), self.metric)
        return (self.maps(output) * distances).flatten(2).sum(-1)


class Sampling(Method):
    """The expectation of the error over samples (Eq. 14); in cells, with all coordinates known, in one fused pass."""

    def __init__(self, metric: str, units: str, sampler: SamplingArgmax) -> None:
        super().__init__(metric, units, sampler.beta)
        self.sampler = sampler

    @property
    def tau(self) -> float:
        return self.sampler.tau

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)

    def samples(self, output: Tensor, count: int, points: Tensor | None = None, sigma: Tensor | None = None,
                seed: int | Tensor = 0) -> Tensor:  # fmt: skip
        return self.possible(self.sampler.samples(output, points, num_samples=count, sigma=sigma, seed=seed))

    def draws(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        return self.samples(output, self.sampler.num_samples, target.points, target.sigma, seed)

    def loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        if self.units == "index" and target.axes is None and self.constraint is None:
            return self.sampler.loss(output, target.position, target.weight, metric=self.metric, points=target.points,
                                     sigma=target.sigma, seed=seed)  # fmt: skip
        return super().loss(output, target, seed)

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        offsets = self.draws(output, target, seed) - target.position.unsqueeze(2)
        return metric_of(self.offsets(offsets.unbind(-1), target, extra=1), self.metric).mean(-1)


class Direct(Method):
    """Positions from the network itself, without maps (the direct baseline of Sun et al., ECCV 2018)."""

    regresses, logits, clouds, averages = True, False, False, ("coords",)

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        return self.distance(self.read(output)[0], target)

    def locate(self, output: Tensor, points: Tensor | None) -> tuple[Tensor, Tensor]:
        return output.to(arithmetic_dtype(output)), torch.ones_like(output[..., 0], dtype=torch.float32)


class Rle(Method):
    """Residual log-likelihood estimation (Li et al., ICCV 2021) of the positions of another method.

    Of ``direct`` it is the published RegressFlow; of ``soft`` the position is the map's mean; of ``sampling`` the loss is the
    expectation of the negative log-likelihood over the samples. The confidence is ``1 - sigma``, the mean over axes.
    """

    clouds, widths, averages = False, True, ("coords",)

    def __init__(self, inner: Method, units: str, likelihood: RLELoss) -> None:
        super().__init__(inner.metric, units, inner.beta)
        self.inner, self.likelihood = inner, likelihood
        self.regresses, self.logits = inner.regresses, inner.logits

    @property
    def tau(self) -> float:
        return self.inner.tau

    def set_epoch(self, epoch: int) -> None:
        self.inner.set_epoch(epoch)

    def samples(self, output: Tensor, count: int, points: Tensor | None = None, sigma: Tensor | None = None,
                seed: int = 0) -> Tensor | None:  # fmt: skip
        draws = self.inner.samples(output, count, points, sigma, seed)
        return None if draws is None else self.possible(draws)

    def loss(self, output: Located, target: Target, seed: Tensor) -> Tensor:
        self.check_points(target.points)
        target = target.known()
        draws = self.possible(self.inner.draws(self.kept(output.place, target), target, seed))
        offsets = draws - target.position.unsqueeze(2)
        error = torch.stack(self.offsets(offsets.unbind(-1), target, extra=1), -1)
        sigma, known = (None if x is None else x.unsqueeze(2).expand_as(error) for x in (output.sigma, target.axes))
        weight = target.weight.unsqueeze(2).expand(error.shape[:3])
        return self.likelihood(error, sigma, torch.zeros_like(error), weight, known).mean(2)

    def maps(self, output: Tensor) -> Tensor:
        return self.inner.maps(output)

    def locate(self, output: Located, points: Tensor | None) -> tuple[Tensor, Tensor]:
        confidence = 1 - output.sigma.to(arithmetic_dtype(output.sigma))
        return self.inner.locate(output.place, points)[0], confidence.mean(-1)

    def in_cells(self, sigma: Tensor, size: tuple[int, ...]) -> Tensor:
        """Widths ``[B, K, d]`` in cells of maps of ``size``."""
        return sigma / sigma.new_tensor([affine("model", self.units, n)[0] for n in size])


METHODS = ("soft", "soft_vr", "soft_dr", "debiased", "discrete", "sampling", "heatmap",
           "cross_entropy", "direct", "rle", "soft_rle", "sampling_rle")  # fmt: skip
RLE_OF = {"rle": "direct", "soft_rle": "soft", "sampling_rle": "sampling"}


def make_method(options: Mapping) -> Method:
    """The method that the options of :class:`.LocalizationModule` describe; ValueError for one that it cannot honour."""
    method = _make_method(options)
    if not method.logits and options["beta"] not in (1, "tau"):
        raise ValueError(f"model: beta must be 1 or tau for method {options['method']}, which has no softmax, "
                         f"got {options['beta']}")  # fmt: skip
    return method


def _make_method(options: Mapping) -> Method:
    name, metric, units, beta = (options[key] for key in ("method", "metric", "units", "beta"))
    if name not in METHODS:
        raise ValueError(f"model: method must be one of {', '.join(METHODS)}, got {name!r}")
    if name in RLE_OF:
        axes = 2 if options.get("volume") is None else 3
        likelihood = RLELoss(axes, options["rle_form"], options["rle_density"])
        return Rle(_make_method({**options, "method": RLE_OF[name]}), units, likelihood)
    if name.startswith("soft"):
        regularizer = {"soft": "none", "soft_vr": "variance", "soft_dr": "distribution"}[name]
        return Soft(metric, units, regularizer, options["reg_weight"], options["target_sigma"], beta)
    if name == "sampling":
        names = ("num_samples", "basis", "tau", "beta", "estimator", "sigma", "reweight", "clip_grad")
        return Sampling(metric, units, SamplingArgmax(**{key: options[key] for key in names}))
    if name == "heatmap":
        return Heatmap(metric, units, options["target_sigma"])
    if name == "direct":
        return Direct(metric, units)
    simple = {"debiased": Debiased, "discrete": Discrete, "cross_entropy": CrossEntropy}
    return simple[name](metric, units, beta=beta)
