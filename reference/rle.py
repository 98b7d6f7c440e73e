"""Residual log-likelihood estimation in one page: self-contained, for points ``[..., 2]``, Laplace density, corrected form."""

import math

import torch
from torch import Tensor, nn


class MinimalRLE(nn.Module):
    """``sum_d (log sigma_d + |e_d| + log 2) - log G(e)``, ``e = (prediction - target) / sigma``, G a flow of 6 couplings."""

    def __init__(self) -> None:
        super().__init__()

        def net() -> nn.Sequential:
            return nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(), nn.Linear(64, 64), nn.LeakyReLU(), nn.Linear(64, 2))

        self.scale, self.shift = (nn.ModuleList([net() for _ in range(6)]) for _ in range(2))

    def log_flow(self, e: Tensor) -> Tensor:
        """``log G(e)``: backwards through the couplings to a standard normal, with the logarithm of the determinant."""
        log_det = 0.0
        for i in reversed(range(6)):
            kept = torch.tensor([i % 2, 1 - i % 2], dtype=e.dtype, device=e.device)
            s = self.scale[i](e * kept).tanh() * (1 - kept)
            e = (e - self.shift[i](e * kept) * (1 - kept)) * (-s).exp()
            log_det = log_det - s.sum(-1)
        return log_det - 0.5 * e.square().sum(-1) - math.log(2 * math.pi)

    def forward(self, prediction: Tensor, sigma: Tensor, target: Tensor, visible: Tensor) -> Tensor:
        """Mean over the visible points: ``[..., 2]`` three times and ``[...]``; the others never reach the flow."""
        e = (prediction[visible] - target[visible]) / sigma[visible]
        loss = (sigma[visible].log() + e.abs() + math.log(2)).sum(-1) - self.log_flow(e)
        return loss.sum() / visible.sum().clamp(min=1)
