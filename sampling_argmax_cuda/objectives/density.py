"""What a map says of a position: the density of its mixture (Li et al., NeurIPS 2021, Eq. 6-9)."""

import math

import torch
from torch import Tensor

from ..cells import cell_offsets
from ..checks import BASES, arithmetic_dtype, sigma_tensor
from ..distances import total
from .rows import check_rows

_WITH_DENSITY = tuple(basis for basis in BASES if basis != "none")


def log_density(
    logits: Tensor,
    target: Tensor,
    *,
    basis: str,
    sigma: float | Tensor = 1.0,
    beta: float = 1.0,
    points: Tensor | None = None,
) -> Tensor:
    """The log-density ``log sum_i p_i q(t - c_i)`` of a map's mixture at a position, ``p = softmax(beta * z)``.

    q is a product over axes: ``uniform``, 1 within half a cell, ``triangular``, ``max(0, 1 - |.|)``, or the normal density of
    width sigma (Li et al., "Localization with Sampling-Argmax", NeurIPS 2021, Eq. 6-9). It is what samples of
    :func:`.sample` follow as tau goes to 0. Its integral over positions is 1; the border cells reach half a cell (``uniform``)
    or a cell (``triangular``) beyond the map.

    Args:
        logits: ``[B, K, *axes]`` or, with ``points``, ``[B, K, N]``. A cell of ``-inf`` has weight 0.
        target: ``[B, K, d]`` in cell-index units (x, y, z), or the points' units.
        basis: ``uniform``, ``triangular`` or ``gaussian``; points allow gaussian. A cell of ``uniform`` has its lower border.
        sigma: width > 0 of the gaussian basis, a number or a tensor that broadcasts to ``[B, K]``.
        beta: factor of the logits, > 0.
        points: positions ``[B, N, d]`` of unordered cells.

    Returns:
        ``[B, K]`` in nats, of a density per cell (square, cube) or per unit of the points; ``-inf``, with gradient 0, where
        the density is 0. Differentiable in logits, target, sigma and points; float64 for float64 logits.

    Raises:
        ValueError: for an argument outside what is said above.
    """
    check_rows("log_density", logits, target, points=points, beta=beta)
    if basis not in _WITH_DENSITY:
        raise ValueError(f"log_density: basis must be one of {', '.join(_WITH_DENSITY)}, got {basis!r}")
    if points is not None and basis != "gaussian":
        raise ValueError(f"log_density: points have no spacing, so basis must be 'gaussian', got {basis!r}")
    if not isinstance(sigma, Tensor) and sigma == 0:
        raise ValueError("log_density: sigma must be > 0, got 0")
    width = sigma_tensor("log_density", sigma, logits, basis)
    dtype = arithmetic_dtype(logits)
    log_p = (logits.to(dtype).flatten(2) * beta).log_softmax(-1)
    # No map reaches that far, and inf - inf would make gradients NaN.
    beyond = target.isinf().any(-1)
    target = torch.where(beyond.unsqueeze(-1), 0, target.to(dtype))
    if width is not None:
        density = _log_sum(log_p + _log_normal(logits, target, width, points))
    else:
        density = _of_cells(log_p, logits.shape[2:], target, basis)
    return torch.where(beyond, -math.inf, density)


def _log_normal(logits: Tensor, target: Tensor, sigma: Tensor, points: Tensor | None) -> Tensor:
    """The log of the normal density of every cell ``[B, K, N]`` at the target."""
    offsets = cell_offsets(logits, target, points)
    squared = total(offset.square() for offset in offsets).expand(logits.shape).flatten(2)
    width = sigma.unsqueeze(-1)
    return -squared / (2 * width.square()) - len(offsets) * (width.log() + 0.5 * math.log(2 * math.pi))


def _log_sum(terms: Tensor, factors: Tensor | float = 1.0) -> Tensor:
    """``log sum_i exp(terms_i) factors_i`` over the last axis, exact for factors of 0 and with their gradient.

    A term whose factor is 0 adds nothing, yet the slope of its factor counts: what lies beyond the type's range is cut there.
    """
    factors = torch.as_tensor(factors, dtype=terms.dtype, device=terms.device).expand_as(terms)
    with torch.no_grad():
        top = (terms + factors.log()).amax(-1, keepdim=True)
    top = torch.where(top == -math.inf, 0, top)
    largest = math.log(torch.finfo(terms.dtype).max) - 2
    total = ((terms - top).clamp(max=largest).exp() * factors).sum(-1)
    none = total == 0
    return torch.where(none, -math.inf, torch.where(none, 1, total).log() + top.squeeze(-1))


def _of_cells(log_p: Tensor, shape: torch.Size, target: Tensor, basis: str) -> Tensor:
    """The density from the cells whose basis reaches the target: one (uniform), or two an axis (triangular)."""
    with torch.no_grad():
        first = (target + 0.5).floor() if basis == "uniform" else target.floor()
    cell, factor = torch.zeros_like(log_p[..., :1], dtype=torch.int64), torch.ones_like(log_p[..., :1])
    for a in reversed(range(len(shape))):  # z, y, x: as maps are stored
        last = shape[len(shape) - 1 - a] - 1
        part = target[..., a, None] - first[..., a, None]  # from the first cell on, in [0, 1) for triangular
        steps = torch.arange(1 if basis == "uniform" else 2, device=target.device)
        near = first[..., a, None] + steps
        own = 1 + 0 * part if basis == "uniform" else torch.cat([1 - part, part], -1)
        own = torch.where((near < 0) | (near > last), 0, own)
        index = near.nan_to_num().clamp(0, last).long()
        cell = (cell.unsqueeze(-1) * (last + 1) + index.unsqueeze(-2)).flatten(-2)
        factor = (factor.unsqueeze(-1) * own.unsqueeze(-2)).flatten(-2)
    return _log_sum(log_p.gather(-1, cell), factor)
