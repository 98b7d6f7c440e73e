"""Where the cells of a map are: their offsets from a position, the largest one, and what operators count from."""

import torch
from torch import Tensor

from .checks import arithmetic_dtype

# Cells: on a longer axis a float32 position from its first cell on has too few digits left for gradients.
LONG_AXIS = 256


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
    return cell_position(cell, maps, points), peak


def cell_position(cell: Tensor, maps: Tensor, points: Tensor | None) -> Tensor:
    """Position ``[B, K, d]`` of the cells ``[B, K]`` of maps, in the operators' dtype."""
    dtype = arithmetic_dtype(maps)
    if points is not None:
        return points.to(dtype).gather(1, cell.unsqueeze(-1).expand(-1, -1, points.shape[2]))
    return torch.stack(torch.unravel_index(cell, maps.shape[2:])[::-1], -1).to(dtype)


def counted_from(logits: Tensor, points: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Points as the operators take them, ``origins`` ``[B, K]`` and what positions are to be added to, ``[B, 1 or K, d]``.

    A gradient has the difference of two positions, which cancel far from 0: points are counted from their mean, and the cells of
    a grid with a long axis from the row's largest one.
    """
    dtype = arithmetic_dtype(logits)
    if points is not None:
        points = points.to(dtype)
        centre = points.detach().mean(1, keepdim=True)
        return points - centre, None, centre
    if max(logits.shape[2:]) <= LONG_AXIS or dtype == torch.float64:
        return None, None, None
    origins = logits.detach().flatten(2).argmax(-1)
    return None, origins, cell_position(origins, logits, None)
