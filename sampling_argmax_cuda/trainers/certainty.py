"""How sure a network is of each point of an image: covariance and regions in pixels, and a calibrated confidence."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..calibration.calibration import Calibration
from ..calibration.laws import central_region, in_plane, tempered
from ..objectives.spread import plane_covariance
from .reading import covariance_to_image, to_image


def crop_side(images: Tensor, inverse: Tensor) -> Tensor:
    """The longer side ``[B]`` of each crop ``[B, 3, H, W]`` in pixels of its image, by the affines ``[B, 2, 3]`` back to it."""
    sides = inverse[:, :, :2].norm(dim=1) * inverse.new_tensor([images.shape[-1], images.shape[-2]])
    return sides.amax(-1).double()


def covariance_of(law: Tensor, images: Tensor, inverse: Tensor) -> Tensor:
    """Covariances ``[B, K, 2, 2]`` in pixels squared of laws ``[B, K, H, W]`` of the cells of crops ``[B, 3, H, W]``."""
    return covariance_to_image(plane_covariance(law) * _stride(law, images) ** 2, inverse)


def _stride(law: Tensor, images: Tensor) -> int:
    """Pixels of the crops a cell."""
    return images.shape[-1] // law.shape[-1]


def boxes_of(corners: Tensor, stride: int, inverse: Tensor) -> Tensor:
    """Boxes ``[B, K, 4]`` (x, y of the least and of the largest corner) in pixels, from corners ``[B, K, 2, 2]`` in cells."""
    pixels = to_image(corners.flatten(1, 2) * stride, inverse).view_as(corners)
    return torch.cat([pixels.amin(2), pixels.amax(2)], -1)


def spread_in_radii(covariance: Tensor, radius: Tensor) -> Tensor:
    """The root of the trace of covariances ``[B, K, 2, 2]`` in radii ``[B]`` of the same pixels, ``[B, K]``."""
    return covariance.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt() / radius.unsqueeze(-1)


def certainty(law: Tensor, images: Tensor, inverse: Tensor, calibration: Calibration | None, levels: Sequence[float]
              ) -> dict[str, Tensor]:  # fmt: skip
    """What predictions say of each point besides what they read off, from laws ``[B, K, (D,) H, W]`` of cells.

    ``regions`` ``[B, K, levels, 4]``: boxes of the axes' central intervals in pixels, if there are levels. Of a calibrated
    network, at its temperature, ``covariance`` ``[B, K, 2, 2]`` in pixels squared, ``confidence`` ``[B, K]`` and ``radius`` ``[B]``
    in pixels besides.
    """
    plane, found = in_plane(law if calibration is None else tempered(law, calibration.temperature)), {}
    if levels:
        corners = [central_region(plane, level) for level in levels]
        found["regions"] = torch.stack([boxes_of(own, _stride(law, images), inverse) for own in corners], 2)
    if calibration is not None:
        covariance = covariance_of(plane, images, inverse)
        radius = calibration.radius.pixels(crop_side(images, inverse))
        confidence = calibration.confidence(spread_in_radii(covariance, radius))
        found |= {"covariance": covariance, "radius": radius, "confidence": confidence}
    return found


def record_of(item: dict[str, object], levels: Sequence[float]) -> dict[str, object]:
    """What the prediction file says of an input from the first row of each tensor; a covariance that nothing says is None."""
    covariance = item["covariance"][0].tolist()
    known = [math.isfinite(own[0][0] + own[1][1]) for own in covariance]
    out = {"covariance": [own if good else None for own, good in zip(covariance, known, strict=True)]}
    if "confidence" in item:
        out |= {"confidence": item["confidence"][0].tolist(), "radius_px": float(item["radius"][0])}
    if "regions" in item:
        out["regions"] = {f"{level:g}": item["regions"][0, :, i].tolist() for i, level in enumerate(levels)}
    return out
