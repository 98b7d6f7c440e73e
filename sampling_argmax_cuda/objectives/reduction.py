"""From the losses of points to one number."""

from torch import Tensor

REDUCTIONS = ("mean", "batch", "visible", "none")


def reduce_loss(per_keypoint: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """One number from losses ``[B, K]`` that already carry their weight.

    Args:
        per_keypoint: ``[B, K]``.
        weight: ``[B, K]``, read by ``visible`` only; None counts every keypoint.
        reduction: ``mean`` = sum / (B K); ``batch`` = sum / B, the released 2-D loss; ``visible`` = sum /
            max(1, sum of weights); ``none`` returns ``per_keypoint``. An empty batch gives 0.

    Raises:
        ValueError: for an unknown reduction or shapes that differ.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduce_loss: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if per_keypoint.dim() != 2:
        raise ValueError(f"reduce_loss: per_keypoint must be [B, K], got {tuple(per_keypoint.shape)}")
    if weight is not None and weight.shape != per_keypoint.shape:
        expected = list(per_keypoint.shape)
        raise ValueError(f"reduce_loss: weight must be [B, K] = {expected}, got {tuple(weight.shape)}")
    if reduction == "none":
        return per_keypoint
    if reduction == "visible" and weight is not None:
        return per_keypoint.sum() / weight.to(per_keypoint.dtype).sum().clamp(min=1)
    count = per_keypoint.shape[0] if reduction == "batch" else per_keypoint.numel()
    return per_keypoint.sum() / max(count, 1)
