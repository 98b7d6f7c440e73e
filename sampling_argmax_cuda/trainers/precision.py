"""The network's precision, which is not that of the geometry around it."""

from contextlib import nullcontext

from lightning.pytorch.plugins.precision import Precision


def keep_geometry(plugin: Precision) -> None:
    """Let a precision plugin leave batches, and torch's default dtype in the steps, as they are.

    With ``bf16-true``, ``16-true`` and ``64-true`` Lightning casts all numbers of a batch as it casts the network, and has
    the steps make new tensors so: 8 bits leave a target behind cell 32 a quarter of a cell, and a place in an image of 640
    pixels four of them. Here networks cast what goes into them; targets, matrices and positions stay float32 or better.
    """
    plugin.convert_input = lambda batch: batch
    if plugin.precision.endswith("-true"):
        plugin.forward_context = nullcontext
