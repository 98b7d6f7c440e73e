"""What all localization methods share: what is trained, how positions are read off, and what is not known."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checks import arithmetic_dtype
from ..coords import CONVENTIONS, affine
from ..ops import heatmap_moments
from .rows import mask_rows, metric_of, weigh_rows
from .targets import Target


class Located(NamedTuple):
    """What a network with widths answers: maps or positions ``[B, K, ...]``, and sigma ``[B, K, d]`` in the method's units."""

    place: Tensor
    sigma: Tensor


def place_of(output: Tensor | Located) -> Tensor:
    """The maps or positions of a network's answer."""
    return output.place if isinstance(output, Located) else output


class Method(nn.Module):
    """A map of logits a point, read by soft-argmax; subclasses say what is trained.

    Neither loss nor gradient depends on the position of a point of weight 0 or on a coordinate that is not known; a point
    of which nothing is known has loss 0.

    Args:
        metric: distance to the target: ``l1``, ``l2``, ``euclidean`` or ``smooth_l1``.
        units: the coordinate convention whose units the distance is in; ``index`` for cells.
        beta: factor of the logits in training and in evaluation, whose map is ``softmax(beta z)``; or ``tau``, the
            released form of samples ``softmax(z + g / tau)``, whose map is ``softmax(z)``.

    ``constraint``, set by a task, maps positions or samples ``[B, K, ...]`` to ones that are possible: in evaluation, and
    in the training of positions and samples. It compares rows, so that there a row of weight 0 is seen by others.
    """

    regresses = False  # whether the network answers with positions in cells instead of maps
    logits = True  # whether the maps are logits, of which beta is a factor
    clouds = True  # whether the cells may be points
    constrained = True  # whether training has the constraint too
    averages = ("coords", "maps")  # what several passes over an image may average
    widths = False  # whether the network answers with the width of each position too
    tau = 1.0  # the temperature of the samples

    def __init__(self, metric: str, units: str, beta: float | str = 1.0) -> None:
        super().__init__()
        if units not in CONVENTIONS:
            raise ValueError(f"model: units must be one of {', '.join(CONVENTIONS)}, got {units!r}")
        if beta != "tau" and not (isinstance(beta, int | float) and beta > 0):
            raise ValueError(f"model: beta must be a number > 0 or tau, got {beta!r}")
        self.metric, self.units = metric, units
        self.beta = 1.0 if beta == "tau" else beta
        self.constraint: Callable[[Tensor], Tensor] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Move on what depends on the epoch."""

    def check_points(self, points: Tensor | None) -> None:
        """Raise ValueError for points where the method needs a grid."""
        if points is not None and not self.clouds:
            raise ValueError(f"model: method {type(self).__name__.lower()} needs a grid, got points")

    # ---- training ----

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

    def kept(self, place: Tensor, target: Target) -> Tensor:
        """Maps or positions ``[B, K, ...]`` with 0 in the rows that do not count, where no other row needs them."""
        return place if self.constrained and self.constraint is not None else mask_rows(place, target.weight)

    def loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        """The loss of every point, ``[B, K]``, times its weight; what is not known reaches nothing."""
        self.check_points(target.points)
        target = target.known()
        return weigh_rows(self.row_loss(self.kept(output, target), target, seed), target.weight)

    def draws(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        """The positions that are trained, ``[B, K, S, d]``: one, which is what is read, or samples of it."""
        return self.read(output, target.points)[0].unsqueeze(2)

    def row_loss(self, output: Tensor, target: Target, seed: Tensor) -> Tensor:
        """The loss of every point before its weight."""
        raise NotImplementedError

    # ---- evaluation ----

    def possible(self, position: Tensor) -> Tensor:
        """Positions or samples under the constraint, if there is one."""
        return position if self.constraint is None else self.constraint(position)

    def samples(self, output: Tensor, count: int, points: Tensor | None = None, sigma: Tensor | None = None,
                seed: int = 0) -> Tensor | None:  # fmt: skip
        """``count`` samples ``[B, K, count, d]`` as the method trains them, or None where it trains none.

        ``output`` are maps, ``points`` and ``sigma`` those of :class:`.Target`.
        """
        return None

    def maps(self, output: Tensor) -> Tensor:
        """What several passes over an image average: the probability of each cell, ``[B, K, *axes]``."""
        flat = output.to(arithmetic_dtype(output)).flatten(2) * self.beta
        return flat.softmax(-1).view_as(output)

    def read_maps(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Positions ``[B, K, d]`` in cells and peaks ``[B, K]`` of maps of :meth:`maps`."""
        moments = heatmap_moments(maps.log())
        return self.possible(moments.mean), moments.peak

    def read(self, output: Tensor, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Positions ``[B, K, d]`` in cells (or the points' units) and peaks ``[B, K]`` of the network's output."""
        self.check_points(points)
        position, peak = self.locate(output, points)
        return self.possible(position), peak

    def locate(self, output: Tensor, points: Tensor | None) -> tuple[Tensor, Tensor]:
        """What :meth:`read` gives, without the constraint."""
        moments = heatmap_moments(output, beta=self.beta, points=points)
        return moments.mean, moments.peak
