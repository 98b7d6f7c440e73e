"""Sampling-argmax: the expectation of the error over differentiable samples (Li et al., NeurIPS 2021)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_sampling, check_spread, check_temperature
from ..distances import spread_error
from ..moments import soft_argmax
from ..ops import axis_sample, expected_error, sample
from .answers import Answer, cells_of, output_of
from .objective import Objective
from .schedules import Schedule, make_schedule
from .targets import Target

ESTIMATORS = ("cell", "axis")


class SamplingArgmax(Objective):
    """Trained by samples, read by soft-argmax (Eq. 14, 12 and 1).

    Called as a module it gives samples ``[B, K, S, d]`` in training and positions ``[B, K, d]`` in evaluation. Its loss is
    ``weight * (mean_s d(target, y_s) - spread * mean_{s != s'} d(y_s, y_s'))``: without spread, of the cell estimator in
    cells, with all coordinates known, in one fused pass.

    Args:
        num_samples: samples S per row, >= 1.
        basis: ``none``, ``uniform``, ``triangular`` or ``gaussian``.
        tau: temperature: a number from 0.01 on, ``"coco"``, ``"h36m"``, ``"fading"`` or a callable (:mod:`.schedules`).
        beta: factor of the logits, > 0, or ``"tau"``, the released form ``softmax(z + g / tau)``, whose evaluation
            decodes ``softmax(z)``.
        estimator: ``cell``, the paper's noise per cell (:func:`.sample`), or ``axis``, the released estimator
            (:func:`.axis_sample`).
        sigma: width of the gaussian basis, >= 0, in cells or the points' units.
        reweight: exponent, >= 0, of the released reweighting of the gaussian basis, 2 in 2-D, 0 in 3-D (axis estimator).
        clip_grad: A, > 0, of the released clipped gradient (axis estimator); None for the true one.
        spread: factor, >= 0, of the mean distance between samples that is taken off: 0 is the paper's loss, 0.5 the energy
            score, which is proper (:mod:`.energy`); metric ``l1`` or ``euclidean`` then.
        backend: auto, cpu, cuda, triton or reference.
        metric: as :class:`.Objective`.
        units: as :class:`.Objective`.
        coords: what positions and the distance are in, as :func:`.sample`.
        stride: as :func:`.sample`.
        periodic: as :func:`.sample`.

    The epoch and the part of the run that is done are buffers, so a loaded checkpoint has its temperature back;
    :meth:`set_epoch` moves them on.
    """

    epoch: Tensor
    progress: Tensor

    def __init__(
        self,
        num_samples: int = 30,
        basis: str = "triangular",
        tau: float | str | Schedule = 1.0,
        beta: float | str = 1.0,
        estimator: str = "cell",
        sigma: float = 1.0,
        reweight: float = 0.0,
        clip_grad: float | None = None,
        spread: float = 0.0,
        backend: str = "auto",
        metric: str = "l1",
        units: str = "index",
        coords: str = "index",
        stride: float | Sequence[float] = 1.0,
        periodic: Sequence[int] = (),
    ) -> None:
        super().__init__(metric, units, beta)
        if estimator not in ESTIMATORS:
            raise ValueError(f"SamplingArgmax: estimator must be one of cell, axis, got {estimator!r}")
        if estimator == "cell" and (reweight != 0 or clip_grad is not None):
            raise ValueError("SamplingArgmax: reweight and clip_grad need estimator 'axis', got 'cell'")
        self.schedule = make_schedule(tau)
        self.basis, self.estimator, self.sigma = basis, estimator, sigma
        self.reweight, self.clip_grad, self.spread, self.backend = reweight, clip_grad, spread, backend
        self.released = beta == "tau"
        self.circles = estimator == "cell" and spread == 0
        self.sub_distributions = self._learnable()
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.set_epoch(0)
        self.num_samples = check_sampling("SamplingArgmax", num_samples, self.tau, self._train_beta(), basis, None)
        check_spread("SamplingArgmax", spread, metric, self.num_samples)
        self.set_coords(coords, stride, periodic)

    def _learnable(self) -> tuple[str, ...]:
        """The sub-distributions that cells may learn."""
        if self.estimator == "axis":
            return ()  # its noise is of the axes' bins
        return ("offset", "offset_sigma") if self.basis == "gaussian" and self.sigma > 0 else ("offset",)

    def set_epoch(self, epoch: int, progress: float = 0.0) -> None:
        """Set the temperature to that of an epoch, or of the part of the run that is done, in [0, 1], as the schedule goes by.

        Call it before the first forward pass of an epoch; with a schedule of the run's parts (``"fading"``), before each.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"SamplingArgmax: epoch must be an integer >= 0, got {epoch!r}")
        tau = float(self.schedule(progress if getattr(self.schedule, "relative", False) else epoch))
        check_temperature("SamplingArgmax", f"tau at epoch {epoch}", tau)
        self.tau = tau
        self.epoch.fill_(epoch)
        self.progress.fill_(progress)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.set_epoch(int(self.epoch), float(self.progress))

    def _train_beta(self) -> float:
        return self.tau if self.released else self.beta

    def _options(self, output: Answer, sigma: float | Tensor | None, seed: int | Tensor | None) -> dict:
        options = dict(
            num_samples=self.num_samples, tau=self.tau, beta=self._train_beta(), basis=self.basis,
            sigma=self.sigma if sigma is None else sigma, seed=seed, backend=self.backend,
        ) | cells_of(output)  # fmt: skip
        if self.estimator == "axis":
            options |= dict(reweight=self.reweight, clip_grad=self.clip_grad)
        return options

    def check_points(self, points: Tensor | None) -> None:
        if points is not None and self.estimator == "axis":
            raise ValueError("SamplingArgmax: points need estimator 'cell', got 'axis'")

    def forward(
        self,
        logits: Answer,
        points: Tensor | None = None,
        *,
        sigma: float | Tensor | None = None,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples ``[B, K, S, d]`` in training, soft-argmax ``[B, K, d]`` in evaluation, in ``coords``.

        ``sigma``, a number or a tensor that broadcasts to ``[B, K]``, stands for that of the module.
        """
        if not self.training:
            offset = cells_of(logits).get("offset")
            return soft_argmax(output_of(logits), beta=self.beta, points=points, offset=offset, coords=self.coords,
                               stride=self.stride, periodic=self.periodic, backend=self.backend)  # fmt: skip
        return self.samples(logits, points, sigma=sigma, seed=seed, generator=generator)

    def samples(self, output: Answer, points: Tensor | None = None, *, num_samples: int | None = None,
                sigma: float | Tensor | None = None, seed: int | Tensor | None = None,
                generator: torch.Generator | None = None) -> Tensor:  # fmt: skip
        """Samples ``[B, K, S, d]`` with these settings, in evaluation too; ``num_samples`` stands for the module's."""
        self.check_points(points)
        options = {**self._options(output, sigma, seed), "generator": generator}
        if num_samples is not None:
            options["num_samples"] = num_samples
        return self.shown(self._draw(output_of(output), points, options), output_of(output), points)

    def _draw(self, output: Tensor, points: Tensor | None, options: dict) -> Tensor:
        """Samples of maps in cells."""
        if self.estimator == "axis":
            return self.possible(axis_sample(output, **options))
        return self.possible(sample(output, points=points, periodic=self.periodic, **options))

    def draws(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        self.check_points(target.points)
        return self._draw(output_of(output), target.points, self._options(output, target.sigma, seed))

    def target_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        fused = self.units == "index" and target.axes is None and self.constraint is None and self.estimator == "cell"
        factor = self.own_units(target.size, target.points).factor(self.metric) if fused else None
        if factor is None:
            return super().target_loss(output, target, seed)
        options = self._options(output, target.sigma, seed)
        error = expected_error(output_of(output), target.position, target.weight, metric=self.metric, spread=self.spread,
                               points=target.points, **options)  # fmt: skip
        return error if factor == 1 else error * factor

    def row_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        draws = self.draws(output, target, seed)
        offsets = draws - target.position.to(draws.dtype).unsqueeze(2)
        return spread_error(self.offsets(offsets.unbind(-1), target, extra=1), self.metric, self.spread)

    def extra_repr(self) -> str:
        beta = "tau" if self.released else self.beta
        text = (
            f"num_samples={self.num_samples}, basis={self.basis!r}, tau={self.tau:g} of {self.schedule}, "
            f"beta={beta!r}, estimator={self.estimator!r}"
        )
        if self.basis == "gaussian":
            text += f", sigma={self.sigma}"
        if self.spread > 0:
            text += f", spread={self.spread}"
        if self.estimator == "axis":
            text += f", reweight={self.reweight}, clip_grad={self.clip_grad}"
        return text + self.coords_repr()


def axis_sampling_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    num_samples: int,
    tau: float,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    **options,
) -> Tensor:
    """The loss of :class:`SamplingArgmax` with the released estimator as a function, as :func:`.expected_error` is the paper's.

    ``options`` are those of :class:`SamplingArgmax`, of which :func:`.axis_sample` says more; ``target`` and ``weight`` are
    those of :func:`.soft_argmax_loss`. Returns ``[B, K]``.
    """
    objective = SamplingArgmax(num_samples, tau=tau, estimator="axis", **options)
    return objective.loss(logits, target, weight, seed=seed, generator=generator)
