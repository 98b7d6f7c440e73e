"""COCO's evaluation of a validation epoch: every sample of every rank once, then AP, errors and calibration."""

import math
from collections import defaultdict

import numpy as np
from torch import Tensor

from ...trainers.evaluation import Evaluation
from .metrics import coco_results, evaluate_coco, oks, oks_nms, pearson, rescore
from .reader import CocoKeypoints


class CocoEvaluation(Evaluation):
    """One record a person. Results are in COCO's result format.

    Args:
        rule: how joint scores make an instance score, ``sum`` or ``product``.
    """

    def __init__(self, rule: str = "sum") -> None:
        if rule not in ("sum", "product"):
            raise ValueError(f"model: rescore must be sum or product, got {rule!r}")
        super().__init__()
        self.rule = rule

    def add(self, batch: dict[str, Tensor], position: Tensor, peak: Tensor, pixels: Tensor, truth: Tensor) -> None:
        """Record a batch: positions in cells, peaks, and prediction and truth (x, y, weight) in pixels of the image."""
        self.record(batch["index"], position=position, target=batch["target"], weight=batch["weight"], peak=peak,
                    pixels=pixels, truth=truth)  # fmt: skip

    def scores_of(self, records: list[dict], data: CocoKeypoints) -> dict[str, float]:
        """AP and AR by pycocotools, mean error and bias in cells, and the Pearson correlation of peak and OKS.

        ``data`` is what the samples came from; they know their index in it, and it knows ids, areas and boxes exactly.
        The bias is the length of the median error: what all positions are off by together. The last three are over the
        people with a visible truth, which a detection has if it matched an annotation. What cannot be had is left out: AP
        and AR of a size that no person has, the error of nobody, the correlation of fewer than two people or of equal
        numbers. AP is always there.
        """
        scores = evaluate_coco(data.truth, self.results)
        scores = {name: value for name, value in scores.items() if value != -1 or name == "AP"}
        calibration = self._calibration(_described(records, data), data.truth.points.sigmas)
        return {**scores, **{name: value for name, value in calibration.items() if not math.isnan(value)}}

    def results_of(self, records: list[dict], data: CocoKeypoints) -> list[dict]:
        per_image, category, sigmas = defaultdict(list), data.truth.category, data.truth.points.sigmas
        for r in _described(records, data):
            score = rescore(r["score"], r["peak"], self.rule)
            keypoints = np.concatenate([r["pixels"], r["peak"][:, None]], 1)
            per_image[r["image_id"]] += coco_results([r["image_id"]], keypoints[None], [score], [r["area"]], category)
        return [result for results in per_image.values() for result in oks_nms(results, sigmas=sigmas)]

    def _calibration(self, records: list[dict], sigmas) -> dict[str, float]:
        errors, offsets, peaks, similarity = [], [], [], []
        for r in records:
            visible = r["weight"] > 0
            if visible.any():
                offsets.append((r["position"] - r["target"])[visible])
                errors.append(np.linalg.norm(offsets[-1], axis=-1).mean())
                peaks.append(r["peak"][visible].mean())
                similarity.append(oks(r["pixels"][None], r["truth"][None], np.array([r["truth_area"]]), sigmas)[0])
        correlation = pearson(np.array(peaks), np.array(similarity))
        if not errors:
            return {"pearson": correlation}
        bias = np.linalg.norm(np.median(np.concatenate(offsets), axis=0))
        return {"error": float(np.mean(errors)), "bias": float(bias), "pearson": correlation}


def _described(records: list[dict], data: CocoKeypoints) -> list[dict]:
    """Records with what the data set knows of their people."""
    return [{**data.records[record["index"]], **record} for record in records]
