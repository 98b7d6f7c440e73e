"""How true confidences and laws are: the numbers of the report."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVELS = (0.5, 0.8, 0.9, 0.95)
HIGH = 0.9  # the confidence that points have to have to be counted by themselves
_BINS = 10


@dataclass(frozen=True)
class Points:
    """What is known of n points whose truth is known, before or after calibration; arrays ``[n]``.

    Args:
        point: which of the task's points.
        error: pixels of the image between position and truth.
        within: whether the error is at most the radius.
        confidence: the probability of that, as it is claimed.
        crps: of the marginals, the sum over axes, in cells.
        nll: minus the log-density of the law at the truth, in nats.
        below: ``[n, 2]``, the probability below the truth on each axis.
    """

    point: np.ndarray
    error: np.ndarray
    within: np.ndarray
    confidence: np.ndarray
    crps: np.ndarray
    nll: np.ndarray
    below: np.ndarray

    def of(self, chosen: np.ndarray) -> "Points":
        """Some of the points."""
        return Points(**{name: values[chosen] for name, values in vars(self).items()})


def correlation(a: np.ndarray, b: np.ndarray, kind) -> float:
    """Pearson's or Spearman's; NaN for fewer than two pairs or a constant side."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(kind(a, b).statistic)


def bins_of(confidence: np.ndarray, within: np.ndarray) -> list[dict[str, float]]:
    """Ten groups of equally many points by rising confidence: how many, the mean confidence and the share within the radius."""
    parts = [part for part in np.array_split(np.argsort(confidence, kind="stable"), _BINS) if len(part)]
    return [{"count": len(part), "confidence": float(confidence[part].mean()), "within": float(within[part].mean())}
            for part in parts]  # fmt: skip


def risk_coverage(points: Points) -> list[dict[str, float]]:
    """The mean error of the most confident tenth, two tenths, ... of the points."""
    order = np.argsort(-points.confidence, kind="stable")
    shares = np.arange(1, _BINS + 1) / _BINS
    return [{"share": float(share), "error": float(points.error[order[: max(1, round(share * len(order)))]].mean())}
            for share in shares]  # fmt: skip


def coverage(below: np.ndarray) -> dict[str, float]:
    """The share of coordinates in the central region of each level of their marginal."""
    return {f"{level:g}": float((np.abs(below - 0.5) <= level / 2).mean()) for level in LEVELS}


def highly_confident(points: Points) -> dict[str, float]:
    """Of the points whose confidence is 0.9 or more: how many, their mean confidence and the share within the radius."""
    chosen = points.confidence >= HIGH
    out = {"count": int(chosen.sum())}
    if chosen.any():
        out |= {"confidence": float(points.confidence[chosen].mean()), "within": float(points.within[chosen].mean())}
    return out


def short_scores(points: Points) -> dict[str, float]:
    """The numbers that the report has of all points and of each."""
    groups = bins_of(points.confidence, points.within)
    off = sum(group["count"] * abs(group["confidence"] - group["within"]) for group in groups)
    return {
        "count": len(points.error), "error_px": float(points.error.mean()), "within": float(points.within.mean()),
        "confidence": float(points.confidence.mean()), "ece": off / len(points.error),
        "brier": float(np.square(points.confidence - points.within).mean()), "crps": float(points.crps.mean()),
        "nll": float(points.nll.mean()), "pearson": correlation(points.confidence, points.error, stats.pearsonr),
        "spearman": correlation(points.confidence, points.error, stats.spearmanr), "coverage": coverage(points.below),
    }  # fmt: skip


def scores_of(points: Points) -> dict[str, object]:
    """Every number of the report."""
    counts = np.histogram(points.below, _BINS, (0, 1))[0]
    return {**short_scores(points), "high": highly_confident(points), "reliability": bins_of(points.confidence, points.within),
            "pit": (counts / points.below.size).tolist(), "risk_coverage": risk_coverage(points)}  # fmt: skip
