"""Soft-argmax and the other moments of a heatmap, equations (25) to (30) and (49) of README.md."""

import torch
from torch import Tensor

from .sample import below_top, cell_positions, cell_sigma, row_sigma, scaled


def heatmap_moments(logits: Tensor, *, beta: float | Tensor = 1.0, points: Tensor | None = None, offset: Tensor | None = None,
                    sigma=None) -> tuple[Tensor, ...]:  # fmt: skip
    """Mean ``[B, K, d]``, covariance ``[B, K, d, d]``, peak probability and entropy ``[B, K]`` of ``softmax(beta z)``."""
    z = scaled(below_top(logits), beta)
    p, log_p = torch.softmax(z, -1), torch.log_softmax(z, -1)
    cells = cell_positions(logits, points, offset)
    mean = (p[..., None] * cells).sum(-2)
    from_mean = cells - mean[..., None, :]
    covariance = (p[..., None] * from_mean).mT @ from_mean
    if sigma is not None:
        width = cell_sigma(sigma, logits)
        width = row_sigma(sigma, logits) if width is None else width
        own = (p * width.squeeze(2).square()).sum(-1)
        covariance = covariance + own[..., None, None] * torch.eye(cells.shape[-1], dtype=own.dtype, device=own.device)
    entropy = -(p * torch.where(z == -torch.inf, 0, log_p)).sum(-1)
    return mean, covariance, p.gather(-1, z.argmax(-1, keepdim=True))[..., 0], entropy


def soft_argmax(logits: Tensor, *, beta: float | Tensor = 1.0, points: Tensor | None = None) -> Tensor:
    """``sum p c``: ``[B, K, d]``."""
    return heatmap_moments(logits, beta=beta, points=points)[0]
