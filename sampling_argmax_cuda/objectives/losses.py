"""Training losses per keypoint, ``[B, K]``; sampling-argmax (cell estimator) is :func:`.expected_error`.

Targets are in cell-index units (x, y, z). Weight 0 gives exactly zero loss and gradients, whatever the row
holds. Equation numbers are those of Li et al., "Localization with Sampling-Argmax", NeurIPS 2021.
"""

import torch
from torch import Tensor

from ..checks import arithmetic_dtype
from ..ops import axis_sample, soft_argmax
from .rows import cell_offsets, check_rows, mask_rows, metric_of, weigh_rows

REDUCTIONS = ("mean", "batch", "visible", "none")


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
    """The error of the expectation (Eq. 2): ``weight * d(target, sum_i p_i c_i)``, ``p = softmax(beta * z)``.

    Args:
        logits: ``[B, K, *axes]`` or ``[B, K, N]`` with ``points`` ``[B, N, d]``.
        target: ``[B, K, d]`` in cell-index units, or the points' units.
        weight: ``[B, K]`` or None for 1.
        metric: ``l1``, ``l2``, ``euclidean`` or ``smooth_l1``, as :func:`.expected_error`.

    Returns:
        ``[B, K]``. Raises ValueError for arguments that do not fit.
    """
    check_rows("soft_argmax_loss", logits, target, weight, points, beta=beta, metric=metric)
    mean = soft_argmax(mask_rows(logits, weight), beta=beta, points=points, backend=backend)
    offsets = mean - mask_rows(target.to(mean.dtype), weight)
    return weigh_rows(metric_of(offsets.unbind(-1), metric), weight)


def discrete_expectation_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    beta: float = 1.0,
    metric: str = "l1",
    points: Tensor | None = None,
) -> Tensor:
    """The expectation of the error over cells (Eq. 4): ``weight * sum_i p_i d(target, c_i)``.

    With ``d_i = d(target, c_i)`` its gradient is ``beta * p_i (d_i - sum_j p_j d_j)``. Arguments, shapes and
    errors are those of :func:`soft_argmax_loss`.
    """
    check_rows("discrete_expectation_loss", logits, target, weight, points, beta=beta, metric=metric)
    kept = mask_rows(logits, weight)
    distances = metric_of(cell_offsets(kept, mask_rows(target, weight), points), metric)
    p = (kept.to(arithmetic_dtype(logits)).flatten(2) * beta).softmax(-1)
    return weigh_rows((p * distances.flatten(2)).sum(-1), weight)


def axis_sampling_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    num_samples: int,
    tau: float,
    beta: float = 1.0,
    basis: str = "triangular",
    sigma: float | Tensor = 1.0,
    reweight: float = 0.0,
    clip_grad: float | None = None,
    metric: str = "l1",
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Tensor:
    """The expectation of the error (Eq. 14) with the released estimator: ``weight * mean_s d(target, y_s)``.

    ``y_s`` are the samples of :func:`.axis_sample`, which explains the arguments; ``target``, ``weight`` and
    ``metric`` are those of :func:`soft_argmax_loss`. Returns ``[B, K]``.
    """
    check_rows("axis_sampling_loss", logits, target, weight, beta=beta, metric=metric)
    samples = axis_sample(
        mask_rows(logits, weight), num_samples=num_samples, tau=tau, beta=beta, basis=basis, sigma=sigma,
        reweight=reweight, clip_grad=clip_grad, seed=seed, generator=generator, backend=backend,
    )  # fmt: skip
    offsets = samples - mask_rows(target.to(samples.dtype), weight).unsqueeze(2)
    return weigh_rows(metric_of(offsets.unbind(-1), metric).mean(-1), weight)


def reduce_loss(per_keypoint: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """One number from losses ``[B, K]`` that already carry their weight.

    Args:
        per_keypoint: ``[B, K]``.
        weight: ``[B, K]``, read by ``visible`` only; None counts every keypoint.
        reduction: ``mean`` = sum / (B K); ``batch`` = sum / B, the released 2-D loss; ``visible`` = sum /
            max(1, sum of weights); ``none`` returns ``per_keypoint``. An empty batch gives 0.

    Raises:
        ValueError: for an unknown reduction or shapes that differ.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduce_loss: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if per_keypoint.dim() != 2:
        raise ValueError(f"reduce_loss: per_keypoint must be [B, K], got {tuple(per_keypoint.shape)}")
    if weight is not None and weight.shape != per_keypoint.shape:
        expected = list(per_keypoint.shape)
        raise ValueError(f"reduce_loss: weight must be [B, K] = {expected}, got {tuple(weight.shape)}")
    if reduction == "none":
        return per_keypoint
    if reduction == "visible" and weight is not None:
        return per_keypoint.sum() / weight.to(per_keypoint.dtype).sum().clamp(min=1)
    count = per_keypoint.shape[0] if reduction == "batch" else per_keypoint.numel()
    return per_keypoint.sum() / max(count, 1)
