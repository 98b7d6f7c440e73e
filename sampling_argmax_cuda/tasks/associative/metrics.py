"""COCO's evaluation of people that were found without boxes."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from ..coco.metrics import coco_results, evaluate_coco
from .reader import CocoImages, to_image


class PeopleEvaluation:
    """Collects the people of images; ``compute`` merges the ranks' and empties itself."""

    def __init__(self) -> None:
        self.records: list[tuple] = []
        self.results: list[dict] = []  # of the last computation, in COCO's result format

    def add(self, batch: dict[str, Tensor], people: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Record of each image of a batch the people ``[n, 17, 3]`` in cells and their scores ``[n]``."""
        inverses = batch["inverse"].double().cpu().numpy()
        for index, inverse, (points, scores) in zip(batch["index"].tolist(), inverses, people, strict=True):
            pixels = to_image(points, inverse)
            seen = pixels[..., 2] > 0
            low, high = (f(np.where(seen[..., None], pixels[..., :2], fill), 1)
                         for f, fill in ((np.min, np.inf), (np.max, -np.inf)))  # fmt: skip
            self.records.append((index, pixels, scores, (high - low).clip(0).prod(-1)))

    def compute(self, data: CocoImages, gather: Callable[[list], list]) -> dict[str, float]:
        """AP and AR by pycocotools, and the people found on an image in the mean; numbers of sizes nobody has are left out.

        ``data`` is what the samples came from, by their index.
        """
        records = sorted(gather(self.records), key=lambda record: record[0])
        self.records = []
        self.results = []
        for index, pixels, scores, areas in records:
            images = [data.records[index]["image_id"]] * len(scores)
            self.results += coco_results(images, pixels, scores, areas, data.truth.category)
        scores = evaluate_coco(data.truth, self.results)
        scores = {name: value for name, value in scores.items() if value != -1 or name == "AP"}
        return {**scores, "people": len(self.results) / max(1, len(records))}
