"""Learned sub-distributions: cells whose bases have places and widths of their own (Li et al., NeurIPS 2021, Appendix C).

The operators know a grid or points that the keypoints of an image share, and one width a row. Places and widths of every cell are
exact compositions of them, equations (46) to (49) of reference/README.md, so that every backend has them.
"""

from collections.abc import Callable
from typing import TypeGuard

from torch import Tensor

from .checks import SMALLEST_TAU, arithmetic_dtype, check_device, visible_number
from .reference.sample import grid_points


def is_per_cell(sigma: float | Tensor | None) -> TypeGuard[Tensor]:
    """Whether a width is of every cell, ``[B, K, *axes]``, and not of a row."""
    return isinstance(sigma, Tensor) and sigma.dim() > 2


def check_sub_distributions(op: str, logits: Tensor, points: Tensor | None, offset: Tensor | None,
                            sigma: float | Tensor | None, basis: str = "gaussian", tau: float | Tensor = 1.0) -> None:  # fmt: skip
    """Raise ValueError for offsets or widths of cells that do not fit the rest."""
    rows, axes = list(logits.shape[:2]), logits.shape[2:]
    if offset is not None:
        shape = [*rows, len(axes), *axes] if points is None else [*rows, *points.shape[1:]]
        if list(offset.shape) != shape:
            named = "[B, K, d, *axes]" if points is None else "[B, K, N, d]"
            raise ValueError(f"{op}: offset must be {named} = {shape}, got {tuple(offset.shape)}")
        check_device(op, "offset", offset, logits)
    if is_per_cell(sigma):
        if sigma.shape != logits.shape:
            raise ValueError(f"{op}: sigma of every cell must be {list(logits.shape)}, got {tuple(sigma.shape)}")
        if basis != "gaussian":
            raise ValueError(f"{op}: sigma of every cell needs basis 'gaussian', got {basis!r}")
        number = visible_number(op, "tau", tau)
        if number is not None and number < 2 * SMALLEST_TAU:
            raise ValueError(f"{op}: tau must be at least {2 * SMALLEST_TAU} with a sigma of every cell, got {number}")
        check_device(op, "sigma", sigma, logits)


def rows_as_batch(logits: Tensor) -> Tensor:
    """``[B K, 1, N]``: rows that have points of their own; row b K + k keeps its number and hence its noise."""
    return logits.reshape(-1, 1, logits.shape[2:].numel())


def places(logits: Tensor, points: Tensor | None, offset: Tensor) -> Tensor:
    """Where every row has its cells, ``c + o``: ``[B K, N, d]``."""
    if points is not None:
        return (points.unsqueeze(1) + offset).flatten(0, 1).to(arithmetic_dtype(logits))
    moved = offset.flatten(3).flatten(0, 1).mT
    return grid_points(logits.shape[2:], logits.device).to(arithmetic_dtype(logits)) + moved


def mixture_samples(draw: Callable[..., Tensor], logits: Tensor, *, tau: float | Tensor, basis: str, points: Tensor | None,
                    offset: Tensor | None, sigma: float | Tensor) -> Tensor:  # fmt: skip
    """Samples ``[B, K, S, d]`` of :func:`.sample` for cells with an ``offset`` or a ``sigma`` of their own.

    ``draw`` is :func:`.sample` with all other arguments, the seed among them: all its calls see the same weights.
    """
    rows = rows_as_batch(logits)

    def of_rows(positions: Tensor, tau: float | Tensor = tau, **more) -> Tensor:
        y = draw(rows, tau=tau, points=positions, **more)
        return y.view(*logits.shape[:2], *y.shape[2:])

    if is_per_cell(sigma):
        unit = draw(logits.flatten(2), tau=tau, basis="gaussian", points=_at_zero(logits, points))
        noise = unit * of_rows(squared_widths(logits, sigma), tau / 2, basis="none").sqrt()
        if offset is None:
            return draw(logits, tau=tau, basis="none", points=points) + noise
        return of_rows(places(logits, points, offset), basis="none") + noise
    assert offset is not None  # cells without widths of their own have it
    if basis in ("uniform", "triangular"):  # offsets only move the cells, which keep their noise
        return draw(logits, tau=tau, basis=basis) + of_rows(offset.flatten(3).flatten(0, 1).mT, basis="none")
    if isinstance(sigma, Tensor):
        sigma = sigma.expand(logits.shape[:2]).reshape(-1, 1)
    return of_rows(places(logits, points, offset), basis=basis, sigma=sigma)


def squared_widths(logits: Tensor, sigma: Tensor) -> Tensor:
    """Widths of cells as points on one axis: ``[B K, N, 1]``."""
    return sigma.to(arithmetic_dtype(logits)).square().reshape(-1, logits.shape[2:].numel(), 1)


def _at_zero(logits: Tensor, points: Tensor | None) -> Tensor:
    axes = logits.dim() - 2 if points is None else points.shape[2]
    return logits.new_zeros(len(logits), logits.shape[2:].numel(), axes, dtype=arithmetic_dtype(logits))


def mixture_variance(mean: Callable[..., Tensor], logits: Tensor, sigma: Tensor) -> Tensor:
    """What the bases' own widths add to the variance of every axis, ``sum_i p_i sigma_i^2``: ``[B, K]``.

    ``mean`` is :func:`.soft_argmax` with all other arguments.
    """
    if not is_per_cell(sigma):
        return sigma.square()
    return mean(rows_as_batch(logits), points=squared_widths(logits, sigma)).view(logits.shape[:2])
