"""The public functions: argument checks, the seed, the choice of backend, then one dispatcher call.

Notation: ``logits`` are ``[B, K, W]``, ``[B, K, H, W]``, ``[B, K, D, H, W]`` or, with ``points`` ``[B, N, d]``,
``[B, K, N]``. Positions are x, y, z in cell-index units (x is the column). One sample of the position is

    w = softmax((beta * z + g) / tau),  g_i ~ Gumbel(0, 1)          y = sum_i w_i (c_i + n_i),  n_i ~ basis

(Li et al., "Localization with Sampling-Argmax", NeurIPS 2021, Eq. 11-12; ``beta = tau`` is the released form).
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import backends, checks, reference, temperature
from .cells import counted_from
from .distances import mask_rows, spread_error, weigh_rows
from .notices import notice_far_target
from .sub_distributions import check_sub_distributions, is_per_cell, mixture_samples
from .units import units_of


def sample(
    logits: Tensor,
    *,
    num_samples: int,
    tau: float | Tensor,
    beta: float | Tensor = 1.0,
    basis: str = "triangular",
    sigma: float | Tensor = 1.0,
    points: Tensor | None = None,
    offset: Tensor | None = None,
    coords: str = "index",
    stride: float | Sequence[float] = 1.0,
    periodic: Sequence[int] = (),
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Tensor:
    """Differentiable samples of the target position (paper Eq. 12, noise per cell).

    Args:
        logits: ``[B, K, *axes]`` or, with ``points``, ``[B, K, N]``. A cell of ``-inf`` has weight 0.
        num_samples: samples S per row, at least 1.
        tau: temperature of the Gumbel-softmax, at least 0.01; small is close to argmax. A number, or a tensor with no
            dimension: one that changes compiles nothing anew under ``torch.compile``. The host reads it, so a captured CUDA
            graph keeps its value. Its gradient is the reference's, which ``auto`` takes where the tensor needs one.
        beta: factor of the logits, > 0. ``beta=1`` is the paper's form, ``beta=tau`` the released one. A number or a tensor
            as tau; differentiable.
        basis: ``none``, ``uniform`` (cell width 1), ``triangular`` or ``gaussian``; points allow none and gaussian.
        sigma: width of the gaussian basis, a number or a tensor that broadcasts to ``[B, K]``, or > 0 of every cell
            ``[B, K, *axes]`` (tau is at least 0.02 then, and the operator is called three times); differentiable.
        points: positions ``[B, N, d]`` of unordered cells, d = 1..3; differentiable.
        offset: moves the basis of every cell, ``[B, K, d, *axes]`` in cells (x, y, z) or, with points, ``[B, K, N, d]``: learned
            sub-distributions (the paper's Appendix C); differentiable.
        coords: what positions are in: ``index`` (cells), ``unit``, ``centered``, ``cell`` or ``corners`` (:mod:`.coords`);
            grids only. Offset and sigma are in cells whatever it is.
        stride: pixels, > 0, of the input image a cell, one number or one an axis (x, y, z): coordinates are the image's then,
            ``index`` those of its pixels. Cell e has its centre at pixel ``stride (e + 1/2) - 1/2``.
        periodic: axes (0 is x) that are circles, the last cell beside the first: the cells' mean is that of sine and cosine,
            read by atan2, and the noise is added to it. Positions are in ``[0, n)`` cells. Grids without sub-distributions only.
        seed: key of the noise, an integer or an int64 tensor ``[key]`` or ``[key, first_row]``; row ``b * K + k``
            draws the noise of row ``first_row + b * K + k``. Equal arguments give equal samples.
        generator: where the key is drawn from if ``seed`` is None (torch's default generator if None).
        backend: ``auto``, ``cpu``, ``cuda``, ``triton`` or ``reference``.

    Returns:
        ``[B, K, S, d]`` in the units of ``coords`` (x, y, z), float32, or float64 for float64 logits. The gaussian basis
        adds ``sigma * sqrt(sum w^2) * n`` with one normal n a sample and axis: the law of Eq. 12 given w.

    Raises:
        ValueError: for an argument outside what is said above.
    """
    checks.check_logits("sample", logits, points)
    num_samples = checks.check_sampling("sample", num_samples, tau, beta, basis, points)
    check_sub_distributions("sample", logits, points, offset, sigma, basis, tau)
    units = units_of("sample", logits.shape[2:][::-1], points, coords, stride, periodic)
    if not units.plain:
        units.check_cells("sample", offset, sigma)
        seed = checks.seed_tensor("sample", seed, generator, logits)
        draw = partial(sample, num_samples=num_samples, tau=tau, beta=beta, sigma=sigma, seed=seed, backend=backend)
        return units.samples(draw, logits, basis, offset)
    target = temperature.resolve("sample", backend, logits, tau)
    width = sigma if is_per_cell(sigma) else checks.sigma_tensor("sample", sigma, logits, basis)
    seed = checks.seed_tensor("sample", seed, generator, logits)
    if target == "reference":
        return reference.sample(
            logits, num_samples=num_samples, tau=tau, beta=beta, basis=basis, sigma=_or_one(width), points=points,
            offset=offset, seed=seed,
        )  # fmt: skip
    if offset is not None or is_per_cell(sigma):
        draw = partial(sample, num_samples=num_samples, beta=beta, seed=seed, backend=backend)
        return mixture_samples(draw, logits, tau=tau, basis=basis, points=points, offset=offset, sigma=_or_one(width))
    points, origins, centre = counted_from(logits, points)
    logits, numbers = temperature.operands("sample", target, logits, tau, beta=beta)
    y = backends.operators(target).sample(logits, points, width, seed, num_samples, *numbers, basis, origins)[0]
    return y if centre is None else y + centre[:, :, None]


def axis_sample(
    logits: Tensor,
    *,
    num_samples: int,
    tau: float | Tensor,
    beta: float | Tensor = 1.0,
    basis: str = "triangular",
    sigma: float | Tensor = 1.0,
    reweight: float = 0.0,
    clip_grad: float | None = None,
    coords: str = "index",
    stride: float | Sequence[float] = 1.0,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Tensor:
    """Samples by the released estimator: Gumbel-softmax marginals h per axis, noise per bin of an axis.

    ``triangular`` reads h again at the jittered bins and renormalises; ``gaussian`` multiplies h by
    ``exp(-reweight * n^2)``, n the bin's standard normal, and renormalises (0, 1/2 and 2 were published).
    ``clip_grad=A`` replaces the derivative u of the coordinate c by ``A * sign(u - c)`` (2 in the released 2-D model).
    Equations: ``reference/README.md``. The other arguments are those of :func:`sample`; grids only.

    Returns:
        ``[B, K, S, d]`` in the units of ``coords`` (x, y, z).
    """
    checks.check_logits("axis_sample", logits, None)
    num_samples = checks.check_sampling("axis_sample", num_samples, tau, beta, basis, None)
    if not (reweight >= 0 and reweight < math.inf):
        raise ValueError(f"axis_sample: reweight must be >= 0, got {reweight}")
    if clip_grad is not None:
        checks.check_positive("axis_sample", "clip_grad", clip_grad)
    units = units_of("axis_sample", logits.shape[2:][::-1], None, coords, stride)
    target = temperature.resolve("axis_sample", backend, logits, tau)
    width = checks.sigma_tensor("axis_sample", sigma, logits, basis)
    seed = checks.seed_tensor("axis_sample", seed, generator, logits)
    if target == "reference":
        y = reference.axis_sample(
            logits, num_samples=num_samples, tau=tau, beta=beta, basis=basis, sigma=_or_one(width),
            reweight=reweight, clip_grad=clip_grad, seed=seed,
        )  # fmt: skip
    else:
        _, origins, centre = counted_from(logits, None)
        logits, numbers = temperature.operands("axis_sample", target, logits, tau, beta=beta)
        op = backends.operators(target).axis_sample
        y = op(logits, width, seed, num_samples, *numbers, basis, reweight, clip_grad, origins)[0]
        y = y if centre is None else y + centre[:, :, None]
    return units.shown(y)


def expected_error(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    num_samples: int,
    tau: float | Tensor,
    beta: float | Tensor = 1.0,
    basis: str = "triangular",
    sigma: float | Tensor = 1.0,
    metric: str = "l1",
    spread: float = 0.0,
    points: Tensor | None = None,
    offset: Tensor | None = None,
    coords: str = "index",
    stride: float | Sequence[float] = 1.0,
    periodic: Sequence[int] = (),
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Tensor:
    """The expectation of the error (paper Eq. 14): the mean over samples of the distance to the target.

    The gradient is computed together with the loss, over one pass of the noise, so backward is one multiply. With ``spread``
    the noise is drawn twice, as by :func:`sample` and its backward: a sample's gradient depends on its rank among all. So it is
    with ``offset`` and a ``sigma`` of every cell.

    Args:
        target: ``[B, K, d]`` in the units of ``coords`` (x, y, z), in which the distance is too.
        weight: ``[B, K]`` or ``[B, K, 1]``, or None for 1. Weight 0 gives loss and gradients 0, whatever the row holds, NaN
            included.
        metric: ``l1`` = sum over axes of ``|.|``, ``l2`` = sum of squares, ``euclidean`` = norm, ``smooth_l1`` = sum
            of Huber with threshold 1.
        spread: factor, >= 0, of the mean distance between two samples that is taken off: 0 is the paper's loss, 0.5 the
            energy score (:func:`.energy_score`), which is proper; metric ``l1`` or ``euclidean`` and two samples then.
        coords: as :func:`sample`. Where units are as long on every axis, and the metric is not ``smooth_l1``, the loss is a
            factor times that in cells, in one pass; else samples are drawn and their distances taken.
        stride: as :func:`sample`.
        periodic: as :func:`sample`; distances go the shorter way round, of samples that are drawn. Not with ``spread``.

    The other arguments are those of :func:`sample`. Returns ``[B, K]``.
    """
    checks.check_logits("expected_error", logits, points)
    num_samples = checks.check_sampling("expected_error", num_samples, tau, beta, basis, points)
    weight = checks.check_error("expected_error", target, weight, metric, logits, points)
    checks.check_spread("expected_error", spread, metric, num_samples)
    check_sub_distributions("expected_error", logits, points, offset, sigma, basis, tau)
    sigma = mask_rows(sigma, weight) if is_per_cell(sigma) else sigma
    units = units_of("expected_error", logits.shape[2:][::-1], points, coords, stride, periodic)
    if not units.plain:
        units.check_cells("expected_error", offset, sigma, spread)
        form: dict[str, Any] = dict(num_samples=num_samples, tau=tau, beta=beta, basis=basis, offset=offset, seed=seed,
                                    generator=generator, backend=backend)  # fmt: skip
        target, factor = units.in_cells(target), units.factor(metric)
        if factor is not None:
            return expected_error(logits, target, weight, sigma=sigma, metric=metric, spread=spread, **form) * factor
        return units.error(
            partial(sample, sigma=sigma, periodic=periodic, **form), logits, target, weight, metric, spread
        )
    if points is None:
        notice_far_target(target, weight, tuple(reversed(logits.shape[2:])))
    where = temperature.resolve("expected_error", backend, logits, tau)
    width = sigma if is_per_cell(sigma) else checks.sigma_tensor("expected_error", sigma, logits, basis)
    seed = checks.seed_tensor("expected_error", seed, generator, logits)
    if where == "reference":
        return reference.expected_error(
            logits, target, weight, num_samples=num_samples, tau=tau, beta=beta, basis=basis, sigma=_or_one(width),
            metric=metric, spread=spread, points=points, offset=offset, seed=seed,
        )  # fmt: skip
    if offset is not None or is_per_cell(sigma):
        draw = partial(sample, num_samples=num_samples, tau=tau, beta=beta, basis=basis, sigma=_or_one(width), points=points,
                       offset=offset, seed=seed, backend=backend)  # fmt: skip
        return units.error(draw, logits, target, weight, metric, spread)
    dtype = checks.arithmetic_dtype(logits)
    points, origins, centre = counted_from(logits, points)
    target = target.to(dtype) if centre is None else target.to(dtype) - centre
    weight = None if weight is None else weight.to(dtype)
    logits, numbers = temperature.operands("expected_error", where, logits, tau, beta=beta)
    if spread > 0:
        logits, target = mask_rows(logits, weight), mask_rows(target, weight)
        y = backends.operators(where).sample(logits, points, width, seed, num_samples, *numbers, basis, origins)[0]
        return weigh_rows(spread_error((y - target.unsqueeze(2)).unbind(-1), metric, spread), weight)
    mapped = backends.is_mapped()
    needs = [x is not None and (x.requires_grad or mapped) for x in (logits, points, width)]
    if not torch.is_grad_enabled():
        needs = [False] * 3
    error = backends.operators(where).expected_error(
        logits, target, weight, points, width, seed, num_samples, *numbers, basis, metric, needs, origins
    )[0]
    return error if weight is None else error * weight


def _or_one(width: Tensor | None) -> float | Tensor:
    return 1.0 if width is None else width
