"""The energy score of samples: a proper score, so that maps are trained to be as wide as the truth is uncertain.

    ES = E d(y, t) - 1/2 E d(y, y'),   y, y' independent samples, d = l1 or euclidean

(Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007; along one axis it is the
CRPS). Without its second term, as the paper trains, the best law is all mass on the median, whatever the truth's spread.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_device
from .rows import mask_rows, metric_of, weigh_rows

PROPER = ("l1", "euclidean")


def mean_pair_distance(samples: Sequence[Tensor], metric: str) -> Tensor:
    """The mean distance ``[B, K]`` of two different samples of a row; ``samples`` are ``[B, K, S]``, one an axis.

    Of l1 by sorting: with y in rising order ``sum_{s < s'} |y_s - y_s'| = sum_i (2 i - S - 1) y_i``, i from 1.
    """
    count = samples[0].shape[-1]
    if metric == "l1":
        rank = torch.arange(1, count + 1, dtype=samples[0].dtype, device=samples[0].device)
        factor = (2 * rank - count - 1) * 2 / (count * (count - 1))
        return sum((x.sort(-1).values * factor).sum(-1) for x in samples)
    first, second = torch.triu_indices(count, count, 1, device=samples[0].device)
    return metric_of([x[..., first] - x[..., second] for x in samples], metric).mean(-1)


def spread_error(offsets: Sequence[Tensor], metric: str, spread: float) -> Tensor:
    """The mean distance ``[B, K]`` of samples to their target less ``spread`` times that of two samples.

    ``offsets`` from the target are ``[B, K, S]``, one an axis; two samples are as far apart as their offsets.
    """
    error = metric_of(offsets, metric).mean(-1)
    return error - spread * mean_pair_distance(offsets, metric) if spread > 0 else error


def energy_score(samples: Tensor, target: Tensor, weight: Tensor | None = None, *, metric: str = "l1") -> Tensor:
    """The energy score of every row, times its weight; unbiased for any number of samples.

    Args:
        samples: ``[B, K, S, d]``, S at least 2, e.g. of :func:`.sample`; differentiable.
        target: ``[B, K, d]`` in the samples' units.
        weight: ``[B, K]`` or None for 1. Weight 0 gives score and gradients 0.
        metric: ``l1``, the sum of the axes' scores, or ``euclidean``; ``l2`` and ``smooth_l1`` have no proper score here.

    Returns:
        ``[B, K]``; single scores may be negative.

    Raises:
        ValueError: for other shapes, one sample, or another metric.
    """
    if samples.dim() != 4:
        raise ValueError(f"energy_score: samples must be [B, K, S, d], got {tuple(samples.shape)}")
    check_score(samples.shape[2], metric, "energy_score")
    rows, axes = samples.shape[:2], samples.shape[3]
    if target.shape != (*rows, axes):
        raise ValueError(f"energy_score: target must be [B, K, d] = {[*rows, axes]}, got {tuple(target.shape)}")
    if weight is not None and weight.shape != rows:
        raise ValueError(f"energy_score: weight must be [B, K] = {list(rows)}, got {tuple(weight.shape)}")
    check_device("energy_score", "target", target, samples, of="samples")
    offsets = mask_rows(samples, weight) - mask_rows(target, weight).to(samples.dtype).unsqueeze(2)
    return weigh_rows(spread_error(offsets.unbind(-1), metric, 0.5), weight)


def check_score(num_samples: int, metric: str, op: str) -> None:
    """Raise ValueError for what has no unbiased proper score."""
    if metric not in PROPER:
        raise ValueError(f"{op}: a proper score needs metric {' or '.join(PROPER)}, got {metric!r}")
    if num_samples < 2:
        raise ValueError(f"{op}: a proper score needs samples [B, K, S, d] with S >= 2, got {num_samples} samples")
