"""Soft-argmax and the other moments of a map: argument checks, the choice of backend, then one dispatcher call.

The notation is that of :mod:`.ops`.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from . import backends, reference, temperature
from .cells import counted_from
from .checks import check_logits, check_positive, sigma_tensor
from .sub_distributions import check_sub_distributions, is_per_cell, mixture_variance, places, rows_as_batch
from .units import units_of


class Moments(NamedTuple):
    """What :func:`heatmap_moments` returns and explains."""

    mean: Tensor
    covariance: Tensor
    peak: Tensor
    entropy: Tensor

    @property
    def variance(self) -> Tensor:
        """Of each axis, ``[B, K, d]``: the diagonal of the covariance."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)


def heatmap_moments(
    logits: Tensor,
    *,
    beta: float | Tensor = 1.0,
    points: Tensor | None = None,
    offset: Tensor | None = None,
    sigma: float | Tensor | None = None,
    coords: str = "index",
    stride: float | Sequence[float] = 1.0,
    backend: str = "auto",
) -> Moments:
    """Mean, covariance, peak probability and entropy of ``p = softmax(beta * z)`` in one pass.

    The mean ``m = sum p c`` is ``[B, K, d]`` in cells, the covariance ``sum p (c - m)(c - m)^T`` ``[B, K, d, d]`` in cells
    squared, axes x, y, z; its diagonal is ``variance``. The peak ``max p`` and the entropy ``-sum p log p`` (nats) are
    ``[B, K]``. All are differentiable in ``logits``, mean and covariance in ``points``; the derivative of the peak goes to
    its first cell.

    ``offset`` and ``sigma`` are those of :func:`.sample`, gaussian: the mean is ``sum p (c + o)``, and the covariance, by the law
    of total variance, that of ``c + o`` and ``sum p sigma^2`` on its diagonal. With ``coords`` and ``stride`` of :func:`.sample`
    mean and covariance are in their units, offset and sigma in cells.
    """
    check_logits("soft_argmax", logits, points)
    check_positive("soft_argmax", "beta", beta)
    check_sub_distributions("soft_argmax", logits, points, offset, sigma)
    units = units_of("soft_argmax", logits.shape[2:][::-1], points, coords, stride)
    if not units.plain:
        cells = heatmap_moments(logits, beta=beta, offset=offset, sigma=sigma, backend=backend)
        return cells._replace(mean=units.shown(cells.mean), covariance=units.shown_covariance(cells.covariance))
    target = backends.resolve("soft_argmax", backend, logits)
    if sigma is not None and not is_per_cell(sigma):
        sigma = sigma_tensor("soft_argmax", sigma, logits, "gaussian")
    if target == "reference":
        return Moments(*reference.heatmap_moments(logits, beta=beta, points=points, offset=offset, sigma=sigma))
    if offset is None:
        moments = _moments(target, logits, beta, points)
    else:
        rows = _moments(target, rows_as_batch(logits), beta, places(logits, points, offset))
        moments = Moments(*(x.view(*logits.shape[:2], *x.shape[2:]) for x in rows))
    if sigma is None:
        return moments
    added = mixture_variance(partial(soft_argmax, beta=beta, backend=backend), logits, sigma)
    # Made where it is needed: a copy from the host would make it wait, and no CUDA graph could be captured.
    unit = torch.eye(moments.mean.shape[-1], dtype=added.dtype, device=added.device)
    return moments._replace(covariance=moments.covariance + added[..., None, None] * unit)


def soft_argmax(
    logits: Tensor,
    *,
    beta: float | Tensor = 1.0,
    points: Tensor | None = None,
    offset: Tensor | None = None,
    coords: str = "index",
    stride: float | Sequence[float] = 1.0,
    periodic: Sequence[int] = (),
    window: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Soft-argmax ``sum_i p_i (c_i + o_i)``, ``p = softmax(beta * z)`` (paper Eq. 1): ``[B, K, d]`` in the units of ``coords``.

    Args:
        coords: as :func:`.sample`.
        stride: as :func:`.sample`.
        periodic: as :func:`.sample`.
        window: width s > 0, in cells or the points' units, of a Gaussian about the largest cell c* that p is multiplied by
            before it is normalised: ``p_i ~ exp(beta z_i - |c_i - c*|^2 / (2 s^2))``, c* without gradient. A window with a
            border is :func:`.local_soft_argmax`.

    Without ``offset`` o is 0; the other arguments are those of :func:`heatmap_moments`.
    """
    check_logits("soft_argmax", logits, points)
    units = units_of("soft_argmax", logits.shape[2:][::-1], points, coords, stride, periodic)
    if units.plain and window is None:
        return heatmap_moments(logits, beta=beta, points=points, offset=offset, backend=backend).mean
    check_positive("soft_argmax", "beta", beta)
    units.check_cells("soft_argmax", offset)
    if window is not None:
        check_positive("soft_argmax", "window", window)
        logits, beta = logits * beta + units.log_window(logits, window, points), 1.0

    def read(logits: Tensor, points: Tensor | None = points, offset: Tensor | None = None) -> Tensor:
        return heatmap_moments(logits, beta=beta, points=points, offset=offset, backend=backend).mean

    return units.soft_argmax(read, logits, offset)


def _moments(backend: str, logits: Tensor, beta: float | Tensor, points: Tensor | None) -> Moments:
    points, origins, centre = counted_from(logits, points)
    logits, (beta,) = temperature.operands("soft_argmax", backend, logits, beta=beta)
    moments = Moments(*backends.operators(backend).soft_argmax(logits, points, beta, origins)[:4])
    return moments if centre is None else moments._replace(mean=moments.mean + centre)
