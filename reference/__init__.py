"""The specification: every operator in plain PyTorch, float64-able, its backward by autograd. See README.md."""

from .axis_sample import axis_sample
from .circle import sample_on_circles, soft_argmax_on_circles
from .clouds import farthest_points, neighbours, squared_distance
from .expected_error import expected_error
from .sample import grid_points, sample
from .soft_argmax import heatmap_moments, soft_argmax

__all__ = ["axis_sample", "expected_error", "farthest_points", "grid_points", "heatmap_moments", "neighbours", "sample",
           "sample_on_circles", "soft_argmax", "soft_argmax_on_circles", "squared_distance"]  # fmt: skip
