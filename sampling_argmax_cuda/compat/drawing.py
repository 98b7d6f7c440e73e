"""What the drop-ins share: positions of maps, and samples of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..moments import soft_argmax
from ..ops import sample

OPTIONS = ("num_samples", "tau", "basis", "sigma", "seed", "generator", "backend")
_USUAL = {"num_samples": 30, "tau": 1.0}


def located(op: str, logits: Tensor, sampling: Mapping | None, beta: float = 1.0) -> Tensor:
    """Soft-argmax ``[B, K, d]`` of logits in cells, or samples ``[B, K, S, d]``, in the logits' dtype."""
    if sampling is None:
        return soft_argmax(logits, beta=beta).to(logits.dtype)
    if not isinstance(sampling, Mapping):
        raise ValueError(f"{op}: sampling must be a mapping of options of sample, got {sampling!r}")
    wrong = next((key for key in sampling if key not in OPTIONS), None)
    if wrong is not None:
        raise ValueError(f"{op}: sampling has no option {wrong!r} (it has {', '.join(OPTIONS)})")
    return sample(logits, beta=beta, **{**_USUAL, **sampling}).to(logits.dtype)


def log_of(maps: Tensor) -> Tensor:
    """The logarithm of probabilities, as logits: of 0 it is finite, so that its slope is a number."""
    return maps.clamp(min=torch.finfo(maps.dtype).tiny).log()
