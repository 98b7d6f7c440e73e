"""What is trained and how positions are read off: the localization methods that the trainers compare.

Equation numbers are those of Li et al., "Localization with Sampling-Argmax", NeurIPS 2021.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..coords import CONVENTIONS, affine
from ..modules import SamplingArgmax
from ..ops import heatmap_moments
from ..regularizers import distribution_regularizer, variance_regularizer
from ..rle import RLELoss
from ..rows import cell_offsets, mask_rows, metric_of, weigh_rows


@dataclass
class Target:
    """Where the points are.

    Args:
        position: ``[B, K, d]`` in cells.
        weight: ``[B, K]``, 0 for a point that must not count.
        size: cells of the axes x, y(, z), or ones for points.
        axes: ``[B, K, d]``, 0 for a coordinate that is not known, or None.
        points: ``[B, N, d]`` where the cells are points and no grid, or None; positions have their units.
        sigma: ``[B, 1]``, the width of the gaussian basis and of a regulariser's target, or None for the method's own.
    """

    position: Tensor
    weight: Tensor
    size: tuple[int, ...]
    axes: Tensor | None = None
    points: Tensor | None = None
    sigma: Tensor | None = None

    def complete(self) -> Tensor:
        """1 for the points ``[B, K]`` of which every coordinate is known, 0 for the others."""
        return torch.ones_like(self.weight) if self.axes is None else self.axes.amin(-1)


class Located(NamedTuple):
    """What a network with widths answers: maps or positions ``[B, K, ...]``, and sigma ``[B, K, d]`` in the method's units."""

    place: Tensor
    sigma: Tensor


def place_of(output: Tensor | Located) -> Tensor:
    """The maps or positions of a network's answer."""
    return output.place if isinstance(output, Located) else output


class Method(nn.Module):
    """A map of logits a point, read by soft-argmax; subclasses say what is trained.

    Args:
        metric: distance to the target: ``l1``, ``l2``, ``euclidean`` or ``smooth_l1``.
        units: the coordinate convention whose units the distance is in; ``index`` for cells.

    ``constraint``, set by a task, maps positions or samples ``[B, K, ...]`` to ones that are possible, in training and in
    evaluation.
    """

    regresses = False  # whether the network answers with positions in cells instead of maps
    logits = True  # whether the maps are logits, of which samples can be drawn
    averages = ("coords", "maps")  # what several passes over an image may average
    widths = False  # whether the network answers with the width of each position too
    tau = 1.0  # the temperature of the samples

    def __init__(self, metric: str, units: str) -> None:
        super().__init__()
        if units not in CONVENTIONS:
            raise ValueError(f"model: units must be one of {', '.join(CONVENTIONS)}, got {units!r}")
        self.metric, self.units = metric, units
        self.constraint: Callable[[Tensor], Tensor] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Move on what depends on the epoch."""

    def offsets(self, offsets, target: Target, extra: int = 0) -> list[Tensor]:
        """Distances per axis in the method's units, 0 where a coordinate is not known.

        ``offsets`` are in cells, one tensor ``[B, K, ...]`` an axis, with ``extra`` axes after B and K.
        """
        cells = [affine("model", self.units, n)[0] for n in target.size]
        scaled = [x * cell for x, cell in zip(offsets, cells, strict=True)]
        if target.axes is None:
            return scaled
        known = target.axes.reshape(*target.axes.shape, *[1] * extra)
        return [torch.where(known[:, :, a] > 0, x, 0) for a, x in enumerate(scaled)]

    def distance(self, position: Tensor, target: Target) -> Tensor:
        """Distance ``[B, K]`` of positions ``[B, K, d]`` to the target."""
        return metric_of(self.offsets((position - target.position).unbind(-1), target), self.metric)

    def loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        """The loss of every point, ``[B, K]``, times its weight; rows of weight 0 reach nothing."""
        target = dataclasses.replace(target, position=mask_rows(target.position, target.weight))
        # A constraint compares rows, so that those without a target have to keep what they hold.
        kept = mask_rows(output, target.weight) if self.constraint is None else output
        return weigh_rows(self.row_loss(kept, target, seed), target.weight)

    def draws(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        """The positions that are trained, ``[B, K, S, d]``: one, which is what is read, or samples of it."""
        return self.read(output, target.points)[0].unsqueeze(2)

    def possible(self, position: Tensor) -> Tensor:
        """Positions or samples under the constraint, if there is one."""
        return position if self.constraint is None else self.constraint(position)

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        """The loss of every point before its weight."""
        raise NotImplementedError

    def maps(self, output: Tensor) -> Tensor:
        """What several passes over an image average: the probability of each cell, ``[B, K, *axes]``."""
        return output.float().flatten(2).softmax(-1).view_as(output)

    def read_maps(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Positions ``[B, K, d]`` in cells and peaks ``[B, K]`` of maps of :meth:`maps`."""
        return self.read(maps.log())

    def read(self, output: Tensor, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Positions ``[B, K, d]`` in cells (or the points' units) and peaks ``[B, K]`` of the network's output."""
        moments = heatmap_moments(output, points=points)
        return self.possible(moments.mean), moments.peak


class Soft(Method):
    """The error of the expectation (Eq. 2), with metric l1 or l2 integral regression (Sun et al., ECCV 2018).

    Args:
        regularizer: none, ``variance`` (Eq. 15) or ``distribution`` (Eq. 16; with the Euclidean metric in ``cell``
            units DSNT's loss, Nibali et al., 2018).
        factor: factor of the regulariser.
        sigma: width in cells that the regulariser wants.
    """

    def __init__(self, metric: str, units: str, regularizer: str = "none", factor: float = 1.0, sigma: float = 2.0):
        super().__init__(metric, units)
        self.regularizer, self.factor, self.sigma = regularizer, factor, sigma

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        loss, points = self.distance(self.read(output, target.points)[0], target), target.points
        sigma = self.sigma if target.sigma is None else target.sigma
        if self.regularizer == "variance":
            loss = loss + self.factor * variance_regularizer(output, sigma, points=points)
        if self.regularizer == "distribution":
            penalty = distribution_regularizer(output, target.position, sigma, target.complete(), points=points)
            loss = loss + self.factor * penalty
        return loss


class Debiased(Soft):
    """Soft-argmax without the pull of the background to the middle (Gu et al., ICCV 2021).

    A background of zeros holds the share ``r = 1 / C`` of the probability, ``C`` the mean of ``exp(z)`` over the cells,
    and has its mean in the middle: ``(mean - r * middle) / (1 - r)``. There is a pole at r = 1, a map without a peak: a
    share above one half counts as one half. Averaged maps have no such background.
    """

    averages = ("coords",)

    def read(self, output: Tensor, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if points is not None:
            raise ValueError("model: method debiased needs a grid, whose middle its background has")
        mean, peak = super().read(output)
        flat = output.float().flatten(2)
        share = (math.log(flat.shape[-1]) - flat.logsumexp(-1)).exp().clamp(max=0.5).unsqueeze(-1)
        middle = mean.new_tensor([(n - 1) / 2 for n in reversed(output.shape[2:])])
        return (mean - share * middle) / (1 - share), peak


class Discrete(Method):
    """The expectation of the error over cells (Eq. 4)."""

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        offsets = cell_offsets(output, target.position, target.points)
        distances = metric_of(self.offsets(offsets, target, output.dim() - 2), self.metric)
        return (self.maps(output) * distances).flatten(2).sum(-1)


class Sampling(Method):
    """The expectation of the error over samples (Eq. 14); in cells, with all coordinates known, in one fused pass."""

    def __init__(self, metric: str, units: str, sampler: SamplingArgmax) -> None:
        super().__init__(metric, units)
        self.sampler = sampler

    @property
    def tau(self) -> float:
        return self.sampler.tau

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)

    def draws(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        return self.possible(self.sampler(output, target.points, sigma=target.sigma, seed=seed))

    def loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        if self.units == "index" and target.axes is None and self.constraint is None:
            return self.sampler.loss(output, target.position, target.weight, metric=self.metric, points=target.points,
                                     sigma=target.sigma, seed=seed)  # fmt: skip
        return super().loss(output, target, seed)

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        offsets = self.draws(output, target, seed) - target.position.unsqueeze(2)
        return metric_of(self.offsets(offsets.unbind(-1), target, extra=1), self.metric).mean(-1)


class Heatmap(Method):
    """Squared error to Gaussian maps, read at the largest cell (Xiao et al., "Simple Baselines", ECCV 2018).

    The target is ``exp(-|c - m|^2 / (2 sigma^2))`` within 3 sigma of m, the cell nearest to the point. A position is the
    largest cell, moved a quarter of a cell towards its larger neighbour on each axis.
    """

    logits = False

    def __init__(self, metric: str, units: str, sigma: float) -> None:
        super().__init__(metric, units)
        if not sigma > 0:
            raise ValueError(f"model: target_sigma must be > 0, got {sigma}")
        self.sigma = sigma

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        offsets = cell_offsets(output, (target.position + 0.5).floor())
        squared = sum(offset.square() for offset in offsets)
        near = functools.reduce(torch.logical_and, (offset.abs() <= 3 * self.sigma for offset in offsets))
        truth = torch.where(near, (-squared / (2 * self.sigma**2)).exp(), 0)
        return 0.5 * (output - truth).square().flatten(2).mean(-1)

    def maps(self, output: Tensor) -> Tensor:
        return output.float()

    def read_maps(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        peak, cell = maps.flatten(2).max(-1)
        index = list(torch.unravel_index(cell, maps.shape[2:]))
        position = []
        for a, size in enumerate(maps.shape[2:]):
            below, above = (self._neighbour(maps, index, a, step) for step in (-1, 1))
            inside = (index[a] > 0) & (index[a] < size - 1)
            position.insert(0, index[a] + torch.where(inside, 0.25 * (above - below).sign(), 0))
        return torch.stack(position, -1), peak

    @staticmethod
    def _neighbour(maps: Tensor, index: list[Tensor], axis: int, step: int) -> Tensor:
        moved = [i if a != axis else (i + step).clamp(0, maps.shape[2 + a] - 1) for a, i in enumerate(index)]
        rows = [torch.arange(n, device=maps.device) for n in maps.shape[:2]]
        return maps[(rows[0][:, None], rows[1], *moved)]

    def read(self, output: Tensor, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.read_maps(self.maps(output))


class CrossEntropy(Method):
    """Cross-entropy of the cell nearest to the target, read at the largest cell."""

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        offsets = cell_offsets(output, target.position, target.points)
        nearest = sum(offset.square() for offset in offsets).flatten(2).argmin(-1)
        return -output.float().flatten(2).log_softmax(-1).gather(-1, nearest.unsqueeze(-1)).squeeze(-1)

    def read(self, output: Tensor, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        peak, cell = self.maps(output).flatten(2).max(-1)
        if points is not None:
            return points.gather(1, cell.unsqueeze(-1).expand(-1, -1, points.shape[2])), peak
        index = torch.unravel_index(cell, output.shape[2:])
        return self.possible(torch.stack(index[::-1], -1).to(peak.dtype)), peak


class Direct(Method):
    """Positions from the network itself, without maps (the direct baseline of Sun et al., ECCV 2018)."""

    regresses, logits, averages = True, False, ("coords",)

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        return self.distance(output, target)

    def read(self, output: Tensor, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return output.float(), torch.ones_like(output[..., 0], dtype=torch.float32)


class Rle(Method):
    """Residual log-likelihood estimation (Li et al., ICCV 2021) of the positions of another method.

    Of ``direct`` it is the published RegressFlow; of ``soft`` the position is the map's mean; of ``sampling`` the loss is the
    expectation of the negative log-likelihood over the samples. The confidence is ``1 - sigma``, the mean over axes.
    """

    widths, averages = True, ("coords",)

    def __init__(self, inner: Method, units: str, likelihood: RLELoss) -> None:
        super().__init__(inner.metric, units)
        self.inner, self.likelihood = inner, likelihood
        self.regresses, self.logits = inner.regresses, inner.logits

    @property
    def tau(self) -> float:
        return self.inner.tau

    def set_epoch(self, epoch: int) -> None:
        self.inner.set_epoch(epoch)

    def loss(self, output: Located, target: Target, seed: Tensor) -> Tensor:
        draws = self.inner.draws(mask_rows(output.place, target.weight), target, seed)
        offsets = draws - mask_rows(target.position, target.weight).unsqueeze(2)
        error = torch.stack(self.offsets(offsets.unbind(-1), target, extra=1), -1)
        sigma, known = (None if x is None else x.unsqueeze(2).expand_as(error) for x in (output.sigma, target.axes))
        weight = target.weight.unsqueeze(2).expand(error.shape[:3])
        return self.likelihood(error, sigma, torch.zeros_like(error), weight, known).mean(2)

    def maps(self, output: Tensor) -> Tensor:
        return self.inner.maps(output)

    def read(self, output: Located, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inner.read(output.place, points)[0], (1 - output.sigma.float()).mean(-1)

    def in_cells(self, sigma: Tensor, size: tuple[int, ...]) -> Tensor:
        """Widths ``[B, K, d]`` in cells of maps of ``size``."""
        return sigma / sigma.new_tensor([affine("model", self.units, n)[0] for n in size])


METHODS = ("soft", "soft_vr", "soft_dr", "debiased", "discrete", "sampling", "heatmap",
           "cross_entropy", "direct", "rle", "soft_rle", "sampling_rle")  # fmt: skip
RLE_OF = {"rle": "direct", "soft_rle": "soft", "sampling_rle": "sampling"}


def make_method(options: Mapping) -> Method:
    """The method that the options of :class:`.LocalizationModule` describe."""
    name, metric, units = options["method"], options["metric"], options["units"]
    if name not in METHODS:
        raise ValueError(f"model: method must be one of {', '.join(METHODS)}, got {name!r}")
    if name in RLE_OF:
        axes = 2 if options.get("volume") is None else 3
        likelihood = RLELoss(axes, options["rle_form"], options["rle_density"])
        return Rle(make_method({**options, "method": RLE_OF[name]}), units, likelihood)
    if name.startswith("soft"):
        regularizer = {"soft": "none", "soft_vr": "variance", "soft_dr": "distribution"}[name]
        return Soft(metric, units, regularizer, options["reg_weight"], options["target_sigma"])
    if name == "sampling":
        names = ("num_samples", "basis", "tau", "beta", "estimator", "sigma", "reweight", "clip_grad")
        return Sampling(metric, units, SamplingArgmax(**{key: options[key] for key in names}))
    if name == "heatmap":
        return Heatmap(metric, units, options["target_sigma"])
    simple = {"debiased": Debiased, "discrete": Discrete, "cross_entropy": CrossEntropy, "direct": Direct}
    return simple[name](metric, units)
