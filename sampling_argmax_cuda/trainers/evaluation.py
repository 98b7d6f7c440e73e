"""What the evaluations of all tasks share: records of every sample of every rank, once, then results and scores."""

from collections.abc import Callable
from operator import itemgetter

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ..objectives.marginals import MarginalScores, marginal_scores


class Evaluation:
    """Collects one record a sample; ``compute`` merges those of the ranks and empties itself.

    ``results`` are those of the last computation, in the format of the task's result file.
    """

    def __init__(self) -> None:
        self.records: list[dict] = []
        self.results: list[dict] = []

    def record(self, index: Tensor, **columns: Tensor) -> list[dict]:
        """Record a batch: tensors ``[B, ...]`` by name, of which each sample has its own row in float64; the new records."""
        arrays = {name: value.detach().double().cpu().numpy() for name, value in columns.items()}
        new = [
            {"index": int(number), **{name: array[i] for name, array in arrays.items()}}
            for i, number in enumerate(index)
        ]
        self.records += new
        return new

    def compute(self, gather: Callable[[list], list], data: Dataset | None = None) -> dict[str, float]:
        """The scores by name; what cannot be had is left out.

        Args:
            gather: gives the records of all ranks.
            data: what the samples came from, by their index, for the evaluations that ask it.
        """
        records = sorted(gather(self.records), key=itemgetter("index"))
        self.records = []
        self.results = self.results_of(records, data)
        return self.scores_of(records, data)

    def results_of(self, records: list[dict], data: Dataset | None) -> list[dict]:
        """The results of records in the order of their samples."""
        raise NotImplementedError

    def scores_of(self, records: list[dict], data: Dataset | None) -> dict[str, float]:
        """The scores of records in the order of their samples; ``results`` are made already."""
        raise NotImplementedError


class PixelEvaluation(Evaluation):
    """Errors of points in pixels of the images. Results: ``index`` of the sample and its points, by the name ``result``."""

    result: str
    extra: tuple[str, ...] = ()  # what it needs of a sample besides

    def add(self, batch: dict[str, Tensor], position: Tensor, peak: Tensor, pixels: Tensor, truth: Tensor) -> None:
        """Record a batch: positions in cells, peaks, and prediction and truth (x, y, weight) in pixels of the image."""
        cells = (position - batch["target"]).norm(dim=-1)
        more = {name: batch[name] for name in self.extra}
        self.record(batch["index"], pixels=pixels, truth=truth, cells=cells, **more)

    def results_of(self, records: list[dict], data: Dataset | None) -> list[dict]:
        return [{"index": record["index"], self.result: record["pixels"].tolist()} for record in records]

    def scores_of(self, records: list[dict], data: Dataset | None) -> dict[str, float]:
        """The mean error in cells of the points in their crop, and :meth:`errors`."""
        if not records:
            return {}
        pixels, truth, cells = stacked(records, "pixels", "truth", "cells")
        inside = truth[..., 2] > 0
        error = {"error": float(cells[inside].mean())} if inside.any() else {}
        return error | self.errors(pixels, truth, records)

    def errors(self, pixels: np.ndarray, truth: np.ndarray, records: list[dict]) -> dict[str, float]:
        """Scores of predictions ``[n, K, 2]`` and truths ``[n, K, 3]``, 0 outside the crop; what nobody has is left out."""
        raise NotImplementedError


class MapEvaluation(Evaluation):
    """How much of the truth the maps know: proper scores and coverage of each coordinate's law, over all points that are known."""

    def add(self, index: Tensor, maps: Tensor, target: Tensor, known: Tensor) -> None:
        """Record maps of probabilities ``[B, K, *axes]`` and targets ``[B, K, d]`` in cells; ``known`` ``[B, K, d]`` is 0 or 1."""
        self.record(index, known=known, **marginal_scores(maps, target)._asdict())

    def results_of(self, records: list[dict], data: Dataset | None) -> list[dict]:
        return []

    def scores_of(self, records: list[dict], data: Dataset | None) -> dict[str, float]:
        """``crps`` and ``spread`` of a coordinate in cells; ``cover_50``, ``cover_90``: targets in the central 50 and 90 %."""
        if not records:
            return {}
        known, crps, below, spread = stacked(records, "known", *MarginalScores._fields)
        counts = known > 0
        if not counts.any():
            return {}
        off = np.abs(below[counts] - 0.5)
        return {
            "crps": float(crps[counts].mean()),
            "spread": float(spread[counts].mean()),
            **{f"cover_{share}": float((off <= share / 200).mean()) for share in (50, 90)},
        }


def stacked(records: list[dict], *names: str) -> tuple[np.ndarray, ...]:
    """Columns ``[n, ...]`` of records."""
    return tuple(np.stack([record[name] for record in records]) for name in names)
