"""Errors of poses in space: MPJPE and its aligned forms, in mm."""

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...trainers.evaluation import Evaluation, stacked
from .camera import back_project
from .skeletons import EVALUATED, PELVIS, bone_length

ACTIONS = ("directions", "discussion", "eating", "greeting", "phoning", "posing", "purchases", "sitting", "sitting_down",
           "smoking", "photo", "waiting", "walking", "walk_dog", "walk_together")  # fmt: skip


def align(prediction: np.ndarray, truth: np.ndarray, scale: bool = True) -> np.ndarray:
    """Poses ``[n, K, 3]`` moved onto their truths by the best rotation, translation and, if asked, scale.

    Least squares (Procrustes; Umeyama, PAMI 1991): with centred X, Y and the singular value decomposition
    ``X^T Y = U S V^T`` the rotation is ``U diag(1, 1, det(U V^T)) V^T``, so never a reflection.
    """
    x, y = (pose - pose.mean(1, keepdims=True) for pose in (prediction, truth))
    u, s, vt = np.linalg.svd(x.swapaxes(1, 2) @ y)
    sign = np.ones_like(s)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    size = np.square(x).sum((1, 2))
    factor = (s * sign).sum(1) / np.where(size > 0, size, 1) if scale else np.ones(len(x))
    return factor[:, None, None] * x @ rotation + truth.mean(1, keepdims=True)


def mpjpe(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean distance of the joints of each pose, ``[n]``, in the poses' units."""
    return np.linalg.norm(prediction - truth, axis=-1).mean(-1)


def pose_errors(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Errors in mm of poses ``[n, 17, 3]`` relative to their pelvis, and of each axis.

    ``mpjpe_mm`` as they are, ``pa_mpjpe_mm`` after a similarity (protocol 2 of the released code), ``rigid_mpjpe_mm``
    after rotation and translation only (that of Integral Pose).
    """
    out = {"mpjpe_mm": mpjpe(prediction, truth).mean(), "pa_mpjpe_mm": mpjpe(align(prediction, truth), truth).mean(),
           "rigid_mpjpe_mm": mpjpe(align(prediction, truth, scale=False), truth).mean()}  # fmt: skip
    for axis, name in enumerate("xyz"):
        out[f"{name}_mm"] = np.abs(prediction - truth)[..., axis].mean()
    return {name: float(value) for name, value in out.items()}


def lift_by_camera(pixels: np.ndarray, depth: np.ndarray, root_depth: float, focal: np.ndarray,
                   center: np.ndarray) -> np.ndarray:  # fmt: skip
    """A pose ``[K, 3]`` in mm of the camera from pixels ``[K, 2]`` and depths ``[K]`` in mm behind the pelvis."""
    return back_project(np.concatenate([pixels, depth[:, None] + root_depth], 1), focal, center)


def lift_by_bones(pose: np.ndarray, length: float) -> np.ndarray:
    """A pose ``[18, 3]`` in isotropic pixels as mm relative to its pelvis: its bones sum up to ``length`` mm."""
    return (pose - pose[PELVIS]) * length / max(bone_length(pose), 1e-9)


class PoseEvaluation(Evaluation):
    """Poses in space. Results: ``index`` of the image, ``xyz_17`` relative to the pelvis in mm.

    Args:
        lift: ``camera``, with each image's camera and the true depth of the pelvis, or ``bones``.
        bones_mm: the sum of the bones' lengths that ``bones`` gives every pose.
    """

    def __init__(self, lift: str, bones_mm: float) -> None:
        super().__init__()
        self.lift, self.bones_mm = lift, bones_mm

    def add(self, batch: dict[str, Tensor], position: Tensor, peak: Tensor, pixels: Tensor, truth: Tensor) -> None:
        """Record a batch; ``pixels`` ``[B, 18, 3]`` are those of the image with the depth behind the pelvis as z.

        A pose in mm has all its joints, in the crop or not; an error in cells is of the known coordinates of those in it.
        """
        known = (batch["weight"] > 0).unsqueeze(-1) & (batch["axes"] > 0)
        cells = torch.where(known, position - batch["target"], 0).norm(dim=-1)
        cells = torch.where(known.any(-1), cells, torch.nan)[:, :EVALUATED]
        known = {name: batch[name] for name in ("action", "pose", "root_depth", "focal", "center")}
        self.record(batch["index"], **known, pixels=pixels, cells=cells)

    def _found(self, record: dict) -> np.ndarray:
        """The predicted pose of a record, relative to its pelvis in mm."""
        pixels = record["pixels"]
        if self.lift == "bones":
            return _relative(lift_by_bones(pixels, self.bones_mm))
        camera = record["root_depth"], record["focal"], record["center"]
        return _relative(lift_by_camera(pixels[:, :2], pixels[:, 2], *camera))

    def results_of(self, records: list[dict], data: Dataset | None) -> list[dict]:
        return [{"index": record["index"], "xyz_17": self._found(record).tolist()} for record in records]

    def scores_of(self, records: list[dict], data: Dataset | None) -> dict[str, float]:
        """The errors of all poses, MPJPE of each action that there is, and the mean error in cells, if any is known."""
        if not records:
            return {}
        found = np.array([result["xyz_17"] for result in self.results])
        truth = np.stack([_relative(record["pose"]) for record in records])
        per_action = defaultdict(list)
        for record, error in zip(records, mpjpe(found, truth), strict=True):
            per_action[int(record["action"])].append(error)
        actions = {f"mpjpe_{ACTIONS[a]}_mm": float(np.mean(e)) for a, e in sorted(per_action.items()) if a >= 0}
        (cells,) = stacked(records, "cells")
        error = {} if np.isnan(cells).all() else {"error": float(np.nanmean(cells))}
        return {**pose_errors(found, truth), **actions, **error}


def _relative(pose: np.ndarray) -> np.ndarray:
    return (pose - pose[PELVIS])[:EVALUATED]
