"""Modules around the operators: they hold the settings and the temperature schedule, no parameters."""

import torch
from torch import Tensor, nn

from ..checks import check_positive, check_sampling
from ..ops import axis_sample, expected_error, sample, soft_argmax
from .losses import axis_sampling_loss
from .schedules import Schedule, make_schedule

ESTIMATORS = ("cell", "axis")


class SoftArgmax(nn.Module):
    """Soft-argmax ``sum_i p_i c_i``, ``p = softmax(beta * z)``: logits ``[B, K, *axes]`` to ``[B, K, d]``."""

    def __init__(self, beta: float = 1.0, backend: str = "auto") -> None:
        super().__init__()
        check_positive("SoftArgmax", "beta", beta)
        self.beta = beta
        self.backend = backend

    def forward(self, logits: Tensor, points: Tensor | None = None) -> Tensor:
        return soft_argmax(logits, beta=self.beta, points=points, backend=self.backend)

    def extra_repr(self) -> str:
        return f"beta={self.beta}"


class SamplingArgmax(nn.Module):
    """Samples in training, soft-argmax in evaluation (Li et al., NeurIPS 2021, Eq. 12 and 1).

    Args:
        num_samples: samples S per row.
        basis: ``none``, ``uniform``, ``triangular`` or ``gaussian``.
        tau: temperature: a number, ``"coco"``, ``"h36m"`` or a callable ``tau(epoch)`` (:mod:`.schedules`).
        beta: factor of the logits, or ``"tau"``, the released form ``softmax(z + g / tau)``, whose evaluation
            decodes ``softmax(z)``.
        estimator: ``cell``, the paper's noise per cell (:func:`.sample`), or ``axis``, the released estimator
            (:func:`.axis_sample`).
        sigma: width of the gaussian basis in cells or the points' units.
        reweight, clip_grad: options of :func:`.axis_sample`.
        backend: as the operators.

    The epoch is a buffer, so a loaded checkpoint has its temperature back; :meth:`set_epoch` moves it on.
    """

    epoch: Tensor

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
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if estimator not in ESTIMATORS:
            raise ValueError(f"SamplingArgmax: estimator must be one of cell, axis, got {estimator!r}")
        if estimator == "cell" and (reweight != 0 or clip_grad is not None):
            raise ValueError("SamplingArgmax: reweight and clip_grad need estimator 'axis', got 'cell'")
        if isinstance(beta, str) and beta != "tau":
            raise ValueError(f"SamplingArgmax: beta must be a number > 0 or 'tau', got {beta!r}")
        self.schedule = make_schedule(tau)
        self.num_samples = num_samples
        self.basis = basis
        self.estimator = estimator
        self.beta = beta
        self.sigma = sigma
        self.reweight = reweight
        self.clip_grad = clip_grad
        self.backend = backend
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_post_hook(lambda module, _: module.set_epoch(int(module.epoch)))
        self.set_epoch(0)
        check_sampling("SamplingArgmax", num_samples, self.tau, self._train_beta(), basis, None)

    def set_epoch(self, epoch: int) -> None:
        """Set the temperature to ``schedule(epoch)``; call it before the epoch's first forward pass."""
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"SamplingArgmax: epoch must be an integer >= 0, got {epoch!r}")
        tau = float(self.schedule(epoch))
        check_positive("SamplingArgmax", f"tau at epoch {epoch}", tau)
        self.tau = tau
        self.epoch.fill_(epoch)

    def _train_beta(self) -> float:
        return self.tau if self.beta == "tau" else self.beta

    def _options(self, seed, generator, sigma) -> dict:
        options = dict(
            num_samples=self.num_samples, tau=self.tau, beta=self._train_beta(), basis=self.basis,
            sigma=self.sigma if sigma is None else sigma, seed=seed, generator=generator, backend=self.backend,
        )  # fmt: skip
        if self.estimator == "axis":
            options |= dict(reweight=self.reweight, clip_grad=self.clip_grad)
        return options

    def _check_points(self, points: Tensor | None) -> None:
        if points is not None and self.estimator == "axis":
            raise ValueError("SamplingArgmax: points need estimator 'cell', got 'axis'")

    def forward(
        self,
        logits: Tensor,
        points: Tensor | None = None,
        *,
        sigma: float | Tensor | None = None,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples ``[B, K, S, d]`` in training, soft-argmax ``[B, K, d]`` in evaluation (index units).

        ``sigma``, a number or a tensor that broadcasts to ``[B, K]``, stands for that of the module.
        """
        if not self.training:
            beta = 1.0 if self.beta == "tau" else self.beta
            return soft_argmax(logits, beta=beta, points=points, backend=self.backend)
        return self.samples(logits, points, sigma=sigma, seed=seed, generator=generator)

    def samples(
        self,
        logits: Tensor,
        points: Tensor | None = None,
        *,
        num_samples: int | None = None,
        sigma: float | Tensor | None = None,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples ``[B, K, S, d]`` with these settings, in evaluation too; ``num_samples`` stands for the module's."""
        self._check_points(points)
        options = self._options(seed, generator, sigma)
        if num_samples is not None:
            options["num_samples"] = num_samples
        if self.estimator == "axis":
            return axis_sample(logits, **options)
        return sample(logits, points=points, **options)

    def loss(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        *,
        metric: str = "l1",
        points: Tensor | None = None,
        sigma: float | Tensor | None = None,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The expectation of the error (Eq. 14) with these settings: ``[B, K]``, as ``expected_error``."""
        self._check_points(points)
        options = self._options(seed, generator, sigma)
        if self.estimator == "axis":
            return axis_sampling_loss(logits, target, weight, metric=metric, **options)
        return expected_error(logits, target, weight, metric=metric, points=points, **options)

    def extra_repr(self) -> str:
        text = (
            f"num_samples={self.num_samples}, basis={self.basis!r}, tau={self.tau:g} of {self.schedule}, "
            f"beta={self.beta!r}, estimator={self.estimator!r}"
        )
        if self.basis == "gaussian":
            text += f", sigma={self.sigma}"
        if self.estimator == "axis":
            text += f", reweight={self.reweight}, clip_grad={self.clip_grad}"
        return text
