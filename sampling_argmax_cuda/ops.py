"""The public functions: argument checks, the seed, the choice of backend, then one dispatcher call.

Notation: ``logits`` are ``[B, K, W]``, ``[B, K, H, W]``, ``[B, K, D, H, W]`` or, with ``points`` ``[B, N, d]``,
``[B, K, N]``. Positions are x, y, z in cell-index units (x is the column). One sample of the position is

    w = softmax((beta * z + g) / tau),  g_i ~ Gumbel(0, 1)          y = sum_i w_i (c_i + n_i),  n_i ~ basis

(Li et al., "Localization with Sampling-Argmax", NeurIPS 2021, Eq. 11-12; ``beta = tau`` is the released form).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import backends, reference

BASES = ("none", "uniform", "triangular", "gaussian")
METRICS = ("l1", "l2", "euclidean", "smooth_l1")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Moments(NamedTuple):
    """Moments of ``p = softmax(beta * z)``: mean and variance ``[B, K, d]``, peak and entropy (nats) ``[B, K]``."""

    mean: Tensor
    variance: Tensor
    peak: Tensor
    entropy: Tensor


def _check_logits(op: str, logits: Tensor, points: Tensor | None) -> None:
    if not isinstance(logits, Tensor):
        raise ValueError(f"{op}: logits must be a tensor, got {type(logits).__name__}")
    if logits.dtype not in _DTYPES:
        raise ValueError(f"{op}: logits must be float32, bfloat16, float16 or float64, got {logits.dtype}")
    if points is None:
        if logits.dim() not in (3, 4, 5):
            raise ValueError(
                f"{op}: logits must be [B, K, *axes] with 1 to 3 axes, got {tuple(logits.shape)}"
            )
    else:
        _check_points(op, logits, points)
    if math.prod(logits.shape[2:]) == 0:
        raise ValueError(f"{op}: a map needs at least one cell, got {tuple(logits.shape)}")
    if math.prod(logits.shape[2:]) >= 2**31:
        raise ValueError(f"{op}: a map may have at most 2**31 - 1 cells, got {tuple(logits.shape)}")


def _check_points(op: str, logits: Tensor, points: Tensor) -> None:
    if logits.dim() != 3:
        raise ValueError(f"{op}: points need logits [B, K, N], not a grid, got logits {tuple(logits.shape)}")
    batch, _, cells = logits.shape
    if points.dim() != 3 or points.shape[:2] != (batch, cells) or points.shape[2] not in (1, 2, 3):
        raise ValueError(
            f"{op}: points must be [B, N, d] = [{batch}, {cells}, 1..3], got {tuple(points.shape)}"
        )
    _check_device(op, "points", points, logits)


def _check_device(op: str, name: str, value: Tensor, logits: Tensor) -> None:
    if value.device != logits.device:
        raise ValueError(f"{op}: {name} must be on the logits' device {logits.device}, got {value.device}")


def _check_positive(op: str, name: str, value: float) -> None:
    if not (value > 0 and value < math.inf):
        raise ValueError(f"{op}: {name} must be > 0, got {value}")


def _check_sampling(
    op: str, num_samples: int, tau: float, beta: float, basis: str, points: Tensor | None
) -> None:
    if isinstance(num_samples, bool) or not isinstance(num_samples, int | torch.SymInt) or num_samples < 1:
        raise ValueError(f"{op}: num_samples must be an integer >= 1, got {num_samples!r}")
    _check_positive(op, "tau", tau)
    _check_positive(op, "beta", beta)
    if basis not in BASES:
        raise ValueError(f"{op}: basis must be one of {', '.join(BASES)}, got {basis!r}")
    if points is not None and basis in ("uniform", "triangular"):
        raise ValueError(
            f"{op}: points have no spacing, so basis must be 'none' or 'gaussian', got {basis!r}"
        )


def _arithmetic_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _sigma_tensor(op: str, sigma: float | Tensor, logits: Tensor, basis: str) -> Tensor | None:
    """The gaussian width of each row as a ``[B, K]`` view; None for the other bases."""
    if basis != "gaussian":
        return None
    if not isinstance(sigma, Tensor):
        if not (sigma >= 0 and sigma < math.inf):
            raise ValueError(f"{op}: sigma must be >= 0, got {sigma}")
        sigma = torch.tensor(sigma, dtype=_arithmetic_dtype(logits), device=logits.device)
    _check_device(op, "sigma", sigma, logits)
    rows = logits.shape[:2]
    if sigma.dim() > 2 or any(
        n not in (1, m) for n, m in zip(reversed(sigma.shape), reversed(rows), strict=False)
    ):
        raise ValueError(f"{op}: sigma must broadcast to [B, K] = {list(rows)}, got {tuple(sigma.shape)}")
    return sigma.to(_arithmetic_dtype(logits)).expand(rows)


def _seed_tensor(
    op: str, seed: int | Tensor | None, generator: torch.Generator | None, logits: Tensor
) -> Tensor:
    """``int64[1]`` (key) or ``int64[2]`` (key, first row) on the logits' device."""
    if seed is None:
        return torch.randint(0, 2**63 - 1, (1,), generator=generator, device=logits.device)
    if generator is not None:
        raise ValueError(f"{op}: give seed or generator, not both")
    if not isinstance(seed, Tensor):
        if isinstance(seed, bool) or not isinstance(seed, int | torch.SymInt):
            raise ValueError(f"{op}: seed must be an integer or an int64 tensor, got {seed!r}")
        return torch.tensor([seed], dtype=torch.int64, device=logits.device)
    if seed.dtype != torch.int64 or seed.dim() > 1 or seed.numel() not in (1, 2):
        raise ValueError(
            f"{op}: seed must be an int64 tensor of 1 or 2 elements, got {seed.dtype} {tuple(seed.shape)}"
        )
    _check_device(op, "seed", seed, logits)
    return seed.reshape(-1)


def sample(
    logits: Tensor,
    *,
    num_samples: int,
    tau: float,
    beta: float = 1.0,
    basis: str = "triangular",
    sigma: float | Tensor = 1.0,
    points: Tensor | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Tensor:
    """Differentiable samples of the target position (paper Eq. 12, noise per cell).

    Args:
        logits: ``[B, K, *axes]`` or, with ``points``, ``[B, K, N]``. A cell of ``-inf`` has weight 0.
        num_samples: samples S per row, at least 1.
        tau: temperature of the Gumbel-softmax, > 0; small is close to argmax.
        beta: factor of the logits, > 0. ``beta=1`` is the paper's form, ``beta=tau`` the released one.
        basis: ``none``, ``uniform`` (cell width 1), ``triangular`` or ``gaussian``; points allow none and gaussian.
        sigma: width of the gaussian basis, a number or a tensor that broadcasts to ``[B, K]``; differentiable.
        points: positions ``[B, N, d]`` of unordered cells, d = 1..3; differentiable.
        seed: key of the noise, an integer or an int64 tensor ``[key]`` or ``[key, first_row]``; row ``b * K + k``
            draws the noise of row ``first_row + b * K + k``. Equal arguments give equal samples.
        generator: where the key is drawn from if ``seed`` is None (torch's default generator if None).
        backend: ``auto``, ``cpu``, ``cuda``, ``triton`` or ``reference``.

    Returns:
        ``[B, K, S, d]`` in cell-index units (x, y, z), float32, or float64 for float64 logits. The gaussian basis
        adds ``sigma * sqrt(sum w^2) * n`` with one normal n a sample and axis: the law of Eq. 12 given w.

    Raises:
        ValueError: for an argument outside what is said above.
    """
    _check_logits("sample", logits, points)
    _check_sampling("sample", num_samples, tau, beta, basis, points)
    target = backends.resolve("sample", backend, logits.device)
    sigma = _sigma_tensor("sample", sigma, logits, basis)
    seed = _seed_tensor("sample", seed, generator, logits)
    if target == "reference":
        return reference.sample(
            logits,
            num_samples=num_samples,
            tau=tau,
            beta=beta,
            basis=basis,
            sigma=_or_one(sigma),
            points=points,
            seed=seed,
        )
    points = None if points is None else points.to(_arithmetic_dtype(logits))
    return torch.ops.sampling_argmax.sample(logits, points, sigma, seed, num_samples, tau, beta, basis)[0]


def axis_sample(
    logits: Tensor,
    *,
    num_samples: int,
    tau: float,
    beta: float = 1.0,
    basis: str = "triangular",
    sigma: float | Tensor = 1.0,
    reweight: float = 0.0,
    clip_grad: float | None = None,
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
        ``[B, K, S, d]`` in cell-index units (x, y, z).
    """
    _check_logits("axis_sample", logits, None)
    _check_sampling("axis_sample", num_samples, tau, beta, basis, None)
    if not (reweight >= 0 and reweight < math.inf):
        raise ValueError(f"axis_sample: reweight must be >= 0, got {reweight}")
    if clip_grad is not None:
        _check_positive("axis_sample", "clip_grad", clip_grad)
    target = backends.resolve("axis_sample", backend, logits.device)
    sigma = _sigma_tensor("axis_sample", sigma, logits, basis)
    seed = _seed_tensor("axis_sample", seed, generator, logits)
    if target == "reference":
        return reference.axis_sample(
            logits, num_samples=num_samples, tau=tau, beta=beta, basis=basis, sigma=_or_one(sigma),
            reweight=reweight, clip_grad=clip_grad, seed=seed,
        )  # fmt: skip
    op = torch.ops.sampling_argmax.axis_sample
    return op(logits, sigma, seed, num_samples, tau, beta, basis, reweight, clip_grad)[0]


def expected_error(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    num_samples: int,
    tau: float,
    beta: float = 1.0,
    basis: str = "triangular",
    sigma: float | Tensor = 1.0,
    metric: str = "l1",
    points: Tensor | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Tensor:
    """The expectation of the error (paper Eq. 14): the mean over samples of the distance to the target.

    The gradient is computed together with the loss, over one pass of the noise, so backward is one multiply.

    Args:
        target: ``[B, K, d]`` in cell-index units (x, y, z).
        weight: ``[B, K]`` or None for 1. Weight 0 gives loss and gradients 0, whatever the row holds, NaN included.
        metric: ``l1`` = sum over axes of ``|.|``, ``l2`` = sum of squares, ``euclidean`` = norm, ``smooth_l1`` = sum
            of Huber with threshold 1.

    The other arguments are those of :func:`sample`. Returns ``[B, K]``.
    """
    _check_logits("expected_error", logits, points)
    _check_sampling("expected_error", num_samples, tau, beta, basis, points)
    if metric not in METRICS:
        raise ValueError(f"expected_error: metric must be one of {', '.join(METRICS)}, got {metric!r}")
    axes = points.shape[2] if points is not None else logits.dim() - 2
    if target.shape != (*logits.shape[:2], axes):
        expected = [*logits.shape[:2], axes]
        raise ValueError(f"expected_error: target must be [B, K, d] = {expected}, got {tuple(target.shape)}")
    _check_device("expected_error", "target", target, logits)
    if weight is not None:
        if weight.shape != logits.shape[:2]:
            expected = list(logits.shape[:2])
            raise ValueError(f"expected_error: weight must be [B, K] = {expected}, got {tuple(weight.shape)}")
        _check_device("expected_error", "weight", weight, logits)
    where = backends.resolve("expected_error", backend, logits.device)
    sigma = _sigma_tensor("expected_error", sigma, logits, basis)
    seed = _seed_tensor("expected_error", seed, generator, logits)
    if where == "reference":
        return reference.expected_error(
            logits, target, weight, num_samples=num_samples, tau=tau, beta=beta, basis=basis, sigma=_or_one(sigma),
            metric=metric, points=points, seed=seed,
        )  # fmt: skip
    dtype = _arithmetic_dtype(logits)
    points = None if points is None else points.to(dtype)
    weight = None if weight is None else weight.to(dtype)
    needs = [x is not None and x.requires_grad for x in (logits, points, sigma)]
    if not torch.is_grad_enabled():
        needs = [False] * 3
    error = torch.ops.sampling_argmax.expected_error(
        logits, target.to(dtype), weight, points, sigma, seed, num_samples, tau, beta, basis, metric, needs
    )[0]
    return error if weight is None else error * weight


def heatmap_moments(
    logits: Tensor, *, beta: float = 1.0, points: Tensor | None = None, backend: str = "auto"
) -> Moments:
    """Mean, variance, peak probability and entropy of ``p = softmax(beta * z)`` in one pass.

    Mean ``sum p c`` and variance ``sum p (c - mean)^2`` are per axis, ``[B, K, d]``, in cells and cells squared; the
    peak ``max p`` and the entropy ``-sum p log p`` (nats) are ``[B, K]``. All are differentiable in ``logits``, mean
    and variance in ``points``; the derivative of the peak goes to its first cell.
    """
    _check_logits("soft_argmax", logits, points)
    _check_positive("soft_argmax", "beta", beta)
    if backends.resolve("soft_argmax", backend, logits.device) == "reference":
        return Moments(*reference.heatmap_moments(logits, beta=beta, points=points))
    points = None if points is None else points.to(_arithmetic_dtype(logits))
    return Moments(*torch.ops.sampling_argmax.soft_argmax(logits, points, beta))


def soft_argmax(
    logits: Tensor, *, beta: float = 1.0, points: Tensor | None = None, backend: str = "auto"
) -> Tensor:
    """Soft-argmax ``sum_i p_i c_i``, ``p = softmax(beta * z)`` (paper Eq. 1): ``[B, K, d]`` in cell-index units."""
    return heatmap_moments(logits, beta=beta, points=points, backend=backend).mean


def _or_one(sigma: Tensor | None) -> float | Tensor:
    return 1.0 if sigma is None else sigma
