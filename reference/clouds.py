"""Searches in point clouds, equations (31) and (32) of README.md: each the same answer for the same cloud."""

import torch
from torch import Tensor


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """``|a - b|^2`` along the last axis, its three squares added in the order x, y, z."""
    x, y, z = ((a[..., axis] - b[..., axis]).square() for axis in range(3))
    return x + y + z


def farthest_points(points: Tensor, first: Tensor, count: int) -> Tensor:
    """Indices ``[B, count]`` of points ``[B, N, 3]``: ``first`` ``[B]``, then each the farthest from those before it."""
    batch = torch.arange(len(points), device=points.device)
    chosen, distance = [first], torch.full_like(points[..., 0], torch.inf)
    for _ in range(count - 1):
        last = points[batch, chosen[-1]].unsqueeze(1)
        distance = torch.minimum(distance, squared_distance(points, last))
        chosen.append(distance.argmax(1))
    return torch.stack(chosen, 1)


def neighbours(points: Tensor, centers: Tensor, radius: float, count: int) -> Tensor:
    """Indices ``[B, M, min(count, N)]`` of the nearest points within ``radius`` of each centre, the nearest first.

    Of equally near points the lower index comes first. The nearest of all fills the places that are left.
    """
    distance = squared_distance(centers.unsqueeze(2), points.unsqueeze(1))
    near, index = (x[..., :count] for x in distance.sort(stable=True))
    return torch.where(near <= torch.tensor(radius).square().to(near), index, index[..., :1])
