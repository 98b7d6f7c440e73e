"""The energy score of samples: a proper score, so that maps are trained to be as wide as the truth is uncertain.

    ES = E d(y, t) - 1/2 E d(y, y'),   y, y' independent samples, d = l1 or euclidean

(Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007; along one axis it is the
CRPS). Without its second term, as the paper trains, the best law is all mass on the median, whatever the truth's spread.
"""

from torch import Tensor

from ..checks import check_device, check_spread, row_weight
from ..distances import mask_rows, spread_error, weigh_rows


def energy_score(samples: Tensor, target: Tensor, weight: Tensor | None = None, *, metric: str = "l1") -> Tensor:
    """The energy score of every row, times its weight; unbiased for any number of samples.

    Args:
        samples: ``[B, K, S, d]``, S at least 2, e.g. of :func:`.sample`; differentiable.
        target: ``[B, K, d]`` in the samples' units.
        weight: ``[B, K]`` or ``[B, K, 1]``, or None for 1. Weight 0 gives score and gradients 0.
        metric: ``l1``, the sum of the axes' scores, or ``euclidean``; ``l2`` and ``smooth_l1`` have no proper score here.

    Returns:
        ``[B, K]``; single scores may be negative.

    Raises:
        ValueError: for other shapes, one sample, or another metric.
    """
    if samples.dim() != 4:
        raise ValueError(f"energy_score: samples must be [B, K, S, d], got {tuple(samples.shape)}")
    check_spread("energy_score", 0.5, metric, samples.shape[2])
    rows, axes = samples.shape[:2], samples.shape[3]
    weight = row_weight(weight, rows)
    if target.shape != (*rows, axes):
        raise ValueError(f"energy_score: target must be [B, K, d] = {[*rows, axes]}, got {tuple(target.shape)}")
    if weight is not None and weight.shape != rows:
        raise ValueError(f"energy_score: weight must be [B, K] = {list(rows)}, got {tuple(weight.shape)}")
    check_device("energy_score", "target", target, samples, of="samples")
    offsets = mask_rows(samples, weight) - mask_rows(target, weight).to(samples.dtype).unsqueeze(2)
    return weigh_rows(spread_error(offsets.unbind(-1), metric, 0.5), weight)
