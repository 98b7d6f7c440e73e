"""How far a map spreads around its mean in the image plane."""

from torch import Tensor

from ..checks import arithmetic_dtype
from ..moments import heatmap_moments


def plane_covariance(maps: Tensor, backend: str = "auto") -> Tensor:
    """Covariance ``[B, K, 2, 2]`` in cells squared, x and y, of maps ``[B, K, (D,) H, W]``, over depth too.

    It is that of :func:`.heatmap_moments`, with the map over its sum for probabilities. A value below 0 counts as 0; a map
    without a value above 0 has NaN.
    """
    logits = maps.to(arithmetic_dtype(maps)).clamp(min=0).log()
    return heatmap_moments(logits, backend=backend).covariance[..., :2, :2]
