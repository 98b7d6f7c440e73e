"""What the losses on heatmap rows ``(b, k)`` share: checks and cell offsets."""

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
