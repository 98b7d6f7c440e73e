"""RealNVP (Dinh et al., ICLR 2017): the normalising flow that residual log-likelihood estimation learns."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear


class _Network(nn.ModuleList):
    """Three layers in the type of what comes, whatever their own is."""

    def __init__(self, axes: int, width: int) -> None:
        super().__init__([nn.Linear(axes, width), nn.Linear(width, width), nn.Linear(width, axes)])

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self):
            weight, bias = (part.to(x.dtype) for part in layer.parameters())
            x = linear(leaky_relu(x) if i > 0 else x, weight, bias)
        return x


class RealNVP(nn.Module):
    """A density on ``[..., axes]``: affine couplings between a standard normal and the data.

    It is computed in float32, or float64 with weights of that, whatever else they, the data and autocast are.

    Coupling i keeps the coordinates of its mask m and moves the others by what two networks of three layers make of those:
    ``x -> m x + (1 - m) (x exp(s(m x)) + t(m x))``, s bounded by a tanh. Masks alternate between the last axis and the others.

    Args:
        axes: dimensions, at least 2.
        couplings: number of couplings (published: 6).
        width: hidden units of both layers of s and t (published: 64).
    """

    masks: Tensor

    def __init__(self, axes: int = 2, couplings: int = 6, width: int = 64) -> None:
        super().__init__()
        if axes < 2 or couplings < 1 or width < 1:
            raise ValueError(f"RealNVP: needs axes >= 2, couplings and width >= 1, got {axes}, {couplings}, {width}")
        last = torch.arange(axes) == axes - 1
        masks = torch.stack([last if i % 2 == 0 else ~last for i in range(couplings)])
        self.register_buffer("masks", masks, persistent=False)
        self.axes = axes
        self.scale, self.shift = (nn.ModuleList([_Network(axes, width) for _ in masks]) for _ in range(2))

    @property
    def dtype(self) -> torch.dtype:
        """What it is computed in."""
        return torch.promote_types(next(self.parameters()).dtype, torch.float32)

    def _coupling(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x * self.masks[i], ~self.masks[i]
        with torch.autocast(x.device.type, enabled=False):
            return self.scale[i](kept).tanh() * moved, self.shift[i](kept) * moved

    def forward(self, z: Tensor) -> Tensor:
        """Points of the standard normal ``[..., axes]`` to points of the density."""
        z = z.to(self.dtype)
        for i in range(len(self.masks)):
            s, t = self._coupling(i, z)
            z = z * s.exp() + t  # s and t are 0 on the kept axes
        return z

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The way back ``[..., axes]``, and the logarithm of its determinant ``[...]``."""
        x = x.to(self.dtype)
        log_det = torch.zeros_like(x[..., 0])
        for i in reversed(range(len(self.masks))):
            s, t = self._coupling(i, x)
            x, log_det = (x - t) * (-s).exp(), log_det - s.sum(-1)
        return x, log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the density ``[...]`` at ``x`` ``[..., axes]``; an empty ``x`` is fine."""
        z, log_det = self.inverse(x)
        return log_det - 0.5 * z.square().sum(-1) - 0.5 * self.axes * math.log(2 * math.pi)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws ``[count, axes]``."""
        return self(torch.randn(count, self.axes, generator=generator, device=self.masks.device, dtype=self.dtype))
