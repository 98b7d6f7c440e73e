"""Distances of rows ``[B, K, ...]``: to a target, between samples, and the mask of what does not count."""

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from torch import Tensor


def total(terms: Iterable[Tensor]) -> Tensor:
    """The sum of one tensor or more."""
    return reduce(torch.add, terms)


def _penalty(offset: Tensor, metric: str) -> Tensor:
    if metric == "l1":
        return offset.abs()
    if metric == "smooth_l1":
        size = offset.abs()
        return torch.where(size < 1, 0.5 * size.square(), size - 0.5)
    return offset.square()


def metric_of(offsets: Iterable[Tensor], metric: str) -> Tensor:
    """The distance with these offsets per axis: ``l1``, ``l2`` (squared), ``euclidean`` or ``smooth_l1``."""
    distance = total(_penalty(offset, metric) for offset in offsets)
    if metric != "euclidean":
        return distance
    # The root has an infinite slope at 0, where the norm's subgradient 0 is wanted.
    positive = distance != 0
    return torch.where(positive, torch.where(positive, distance, 1).sqrt(), 0)


def mean_pair_distance(samples: Sequence[Tensor], metric: str) -> Tensor:
    """The mean distance ``[B, K]`` of two different samples of a row; ``samples`` are ``[B, K, S]``, one an axis.

    Of l1 by sorting: with y in rising order ``sum_{s < s'} |y_s - y_s'| = sum_i (2 i - S - 1) y_i``, i from 1.
    """
    count = samples[0].shape[-1]
    if metric == "l1":
        rank = torch.arange(1, count + 1, dtype=samples[0].dtype, device=samples[0].device)
        factor = (2 * rank - count - 1) * 2 / (count * (count - 1))
        return total((x.sort(-1).values * factor).sum(-1) for x in samples)
    first, second = torch.triu_indices(count, count, 1, device=samples[0].device)
    return metric_of([x[..., first] - x[..., second] for x in samples], metric).mean(-1)


def mean_difference(probability: Tensor, position: Tensor) -> Tensor:
    """The mean distance ``[...]`` of two independent draws of a law ``[..., n]`` on rising positions, which broadcast to it.

    ``E |x - x'| = 2 sum_j F_j (1 - F_j) (x_{j+1} - x_j)``, F the distribution function.
    """
    below = probability[..., :-1].cumsum(-1)
    return 2 * (below * (1 - below) * position.diff(dim=-1)).sum(-1)


def spread_error(offsets: Sequence[Tensor], metric: str, spread: float) -> Tensor:
    """The mean distance ``[B, K]`` of samples to their target less ``spread`` times that of two samples.

    ``offsets`` from the target are ``[B, K, S]``, one an axis; two samples are as far apart as their offsets.
    """
    error = metric_of(offsets, metric).mean(-1)
    return error - spread * mean_pair_distance(offsets, metric) if spread > 0 else error


def mask_rows(x: Tensor, weight: Tensor | None) -> Tensor:
    """``x`` ``[B, K, ...]`` with 0 in the rows of weight 0, so that what they hold, NaN too, goes nowhere."""
    if weight is None:
        return x
    keep = (weight != 0).reshape(*weight.shape, *[1] * (x.dim() - 2))
    return torch.where(keep, x, x.new_zeros(()))


def weigh_rows(loss: Tensor, weight: Tensor | None) -> Tensor:
    """``loss * weight`` ``[B, K]``, exactly 0 and without gradient where the weight is 0.

    Both this mask and :func:`mask_rows` are needed: this one alone leaves 0 times a NaN derivative in the
    backward pass, that one alone leaves what the points or widths of a masked row bring in.
    """
    if weight is None:
        return loss
    return torch.where(weight != 0, loss * weight.to(loss.dtype), loss.new_zeros(()))
