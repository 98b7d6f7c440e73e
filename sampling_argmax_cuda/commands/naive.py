"""Sampling-argmax as one would write it in eager PyTorch: the baseline that demo and benchmarks measure against."""

import math

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


def _positions(logits: Tensor, points: Tensor | None) -> list[Tensor]:
    """Coordinates along x, y, z that broadcast to ``[B, K, S, N]``."""
    if points is not None:
        return [axis[:, None, None] for axis in points.unbind(-1)]
    ranges = [torch.arange(n, dtype=logits.dtype, device=logits.device) for n in logits.shape[2:]]
    return [c.flatten() for c in reversed(torch.meshgrid(*ranges, indexing="ij"))]


def paper_samples(logits: Tensor, num_samples: int, tau: float, basis: str, points: Tensor | None = None) -> Tensor:
    """Paper Eq. 11-12 on grids and points: ``[B, K, S, d]``; weights and noise of every cell are materialised."""
    z = logits.flatten(2)[:, :, None]
    shape = (*logits.shape[:2], num_samples, z.shape[-1])
    w = torch.softmax((z + _gumbel_like(shape, z)) / tau, -1)
    moved = [c if basis == "none" else c + _jitter(shape, basis, z) for c in _positions(logits, points)]
    return torch.stack([(w * position).sum(-1) for position in moved], -1)


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
    """The released estimator on grids: ``softmax(z + g / tau)``, marginals, noise per bin: ``[B, K, S, d]``."""
    grid = logits.shape[2:]
    z = logits.flatten(2)[:, :, None]
    w = torch.softmax(z + _gumbel_like((*logits.shape[:2], num_samples, z.shape[-1]), z) / tau, -1).unflatten(-1, grid)
    dims = range(3, w.dim())
    marginals = [w.sum([d for d in dims if d != dim]) if len(grid) > 1 else w for dim in reversed(dims)]
    return torch.stack([_released_axis(h, basis) for h in marginals], -1)


def sorted_neighbours(points: Tensor, centers: Tensor, count: int, *, radius: float = math.inf) -> Tensor:
    """:func:`.neighbours` as the published PointNet++ finds them: the distances of all pairs, sorted whole."""
    near, index = (x[..., :count] for x in torch.cdist(centers, points).sort())
    return torch.where(near <= radius, index, index[..., :1])


def looped_chamfer(cloud: Tensor, parts: Tensor, used: Tensor, strength: Tensor) -> Tensor:
    """The composite chamfer distance as Skeleton Merger's authors compute it: an edge at a time, all pairs of points.

    Arguments and result are those of :func:`.composite_chamfer`; autograd keeps ``[B, N, P, 3]`` for every edge.
    """
    fidelity, coverage = 0.0, []
    for e in range(parts.shape[1]):
        own = parts[:, e, used[e]]
        distance = (1e-4 + (cloud[:, :, None] - own[:, None]).square().sum(-1)).sqrt()
        fidelity = fidelity + strength[:, e] * distance.min(1).values.mean(1)
        coverage.append(distance.min(2).values)
    distance, order = torch.stack(coverage, -1).sort(-1)
    rest, total = torch.ones_like(distance[..., 0]), 0.0
    for place in range(distance.shape[-1]):
        own = strength.gather(1, order[..., place])
        weight = torch.minimum(own, rest)
        total, rest = total + weight * distance[..., place], rest - weight
    return fidelity / parts.shape[1] + (total + 20 * rest).mean(1)
