"""COCO's evaluation of bottom-up poses."""

import numpy as np
from torch import Tensor

from ...trainers.evaluation import Evaluation
from ..keypoints.oks import coco_results, evaluate_coco
from .reader import CocoImages, to_image


class BottomUpEvaluation(Evaluation):
    """The people of images. Results are in COCO's result format."""

    def add(self, batch: dict[str, Tensor], people: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Record of each image of a batch the people ``[n, 17, 3]`` in cells and their scores ``[n]``."""
        inverses = batch["inverse"].double().cpu().numpy()
        for index, inverse, (points, scores) in zip(batch["index"].tolist(), inverses, people, strict=True):
            pixels = to_image(points, inverse)
            seen = pixels[..., 2] > 0
            low, high = (f(np.where(seen[..., None], pixels[..., :2], fill), 1)
                         for f, fill in ((np.min, np.inf), (np.max, -np.inf)))  # fmt: skip
            areas = (high - low).clip(0).prod(-1)
            self.records.append({"index": index, "pixels": pixels, "scores": scores, "areas": areas})

    def results_of(self, records: list[dict], data: CocoImages) -> list[dict]:
        out = []
        for record in records:
            images = [data.records[record["index"]]["image_id"]] * len(record["scores"])
            out += coco_results(images, record["pixels"], record["scores"], record["areas"], data.truth.category)
        return out

    def scores_of(self, records: list[dict], data: CocoImages) -> dict[str, float]:
        """AP and AR by pycocotools, and the people found on an image in the mean; numbers of sizes nobody has are left out."""
        scores = evaluate_coco(data.truth, self.results)
        scores = {name: value for name, value in scores.items() if value != -1 or name == "AP"}
        return {**scores, "people": len(self.results) / max(1, len(records))}
