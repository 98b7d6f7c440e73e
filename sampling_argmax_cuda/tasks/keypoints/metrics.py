"""Scores of any point set: errors in pixels, NME, PCK and OKS-AP, of all points and of each."""

import numpy as np

from ...trainers.landmarks import Landmarks
from .crops import KeypointCrops
from .oks import CocoEvaluation

THRESHOLDS = (0.05, 0.1, 0.2)  # of PCK, shares of the box's longer side


def point_errors(pixels: np.ndarray, truth: np.ndarray, boxes: np.ndarray, pair: tuple[int, int] | None = None
                 ) -> dict[str, np.ndarray]:  # fmt: skip
    """Errors ``[n, K]`` of predictions ``[n, K, 2]`` to truths ``[n, K, 3]`` with boxes ``[n, 4]``; NaN where not labelled.

    ``px`` is the distance in pixels of the image. ``nme`` is that over the box's diagonal, or over the distance of the true
    points ``pair``, NaN where one of these is not labelled or both are in one place. ``pck`` is it over the longer side.
    """
    seen = truth[..., 2] > 0
    distance = np.where(seen, np.linalg.norm(pixels - truth[..., :2], axis=-1), np.nan)
    length = np.hypot(boxes[:, 2], boxes[:, 3])
    if pair is not None:
        a, b = pair
        length = np.linalg.norm(truth[:, a, :2] - truth[:, b, :2], axis=-1)
        length = np.where(seen[:, a] & seen[:, b] & (length > 0), length, np.nan)
    return {"px": distance, "nme": distance / length[:, None], "pck": distance / boxes[:, 2:].max(1)[:, None]}


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN, NaN of nothing."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def summary(errors: dict[str, np.ndarray]) -> dict[str, float]:
    """Scores of errors of :func:`point_errors`, over all labelled points; what nobody has is left out."""
    px, share = errors["px"][~np.isnan(errors["px"])], errors["pck"][~np.isnan(errors["pck"])]
    out = {
        "mean_px": _mean(px),
        "median_px": float(np.median(px)) if len(px) else float("nan"),
        "nme": _mean(errors["nme"]),
    }
    out |= {f"pck_{t}": float((share <= t).mean()) if len(share) else float("nan") for t in THRESHOLDS}
    return {name: value for name, value in out.items() if not np.isnan(value)}


class KeypointEvaluation(CocoEvaluation):
    """Scores in pixels of the images, of every labelled point, in its crop or not. Results are in COCO's result format.

    ``table`` has, of the last validation, a row a point.

    Args:
        points: what they are.
        pair: names of the points whose distance NME counts in; None for the box's diagonal.
        rule: see :class:`.CocoEvaluation`.
    """

    def __init__(self, points: Landmarks, pair: tuple[str, str] | None = None, rule: str = "sum") -> None:
        super().__init__(rule)
        unknown = [name for name in pair or () if name not in points.names]
        if unknown or (pair is not None and len({*pair}) != 2):
            raise ValueError(f"model: nme_pair must be two names of {', '.join(points.names)}, got {list(pair)}")
        self.points = points
        self.pair = None if pair is None else tuple(points.names.index(name) for name in pair)
        self.table: list[dict[str, str | float]] = []

    def scores_of(self, records: list[dict], data: KeypointCrops) -> dict[str, float]:
        """COCO's numbers, the mean error in cells, and those of :func:`summary`."""
        scores = super().scores_of(records, data)
        known = [(record, data.records[record["index"]]) for record in records]
        known = [(record, person) for record, person in known if "truth_box" in person]  # a detection may be nobody
        if not known:
            return scores
        columns = (np.stack([record["pixels"] for record, _ in known]),
                   *(np.stack([person[key] for _, person in known]) for key in ("keypoints", "truth_box")))  # fmt: skip
        errors = point_errors(*columns, self.pair)
        self.table = [{"point": name, "labelled": int((~np.isnan(errors["px"][:, k])).sum()),
                       **summary({key: values[:, k] for key, values in errors.items()})}
                      for k, name in enumerate(self.points.names)]  # fmt: skip
        return {**scores, **summary(errors)}
