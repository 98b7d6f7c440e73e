"""The released estimator, equations (17) to (23) of README.md: marginals per axis, noise per bin."""

import torch
from torch import Tensor

from . import philox
from .sample import gumbel_weights, row_sigma


def bin_noise(logits: Tensor, num_samples: int, basis: str, seed) -> Tensor:
    """Noise of the bins of all axes (x, y, z in a row): ``[B, K, S, bins]``; standard normals for gaussian."""
    key, rows, samples = philox.numbering(logits, num_samples, seed)
    bins = torch.arange(sum(logits.shape[2:]), device=logits.device)
    if basis == "gaussian":
        return philox.normal(key, rows, samples, bins)
    return philox.jitter(philox.fields(key, rows, samples, bins), basis)


def interpolate(h: Tensor, u: Tensor) -> Tensor:
    """Linear interpolation of ``h`` at positions ``u`` of its last axis, 0 outside."""
    padded = torch.nn.functional.pad(h, (2, 2))
    left = torch.floor(u)
    fraction, index = u - left, left.long() + 2
    return torch.lerp(padded.gather(-1, index), padded.gather(-1, index + 1), fraction)


def expectation(h: Tensor, u: Tensor, clip_grad: float | None) -> Tensor:
    """``sum h u``; with ``clip_grad`` the derivative in ``h`` is ``clip_grad * sign(u - sum h u)``, sign(0) = 1."""
    c = (h * u).sum(-1)
    if clip_grad is None:
        return c
    slope = torch.where(u >= c[..., None], clip_grad, -clip_grad).detach()
    through_h = (h * slope).sum(-1)
    return (h.detach() * u).sum(-1) + through_h - through_h.detach()


def axis_coordinate(h: Tensor, noise: Tensor | None, basis: str, sigma, reweight: float, clip_grad) -> Tensor:
    """The coordinate ``[B, K, S]`` of one axis from its marginals ``[B, K, S, n]``."""
    u = torch.arange(h.shape[-1], device=h.device).to(h).expand_as(h)
    if noise is None:
        return expectation(h, u, clip_grad)
    noise = noise.to(h)
    u = u + (sigma * noise if basis == "gaussian" else noise)
    if basis == "triangular":
        h = interpolate(h, u)
    if basis == "gaussian":
        h = h * torch.exp(-reweight * noise.square())
    if basis != "uniform":
        h = h / h.sum(-1, keepdim=True)
    return expectation(h, u, clip_grad)


def axis_sample(logits: Tensor, *, num_samples: int, tau: float | Tensor, beta: float | Tensor = 1.0,
                basis: str = "triangular", sigma: float | Tensor = 1.0, reweight: float = 0.0, clip_grad: float | None = None,
                seed: int | Tensor = 0) -> Tensor:  # fmt: skip
    """Samples ``[B, K, S, d]`` in cell-index units."""
    grid = logits.shape[2:]
    w = gumbel_weights(logits, num_samples, tau, beta, seed).unflatten(-1, grid)
    noise = None if basis == "none" else bin_noise(logits, num_samples, basis, seed)
    sigma, first, coordinates = row_sigma(sigma, logits), 0, []
    for axis, size in enumerate(reversed(grid)):
        dim = w.dim() - 1 - axis
        others = [d for d in range(3, w.dim()) if d != dim]
        h = w.sum(others) if others else w
        part = None if noise is None else noise[..., first : first + size]
        coordinates.append(axis_coordinate(h, part, basis, sigma, reweight, clip_grad))
        first += size
    return torch.stack(coordinates, -1)
