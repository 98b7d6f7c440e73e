"""Keypoints of point clouds: PCK and mIoU by geodesic and by Euclidean distance."""

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from torch import Tensor
from torch.utils.data import Dataset

from ...trainers.evaluation import Evaluation

THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 11))


def geodesic_distances(cloud: np.ndarray, sources: np.ndarray, neighbours: int = 20) -> np.ndarray:
    """Distances ``[m, N]`` from points ``sources`` ``[m]`` along the graph of each point's nearest neighbours.

    ``inf`` where the graph does not connect them.
    """
    count = min(neighbours, len(cloud) - 1)
    distance, index = cKDTree(cloud).query(cloud, count + 1)
    rows = np.repeat(np.arange(len(cloud)), count)
    graph = csr_matrix((distance[:, 1:].ravel(), (rows, index[:, 1:].ravel())), shape=(len(cloud),) * 2)
    return dijkstra(graph, directed=False, indices=np.asarray(sources))


def nearest(cloud: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The number of the point nearest to each place ``[m, 3]``."""
    return cKDTree(cloud).query(places)[1]


def pck(distance: np.ndarray) -> np.ndarray:
    """Share of distances ``[k]`` below each threshold of 0.01 to 0.10, ``[10]``."""
    return (distance[:, None] < np.array(THRESHOLDS)).mean(0)


def iou(between: np.ndarray) -> np.ndarray:
    """``(positives - fn) / (positives + fp)`` at each threshold, from distances ``[found, true]``.

    fp: found keypoints with no true one within the threshold; fn: true ones with no found one.
    """
    limits = np.array(THRESHOLDS)
    fp = (between.min(1)[:, None] >= limits).sum(0)
    fn = (between.min(0)[:, None] >= limits).sum(0)
    return (between.shape[1] - fn) / (between.shape[1] + fp)


def best_copy(found: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """The rotated copy ``[k, 3]`` of the true keypoints that lies nearest to the found ones, by mean distance."""
    return copies[np.linalg.norm(copies - found, axis=-1).mean(-1).argmin()]


class KeypointEvaluation(Evaluation):
    """Scores of point clouds. Results: ``index``, ``keypoints``, those of the model that were found."""

    def __init__(self) -> None:
        super().__init__()
        self.curves: dict[str, np.ndarray] = {}  # of the last computation, at each of THRESHOLDS

    def add(self, batch: dict[str, Tensor], position: Tensor) -> None:
        """Record predictions ``[B, K, 3]``, each scored against the rotated copy of the truth that fits it best.

        A keypoint that a model lacks is not scored, and neither is a model that lacks them all.
        """
        given = {name: batch[name] for name in ("points", "copies", "weight")}
        # Scored here, so that no rank sends its clouds.
        for record in self.record(batch["index"], **given, found=position):
            cloud, copies, known = record.pop("points"), record.pop("copies"), record.pop("weight") > 0
            scored = known.any()
            record["scores"] = self._scores(cloud, copies[:, known], record["found"][known]) if scored else None

    @staticmethod
    def _scores(cloud: np.ndarray, copies: np.ndarray, found: np.ndarray) -> tuple:
        truth = best_copy(found, copies)
        straight = np.linalg.norm(found - truth, axis=-1)
        far = geodesic_distances(cloud, nearest(cloud, truth))[:, nearest(cloud, found)]  # [true, found]
        return straight, pck(np.diagonal(far)), pck(straight), iou(far.T)

    def results_of(self, records: list[dict], data: Dataset | None) -> list[dict]:
        return [{"index": record["index"], "keypoints": record["found"].tolist()} for record in records]

    def scores_of(self, records: list[dict], data: Dataset | None) -> dict[str, float]:
        """Means over models: ``pck_T`` and ``miou_T`` geodesic, ``pck_euclidean_T``, and the mean ``error``; none of no model."""
        scores, self.curves = [record["scores"] for record in records if record["scores"] is not None], {}
        if not scores:
            return {}
        out = {"error": float(np.mean([score[0].mean() for score in scores]))}
        for name, k in (("pck", 1), ("pck_euclidean", 2), ("miou", 3)):
            self.curves[name] = np.mean([score[k] for score in scores], 0)
            out |= {f"{name}_{t:.2f}": float(v) for t, v in zip(THRESHOLDS, self.curves[name], strict=True)}
        return out
