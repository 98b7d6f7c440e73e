"""Sampling-argmax, equations (5) to (8) and (46) of README.md: Gumbel-softmax weights times jittered positions."""

import torch
from torch import Tensor

from . import philox


def grid_points(shape, device=None) -> Tensor:
    """Cells of a grid ``(D, H, W)``, ``(H, W)`` or ``(W,)``: ``[N, d]`` in x, y, z order, float64."""
    axes = [torch.arange(n, dtype=torch.float64, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flip(-1).reshape(-1, len(axes))


def arithmetic(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def below_top(logits: Tensor) -> Tensor:
    """``z - max z`` ``[B, K, N]``, which no softmax sees the difference of: noise is not lost beside large logits."""
    z = logits.flatten(2).to(arithmetic(logits))
    return z - z.detach().amax(-1, keepdim=True)


def scaled(z: Tensor, number: float | Tensor, how=torch.mul) -> Tensor:
    """``z`` times (or over) a number, of whose derivative a cell of -inf is no part."""
    if not isinstance(number, Tensor):
        return how(z, number)
    return torch.where(z == -torch.inf, z, how(z.masked_fill(z == -torch.inf, 0), number))


def gumbel_weights(logits: Tensor, num_samples: int, tau: float | Tensor, beta: float | Tensor, seed) -> Tensor:
    """``softmax((beta z + g) / tau)`` over all cells: ``[B, K, S, N]``."""
    key, rows, samples = philox.numbering(logits, num_samples, seed)
    z = below_top(logits)[:, :, None]
    cells = torch.arange(z.shape[-1], device=logits.device)
    g = philox.gumbel(philox.words(key, rows, samples, cells, philox.GUMBEL)).to(z)
    return torch.softmax(scaled(scaled(z, beta) + g, tau, torch.div), -1)


def cell_jitter(logits: Tensor, axes: int, num_samples: int, basis: str, seed) -> list[Tensor]:
    """Uniform or triangular noise of every cell, one ``[B, K, S, N]`` tensor an axis."""
    key, rows, samples = philox.numbering(logits, num_samples, seed)
    cells = torch.arange(logits.flatten(2).shape[-1], device=logits.device)
    fields = []
    if axes >= 2:
        pair = philox.words(key, rows, samples, cells, philox.PAIR)
        fields = [pair & 0xFFFF, pair >> 16]
    if axes % 2:
        fields.append(philox.fields(key, rows, samples, cells))
    return [philox.jitter(field, basis) for field in fields]


def gaussian_noise(w: Tensor, logits: Tensor, axes: int, seed, per_cell: bool) -> Tensor:
    """``sum_i w_i n_i`` for unit normals and factors ``w`` ``[B, K, S, N]``: ``[B, K, S, d]``, drawn per cell or from its law
    N(0, sum w^2)."""
    key, rows, samples = philox.numbering(logits, w.shape[2], seed)
    if not per_cell:
        n = philox.normal(key, rows, samples, torch.arange(axes, device=w.device)).to(w)
        return n * w.square().sum(-1, keepdim=True).sqrt()
    cells = torch.arange(w.shape[-1], device=w.device)
    per_axis = [philox.normal(key, rows, samples, cells * axes + axis).to(w) for axis in range(axes)]
    return torch.stack([(w * n).sum(-1) for n in per_axis], -1)


def row_sigma(sigma, logits: Tensor) -> Tensor:
    """``[B, K, 1, 1]`` from a number or a tensor that broadcasts to ``[B, K]``."""
    sigma = torch.as_tensor(sigma, dtype=arithmetic(logits), device=logits.device)
    return sigma.expand(logits.shape[:2])[..., None, None]


def cell_sigma(sigma, logits: Tensor) -> Tensor | None:
    """``[B, K, 1, N]`` from widths of cells ``[B, K, *axes]``, None for those of rows."""
    return sigma.flatten(2).unsqueeze(2) if isinstance(sigma, Tensor) and sigma.dim() > 2 else None


def cell_positions(logits: Tensor, points: Tensor | None, offset: Tensor | None) -> Tensor:
    """``c + o`` ``[B or 1, K or 1, N, d]`` of a grid or points; ``offset`` is ``[B, K, d, *axes]`` or ``[B, K, N, d]``."""
    cells = grid_points(logits.shape[2:], logits.device)[None] if points is None else points
    cells = cells.to(arithmetic(logits)).unsqueeze(1)
    if offset is None:
        return cells
    return cells + (offset.flatten(3).mT if points is None else offset)


def sample(logits: Tensor, *, num_samples: int, tau: float | Tensor, beta: float | Tensor = 1.0, basis: str = "triangular",
           sigma: float | Tensor = 1.0, points: Tensor | None = None, offset: Tensor | None = None, seed: int | Tensor = 0,
           per_cell_noise: bool = False) -> Tensor:  # fmt: skip
    """Samples ``[B, K, S, d]`` in cell-index units; ``per_cell_noise`` keeps the gaussian noise of every cell."""
    w = gumbel_weights(logits, num_samples, tau, beta, seed)
    cells = cell_positions(logits, points, offset).unsqueeze(2)  # [B or 1, K or 1, 1, N, d]
    axes = cells.shape[-1]
    y = torch.stack([(w * cells[..., axis]).sum(-1) for axis in range(axes)], -1)
    if basis in ("uniform", "triangular"):
        noise = cell_jitter(logits, axes, num_samples, basis, seed)
        return y + torch.stack([(w * n.to(w)).sum(-1) for n in noise], -1)
    if basis == "gaussian":
        width = cell_sigma(sigma, logits)
        if width is not None:
            return y + gaussian_noise(w * width, logits, axes, seed, per_cell_noise)
        return y + row_sigma(sigma, logits) * gaussian_noise(w, logits, axes, seed, per_cell_noise)
    return y
