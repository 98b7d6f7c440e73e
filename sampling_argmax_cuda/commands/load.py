"""A predictor from a checkpoint, without Lightning."""

import os
from pathlib import Path

import torch

from ..calibration.calibration import Calibration
from ..trainers.landmarks import landmarks_of
from ..trainers.predictor import Predictor
from ..trainers.reading import restored_reader
from ..trainers.transforms import CropRule
from ..trainers.weights import read_checkpoint


def read_deployable(path: str | Path, what: str) -> dict:
    """A checkpoint with all that predicting needs: ``landmarks`` and ``crop`` besides the network and its options.

    Raises ValueError for one of a task that has no points on images.
    """
    checkpoint = read_checkpoint(path, what)
    if "landmarks" not in checkpoint:
        _describe(checkpoint)
    if "landmarks" not in checkpoint:
        raise ValueError(
            f"{what} {path} is of task {checkpoint['task']}, which does not find points in boxes of images"
        )
    return checkpoint


def _describe(checkpoint: dict) -> None:
    """Give a checkpoint of an older version what it lacks: its task knows it."""
    from ..trainers.landmark_module import LandmarkModule  # these bring Lightning, which newer checkpoints do without
    from .tasks import TASKS

    module, data = TASKS[checkpoint["task"]]
    if issubclass(module, LandmarkModule) and "volume" not in checkpoint["hyper_parameters"]:
        checkpoint["landmarks"] = module.landmarks.as_mapping()
        size = tuple(checkpoint["datamodule_hyper_parameters"]["image_size"])
        checkpoint["crop"] = CropRule(size, data.padding).plain()


def load(checkpoint: str | os.PathLike, device: str | torch.device | None = None, flip_test: bool | None = None,
         batch_size: int = 32) -> Predictor:  # fmt: skip
    """See :func:`sampling_argmax_cuda.load`."""
    content = read_deployable(Path(checkpoint), "load: checkpoint")
    landmarks, crop = landmarks_of(content["landmarks"], f"load: checkpoint {checkpoint}"), CropRule.of(content["crop"])
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    calibration = Calibration.of(content.get("calibration"))
    return Predictor(restored_reader(content, flip_test), landmarks, crop, device, batch_size, calibration)
