"""The errors that are reported on MTFL: absolute, and relative to the distance of the eyes."""

import numpy as np

from ...trainers.evaluation import PixelEvaluation


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


class MtflEvaluation(PixelEvaluation):
    """Results: ``index`` in the annotation file, ``landmarks`` in pixels."""

    result = "landmarks"

    def errors(self, pixels: np.ndarray, truth: np.ndarray, records: list[dict]) -> dict[str, float]:
        """Errors of the faces with all points in their crop."""
        whole = (truth[..., 2] > 0).all(1)
        return landmark_errors(pixels[whole], truth[whole, :, :2]) if whole.any() else {}
