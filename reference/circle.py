"""Soft-argmax and samples on axes that are circles, and windows: equations (50) to (55) of README.md."""

import math

import torch
from torch import Tensor

from .sample import arithmetic, below_top, cell_jitter, gaussian_noise, grid_points, gumbel_weights, row_sigma


def circular_mean(w: Tensor, cells: Tensor, size: int) -> Tensor:
    """``n / 2 pi arg sum w exp(2 pi i c / n)`` of weights ``[..., N]``: ``[...]`` in [0, n)."""
    turn = torch.polar(torch.ones_like(cells), cells * (2 * math.pi / size)).to(
        torch.promote_types(w.dtype, torch.complex64)
    )
    return torch.remainder((w * turn).sum(-1).angle() * (size / (2 * math.pi)), size)


def mean_position(w: Tensor, logits: Tensor, periodic) -> Tensor:
    """The mean of the cells ``[..., d]`` of weights ``[..., N]``, on lines and on circles."""
    columns = []
    for axis, cells in enumerate(grid_points(logits.shape[2:], logits.device).to(w.dtype).unbind(-1)):
        size = logits.shape[logits.dim() - 1 - axis]
        columns.append(circular_mean(w, cells, size) if axis in periodic else (w * cells).sum(-1))
    return torch.stack(columns, -1)


def round_circles(position: Tensor, logits: Tensor, periodic) -> Tensor:
    """``[..., d]`` modulo the circles' cells."""
    columns = list(position.unbind(-1))
    for axis in periodic:
        columns[axis] = torch.remainder(columns[axis], logits.shape[logits.dim() - 1 - axis])
    return torch.stack(columns, -1)


def soft_argmax_on_circles(
    logits: Tensor, *, periodic=(), beta: float | Tensor = 1.0, window: float | None = None
) -> Tensor:
    """``C(p)`` on circles, the mean on lines: ``[B, K, d]``."""
    z = beta * below_top(logits)
    if window is not None:
        cells = grid_points(logits.shape[2:], logits.device).to(z)
        away = (cells - cells[z.argmax(-1)][..., None, :]).abs()  # [B, K, N, d]
        for axis in periodic:
            size = logits.shape[logits.dim() - 1 - axis]
            away[..., axis] = torch.minimum(away[..., axis], size - away[..., axis])
        z = z - away.square().sum(-1) / (2 * window**2)
    return mean_position(torch.softmax(z, -1), logits, periodic)


def sample_on_circles(logits: Tensor, *, periodic, num_samples: int, tau: float | Tensor, beta: float | Tensor = 1.0,
                      basis: str = "triangular", sigma: float | Tensor = 1.0, seed: int | Tensor = 0) -> Tensor:  # fmt: skip
    """Samples ``[B, K, S, d]`` in cells, all weights kept."""
    w = gumbel_weights(logits, num_samples, tau, beta, seed)
    y, axes = mean_position(w, logits, periodic), logits.dim() - 2
    if basis in ("uniform", "triangular"):
        noise = cell_jitter(logits, axes, num_samples, basis, seed)
        y = y + torch.stack([(w * n.to(w)).sum(-1) for n in noise], -1)
    elif basis == "gaussian":
        y = y + row_sigma(sigma, logits) * gaussian_noise(w, logits, axes, seed, per_cell=False)
    return round_circles(y, logits, periodic).to(arithmetic(logits))
