"""Sampling-argmax: the expectation of the error over differentiable samples of a heatmap, fused."""

from .backends import available_backends, missing_backends
from .coords import convert_coords
from .objectives import SamplingArgmax, SoftArgmax
from .objectives.energy import energy_score
from .objectives.real_nvp import RealNVP
from .objectives.regularized import js_divergence
from .objectives.rle import RLELoss
from .ops import Moments, axis_sample, expected_error, heatmap_moments, sample, soft_argmax

__version__ = "0.1.0"

__all__ = [
    "Moments",
    "RLELoss",
    "RealNVP",
    "SamplingArgmax",
    "SoftArgmax",
    "available_backends",
    "axis_sample",
    "convert_coords",
    "energy_score",
    "expected_error",
    "heatmap_moments",
    "js_divergence",
    "missing_backends",
    "sample",
    "soft_argmax",
]
