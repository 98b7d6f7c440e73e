"""The operators as Triton kernels, in a dispatcher namespace of their own; imported when they are first used."""

from .. import library
from . import axis_sample, expected_error, sample, soft_argmax
from .launch import NAMESPACE

library.register(NAMESPACE)

__all__ = ["NAMESPACE", "axis_sample", "expected_error", "sample", "soft_argmax"]
