"""The expectation of the error, equations (14) to (16) of README.md."""

import torch
from torch import Tensor

from .sample import arithmetic, sample


def distance(difference: Tensor, metric: str) -> Tensor:
    """The distance of a position to its target from their difference ``[..., d]``."""
    if metric == "l1":
        return difference.abs().sum(-1)
    if metric == "l2":
        return difference.square().sum(-1)
    if metric == "euclidean":
        return torch.linalg.vector_norm(difference, dim=-1)
    size = difference.abs()
    return torch.where(size < 1, 0.5 * difference.square(), size - 0.5).sum(-1)


def expected_error(logits: Tensor, target: Tensor, weight: Tensor | None = None, *, num_samples: int, tau: float,
                   beta: float = 1.0, basis: str = "triangular", sigma=1.0, metric: str = "l1",
                   points: Tensor | None = None, seed=0) -> Tensor:  # fmt: skip
    """Mean over samples of the distance to the target, times the weight: ``[B, K]``."""
    target = target.to(arithmetic(logits))
    if weight is not None:
        # A row of weight 0 is replaced before anything is computed, so that its NaNs meet no derivative.
        masked = weight == 0
        logits = torch.where(masked.view(*masked.shape, *(1,) * (logits.dim() - 2)), 0, logits)
        target = torch.where(masked[..., None], 0, target)
    y = sample(
        logits,
        num_samples=num_samples,
        tau=tau,
        beta=beta,
        basis=basis,
        sigma=sigma,
        points=points,
        seed=seed,
    )
    error = distance(y - target[:, :, None], metric).mean(-1)
    if weight is None:
        return error
    return torch.where(masked, 0, error) * weight.to(error)
