"""PCKh: the share of joints closer to the truth than half of the head's length (Andriluka et al., CVPR 2014)."""

import numpy as np

from ...trainers.evaluation import PixelEvaluation, stacked

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


class PckhEvaluation(PixelEvaluation):
    """Results: ``index`` of the person, ``joints`` in pixels."""

    result, extra = "joints", ("head", "head_boxed", "joints")

    def errors(self, pixels: np.ndarray, truth: np.ndarray, records: list[dict]) -> dict[str, float]:
        """Shares of joints at 0.5 (of all and by group) and at 0.1 heads.

        ``pckh`` is of people with a box of their head, ``pck_neck_head`` of the others, whose head is as long as the upper
        neck is from its top; ``pck`` is of both. A joint that lies outside the crop counts.
        """
        head, boxed, joints = stacked(records, *self.extra)
        visible = joints[..., 2] > 0
        distance = np.linalg.norm(pixels - joints[..., :2], axis=-1)
        both = pckh(distance, visible, head)
        out = {"pck": both[""]} if both else {}
        for name, own in (("pckh", boxed > 0), ("pck_neck_head", boxed == 0)):
            lengths = np.where(own, head, np.nan)
            out |= {f"{name}{group}": value for group, value in pckh(distance, visible, lengths).items()}
            near = pckh(distance, visible, lengths, 0.1)
            out |= {f"{name}_0.1": near[""]} if near else {}
        return out
