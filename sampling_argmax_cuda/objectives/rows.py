"""What the losses on heatmap rows ``(b, k)`` share: checks, the weight-0 mask, cell offsets, distances."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..checks import METRICS, arithmetic_dtype, check_device, check_logits, check_positive


def check_rows(
    op: str,
    logits: Tensor,
    target: Tensor | None = None,
    weight: Tensor | None = None,
    points: Tensor | None = None,
    *,
    beta: float = 1.0,
    metric: str = "l1",
) -> None:
    """Raise ValueError unless the arguments fit: target ``[B, K, d]``, weight ``[B, K]``, a known metric."""
    check_logits(op, logits, points)
    check_positive(op, "beta", beta)
    if metric not in METRICS:
        raise ValueError(f"{op}: metric must be one of {', '.join(METRICS)}, got {metric!r}")
    rows = tuple(logits.shape[:2])
    axes = logits.dim() - 2 if points is None else points.shape[2]
    for name, value, shape in (("target", target, (*rows, axes)), ("weight", weight, rows)):
        if value is None:
            continue
        if tuple(value.shape) != shape:
            letters = "[B, K, d]" if name == "target" else "[B, K]"
            raise ValueError(f"{op}: {name} must be {letters} = {list(shape)}, got {tuple(value.shape)}")
        check_device(op, name, value, logits)


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


def cell_offsets(logits: Tensor, centre: Tensor, points: Tensor | None = None) -> tuple[Tensor, ...]:
    """Per axis (x, y, z) the signed distance of each cell from ``centre`` ``[B, K, d]``, broadcastable."""
    centre = centre.to(arithmetic_dtype(logits))
    if points is not None:
        points = points.to(centre.dtype)
        return tuple(points[:, None, :, a] - centre[:, :, None, a] for a in range(points.shape[2]))
    axes = logits.dim() - 2
    offsets = []
    for a in range(axes):
        shape = [1] * axes
        shape[axes - 1 - a] = -1
        index = torch.arange(logits.shape[logits.dim() - 1 - a], dtype=centre.dtype, device=centre.device)
        offsets.append(index.reshape(shape) - centre[:, :, a].reshape(*centre.shape[:2], *[1] * axes))
    return tuple(offsets)


def _penalty(offset: Tensor, metric: str) -> Tensor:
    if metric == "l1":
        return offset.abs()
    if metric == "smooth_l1":
        size = offset.abs()
        return torch.where(size < 1, 0.5 * size.square(), size - 0.5)
    return offset.square()


def metric_of(offsets: Iterable[Tensor], metric: str) -> Tensor:
    """The distance with these offsets per axis: ``l1``, ``l2`` (squared), ``euclidean`` or ``smooth_l1``."""
    total = sum(_penalty(offset, metric) for offset in offsets)
    if metric != "euclidean":
        return total
    # The root has an infinite slope at 0, where the norm's subgradient 0 is wanted.
    positive = total != 0
    return torch.where(positive, torch.where(positive, total, 1).sqrt(), 0)
