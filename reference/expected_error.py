"""The expectation of the error, equations (14) to (16) and (37) of README.md."""

import torch
from torch import Tensor

from .sample import arithmetic, sample


def slope_of_size(x: Tensor) -> Tensor:
    """The derivative of |x|: its sign, 0 at 0, NaN at NaN (where that of ``abs`` is 0)."""
    return torch.where(x > 0, 1, torch.where(x < 0, -1, x)).detach()


def distance(difference: Tensor, metric: str) -> Tensor:
    """The distance of a position to its target from their difference ``[..., d]``."""
    if metric == "l1":
        return (difference * slope_of_size(difference)).sum(-1)
    if metric == "l2":
        return difference.square().sum(-1)
    if metric == "euclidean":
        # In float64, since the square of 1e30 is no float32.
        return torch.linalg.vector_norm(difference, dim=-1, dtype=torch.float64).to(difference)
    near = difference.clamp(-1, 1)  # x^2 / 2 within, |x| - 1/2 beyond, without a product of inf and 0
    return (near * (difference - near / 2)).sum(-1)


def expected_error(logits: Tensor, target: Tensor, weight: Tensor | None = None, *, num_samples: int, tau: float | Tensor,
                   beta: float | Tensor = 1.0, basis: str = "triangular", sigma: float | Tensor = 1.0,
                   metric: str = "l1", spread: float = 0.0, points: Tensor | None = None, offset: Tensor | None = None,
                   seed: int | Tensor = 0) -> Tensor:  # fmt: skip
    """Mean over samples of the distance to the target, less ``spread`` times that of two samples, times the weight: ``[B, K]``."""
    target = target.to(arithmetic(logits))
    if weight is not None:
        # A row of weight 0 is replaced before anything is computed, so that its NaNs meet no derivative.
        masked = weight == 0
        of_cells = masked.view(*masked.shape, *(1,) * (logits.dim() - 2))
        logits = torch.where(of_cells, 0, logits)
        target = torch.where(masked[..., None], 0, target)
        offset = None if offset is None else torch.where(of_cells[:, :, None], 0, offset)
        if isinstance(sigma, Tensor) and sigma.dim() > 2:
            sigma = torch.where(of_cells, 1, sigma)
    y = sample(
        logits,
        num_samples=num_samples,
        tau=tau,
        beta=beta,
        basis=basis,
        sigma=sigma,
        points=points,
        offset=offset,
        seed=seed,
    )
    error = distance(y - target[:, :, None], metric).mean(-1)
    if spread > 0:
        first, second = torch.triu_indices(num_samples, num_samples, 1, device=y.device)
        error = error - spread * distance(y[:, :, first] - y[:, :, second], metric).mean(-1)
    if weight is None:
        return error
    return torch.where(masked, 0, error) * weight.to(error)
