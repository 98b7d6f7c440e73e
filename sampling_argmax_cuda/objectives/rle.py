"""Residual log-likelihood estimation: a regression loss whose density is learnt (Li et al., ICCV 2021).

The error in units of the predicted width, ``e = (prediction - target) / sigma``, has the density ``Q(e) G(e)``: Q a Laplacian
or a Gaussian of width 1, G a normalising flow (RealNVP, Dinh et al., ICLR 2017) that learns what Q leaves out.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear

from .rows import weigh_rows

FORMS = ("corrected", "released")
DENSITIES = ("laplace", "gaussian", "released")
_FAR = 1e4  # errors further than this many widths are as far to the flow: their squares stay finite


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

    def __init__(self, axes: int = 2, couplings: int = 6, width: int = 64) -> None:
        super().__init__()
        if axes < 2 or couplings < 1 or width < 1:
            raise ValueError(f"RealNVP: needs axes >= 2, couplings and width >= 1, got {axes}, {couplings}, {width}")
        last = torch.arange(axes) == axes - 1
        masks = torch.stack([last if i % 2 == 0 else ~last for i in range(couplings)])
        self.register_buffer("masks", masks, persistent=False)
        self.axes = axes
        self.scale, self.shift = (nn.ModuleList([self._network(axes, width) for _ in masks]) for _ in range(2))

    @staticmethod
    def _network(axes: int, width: int) -> nn.ModuleList:
        return nn.ModuleList([nn.Linear(axes, width), nn.Linear(width, width), nn.Linear(width, axes)])

    @property
    def dtype(self) -> torch.dtype:
        """What it is computed in."""
        return torch.promote_types(self.scale[0][0].weight.dtype, torch.float32)

    @staticmethod
    def _run(network: nn.ModuleList, x: Tensor) -> Tensor:
        for i, layer in enumerate(network):
            x = linear(leaky_relu(x) if i > 0 else x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
        return x

    def _coupling(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x * self.masks[i], ~self.masks[i]
        with torch.autocast(x.device.type, enabled=False):
            return self._run(self.scale[i], kept).tanh() * moved, self._run(self.shift[i], kept) * moved

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


def base_energy(scaled: Tensor, density: str) -> Tensor:
    """``-log Q`` of every coordinate."""
    if density == "laplace":
        return scaled.abs() + math.log(2)
    if density == "gaussian":
        return 0.5 * scaled.square() + 0.5 * math.log(2 * math.pi)
    return scaled.abs() / math.sqrt(2) + 0.5 * math.log(2 * math.pi)


class RLELoss(nn.Module):
    """Negative log-likelihood of points under a learnt density; it can be negative. Its parameters are to be trained too.

    With ``e = (prediction - target) / sigma`` and D known coordinates, per point

    - ``corrected``: ``sum_d (log sigma_d - log Q(e_d)) - log G(e)``, the paper's likelihood without its constant;
    - ``released``: ``sum_d (2 log sigma_d - log Q(e_d)) - D log G(e)``, what the published code computes: log sigma counts
      twice and the flow D times, so that ``released = corrected + sum_d log sigma_d - (D - 1) log G(e)``.

    ``-log Q(e)`` is ``|e| + log 2`` (``laplace``), ``e^2 / 2 + log(2 pi) / 2`` (``gaussian``), or the published code's
    ``|e| / sqrt(2) + log(2 pi) / 2`` (``released``: the integral of its Q is ``2 / sqrt(pi)``, not 1).

    A point counts if its x and y (with ``axes=3`` perhaps z too) are known; points with z have a flow of their own. Nothing
    else of a batch enters a flow, NaN included, and every parameter has a gradient whatever is known.

    Args:
        axes: 2 or 3, the coordinates of a point.
        form: ``corrected`` or ``released``.
        density: ``laplace``, ``gaussian`` or ``released``.
        min_sigma: the least width that counts, in the units of the coordinates; smaller ones are that wide.
    """

    def __init__(
        self, axes: int = 2, form: str = "corrected", density: str = "laplace", min_sigma: float = 1e-4
    ) -> None:
        super().__init__()
        if axes not in (2, 3):
            raise ValueError(f"RLELoss: axes must be 2 or 3, got {axes}")
        if form not in FORMS:
            raise ValueError(f"RLELoss: form must be one of {', '.join(FORMS)}, got {form!r}")
        if density not in DENSITIES:
            raise ValueError(f"RLELoss: density must be one of {', '.join(DENSITIES)}, got {density!r}")
        if not min_sigma > 0:
            raise ValueError(f"RLELoss: min_sigma must be > 0, got {min_sigma}")
        self.axes, self.form, self.density, self.min_sigma = axes, form, density, min_sigma
        self.flows = nn.ModuleList([RealNVP(n) for n in range(2, axes + 1)])

    def forward(
        self,
        prediction: Tensor,
        sigma: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """The loss of every point, times its weight.

        Args:
            prediction: ``[..., axes]``.
            sigma: ``[..., axes]``, the predicted widths in the same units.
            target: ``[..., axes]``.
            weight: ``[...]`` or None for 1; a point of weight 0 has loss and gradients 0, whatever it holds.
            known: ``[..., axes]`` or None for 1; 0 for a coordinate that the target does not have.

        Returns:
            ``[...]``, float32, or float64 for a float64 prediction.

        Raises:
            ValueError: for shapes that do not fit.
        """
        self._check(prediction, sigma, target, weight, known)
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        with torch.autocast(prediction.device.type, enabled=False):  # widths and flows need more than 16 bits
            which = self._which(prediction, weight, known)
            error = torch.where(which, prediction.to(dtype) - target.to(dtype), 0)
            width = torch.where(which, sigma.to(dtype), 1).clamp(min=self.min_sigma)
            log_flow = self._log_flow(error / width, which)
            per_axis = base_energy(error / width, self.density) + width.log()
            if self.form == "released":
                per_axis, log_flow = per_axis + width.log(), which.sum(-1) * log_flow
            loss = torch.where(which, per_axis, 0).sum(-1) - log_flow
        return loss if weight is None else weigh_rows(loss, weight)

    def _check(self, prediction, sigma, target, weight, known) -> None:
        shape = tuple(prediction.shape)
        if prediction.dim() < 1 or shape[-1] != self.axes or not prediction.is_floating_point():
            raise ValueError(f"RLELoss: prediction must be [..., {self.axes}] of floating point, got {shape}")
        others = {
            "sigma": (sigma, shape),
            "target": (target, shape),
            "weight": (weight, shape[:-1]),
            "known": (known, shape),
        }
        for name, (value, wanted) in others.items():
            if value is not None and tuple(value.shape) != wanted:
                raise ValueError(f"RLELoss: {name} must be {list(wanted)}, got {list(value.shape)}")

    @staticmethod
    def _which(prediction: Tensor, weight: Tensor | None, known: Tensor | None) -> Tensor:
        """Which coordinates count: those of points whose x and y do."""
        which = torch.ones_like(prediction, dtype=torch.bool) if known is None else known != 0
        if weight is not None:
            which = which & (weight != 0).unsqueeze(-1)
        return which & which[..., :2].all(-1, keepdim=True)

    def _log_flow(self, scaled: Tensor, which: Tensor) -> Tensor:
        """``log G`` of every point ``[...]`` by the flow of its known coordinates, 0 where none are."""
        scaled, axes = scaled.clamp(-_FAR, _FAR), which.sum(-1)
        total = torch.zeros_like(scaled[..., 0])
        for flow in self.flows:
            own = axes == flow.axes
            # What is not known is 0 here already.
            log_prob = flow.log_prob(scaled[..., : flow.axes]).to(total.dtype)
            total = total + torch.where(own, log_prob, 0)
        return total
