"""Searches in point clouds, for networks on points: fused in C++ for CPUs and CUDA, plain PyTorch elsewhere.

Both are functions of the cloud alone, whatever the backend: distances are added in one order and equal ones go by the lower
index. They have no gradients.
"""

import math

import torch
from torch import Tensor

from . import backends, library, reference
from .checks import as_integer, check_device


def _check_cloud(op: str, name: str, points: Tensor) -> None:
    if points.dim() != 3 or points.shape[2] != 3 or points.shape[1] == 0 or not points.is_floating_point():
        raise ValueError(f"{op}: {name} must be [B, N, 3] of floating point, N >= 1, got {tuple(points.shape)}")


def _check_count(op: str, count: int, most: float = math.inf) -> None:
    if as_integer(count) is None or not 1 <= count <= most:
        limits = "an integer >= 1" if most == math.inf else f"an integer in [1, {most}]"
        raise ValueError(f"{op}: count must be {limits}, got {count!r}")


def _operators(op: str, backend: str, points: Tensor):
    """The operators or, where there are none for the device and type, the reference."""
    if backend == "auto":
        fused = points.device.type in library.KERNEL_DEVICES and points.dtype == torch.float32
        return backends.operators(points.device.type) if fused else reference
    if backend not in ("cpu", "cuda", "reference"):
        raise ValueError(f"{op}: backend must be one of auto, cuda, cpu, reference, got {backend!r}")
    if backend != "reference" and points.dtype != torch.float32:
        raise ValueError(f"{op}: backend {backend!r} takes float32 points, got {points.dtype}")
    target = backends.resolve(op, backend, points)
    return reference if target == "reference" else backends.operators(target)


@torch.no_grad()
def farthest_points(points: Tensor, count: int, *, backend: str = "auto") -> Tensor:
    """Farthest-point sampling: each point is the farthest from those before it, the first the farthest from the mean.

    Args:
        points: finite positions ``[B, N, 3]``.
        count: how many to choose, 1 to N.
        backend: ``auto``, ``cpu``, ``cuda`` or ``reference``.

    Returns:
        Indices ``[B, count]``, int64.

    Raises:
        ValueError: for an argument outside what is said above.
    """
    _check_cloud("farthest_points", "points", points)
    _check_count("farthest_points", count, points.shape[1])
    first = reference.squared_distance(points, points.mean(1, keepdim=True)).argmax(1)
    return _operators("farthest_points", backend, points).farthest_points(points, first, count)


@torch.no_grad()
def neighbours(
    points: Tensor, centers: Tensor, count: int, *, radius: float = math.inf, backend: str = "auto"
) -> Tensor:
    """The nearest points within a radius of each centre, the nearest first; the nearest of all fills what is left.

    Args:
        points: finite positions ``[B, N, 3]``.
        centers: ``[B, M, 3]``.
        count: how many to find, at least 1.
        radius: in the units of the positions, > 0. The nearest point counts however far it is.
        backend: ``auto``, ``cpu``, ``cuda`` or ``reference``.

    Returns:
        Indices ``[B, M, min(count, N)]``, int64.

    Raises:
        ValueError: for an argument outside what is said above.
    """
    _check_cloud("neighbours", "points", points)
    _check_cloud("neighbours", "centers", centers)
    if len(points) != len(centers) or points.dtype != centers.dtype:
        got = f"{centers.dtype} {tuple(centers.shape)}"
        raise ValueError(f"neighbours: centers must be {points.dtype} [{len(points)}, M, 3], got {got}")
    check_device("neighbours", "centers", centers, points, of="points")
    _check_count("neighbours", count)
    if not radius > 0:
        raise ValueError(f"neighbours: radius must be > 0, got {radius}")
    return _operators("neighbours", backend, points).neighbours(points, centers, float(radius), count)
