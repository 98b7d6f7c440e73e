"""The composite chamfer distance of Skeleton Merger (Shi et al., CVPR 2021), in memory linear in the points."""

import torch
from torch import Tensor

LEFTOVER = 20.0  # cost of a point that no edge covers
_FLOOR = 1e-4  # under the root, whose slope at 0 is infinite


def smooth_distance(a: Tensor, b: Tensor) -> Tensor:
    """``sqrt(1e-4 + |a - b|^2)`` along the last axis."""
    return (_FLOOR + (a - b).square().sum(-1)).sqrt()


@torch.no_grad()
def nearest_pairs(cloud: Tensor, parts: Tensor, used: Tensor, at_once: int = 4) -> tuple[Tensor, Tensor]:
    """Who is nearest to whom: for parts' points the cloud's, ``[B, E, P]``; for the cloud's each part's, ``[B, N, E]``.

    ``cloud`` ``[B, N, 3]``, ``parts`` ``[B, E, P, 3]``, ``used`` ``[E, P]``. A few parts' distances are held at a time,
    and only numbers of points are kept, so that no tensor grows with N times P times E. Squared distances are one
    product of 5 columns: ``|x - r|^2 = (-2 x, |x|^2, 1) . (r, 1, |r|^2)``, infinite for a point that does not count.
    """
    left = torch.cat([-2 * cloud, cloud.square().sum(-1, keepdim=True), torch.ones_like(cloud[..., :1])], -1)
    size = parts.square().sum(-1, keepdim=True).masked_fill(~used[None, :, :, None], torch.inf)
    right, to_cloud, to_part = torch.cat([parts, torch.ones_like(size), size], -1), [], []
    for start in range(0, parts.shape[1], at_once):
        some = right[:, start : start + at_once]
        distance = left @ some.flatten(1, 2).transpose(1, 2)  # [B, N, e P]
        # min with its index takes half of argmin's time on a CPU.
        to_cloud.append(distance.min(1).indices.unflatten(1, some.shape[1:3]))
        to_part.append(distance.unflatten(2, some.shape[1:3]).min(3).indices)
    return torch.cat(to_cloud, 1), torch.cat(to_part, 2)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """``values`` ``[..., n, 3]`` at ``index`` ``[..., m]``."""
    return values.gather(-2, index.unsqueeze(-1).expand(*index.shape, 3))


def composite_chamfer(cloud: Tensor, parts: Tensor, used: Tensor, strength: Tensor) -> Tensor:
    """Fidelity plus coverage of skeletons, ``[B]``.

    With d the smooth distance, fidelity is the mean over parts of ``strength * mean_r min_x d(r, x)``. For coverage every
    point x of the cloud spends a weight of 1 on the parts, the nearest first, at most a part's strength on each:
    ``mean_x (sum_e w_e min_r d(r, x) + 20 (1 - sum_e w_e))``.

    Args:
        cloud: ``[B, N, 3]``.
        parts: ``[B, E, P, 3]``, points of each part.
        used: ``[E, P]``, which of them count; one of each part at least.
        strength: ``[B, E]`` in [0, 1].
    """
    to_cloud, to_part = nearest_pairs(cloud, parts, used)
    batch, edges, points = to_cloud.shape
    near = _rows(cloud, to_cloud.flatten(1)).view(batch, edges, points, 3)
    per_part = torch.where(used, smooth_distance(parts, near), 0).sum(-1) / used.sum(-1)
    fidelity = (strength * per_part).mean(-1)

    found = _rows(parts, to_part.transpose(1, 2))  # [B, E, N, 3]
    distance, order = smooth_distance(found, cloud.unsqueeze(1)).transpose(1, 2).sort(-1)
    own = strength.unsqueeze(1).expand_as(order).gather(-1, order)
    before = own.cumsum(-1) - own
    weight = torch.minimum(own, (1 - before).clamp(min=0))
    leftover = (1 - weight.sum(-1)).clamp(min=0)
    return fidelity + ((weight * distance).sum(-1) + LEFTOVER * leftover).mean(-1)
