"""Sampling-argmax: the expectation of the error over differentiable samples of a heatmap, fused."""

from typing import TYPE_CHECKING

from .backends import available_backends, missing_backends
from .coords import convert_coords
from .moments import Moments, heatmap_moments, soft_argmax
from .objectives import SamplingArgmax, SoftArgmax
from .objectives.decoders import heatmap_mode, local_soft_argmax
from .objectives.density import log_density
from .objectives.energy import energy_score
from .objectives.localization import LocalizationLoss, decode
from .objectives.real_nvp import RealNVP
from .objectives.regularized import js_divergence
from .objectives.rle import RLELoss
from .ops import axis_sample, expected_error, sample

if TYPE_CHECKING:
    import os

    import torch

    from .trainers.predictor import Predictor

__version__ = "0.1.0"

__all__ = [
    "LocalizationLoss",
    "Moments",
    "RLELoss",
    "RealNVP",
    "SamplingArgmax",
    "SoftArgmax",
    "available_backends",
    "axis_sample",
    "convert_coords",
    "decode",
    "energy_score",
    "expected_error",
    "heatmap_mode",
    "heatmap_moments",
    "js_divergence",
    "load",
    "local_soft_argmax",
    "log_density",
    "missing_backends",
    "sample",
    "soft_argmax",
]


def load(checkpoint: "str | os.PathLike", *, device: "str | torch.device | None" = None, flip_test: bool | None = None,
         batch_size: int = 32) -> "Predictor":  # fmt: skip
    """The :class:`.Predictor` of a checkpoint of a task that finds points in boxes of images; it needs OpenCV, no Lightning.

    Args:
        checkpoint: the file; nothing else is read.
        device: where it runs; None for a GPU where there is one.
        flip_test: average with the mirrored image; None for what the checkpoint says.
        batch_size: boxes that are run at once, >= 1.

    Raises:
        FileNotFoundError, ValueError: for a file that is no such checkpoint.
    """
    from .commands.load import load as load_checkpoint  # OpenCV, which the operators do without

    return load_checkpoint(checkpoint, device, flip_test, batch_size)
