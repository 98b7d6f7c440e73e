"""How far a map spreads around its mean in the image plane."""

import torch
from torch import Tensor

from ..checks import arithmetic_dtype


def plane_covariance(maps: Tensor) -> Tensor:
    """Covariance ``[B, K, 2, 2]`` in cells squared, x and y, of maps ``[B, K, (D,) H, W]``, summed over depth.

    ``sum_i p_i (c_i - mean) (c_i - mean)^T``, p the map over its sum. A value below 0 counts as 0; a map without a value above
    0 has NaN.
    """
    maps = maps.to(arithmetic_dtype(maps)).clamp(min=0)
    maps = maps.sum(2) if maps.dim() == 5 else maps
    p = maps / maps.sum((-2, -1), keepdim=True)
    y, x = (torch.arange(n, dtype=p.dtype, device=p.device) for n in maps.shape[-2:])
    across, down = p.sum(-2), p.sum(-1)
    dx = x - (across * x).sum(-1, keepdim=True)
    dy = y - (down * y).sum(-1, keepdim=True)
    xx, yy = (across * dx.square()).sum(-1), (down * dy.square()).sum(-1)
    xy = ((p * dx.unsqueeze(-2)).sum(-1) * dy).sum(-1)
    return torch.stack([xx, xy, xy, yy], -1).unflatten(-1, (2, 2))
