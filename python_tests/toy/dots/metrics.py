"""How far the dots are off, in pixels of their images."""

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ...trainers.evaluation import Evaluation, stacked


class DotEvaluation(Evaluation):
    """Predictions and truths in pixels. Results: ``index`` and ``dot``."""

    def add(self, batch: dict[str, Tensor], position: Tensor, peak: Tensor, pixels: Tensor, truth: Tensor) -> None:
        """Record a batch: positions in cells, peaks, and prediction and truth (x, y, weight) in pixels of the image."""
        self.record(batch["index"], pixels=pixels, truth=truth)

    def results_of(self, records: list[dict], data: Dataset | None) -> list[dict]:
        return [{"index": record["index"], "dot": record["pixels"][0].tolist()} for record in records]

    def scores_of(self, records: list[dict], data: Dataset | None) -> dict[str, float]:
        pixels, truth = stacked(records, "pixels", "truth")
        return {"error": float(np.linalg.norm(pixels - truth[..., :2], axis=-1).mean())}
