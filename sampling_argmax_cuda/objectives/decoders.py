"""How a position is read off a map, whatever it was trained by: its mean, its mode, or the mean about its mode."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cells import cell_offsets, cell_position, largest_cell
from ..checks import check_logits, check_positive
from ..distances import metric_of
from ..moments import soft_argmax
from ..sub_distributions import check_sub_distributions

DECODERS = ("mean", "mode", "local")
_RADIUS = 3.0  # cells


def heatmap_mode(logits: Tensor, *, points: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
    """The position of the largest cell, the first of equal ones.

    Args:
        logits: ``[B, K, *axes]`` or, with ``points``, ``[B, K, N]``; any map whose largest cell is wanted.
        points: positions ``[B, N, d]`` of unordered cells.
        offset: what moves every cell, as :func:`.sample` has it: that of the largest is added.

    Returns:
        ``[B, K, d]`` in cell-index units (x, y, z), or the points' units; without gradient in the logits.
    """
    check_logits("heatmap_mode", logits, points)
    check_sub_distributions("heatmap_mode", logits, points, offset, None)
    cell = logits.flatten(2).argmax(-1)
    position = cell_position(cell, logits, points)
    if offset is None:
        return position
    moved = offset.flatten(3) if points is None else offset.mT
    return position + moved.gather(-1, cell[..., None, None].expand(*moved.shape[:3], 1)).squeeze(-1).to(position.dtype)


def local_soft_argmax(
    logits: Tensor,
    *,
    radius: float | None = None,
    beta: float = 1.0,
    points: Tensor | None = None,
    offset: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Soft-argmax of the cells about the largest one: ``sum p_i c_i / sum p_i`` within its window, ``p = softmax(beta * z)``.

    Of a map with two peaks the mean lies between them, where nothing is; this one is the mean of the higher peak.

    Args:
        logits: ``[B, K, *axes]`` or, with ``points``, ``[B, K, N]``.
        radius: > 0. The window has the cells that are at most so many cells from the largest one on every axis, 3 where it is
            None, or the points at most so far from it, which has to be said.
        beta: factor of the logits, > 0.
        points: positions ``[B, N, d]`` of unordered cells.
        offset: what moves every cell, as :func:`.sample` has it; the window is of cells where they were.
        backend: as :func:`.soft_argmax`.

    Returns:
        ``[B, K, d]`` in cell-index units (x, y, z), or the points' units; differentiable within the window.

    Raises:
        ValueError: for arguments that do not fit.
    """
    check_logits("local_soft_argmax", logits, points)
    if radius is None and points is not None:
        raise ValueError("local_soft_argmax: points have no spacing, so radius must be given")
    radius = _RADIUS if radius is None else radius
    check_positive("local_soft_argmax", "radius", radius)
    offsets = cell_offsets(logits, largest_cell(logits.detach(), points)[0], points)
    if points is None:
        distance = torch.stack(torch.broadcast_tensors(*(offset.abs() for offset in offsets))).amax(0)
    else:
        distance = metric_of(offsets, "euclidean")
    near = torch.where(distance <= radius, logits, -math.inf)
    return soft_argmax(near, beta=beta, points=points, offset=offset, backend=backend)


@dataclass(frozen=True)
class Decoder:
    """One of :data:`DECODERS` with its window; called with the logarithm of a map, up to a constant.

    Args:
        name: ``mean`` (:func:`.soft_argmax`), ``mode`` (:func:`heatmap_mode`) or ``local`` (:func:`local_soft_argmax`).
        radius: of ``local``.
    """

    name: str
    radius: float | None = None

    def __post_init__(self) -> None:
        if self.name not in DECODERS:
            raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {self.name!r}")
        if self.radius is not None and not 0 < self.radius < math.inf:
            raise ValueError(f"decoder_radius must be > 0, got {self.radius}")

    def __call__(self, logits: Tensor, points: Tensor | None = None, backend: str = "auto",
                 offset: Tensor | None = None) -> Tensor:  # fmt: skip
        """Positions ``[B, K, d]``."""
        if self.name == "mode":
            return heatmap_mode(logits, points=points, offset=offset)
        if self.name == "local":
            return local_soft_argmax(logits, radius=self.radius, points=points, offset=offset, backend=backend)
        return soft_argmax(logits, points=points, offset=offset, backend=backend)
