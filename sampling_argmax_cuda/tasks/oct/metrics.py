"""Errors of surfaces, in pixels and in micrometres as their names say, and Dice of the layers between them."""

import math

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ...trainers.evaluation import Evaluation, stacked
from .delineation import LAYERS, SURFACES


def surface_errors(error: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Mean absolute and signed error, standard deviation and root of the mean square, over scans and columns.

    ``error`` and ``known`` are ``[scans, surfaces, columns]``; results ``[surfaces]``, NaN for a surface nobody knows.
    """
    count = known.sum((0, 2)).astype(float)
    count[count == 0] = np.nan

    def mean(x: np.ndarray) -> np.ndarray:
        return np.where(known, x, 0).sum((0, 2)) / count

    signed = mean(error)
    return {"mad": mean(np.abs(error)), "signed": signed,
            "std": np.sqrt(mean(np.square(error - signed[:, None]))), "rmse": np.sqrt(mean(np.square(error)))}  # fmt: skip


def layer_dice(prediction: np.ndarray, truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Dice ``[layers]`` of the layers between surfaces ``[scans, surfaces, columns]``, by exact lengths of the columns.

    ``2 |A and B| / (|A| + |B|)`` over the columns in which both surfaces of a layer are known; NaN for an empty layer.
    """
    both = known[:, 1:] & known[:, :-1]
    overlap = np.minimum(prediction[:, 1:], truth[:, 1:]) - np.maximum(prediction[:, :-1], truth[:, :-1])
    total = np.diff(prediction, axis=1).clip(0) + np.diff(truth, axis=1).clip(0)
    overlap, total = (np.where(both, x.clip(0), 0).sum((0, 2)) for x in (overlap, total))
    return 2 * overlap / np.where(total > 0, total, np.nan)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


class SurfaceEvaluation(Evaluation):
    """Surfaces of B-scans. Results: ``volume``, ``scan``, ``surfaces`` in rows of the B-scan."""

    def add(self, batch: dict[str, Tensor], surfaces: Tensor) -> None:
        """Record predictions ``[B, 9, columns]`` in rows of the flat image."""
        names = ("volume", "scan", "um_per_row", "columns", "offset", "target", "weight")
        self.record(batch["index"], **{name: batch[name] for name in names}, found=surfaces)

    def results_of(self, records: list[dict], data: Dataset | None) -> list[dict]:
        return [{"volume": int(r["volume"]), "scan": int(r["scan"]),
                 "surfaces": (r["found"] + r["offset"])[:, : int(r["columns"])].tolist()} for r in records]  # fmt: skip

    def scores_of(self, records: list[dict], data: Dataset | None) -> dict[str, float]:
        """Means over volumes of each volume's errors: of every surface in micrometres, and over all surfaces.

        ``order_violations`` counts pairs of neighbouring surfaces that are the wrong way round in a column where both are
        known. What no volume knows is left out.
        """
        per_volume = []
        for volume in sorted({float(record["volume"]) for record in records}):
            own = [record for record in records if record["volume"] == volume]
            truth, weight, found = stacked(own, "target", "weight", "found")
            errors, dice = surface_errors(found - truth, weight > 0), layer_dice(found, truth, weight > 0)
            per_volume.append((own[0]["um_per_row"], errors, dice))
        if not per_volume:
            return {}
        out = {}
        for name in ("mad", "signed", "std", "rmse"):
            pixels = np.stack([errors[name] for _, errors, _ in per_volume])
            micrometres = pixels * np.array([um for um, _, _ in per_volume])[:, None]
            out |= {f"{name}_px": _mean(pixels), f"{name}_um": _mean(micrometres)}
            if name == "mad":
                out |= {f"mad_{s}_um": _mean(micrometres[:, k]) for k, s in enumerate(SURFACES)}
        dice = np.stack([d for _, _, d in per_volume])
        out |= {"dice": _mean(dice)} | {f"dice_{layer}": _mean(dice[:, k]) for k, layer in enumerate(LAYERS)}
        found, known = stacked(records, "found", "weight")
        wrong = (np.diff(found, axis=1) < 0) & (known[:, 1:] > 0) & (known[:, :-1] > 0)
        out |= {"error": out["mad_px"], "order_violations": float(wrong.sum())}
        return {name: value for name, value in out.items() if not math.isnan(value)}
