"""The errors that are reported on MTFL: absolute, and relative to the distance of the eyes."""

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ...trainers.evaluation import Evaluation, stacked


def landmark_errors(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Errors of faces ``[n, 5, 2]`` in pixels of their images.

    ``abs_px``: mean over faces of the mean distance. ``rel_percent``: the same over the distance of the true eyes, in
    percent, without faces whose eyes are less than 0.001 apart; it is left out where no face is left.
    """
    distance = np.linalg.norm(prediction - truth, axis=-1).mean(-1)
    eyes = np.linalg.norm(truth[:, 0] - truth[:, 1], axis=-1)
    out = {"abs_px": float(distance.mean())}
    if (eyes >= 1e-3).any():
        out["rel_percent"] = float(100 * (distance / np.maximum(eyes, 1e-3))[eyes >= 1e-3].mean())
    return out


class MtflEvaluation(Evaluation):
    """Predictions and truths in pixels of the images. Results: ``index`` in the annotation file, ``landmarks`` in pixels."""

    def add(self, batch: dict[str, Tensor], position: Tensor, peak: Tensor, pixels: Tensor, truth: Tensor) -> None:
        """Record a batch: positions in cells, peaks, and prediction and truth (x, y, weight) in pixels of the image."""
        cells = (position - batch["target"]).norm(dim=-1)
        self.record(batch["index"], pixels=pixels, truth=truth, cells=cells)

    def results_of(self, records: list[dict], data: Dataset | None) -> list[dict]:
        return [{"index": record["index"], "landmarks": record["pixels"].tolist()} for record in records]

    def scores_of(self, records: list[dict], data: Dataset | None) -> dict[str, float]:
        """Errors of the faces with all points in their crop, and the mean error in cells of the points that are.

        What nobody has is left out.
        """
        if not records:
            return {}
        pixels, truths, cells = stacked(records, "pixels", "truth", "cells")
        visible = truths[..., 2] > 0
        whole, out = visible.all(1), {}
        if visible.any():
            out["error"] = float(cells[visible].mean())
        if whole.any():
            out |= landmark_errors(pixels[whole], truths[whole, :, :2])
        return out
