"""Where the cells of a map are: their offsets from a position, and the largest one."""

import torch
from torch import Tensor

from .checks import arithmetic_dtype


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


def largest_cell(maps: Tensor, points: Tensor | None) -> tuple[Tensor, Tensor]:
    """Position ``[B, K, d]`` and value ``[B, K]`` of the largest cell of each map."""
    peak, cell = maps.to(arithmetic_dtype(maps)).flatten(2).max(-1)
    if points is not None:
        return points.to(peak.dtype).gather(1, cell.unsqueeze(-1).expand(-1, -1, points.shape[2])), peak
    index = torch.unravel_index(cell, maps.shape[2:])
    return torch.stack(index[::-1], -1).to(peak.dtype), peak
