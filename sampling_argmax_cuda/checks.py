"""Argument checks of the public functions, and their arguments as the operators take them."""

import math
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from . import backends

BASES = ("none", "uniform", "triangular", "gaussian")
METRICS = ("l1", "l2", "euclidean", "smooth_l1")
PROPER = ("l1", "euclidean")  # of which the distance between samples makes a proper score
SMALLEST_TAU = 0.01  # exponents are of the size of 1 / tau, and so is their rounding
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_logits(op: str, logits: Tensor, points: Tensor | None) -> None:
    if not isinstance(logits, Tensor):
        raise ValueError(f"{op}: logits must be a tensor, got {type(logits).__name__}")
    if logits.dtype not in DTYPES:
        raise ValueError(f"{op}: logits must be float32, bfloat16, float16 or float64, got {logits.dtype}")
    if points is None:
        if logits.dim() not in (3, 4, 5):
            raise ValueError(f"{op}: logits must be [B, K, *axes] with 1 to 3 axes, got {tuple(logits.shape)}")
    else:
        check_points(op, logits, points)
    if math.prod(logits.shape[2:]) == 0:
        raise ValueError(f"{op}: a map needs at least one cell, got {tuple(logits.shape)}")
    if math.prod(logits.shape[2:]) >= 2**31:
        raise ValueError(f"{op}: a map may have at most 2**31 - 1 cells, got {tuple(logits.shape)}")


def check_points(op: str, logits: Tensor, points: Tensor) -> None:
    if logits.dim() != 3:
        raise ValueError(f"{op}: points need logits [B, K, N], not a grid, got logits {tuple(logits.shape)}")
    batch, _, cells = logits.shape
    if points.dim() != 3 or points.shape[:2] != (batch, cells) or points.shape[2] not in (1, 2, 3):
        raise ValueError(f"{op}: points must be [B, N, d] = [{batch}, {cells}, 1..3], got {tuple(points.shape)}")
    check_device(op, "points", points, logits)


def check_device(op: str, name: str, value: Tensor, like: Tensor, of: str = "logits") -> None:
    if value.device != like.device:
        raise ValueError(f"{op}: {name} must be on the {of}' device {like.device}, got {value.device}")


def as_integer(value: object) -> int | None:
    """An integer as the operators take it: Python's, a symbol of torch.compile's, or one of NumPy's as Python's; else None."""
    if isinstance(value, int | torch.SymInt):
        return None if isinstance(value, bool) else value  # type: ignore[return-value]  # a symbol stands for an integer
    return int(value) if isinstance(value, Integral) else None


def visible_number(op: str, name: str, value: float | Tensor) -> float | None:
    """A number; of a tensor, its value where it can be looked at without a wait: on the CPU, outside of graphs."""
    if not isinstance(value, Tensor):
        return value
    if value.dim() != 0 or not value.dtype.is_floating_point:
        raise ValueError(f"{op}: {name} must be a number or a floating-point tensor with no dimension, got {value.dtype} "
                         f"{tuple(value.shape)}")  # fmt: skip
    hidden = torch.compiler.is_compiling() or backends.is_transformed() or not value.is_cpu
    return None if hidden or type(value) not in (Tensor, torch.nn.Parameter) else value.item()


def check_positive(op: str, name: str, value: float | Tensor) -> None:
    number = visible_number(op, name, value)
    if number is not None and not (number > 0 and number < math.inf):
        raise ValueError(f"{op}: {name} must be > 0, got {number}")


def check_temperature(op: str, name: str, tau: float | Tensor) -> None:
    check_positive(op, name, tau)
    number = visible_number(op, name, tau)
    if number is not None and number < SMALLEST_TAU:
        raise ValueError(
            f"{op}: {name} must be at least {SMALLEST_TAU}, below which float32 has no exact gradients, got {number}"
        )


def check_sampling(
    op: str, num_samples: int, tau: float | Tensor, beta: float | Tensor, basis: str, points: Tensor | None
) -> int:
    """Raise ValueError for what no samples can be drawn with; the number of samples as the operators take it."""
    count = as_integer(num_samples)
    if count is None or count < 1:
        raise ValueError(f"{op}: num_samples must be an integer >= 1, got {num_samples!r}")
    check_temperature(op, "tau", tau)
    check_positive(op, "beta", beta)
    if basis not in BASES:
        raise ValueError(f"{op}: basis must be one of {', '.join(BASES)}, got {basis!r}")
    if points is not None and basis in ("uniform", "triangular"):
        raise ValueError(f"{op}: points have no spacing, so basis must be 'none' or 'gaussian', got {basis!r}")
    return count


def check_spread(op: str, spread: float, metric: str, num_samples: int) -> None:
    """Raise ValueError for a factor of the distance between samples that makes no unbiased score."""
    if not 0 <= spread < math.inf:
        raise ValueError(f"{op}: spread must be >= 0, got {spread}")
    if spread > 0 and metric not in PROPER:
        raise ValueError(f"{op}: a proper score needs metric {' or '.join(PROPER)}, got {metric!r}")
    if spread > 0 and num_samples < 2:
        raise ValueError(f"{op}: a proper score needs samples [B, K, S, d] with S >= 2, got {num_samples} samples")


def channels_last(logits: Tensor, target: Tensor) -> str:
    """The end of a message where the target ``[B, K, ...]`` has as many points as the logits' last axis has cells."""
    batch, keypoints, last = logits.shape[0], logits.shape[1], logits.shape[-1]
    if logits.dim() < 4 or tuple(target.shape[:2]) != (batch, last) or last == keypoints:
        return ""
    return f"; these logits {tuple(logits.shape)} look like channels last: they must be [B, K, *axes]"


def row_weight(weight: Tensor | None, rows: tuple[int, ...]) -> Tensor | None:
    """A weight ``[B, K]``, also of one ``[B, K, 1]``; others stay what they are."""
    return weight.squeeze(-1) if weight is not None and tuple(weight.shape) == (*rows, 1) else weight


def check_periodic(op: str, periodic: Sequence[int], axes: int, points: Tensor | None) -> tuple[int, ...]:
    """The axes that are circles, in order; raises ValueError for what are none."""
    if not isinstance(periodic, Sequence) or any(as_integer(a) is None or not 0 <= a < axes for a in periodic):
        raise ValueError(f"{op}: periodic must hold axes in [0, {axes}) (0 is x), got {periodic!r}")
    if len(set(periodic)) != len(periodic):
        raise ValueError(f"{op}: periodic must hold each axis once, got {periodic!r}")
    if periodic and points is not None:
        raise ValueError(f"{op}: periodic needs a grid, got points")
    return tuple(sorted(periodic))


def check_error(
    op: str, target: Tensor, weight: Tensor | None, metric: str, logits: Tensor, points: Tensor | None
) -> Tensor | None:
    """The weight as ``[B, K]``; raises ValueError for a target or a weight that does not fit."""
    if metric not in METRICS:
        raise ValueError(f"{op}: metric must be one of {', '.join(METRICS)}, got {metric!r}")
    rows, axes = logits.shape[:2], points.shape[2] if points is not None else logits.dim() - 2
    if target.shape != (*rows, axes):
        hint = channels_last(logits, target)
        raise ValueError(f"{op}: target must be [B, K, d] = {[*rows, axes]}, got {tuple(target.shape)}{hint}")
    check_device(op, "target", target, logits)
    weight = row_weight(weight, rows)
    if weight is not None:
        if weight.shape != rows:
            raise ValueError(f"{op}: weight must be [B, K] = {list(rows)}, got {tuple(weight.shape)}")
        check_device(op, "weight", weight, logits)
    return weight


def arithmetic_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def number_for(op: str, name: str, value: float | Tensor, backend: str) -> float | Tensor:
    """tau or beta as a backend's operators take it: float64 on the CPU, where launchers read it without a wait.

    Triton's take a number, since they are compiled for large and for small temperatures.
    """
    if backend == "triton":
        if isinstance(value, Tensor) and torch.compiler.is_compiling():
            raise ValueError(f"{op}: backend 'triton' compiles for a {name} that is a number, got a tensor")
        return float(value) if isinstance(value, Tensor) else value
    if not isinstance(value, Tensor):
        if torch.compiler.is_compiling():  # which would make a constant of a number alone
            return torch.ones((), dtype=torch.float64, device="cpu") * value
        return torch.full((), value, dtype=torch.float64, device="cpu")
    if value.is_cuda and not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing():
        raise ValueError(f"{op}: the host reads {name}, so while a CUDA graph is captured it must be a number or a tensor on "
                         "the CPU, and the graph keeps its value")  # fmt: skip
    return value.detach().to(device="cpu", dtype=torch.float64)


def needs_gradient(x: float | Tensor) -> bool:
    return isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled()


def sigma_tensor(op: str, sigma: float | Tensor, logits: Tensor, basis: str) -> Tensor | None:
    """The gaussian width of each row as a ``[B, K]`` view; None for the other bases."""
    if basis != "gaussian":
        return None
    if not isinstance(sigma, Tensor):
        if not (sigma >= 0 and sigma < math.inf):
            raise ValueError(f"{op}: sigma must be >= 0, got {sigma}")
        sigma = torch.tensor(sigma, dtype=arithmetic_dtype(logits), device=logits.device)
    check_device(op, "sigma", sigma, logits)
    rows = logits.shape[:2]
    if sigma.dim() > 2 or any(n not in (1, m) for n, m in zip(reversed(sigma.shape), reversed(rows), strict=False)):
        raise ValueError(f"{op}: sigma must broadcast to [B, K] = {list(rows)}, got {tuple(sigma.shape)}")
    return sigma.to(arithmetic_dtype(logits)).expand(rows)


def seed_tensor(op: str, seed: int | Tensor | None, generator: torch.Generator | None, logits: Tensor) -> Tensor:
    """``int64[1]`` (key) or ``int64[2]`` (key, first row) on the logits' device."""
    if seed is None:
        return torch.randint(0, 2**63 - 1, (1,), generator=generator, device=logits.device)
    if generator is not None:
        raise ValueError(f"{op}: give seed or generator, not both")
    if not isinstance(seed, Tensor):
        key = as_integer(seed)
        if key is None:
            raise ValueError(f"{op}: seed must be an integer or an int64 tensor, got {seed!r}")
        return torch.tensor([key], dtype=torch.int64, device=logits.device)
    if seed.dtype != torch.int64 or seed.dim() > 1 or seed.numel() not in (1, 2):
        raise ValueError(f"{op}: seed must be an int64 tensor of 1 or 2 elements, got {seed.dtype} {tuple(seed.shape)}")
    check_device(op, "seed", seed, logits)
    return seed.reshape(-1).contiguous()  # kernels read two words from its first one on
