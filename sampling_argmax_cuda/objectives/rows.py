"""What the losses on heatmap rows ``(b, k)`` share: checks."""

from torch import Tensor

from ..checks import METRICS, channels_last, check_device, check_logits, check_positive


def check_rows(
    op: str,
    logits: Tensor,
    target: Tensor | None = None,
    weight: Tensor | None = None,
    points: Tensor | None = None,
    *,
    beta: float = 1.0,
    metric: str = "l1",
) -> None:
    """Raise ValueError unless the arguments fit: target ``[B, K, d]``, weight ``[B, K]``, a known metric."""
    check_logits(op, logits, points)
    check_positive(op, "beta", beta)
    if metric not in METRICS:
        raise ValueError(f"{op}: metric must be one of {', '.join(METRICS)}, got {metric!r}")
    rows = tuple(logits.shape[:2])
    axes = logits.dim() - 2 if points is None else points.shape[2]
    for name, value, shape in (("target", target, (*rows, axes)), ("weight", weight, rows)):
        if value is None:
            continue
        if tuple(value.shape) != shape:
            letters = "[B, K, d]" if name == "target" else "[B, K]"
            hint = channels_last(logits, value)
            raise ValueError(f"{op}: {name} must be {letters} = {list(shape)}, got {tuple(value.shape)}{hint}")
        check_device(op, name, value, logits)
