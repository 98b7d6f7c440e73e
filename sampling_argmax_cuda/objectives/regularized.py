"""Soft-argmax with a regulariser of the heatmap's shape, and the regularisers ``[B, K]`` as functions.

Equation numbers are those of Li et al., "Localization with Sampling-Argmax", NeurIPS 2021; the forms for
several axes are those of Nibali et al., "Numerical Coordinate Regression with Convolutional Neural Networks",
2018. Weight 0 gives exactly zero loss and gradients, whatever the row holds.
"""

import math

import torch
from torch import Tensor

from ..cells import cell_offsets
from ..checks import arithmetic_dtype, check_device
from ..distances import mask_rows, total, weigh_rows
from ..moments import heatmap_moments, soft_argmax
from .answers import Answer, output_of
from .rows import check_rows
from .soft import SoftArgmax
from .targets import Target


def _check_choice(op: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(choices)}, got {value!r}")


def _row_sigma(op: str, sigma: float | Tensor, logits: Tensor) -> float | Tensor:
    """``sigma`` as a number, or as a tensor ``[B, K]``."""
    if not isinstance(sigma, Tensor):
        if not (sigma > 0 and math.isfinite(sigma)):
            raise ValueError(f"{op}: sigma must be > 0, got {sigma}")
        return sigma
    check_device(op, "sigma", sigma, logits)
    rows = logits.shape[:2]
    pairs = zip(reversed(sigma.shape), reversed(rows), strict=False)
    if sigma.dim() > 2 or any(n not in (1, m) for n, m in pairs):
        raise ValueError(f"{op}: sigma must broadcast to [B, K] = {list(rows)}, got {tuple(sigma.shape)}")
    return sigma.to(arithmetic_dtype(logits)).expand(rows)


def _log_gaussian(logits, centre, sigma, points, normalized: bool) -> Tensor:
    """``log q`` ``[B, K, N]``: minus squared distance over ``2 sigma^2``, normalised over cells or not."""
    squared = total(offset.square() for offset in cell_offsets(logits, centre, points)).flatten(2)
    if isinstance(sigma, Tensor):
        sigma = sigma.unsqueeze(-1)
    log_q = -squared / (2 * sigma**2)
    return log_q.log_softmax(-1) if normalized else log_q


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``sum p (log p - log q)`` over the last axis, where p = 0 adds 0."""
    p = log_p.exp()
    return (p * (torch.where(p == 0, 0, log_p) - log_q)).sum(-1)


def _js(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``(KL(p | m) + KL(q | m)) / 2`` over the last axis, ``m = (p + q) / 2``."""
    m = (log_p.exp() + log_q.exp()) / 2
    # Cells where p, q and so m are 0 add 0; their logarithm would make that NaN.
    log_m = torch.where(m == 0, 1, m).log()
    return (_kl(log_p, log_m) + _kl(log_q, log_m)) / 2


def js_divergence(
    logits: Tensor,
    target: Tensor,
    sigma: float | Tensor,
    *,
    beta: float = 1.0,
    points: Tensor | None = None,
) -> Tensor:
    """Jensen-Shannon divergence (nats, in [0, ln 2]) of the heatmap and a Gaussian at the target (Eq. 16).

    ``JS(p | q) = KL(p | m)/2 + KL(q | m)/2``, ``m = (p + q)/2``, ``p = softmax(beta * z)`` and ``q`` the
    Gaussian ``N(target, sigma^2 I)`` read at the cells and normalised over them.

    Args:
        logits: ``[B, K, *axes]`` or ``[B, K, N]`` with ``points`` ``[B, N, d]``.
        target: ``[B, K, d]`` in cell-index units (x, y, z), or the points' units.
        sigma: width > 0 in the same units, a number or a tensor that broadcasts to ``[B, K]``.

    Returns:
        ``[B, K]``. Raises ValueError for arguments that do not fit.
    """
    check_rows("js_divergence", logits, target, points=points, beta=beta)
    sigma = _row_sigma("js_divergence", sigma, logits)
    return _js(_log_softmax(logits, beta), _log_gaussian(logits, target, sigma, points, True))


def kl_divergence(
    logits: Tensor,
    target: Tensor,
    sigma: float | Tensor,
    *,
    beta: float = 1.0,
    points: Tensor | None = None,
) -> Tensor:
    """``KL(p | q) = sum p log(p/q)`` (nats, >= 0); arguments and result as :func:`js_divergence`."""
    check_rows("kl_divergence", logits, target, points=points, beta=beta)
    sigma = _row_sigma("kl_divergence", sigma, logits)
    return _kl(_log_softmax(logits, beta), _log_gaussian(logits, target, sigma, points, True))


def _log_softmax(logits: Tensor, beta: float) -> Tensor:
    return (logits.to(arithmetic_dtype(logits)).flatten(2) * beta).log_softmax(-1)


def distribution_regularizer(
    logits: Tensor,
    target: Tensor,
    sigma: float | Tensor,
    weight: Tensor | None = None,
    *,
    beta: float = 1.0,
    divergence: str = "js",
    centre: str = "target",
    normalized: bool = True,
    points: Tensor | None = None,
) -> Tensor:
    """Distribution regularisation (Eq. 16): ``weight * D(p | q)``.

    The defaults are the paper's. The published OCT experiment is ``centre="prediction", normalized=False``:
    there ``q = exp(-(c - mean)^2 / (2 sigma^2))`` follows the heatmap's own mean and does not sum to 1, so
    the result is not 0 where the shapes agree and not bounded by ln 2. The mean carries gradient.

    Args:
        logits, target, sigma, beta, points: as :func:`js_divergence`.
        weight: ``[B, K]`` or None for 1.
        divergence: ``js`` or ``kl`` (= ``KL(p | q)``).
        centre: ``target`` or ``prediction``, the soft-argmax of the row.
        normalized: whether q is normalised over the cells.

    Returns:
        ``[B, K]``. Raises ValueError for arguments that do not fit.
    """
    op = "distribution_regularizer"
    check_rows(op, logits, target, weight, points, beta=beta)
    _check_choice(op, "divergence", divergence, ("js", "kl"))
    _check_choice(op, "centre", centre, ("target", "prediction"))
    sigma = _row_sigma(op, sigma, logits)
    kept = mask_rows(logits, weight)
    if centre == "target":
        middle = mask_rows(target, weight)
    else:
        middle = soft_argmax(kept, beta=beta, points=points)
    compare = _js if divergence == "js" else _kl
    loss = compare(_log_softmax(kept, beta), _log_gaussian(kept, middle, sigma, points, normalized))
    return weigh_rows(loss, weight)


def variance_regularizer(
    logits: Tensor,
    sigma: float | Tensor,
    weight: Tensor | None = None,
    *,
    beta: float = 1.0,
    units: str = "cells",
    points: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Variance regularisation (Eq. 15): ``weight * sum_axes (Var_a[p] - sigma^2)^2``, Var about p's mean.

    Args:
        logits: ``[B, K, *axes]`` or ``[B, K, N]`` with ``points`` ``[B, N, d]``.
        sigma: the wanted standard deviation > 0 in cells (or the points' units), a number or a tensor that
            broadcasts to ``[B, K]``.
        weight: ``[B, K]`` or None for 1.
        units: ``cells``, or ``normalized``, which divides positions and sigma by the axis's number of cells
            and so its loss by the 4th power of that (the published OCT experiment, ``sigma=2``); grids only.

    Returns:
        ``[B, K]``. Raises ValueError for arguments that do not fit.
    """
    op = "variance_regularizer"
    check_rows(op, logits, weight=weight, points=points, beta=beta)
    _check_choice(op, "units", units, ("cells", "normalized"))
    if points is not None and units == "normalized":
        raise ValueError(f"{op}: points have no axis size, so units must be 'cells', got 'normalized'")
    sigma = _row_sigma(op, sigma, logits)
    if isinstance(sigma, Tensor):
        sigma = sigma.unsqueeze(-1)
    moments = heatmap_moments(mask_rows(logits, weight), beta=beta, points=points, backend=backend)
    excess = (moments.variance - sigma**2).unbind(-1)
    sizes = reversed(logits.shape[2:]) if units == "normalized" else [1] * len(excess)
    return weigh_rows(total((e / n**2).square() for e, n in zip(excess, sizes, strict=True)), weight)


class VarianceRegularized(SoftArgmax):
    """Soft-argmax and ``reg_weight`` times :func:`variance_regularizer` (Eq. 15): the map's own, wherever its target is.

    Args:
        reg_weight: factor of the regulariser, >= 0.
        target_sigma: width, > 0, in cells (or the points' units) that it wants; a :class:`.Target` may have its own.
        beta, backend, metric, units: as :class:`.SoftArgmax`.
    """

    circles, sub_distributions = False, ()  # the regulariser is of cells that stay where they are

    def __init__(self, reg_weight: float = 1.0, target_sigma: float = 2.0, beta: float | str = 1.0, backend: str = "auto",
                 metric: str = "l1", units: str = "index") -> None:  # fmt: skip
        super().__init__(beta, backend, metric, units)
        self.reg_weight, self.target_sigma = reg_weight, target_sigma

    def row_loss(self, output: Answer, target: Target, seed: int | Tensor | None) -> Tensor:
        return super().row_loss(output, target, seed) + self.reg_weight * self.penalty(output_of(output), target)

    def penalty(self, output: Tensor, target: Target) -> Tensor:
        """The regulariser of every map ``[B, K]``, without its factor."""
        sigma = self.target_sigma if target.sigma is None else target.sigma
        return variance_regularizer(output, sigma, beta=self.beta, points=target.points, backend=self.backend)


class DistributionRegularized(VarianceRegularized):
    """Soft-argmax and ``reg_weight`` times :func:`distribution_regularizer` (Eq. 16) of points that are known on every axis.

    With the Euclidean metric in ``cell`` units it is DSNT's loss (Nibali et al., 2018).

    Args:
        reg_weight, target_sigma: as :class:`VarianceRegularized`.
        beta, backend, metric, units: as :class:`.SoftArgmax`.
    """

    def penalty(self, output: Tensor, target: Target) -> Tensor:
        sigma = self.target_sigma if target.sigma is None else target.sigma
        return distribution_regularizer(output, target.position, sigma, target.complete(), beta=self.beta,
                                        points=target.points)  # fmt: skip
