"""PCKh: the share of joints closer to the truth than half of the head's length (Andriluka et al., CVPR 2014)."""

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

GROUPS = {"head": (9,), "shoulder": (12, 13), "elbow": (11, 14), "wrist": (10, 15), "hip": (2, 3), "knee": (1, 4),
          "ankle": (0, 5)}  # fmt: skip
_NOT_EVALUATED = (6, 7)  # pelvis and thorax


def pckh(distance: np.ndarray, visible: np.ndarray, head: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """Shares of joints at most ``threshold`` heads from the truth: of all, and of each group of joints.

    ``distance`` and ``visible`` are ``[n, 16]``, ``head`` ``[n]``, NaN for a person without one, who does not count. All
    joints but pelvis and thorax weigh alike. A group that nobody has is left out.
    """
    known = visible & np.isfinite(head)[:, None] & (head > 0)[:, None]
    near = known & (distance <= threshold * head[:, None])
    groups = {"": [k for k in range(16) if k not in _NOT_EVALUATED], **{f"_{name}": k for name, k in GROUPS.items()}}
    counts = {name: known[:, list(k)].sum() for name, k in groups.items()}
    return {name: float(near[:, list(groups[name])].sum() / count) for name, count in counts.items() if count}


class PckhEvaluation:
    """Collects predictions and truths in pixels of the images; ``compute`` merges the ranks' and empties itself."""

    def __init__(self) -> None:
        self.records: list[tuple] = []
        self.results: list[dict] = []  # of the last computation: "index" of the person, "joints" in pixels

    def add(self, batch: dict[str, Tensor], position: Tensor, peak: Tensor, pixels: Tensor, truth: Tensor) -> None:
        """Record a batch: positions in cells, peaks, and prediction and truth (x, y, weight) in pixels of the image."""
        cells = (position - batch["target"]).norm(dim=-1)
        columns = [x.detach().double().cpu().numpy() for x in (batch["index"], batch["head"], pixels, truth, cells)]
        self.records += list(zip(*columns, strict=True))

    def compute(self, gather: Callable[[list], list]) -> dict[str, float]:
        """PCKh at 0.5 (of all and by group) and 0.1, and the mean error in cells."""
        records = sorted(gather(self.records), key=lambda record: record[0])
        self.records = []
        self.results = [{"index": int(index), "joints": points.tolist()} for index, _, points, _, _ in records]
        if not records:
            return {"pckh": 0.0, "error": math.inf}
        head, pixels, truth, cells = (np.stack([record[k] for record in records]) for k in range(1, 5))
        visible = truth[..., 2] > 0
        distance = np.linalg.norm(pixels - truth[..., :2], axis=-1)
        scores = {f"pckh{name}": value for name, value in pckh(distance, visible, head).items()}
        near = pckh(distance, visible, head, 0.1)
        scores |= {"pckh_0.1": near[""]} if "" in near else {}
        error = float(cells[visible].mean()) if visible.any() else math.inf
        return {"pckh": 0.0, **scores, "error": error}
