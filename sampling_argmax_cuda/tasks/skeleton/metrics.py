"""How well keypoints without names agree between models: the dual alignment score, and mIoU."""

import math
from collections import defaultdict

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ...trainers.evaluation import Evaluation
from ..keypointnet.metrics import THRESHOLDS, iou, nearest


def agreement(labels: list[int], self_pairs: bool = False) -> float:
    """Share of ordered pairs of models with equal labels; NaN for less than two models without ``self_pairs``."""
    counts, n = np.unique(labels, return_counts=True)[1], len(labels)
    if self_pairs:
        return float(np.square(counts).sum() / n**2)
    return float((counts * (counts - 1)).sum() / (n * (n - 1))) if n > 1 else math.nan


def _known_mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def alignment(found: np.ndarray, truth: list[dict[int, np.ndarray]], self_pairs: bool = False) -> dict[str, float]:
    """Alignment scores (Shi et al., CVPR 2021) of keypoints ``[models, k, 3]`` with annotations by semantic number.

    ``das_forward``: a keypoint takes the number of its nearest annotation; mean over keypoints of :func:`agreement`.
    ``das_backward``: an annotation takes the index of its nearest keypoint; mean over semantic numbers. ``das``: their mean.
    ``self_pairs`` counts a model with itself, as the published script does, which adds about 1 / models.
    """
    forward, backward = [[] for _ in range(found.shape[1])], defaultdict(list)
    for keypoints, annotated in zip(found, truth, strict=True):
        numbers, places = list(annotated), np.array(list(annotated.values()))
        for k, index in enumerate(nearest(places, keypoints)):
            forward[k].append(numbers[index])
        for number, index in zip(numbers, nearest(keypoints, places), strict=True):
            backward[number].append(int(index))
    scores = {"das_forward": np.mean([agreement(labels, self_pairs) for labels in forward]),
              "das_backward": _known_mean([agreement(labels, self_pairs) for labels in backward.values()])}  # fmt: skip
    scores = {name: float(value) for name, value in scores.items()}
    return {**scores, "das": (scores["das_forward"] + scores["das_backward"]) / 2}


class AlignmentEvaluation(Evaluation):
    """Keypoints without names. Results: ``index``, ``keypoints`` in the units of the files.

    Args:
        self_pairs: count a model with itself in the alignment scores.
    """

    def __init__(self, self_pairs: bool = False) -> None:
        super().__init__()
        self.self_pairs = self_pairs

    def add(self, batch: dict[str, Tensor], keypoints: Tensor) -> None:
        """Record keypoints ``[B, k, 3]`` in the units of the files; a model without annotations has no part in the scores."""
        given = {name: batch[name] for name in ("points", "copies", "weight")}
        # Scored here, so that no rank sends its clouds.
        for record in self.record(batch["index"], **given, found=keypoints):
            cloud, copies, weight = record.pop("points"), record.pop("copies"), record.pop("weight")
            truth = {int(k): copies[0, k] for k in np.flatnonzero(weight > 0)}
            record |= {"truth": truth, "iou": self._iou(cloud, truth, record["found"]) if truth else None}

    @staticmethod
    def _iou(cloud: np.ndarray, truth: dict[int, np.ndarray], found: np.ndarray) -> np.ndarray:
        places, snapped = np.array(list(truth.values())), cloud[nearest(cloud, found)]
        return iou(np.linalg.norm(snapped[:, None] - places[None], axis=-1))

    def results_of(self, records: list[dict], data: Dataset | None) -> list[dict]:
        return [{"index": record["index"], "keypoints": record["found"].tolist()} for record in records]

    def scores_of(self, records: list[dict], data: Dataset | None) -> dict[str, float]:
        """Alignment scores and ``miou_euclidean_T``; ``error`` is 1 minus the mean of both alignments.

        Nothing of less than two annotated models, and no alignment of models that have no annotation in common.
        """
        scored = [record for record in records if record["truth"]]
        if len(scored) < 2:
            return {}
        scores = alignment(np.stack([r["found"] for r in scored]), [r["truth"] for r in scored], self.self_pairs)
        scores["error"] = 1 - scores["das"]
        mean = np.mean([record["iou"] for record in scored], 0)
        curve = {f"miou_euclidean_{t:.2f}": float(v) for t, v in zip(THRESHOLDS, mean, strict=True)}
        return {name: value for name, value in (scores | curve).items() if not math.isnan(value)}
