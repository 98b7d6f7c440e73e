"""Sampling-argmax as one would write it in eager PyTorch: the baseline that demo and benchmarks measure against."""

import torch
from torch import Tensor


def _gumbel_like(shape, like: Tensor) -> Tensor:
    return -torch.empty(shape, dtype=like.dtype, device=like.device).exponential_().log()


def _jitter(shape, basis: str, like: Tensor) -> Tensor:
    u = torch.rand(shape, dtype=like.dtype, device=like.device)
    if basis == "uniform":
        return u - 0.5
    if basis == "gaussian":
        return torch.randn_like(u)
    return torch.where(u < 0.5, (2 * u).sqrt() - 1, 1 - (2 - 2 * u).sqrt())


def paper_samples(logits: Tensor, num_samples: int, tau: float, basis: str) -> Tensor:
    """Paper Eq. 11-12 on ``[B, K, H, W]``: ``[B, K, S, 2]``; weights and noise of every cell are materialised."""
    batch, keypoints, height, width = logits.shape
    z = logits.flatten(2)[:, :, None]
    w = torch.softmax((z + _gumbel_like((batch, keypoints, num_samples, height * width), z)) / tau, -1)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    axes = [
        (c.flatten().to(z) + _jitter(w.shape, basis, z) if basis != "none" else c.flatten().to(z))
        for c in (x, y)
    ]
    return torch.stack([(w * position).sum(-1) for position in axes], -1)


def _released_axis(h: Tensor, basis: str) -> Tensor:
    u = torch.arange(h.shape[-1], device=h.device).to(h)
    if basis != "none":
        noise = _jitter(h.shape, basis, h)
        u = u + noise
    if basis == "triangular":
        left, padded = torch.floor(u), torch.nn.functional.pad(h, (2, 2))
        index = left.long() + 2
        h = torch.lerp(padded.gather(-1, index), padded.gather(-1, index + 1), u - left)
        h = h / h.sum(-1, keepdim=True)
    return (h * u).sum(-1)


def released_samples(logits: Tensor, num_samples: int, tau: float, basis: str) -> Tensor:
    """The released estimator on ``[B, K, H, W]``: ``softmax(z + g / tau)``, marginals, noise per bin: ``[B, K, S, 2]``."""
    batch, keypoints, height, width = logits.shape
    z = logits.flatten(2)[:, :, None]
    w = torch.softmax(z + _gumbel_like((batch, keypoints, num_samples, height * width), z) / tau, -1)
    w = w.unflatten(-1, (height, width))
    return torch.stack([_released_axis(w.sum(-2), basis), _released_axis(w.sum(-1), basis)], -1)
