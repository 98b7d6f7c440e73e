"""What is no error but most likely a mistake: one warning."""

import warnings

import torch
from torch import Tensor

from . import backends

_looked: set[torch.device] = (
    set()
)  # devices whose targets were looked at: that costs time and memory, so it is done once


def notice_far_target(target: Tensor, weight: Tensor | None, size: tuple[int, ...], axes: Tensor | None = None) -> None:
    """Warn, once, of a target ``[B, K, d]`` that is further from its map of ``size`` cells than the map is long.

    Those are pixels of the image, most likely. Rows of weight 0, coordinates that are not known (``axes`` ``[B, K, d]``, 0
    there) and what is not finite do not count. The first call of a process on a device alone is looked at, and nowhere while a
    graph is captured, compiled or transformed.
    """
    if torch.compiler.is_compiling() or target.is_meta or type(target) not in (Tensor, torch.nn.Parameter):
        return
    if backends.is_transformed() or target.device in _looked:
        return
    if target.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    _looked.add(target.device)
    with torch.no_grad():
        lengths = torch.tensor(size, dtype=target.dtype, device=target.device)
        far = ((target < -lengths) | (target > 2 * lengths)) & target.isfinite()
        far = far if axes is None else far & (axes > 0)
        far = far.any(-1) if weight is None else far.any(-1) & (weight > 0)
        if not far.any():
            return
    # The same words and the same line each time, which Python shows once.
    warnings.warn("a target is further outside its map than the map is long; targets are in cells of the map, not in pixels of "
                  "the image: divide by the stride", stacklevel=1)  # fmt: skip
