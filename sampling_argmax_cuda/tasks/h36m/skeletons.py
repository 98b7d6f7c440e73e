"""Human3.6M's 18 joints, and how other data sets' joints become them."""

import numpy as np

from ...trainers.landmarks import Landmarks

NAMES = (
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "torso", "neck",
    "nose", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    "thorax",
)  # fmt: skip
PELVIS, THORAX, SHOULDERS, HIPS = 0, 17, (11, 14), (1, 4)
EVALUATED = 17  # the first 17 joints; the thorax, the mean of the shoulders, is not evaluated
BONES = ((0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 17), (17, 8), (8, 9), (9, 10), (17, 11), (11, 12),
         (12, 13), (17, 14), (14, 15), (15, 16))  # fmt: skip
BODY = Landmarks(NAMES, ((1, 4), (2, 5), (3, 6), (11, 14), (12, 15), (13, 16)), BONES)

# The joint of the other set that each of the 18 is, or -1.
MPII = (6, 2, 1, 0, 3, 4, 5, -1, 8, -1, 9, 13, 14, 15, 12, 11, 10, 7)
COCO = (-1, 12, 14, 16, 11, 13, 15, -1, -1, 0, -1, 5, 7, 9, 6, 8, 10, -1)


def with_thorax(joints: np.ndarray) -> np.ndarray:
    """17 joints ``[17, d]`` and the mean of the shoulders as the 18th."""
    return np.concatenate([joints, joints[list(SHOULDERS)].mean(0, keepdims=True)])


def _middle(points: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """The mean of two joints ``[3]`` (x, y, visible), visible where both are."""
    a, b = points[list(pair)]
    return np.concatenate([(a[:2] + b[:2]) / 2, [min(a[2], b[2])]])


def from_joints(points: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Joints ``[18, 3]`` (x, y, visible) from another set's ``[n, 3]``; those that it lacks are invisible.

    A set without pelvis or thorax has the middle of its hips and shoulders there.
    """
    out = np.zeros((18, 3))
    for joint, other in enumerate(order):
        if other >= 0:
            out[joint] = points[other]
    for joint, pair in ((PELVIS, HIPS), (THORAX, SHOULDERS)):
        if order[joint] < 0:
            out[joint] = _middle(out, pair)
    return out


def bone_length(pose: np.ndarray) -> float:
    """The sum of the lengths of the bones of a pose ``[18, 3]``."""
    a, b = np.array(BONES).T
    return float(np.linalg.norm(pose[a] - pose[b], axis=-1).sum())
