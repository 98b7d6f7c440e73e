"""What all objectives share: what is trained, how a position is read off, and what is not known."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..checks import METRICS, arithmetic_dtype, check_logits, check_periodic, row_weight, seed_tensor
from ..coords import CONVENTIONS, affine, frame_of
from ..distances import mask_rows, metric_of, weigh_rows
from ..moments import heatmap_moments, soft_argmax
from ..notices import notice_far_target
from ..sub_distributions import check_sub_distributions
from ..units import Units, units_of
from .answers import SUB_DISTRIBUTIONS, Answer, SubDistributions, cells_of, output_of
from .decoders import Decoder
from .rows import check_rows
from .targets import Target


class Objective(nn.Module):
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

    ``decoder``, set by a trainer, is how evaluation reads positions off maps; without one they are read as they are trained.
    """

    regresses = False  # whether the network answers with positions in cells instead of maps
    logits = True  # whether the maps are logits, of which beta is a factor
    point_sets = True  # whether the cells may be points
    constrained = True  # whether training has the constraint too
    averages: tuple[str, ...] = ("coords", "maps")  # what several passes over an image may average
    predicts_sigma = False  # whether the network answers with the width of each position too
    tau = 1.0  # the temperature of the samples
    lr = 1.0  # the learning rate of its own parameters as a factor of the network's
    backend = "auto"  # what the operators run on
    circles = False  # whether axes may be circles
    # What cells may learn: to move (offset), and how wide they are (offset_sigma).
    sub_distributions: tuple[str, ...] = ()
    coords = "index"  # what a user's positions are in, with the next two as of the operators
    stride: float | Sequence[float] = 1.0
    periodic: tuple[int, ...] = ()

    def __init__(self, metric: str = "l1", units: str = "index", beta: float | str = 1.0) -> None:
        super().__init__()
        name = type(self).__name__
        if metric not in METRICS:
            raise ValueError(f"{name}: metric must be one of {', '.join(METRICS)}, got {metric!r}")
        if units not in CONVENTIONS:
            raise ValueError(f"{name}: units must be one of {', '.join(CONVENTIONS)}, got {units!r}")
        if isinstance(beta, str) and beta != "tau":
            raise ValueError(f"{name}: beta must be a number > 0 or 'tau', got {beta!r}")
        if not isinstance(beta, str) and not beta > 0:
            raise ValueError(f"{name}: beta must be > 0, got {beta}")
        self.metric, self.units = metric, units
        self.beta = 1.0 if isinstance(beta, str) else beta
        self.constraint: Callable[[Tensor], Tensor] | None = None
        self.decoder: Decoder | None = None

    def set_epoch(self, epoch: int, progress: float = 0.0) -> None:
        """Move on what depends on the epoch, or on the part of the run that is done, in [0, 1]."""

    def set_coords(self, coords: str, stride: float | Sequence[float] = 1.0, periodic: Sequence[int] = ()) -> None:
        """Take targets that are no :class:`.Target`, and give positions, in ``coords``, as :func:`.sample` has them.

        The distance is in their units. What a :class:`.Target` holds, and what a trainer sees of maps, stays in cells.
        """
        name = type(self).__name__
        axes = len(stride) if isinstance(stride, Sequence) else 1
        if frame_of(name, coords, stride, (2,) * axes) is not None and self.units != "index":
            raise ValueError(f"{name}: units are those of coords {coords!r}, got units {self.units!r}")
        if check_periodic(name, periodic, 3, None) and not self.circles:
            raise ValueError(f"{name}: its axes are lines, got periodic {periodic!r}")
        self.coords, self.stride, self.periodic = coords, stride, tuple(periodic)

    def own_units(self, size: Sequence[int], points: Tensor | None = None) -> Units:
        """The units of a user's positions on maps of ``size`` W(, H, D) cells."""
        return units_of(type(self).__name__, size, points, self.coords, self.stride, self.periodic)

    def shown(self, position: Tensor, output: Tensor, points: Tensor | None = None) -> Tensor:
        """Positions or samples ``[B, K, ..., d]`` in cells of maps ``[B, K, *axes]`` as the user has them."""
        return self.own_units(output.shape[2:][::-1], points).shown(position)

    def coords_repr(self) -> str:
        """What :meth:`extra_repr` says of coordinates that are not cells."""
        shown = {name: getattr(self, name) for name in ("coords", "stride", "periodic")}
        return "".join(f", {name}={value!r}" for name, value in shown.items() if value != getattr(Objective, name))

    def check_points(self, points: Tensor | None) -> None:
        """Raise ValueError for points where the objective needs a grid."""
        if points is not None and not self.point_sets:
            raise ValueError(f"{type(self).__name__}: needs a grid, got points")

    # ---- training ----

    def loss(
        self,
        output: Answer,
        target: Target | Tensor,
        weight: Tensor | None = None,
        *,
        points: Tensor | None = None,
        sigma: Tensor | None = None,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss of every point, times its weight.

        Args:
            output: what the network answers: maps ``[B, K, *axes]``, ``[B, K, N]`` with points, or positions ``[B, K, d]``.
            target: a :class:`.Target`, or positions ``[B, K, d]`` in cells (or the objective's ``coords``), of which
                ``weight`` (``[B, K]`` or ``[B, K, 1]``), ``points`` and ``sigma`` are said here.
            seed: of the noise, where there is any, as :func:`.sample`.
            generator: as :func:`.sample`.

        Returns:
            ``[B, K]``. What is not known reaches nothing.
        """
        own = None
        if isinstance(target, Target):
            if any(x is not None for x in (weight, points, sigma)):
                raise ValueError(
                    f"{type(self).__name__}: a Target has its own weight, points and sigma, got them twice"
                )
        else:
            shape = output_of(output).shape
            size = tuple(reversed(shape[2:])) if points is None else (1,) * points.shape[2]
            own = self.own_units(size, points)
            target = Target(target, row_weight(weight, shape[:2]), size, points=points, sigma=sigma)
        self.check_points(target.points)
        if isinstance(output, SubDistributions):
            self._check_cells(output, target.points)
        if not self.regresses:
            check_rows(type(self).__name__, output_of(output), target.position, target.weight, target.points)
        if own is not None:
            target = dataclasses.replace(target, position=own.in_cells(target.position))
        if target.size and target.points is None:
            notice_far_target(target.position, target.weight, target.size, target.axes)
        if generator is not None:
            seed = seed_tensor(type(self).__name__, seed, generator, output_of(output))
        return self.target_loss(output, target, seed)

    def _check_cells(self, output: SubDistributions, points: Tensor | None) -> None:
        """Raise ValueError for sub-distributions that the objective does not know of, or that do not fit their maps."""
        name, kind = type(self).__name__, "offset" if output.sigma is None else "offset_sigma"
        if kind not in self.sub_distributions:
            raise ValueError(f"{name}: knows of no sub-distributions {kind}; {SUB_DISTRIBUTIONS[kind]} does")
        check_logits(name, output.output, points)
        check_sub_distributions(name, output.output, points, output.offset, output.sigma)

    def target_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        """What :meth:`loss` gives, for arguments that fit."""
        target = target.known()
        return weigh_rows(self.row_loss(self.kept(output, target), target, seed), target.weight)

    def row_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        """The loss of every point before its weight; positions of what is not known are 0 here."""
        raise NotImplementedError

    def draws(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        """The positions that are trained, ``[B, K, S, d]``: one, which is what is read, or samples of it."""
        return self.read_as_trained(output, target.points)[0].unsqueeze(2)

    def kept(self, output: Answer, target: Target) -> Answer:
        """Maps or positions ``[B, K, ...]`` with 0 in the rows that do not count, where no other row needs them."""
        if self.constrained and self.constraint is not None:
            return output
        if isinstance(output, SubDistributions):
            maps, offset = (mask_rows(own, target.weight) for own in output[:2])
            return SubDistributions(
                maps, offset, None if output.sigma is None else mask_rows(output.sigma, target.weight)
            )
        return mask_rows(output_of(output), target.weight)

    def offsets(self, offsets, target: Target, extra: int = 0) -> list[Tensor]:
        """Distances per axis in the objective's units, 0 where a coordinate is not known.

        ``offsets`` are in cells, one tensor ``[B, K, ...]`` an axis, with ``extra`` axes after B and K.
        """
        offsets = list(offsets)
        if self.units != "index":
            name = type(self).__name__
            cells = [affine(name, self.units, n)[0] for n in target.size]
            offsets = [x * cell for x, cell in zip(offsets, cells, strict=True)]
        else:
            offsets = self.own_units(target.size, target.points).offsets(offsets)
        if target.axes is None:
            return offsets
        known = target.axes.reshape(*target.axes.shape, *[1] * extra)
        return [torch.where(known[:, :, a] > 0, x, 0) for a, x in enumerate(offsets)]

    def distance(self, position: Tensor, target: Target) -> Tensor:
        """Distance ``[B, K]`` of positions ``[B, K, d]`` to the target."""
        offsets = position - target.position.to(position.dtype)
        return metric_of(self.offsets(offsets.unbind(-1), target), self.metric)

    # ---- evaluation ----

    def possible(self, position: Tensor) -> Tensor:
        """Positions or samples under the constraint, if there is one."""
        return position if self.constraint is None else self.constraint(position)

    def samples(self, output: Tensor, points: Tensor | None = None, *, num_samples: int | None = None,
                sigma: float | Tensor | None = None, seed: int | Tensor | None = None,
                generator: torch.Generator | None = None) -> Tensor | None:  # fmt: skip
        """Samples ``[B, K, S, d]`` of maps as the objective trains them, or None where it trains none."""
        return None

    def maps(self, output: Tensor) -> Tensor:
        """What several passes over an image average: the probability of each cell, ``[B, K, *axes]``."""
        flat = output.to(arithmetic_dtype(output)).flatten(2) * self.beta
        return flat.softmax(-1).view_as(output)

    def log_maps(self, maps: Tensor) -> Tensor:
        """The logarithm of maps of :meth:`maps`, up to a constant."""
        return maps.log()

    def law(self, output: Answer) -> Tensor:
        """The law of the position that a map stands for: the probability of each cell, ``[B, K, *axes]``, in float64.

        Raises ValueError for cells that a network has moved: where they are then is no map.
        """
        if isinstance(output, SubDistributions):
            raise ValueError(f"{type(self).__name__}: learned sub-distributions are no law of cells")
        maps = self.maps(output_of(output).double())
        return self.log_maps(maps).flatten(2).softmax(-1).view_as(maps)

    def read_maps(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Positions ``[B, K, d]`` in cells and peaks ``[B, K]`` of maps of :meth:`maps`."""
        position, peak = self.locate_maps(maps)
        return self.decoded(position, maps), peak

    def covariance(self, output: Answer, size: tuple[int, int]) -> Tensor:
        """How uncertain positions are in the image plane: the covariance ``[B, K, 2, 2]`` of the maps, in cells squared.

        ``size`` is the maps' W and H, which regressed positions do not have. NaN where nothing says it.
        """
        cells = cells_of(output)
        moments = heatmap_moments(output_of(output), beta=self.beta, backend=self.backend, offset=cells.get("offset"),
                                  sigma=cells.get("sigma"))  # fmt: skip
        return moments.covariance[..., :2, :2]

    def read(self, output: Answer, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Positions ``[B, K, d]`` in cells (the points' units, or ``coords``) and peaks ``[B, K]`` of the network's output."""
        self.check_points(points)
        position, peak = self.locate(output, points)
        maps = None if self.decoder is None else self.maps(output_of(output))
        position = self.decoded(position, maps, points, cells_of(output).get("offset"))
        return self.shown(position, output_of(output), points), peak

    def decoded(self, position: Tensor, maps: Tensor | None, points: Tensor | None = None,
                offset: Tensor | None = None) -> Tensor:  # fmt: skip
        """What evaluation answers: the decoder's reading of the maps where there is one, under the constraint."""
        if self.decoder is not None and maps is not None:
            position = self.decoder(self.log_maps(maps), points, self.backend, offset)
        return self.possible(position)

    def read_as_trained(self, output: Answer, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What :meth:`read` gives without a decoder, in cells."""
        self.check_points(points)
        position, peak = self.locate(output, points)
        return self.possible(position), peak

    def locate_maps(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`read_maps` gives, without decoder and constraint."""
        moments = heatmap_moments(maps.log(), backend=self.backend)
        return moments.mean, moments.peak

    def locate(self, output: Answer, points: Tensor | None) -> tuple[Tensor, Tensor]:
        """What :meth:`read` gives in cells, without decoder and constraint."""
        logits, offset = output_of(output), cells_of(output).get("offset")
        moments = heatmap_moments(logits, beta=self.beta, points=points, offset=offset, backend=self.backend)
        if not self.periodic:
            return moments.mean, moments.peak
        position = soft_argmax(logits, beta=self.beta, offset=offset, periodic=self.periodic, backend=self.backend)
        return position, moments.peak
