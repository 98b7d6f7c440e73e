"""The errors that are reported on MTFL: absolute, and relative to the distance of the eyes."""

from collections.abc import Callable

import numpy as np
from torch import Tensor


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


class MtflEvaluation:
    """Collects predictions and truths in pixels of the images; ``compute`` merges the ranks' and empties itself."""

    def __init__(self) -> None:
        self.records: list[tuple] = []
        self.results: list[dict] = []  # of the last computation: "index" in the annotation file, "landmarks" in pixels

    def add(self, batch: dict[str, Tensor], position: Tensor, peak: Tensor, pixels: Tensor, truth: Tensor) -> None:
        """Record a batch: positions in cells, peaks, and prediction and truth (x, y, weight) in pixels of the image."""
        cells = (position - batch["target"]).norm(dim=-1)
        columns = [x.detach().double().cpu().numpy() for x in (batch["index"], pixels, truth, cells)]
        self.records += list(zip(*columns, strict=True))

    def compute(self, gather: Callable[[list], list]) -> dict[str, float]:
        """Errors of the faces with all points in their crop, and the mean error in cells of the points that are.

        What nobody has is left out.
        """
        records = sorted(gather(self.records), key=lambda record: record[0])
        self.records = []
        self.results = [{"index": int(index), "landmarks": points.tolist()} for index, points, _, _ in records]
        if not records:
            return {}
        visible = np.stack([truth[:, 2] > 0 for _, _, truth, _ in records])
        pixels, truths, cells = (np.stack([record[k] for record in records]) for k in (1, 2, 3))
        whole, out = visible.all(1), {}
        if visible.any():
            out["error"] = float(cells[visible].mean())
        if whole.any():
            out |= landmark_errors(pixels[whole], truths[whole, :, :2])
        return out
