"""COCO's scores of any points: object keypoint similarity, NMS, rescoring, AP by pycocotools, calibration."""

import contextlib
import io
import math
from collections import defaultdict

import numpy as np
from torch import Tensor

from ...trainers.evaluation import Evaluation
from ...trainers.points import package_points
from .annotations import Annotations
from .crops import KeypointCrops

SIGMAS = package_points("coco").sigmas
STATS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


def oks(prediction: np.ndarray, truth: np.ndarray, area: np.ndarray, sigmas=SIGMAS) -> np.ndarray:
    """Object keypoint similarity ``[n]`` of predictions ``[n, K, >=2]`` to truths ``[n, K, 3]``, of points with ``sigmas``.

    ``mean over visible joints of exp(-d^2 / (2 area (2 sigma)^2))``, areas in pixels; 0 if none is visible.
    """
    squared = np.square(prediction[..., :2] - truth[..., :2]).sum(-1)
    exponent = squared / (2 * np.square(2 * np.array(sigmas)) * (np.asarray(area)[..., None] + np.spacing(1)))
    visible = truth[..., 2] > 0
    count = visible.sum(-1)
    return np.where(visible, np.exp(-exponent), 0).sum(-1) / np.maximum(count, 1)


def oks_nms(results: list[dict], threshold: float = 0.9, soft: bool = False, sigmas=SIGMAS) -> list[dict]:
    """Results of one image without those whose OKS to a better one exceeds ``threshold``.

    ``soft`` multiplies their scores by ``1 - OKS`` instead (linear soft-NMS).
    """
    rest = [dict(result) for result in results]
    kept: list[dict] = []
    while rest:
        rest.sort(key=lambda result: -result["score"])
        best, rest = rest[0], rest[1:]
        kept.append(best)
        if not rest:
            break
        points = np.array([r["keypoints"] for r in rest], float).reshape(len(rest), -1, 3)
        truth = np.array(best["keypoints"], float).reshape(1, -1, 3).copy()
        truth[..., 2] = 1
        # As in COCO's NMS code, the mean of both areas makes the similarity symmetric.
        areas = (np.array([r["area"] for r in rest]) + best["area"]) / 2
        similar = oks(points, np.broadcast_to(truth, points.shape), areas, sigmas)
        if soft:
            for result, overlap in zip(rest, similar, strict=True):
                result["score"] *= float(1 - overlap) if overlap > threshold else 1.0
        else:
            rest = [result for result, overlap in zip(rest, similar, strict=True) if overlap <= threshold]
    return kept


def rescore(box_score: float, keypoint_scores: np.ndarray, rule: str = "sum") -> float:
    """Score: ``sum`` = box + mean + max of joints (released), ``product`` = box * mean of joints > 0.2."""
    scores = np.asarray(keypoint_scores, float)
    if rule == "sum":
        return float(box_score + scores.mean() + scores.max())
    if rule != "product":
        raise ValueError(f"rescore: rule must be sum or product, got {rule!r}")
    good = scores[scores > 0.2]
    return float(box_score * good.mean()) if len(good) else 0.0


def coco_results(image_ids, keypoints: np.ndarray, scores, areas, category: int | str = 1) -> list[dict]:
    """COCO result records from keypoints ``[n, K, 3]`` (x, y, score); one that is not finite is no result."""
    return [
        {"image_id": i if isinstance(i, str) else int(i), "category_id": category,
         "keypoints": [float(v) for v in k.reshape(-1)], "score": float(s), "area": float(a)}
        for i, k, s, a in zip(image_ids, keypoints, scores, areas, strict=True)
        if np.isfinite(k).all() and np.isfinite(s)
    ]  # fmt: skip


def _ground_truth(truth: Annotations, numbers: dict[int | str, int]) -> dict:
    """pycocotools' own data set of what was read: annotation ids from 1 (0 is its "unmatched"), images by ``numbers``."""
    annotations = [
        {"id": n, "image_id": numbers[r["image_id"]], "category_id": 1, "iscrowd": int(r["crowd"]), "area": r["area"],
         "bbox": r["box"].tolist(), "keypoints": r["keypoints"].reshape(-1).tolist(),
         "num_keypoints": int((r["keypoints"][:, 2] > 0).sum())}
        for n, r in enumerate(truth.records, 1)
    ]  # fmt: skip
    return {"images": [{"id": n} for n in numbers.values()], "annotations": annotations, "categories": [{"id": 1}]}


def _checked_results(truth: Annotations, results: list[dict], numbers: dict[int | str, int]) -> list[dict]:
    """pycocotools' copy of results. It would match a NaN with anybody, and knows no image that the file has not."""
    for result in results:
        if result["image_id"] not in numbers:
            raise ValueError(f"evaluate: results on image {result['image_id']}, which {truth.path} does not have")
        if not np.isfinite([*result["keypoints"], result["score"]]).all():
            raise ValueError(f"evaluate: a result on image {result['image_id']} holds a number that is not finite")
    return [{"image_id": numbers[r["image_id"]], "category_id": 1, "keypoints": list(r["keypoints"]), "score": r["score"]}
            for r in results]  # fmt: skip


def evaluate_coco(truth: Annotations, results: list[dict]) -> dict[str, float]:
    """AP and AR in [0, 1] of results against annotations, by pycocotools; all 0 without results.

    A number is -1 where nobody is of that size, and at most 20 results an image count (COCO's own conventions). Raises
    ValueError for a result that is not finite or on an image that the annotations do not have.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not results:
        return dict.fromkeys(STATS, 0.0)
    numbers = {image_id: n for n, image_id in enumerate(sorted(truth.images, key=lambda i: (isinstance(i, str), i)), 1)}
    checked = _checked_results(truth, results, numbers)
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = _ground_truth(truth, numbers)
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(checked), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(truth.points.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(STATS, evaluation.stats, strict=True)}


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; NaN for fewer than two pairs or a constant side."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


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

    def scores_of(self, records: list[dict], data: KeypointCrops) -> dict[str, float]:
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

    def results_of(self, records: list[dict], data: KeypointCrops) -> list[dict]:
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


def _described(records: list[dict], data: KeypointCrops) -> list[dict]:
    """Records with what the data set knows of their people."""
    return [{**data.records[record["index"]], **record} for record in records]
