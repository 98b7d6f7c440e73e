"""Soft-argmax and the other moments of a heatmap, equations (25) to (30) of README.md."""

import torch
from torch import Tensor

from .sample import below_top, grid_points


def heatmap_moments(logits: Tensor, *, beta: float = 1.0, points: Tensor | None = None) -> tuple[Tensor, ...]:
    """Mean ``[B, K, d]``, covariance ``[B, K, d, d]``, peak probability and entropy ``[B, K]`` of ``softmax(beta z)``."""
    z = beta * below_top(logits)
    p, log_p = torch.softmax(z, -1), torch.log_softmax(z, -1)
    cells = grid_points(logits.shape[2:], logits.device)[None] if points is None else points
    cells = cells.to(p)[:, None]  # [B or 1, 1, N, d]
    mean = (p[..., None] * cells).sum(-2)
    from_mean = cells - mean[..., None, :]
    covariance = (p[..., None] * from_mean).mT @ from_mean
    entropy = -(p * torch.where(z == -torch.inf, 0, log_p)).sum(-1)
    return mean, covariance, p.gather(-1, z.argmax(-1, keepdim=True))[..., 0], entropy


def soft_argmax(logits: Tensor, *, beta: float = 1.0, points: Tensor | None = None) -> Tensor:
    """``sum p c``: ``[B, K, d]``."""
    return heatmap_moments(logits, beta=beta, points=points)[0]
