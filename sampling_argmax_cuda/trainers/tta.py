"""Test-time augmentation: the mirrored image, other scales and other checkpoints, by coordinates or by maps.

Cell i is the left edge of the input's pixels n i .. n i + n - 1, n the stride of the maps. A mirror takes pixel x of W_in to
``W_in - 1 - x``, and so place p of W cells to ``W - 1/n - p``. Resizing keeps the images' borders and so scales pixel centres
x + 1/2: place p becomes ``(p + e) s - e``, ``e = 1 / (2 n)``. Coordinates and maps share both formulas.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..objectives.answers import Answer, output_of
from ..objectives.objective import Objective
from ..objectives.spread import plane_covariance

STRIDE = 4  # pixels of the input a cell, unless a network says another number
_EDGE = 0.5 / STRIDE  # half a pixel in cells


@dataclass(frozen=True)
class EnsembleMember:
    """A network with its objective, and the width and height of the images that it was trained on (None: as they come)."""

    network: Callable[[Tensor], Answer]
    objective: Objective
    image_size: tuple[int, int] | None = None


Pass = tuple[Objective, Answer, Tensor, bool]


class Reading(NamedTuple):
    """What several passes over images say together.

    ``output`` is the network's of the first pass; ``position`` ``[B, K, d]`` in cells and ``peak`` ``[B, K]`` are means, and
    ``covariance`` ``[B, K, 2, 2]`` in cells squared is that of the mean of the passes' maps in the image plane. ``law``, if it
    was asked for, is the mean of their laws, ``[B, K, *axes]`` in float64, whatever is averaged else.
    """

    output: Answer
    position: Tensor
    peak: Tensor
    covariance: Tensor
    law: Tensor | None = None


@dataclass(frozen=True)
class TestTimeAugmentation:
    """Which passes over an image are averaged.

    Args:
        swapped: the point that each one becomes in a mirror.
        flip: whether the mirrored image is one of the passes.
        scales: factors of the image's size, each rounded to multiples of 32 pixels.
        average: ``coords`` or ``maps``.
        stride: pixels of the input a cell.
    """

    swapped: list[int]
    flip: bool = True
    scales: Sequence[float] = (1.0,)
    average: str = "coords"
    stride: int = STRIDE

    def __post_init__(self) -> None:
        if not self.scales or not all(scale > 0 for scale in self.scales):
            raise ValueError(f"model: scales must be numbers > 0, got {list(self.scales)}")

    def read(self, members: Sequence[EnsembleMember], images: Tensor, law: bool = False) -> Reading:
        """Positions, peaks and covariances, averaged over the passes, and if asked the law of those that have maps."""
        outputs = list(self._outputs(members, images))
        read = self._combined(outputs, images)
        if not law:
            return read
        with_maps = [output for output in outputs if not output[0].regresses]
        return read._replace(law=self._mean_maps(with_maps, images, "law"))

    def _combined(self, outputs: Sequence[Pass], images: Tensor) -> Reading:
        first = outputs[0][1]
        if self.average == "maps":
            maps = self._mean_maps(outputs, images, "maps")
            return Reading(first, *outputs[0][0].read_maps(maps), plane_covariance(maps, outputs[0][0].backend))
        read = [self._read_coords(*output, first, images) for output in outputs]
        position, peak, covariance = (torch.stack(values) for values in zip(*read, strict=True))
        return Reading(first, position.mean(0), peak.mean(0), mixed_covariance(position[..., :2], covariance))

    def _outputs(self, members: Sequence[EnsembleMember], images: Tensor) -> Iterator[Pass]:
        """Objective, output, image and whether it was mirrored, of every pass."""
        for member in members:
            width, height = member.image_size or (images.shape[-1], images.shape[-2])
            for _, view, mirrored in passes(images, (height, width), self.scales, self.flip, multiple=32):
                yield member.objective, member.network(view), view, mirrored

    def _read_coords(self, objective: Objective, output: Answer, view: Tensor, mirrored: bool,
                     first: Answer, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        position, peak = objective.read(output)
        own, wanted = output_of(output), output_of(first)
        edge, width, height = 0.5 / self.stride, view.shape[-1] // self.stride, view.shape[-2] // self.stride
        covariance = objective.covariance(output, (width, height))
        if mirrored:
            position, peak = position[:, self.swapped].clone(), peak[:, self.swapped]
            position[..., 0] = mirrored_place(position[..., 0], width, edge)
            covariance = covariance[:, self.swapped] * covariance.new_tensor([[1, -1], [-1, 1]])
        if view.shape != images.shape:
            factor = position.new_tensor([images.shape[-1] / view.shape[-1], images.shape[-2] / view.shape[-2]])
            position[..., :2] = scaled_place(position[..., :2], factor, edge)
            covariance = covariance * torch.outer(factor, factor).to(covariance.dtype)
        if own.dim() == 5 and own.shape[2] != wanted.shape[2]:
            position[..., 2] = scaled_place(position[..., 2], wanted.shape[2] / own.shape[2], edge=0.0)
        return position, peak, covariance

    def _mean_maps(self, outputs: Sequence[Pass], images: Tensor, kind: str) -> Tensor:
        """The mean of the maps of passes in the cells of the first one; ``kind`` is the objective's ``maps`` or ``law``."""
        total, first = 0, getattr(outputs[0][0], kind)(outputs[0][1])
        size = (*first.shape[2:-2], images.shape[-2] // self.stride, images.shape[-1] // self.stride)
        for objective, output, _, mirrored in outputs:
            maps = getattr(objective, kind)(output)
            if mirrored or maps.shape[2:] != size:
                swapped = maps[:, self.swapped] if mirrored else maps
                mass = kind == "law" or objective.logits
                maps = resample(swapped, size, mirrored, mass, edge=0.5 / self.stride)
            total = total + maps
        return total / len(outputs)


def passes(images: Tensor, size: Sequence[int], scales: Sequence[float], flip: bool, multiple: int
           ) -> Iterator[tuple[float, Tensor, bool]]:  # fmt: skip
    """Scale, image and whether it is mirrored, of every pass over images that are ``size`` (H, W) at scale 1."""
    for scale in scales:
        view = resized(images, size, scale, multiple)
        yield scale, view, False
        if flip:
            yield scale, view.flip(-1), True


def resized(images: Tensor, size: Sequence[int], scale: float, multiple: int) -> Tensor:
    """Images ``[B, C, H, W]`` at ``scale`` times ``size`` (H, W), each side rounded to a multiple of pixels."""
    wanted = [max(multiple, round(n * scale / multiple) * multiple) for n in size]
    if wanted == list(images.shape[-2:]):
        return images
    return interpolate(images, wanted, mode="bilinear", align_corners=False, antialias=True)


def mixed_covariance(position: Tensor, covariance: Tensor) -> Tensor:
    """Covariance of the mean of passes' maps, from each one's own ``[P, B, K, 2, 2]`` and its position ``[P, B, K, 2]``."""
    apart = position - position.mean(0)
    return (covariance + apart.unsqueeze(-1) * apart.unsqueeze(-2)).mean(0)


def mirrored_place(place: Tensor, cells: int, edge: float = _EDGE) -> Tensor:
    """Where a place along x is in the mirrored image, for maps of so many cells."""
    return cells - 2 * edge - place


def scaled_place(place: Tensor, factor: float | Tensor, edge: float = _EDGE) -> Tensor:
    """Where a place is once an axis has ``factor`` times its cells; on the depth axis, where cell i is the share i / D, edge 0."""
    return (place + edge) * factor - edge


def resample(
    maps: Tensor, size: Sequence[int], mirrored: bool = False, mass: bool = False, edge: float = _EDGE
) -> Tensor:
    """Maps ``[B, K, *axes]`` at other sizes, and those of a mirrored image as those of the image itself.

    With ``mass`` they are probabilities, whose sum and mean place stay exactly what they are, but for what lies beyond the
    outermost cells, which goes to them; else values, of which each new cell has a weighted mean.
    """
    dtype, last = maps.dtype, len(size) - 1
    for axis, count in enumerate(size):
        old, flip = maps.shape[2 + axis], mirrored and axis == last
        if old != count or flip:
            weights = _weights(old, count, edge if axis >= last - 1 else 0.0, flip, mass).to(maps.device)
            # In float64, whatever autocast and the precision of matrix products are.
            maps = (maps.movedim(2 + axis, -1).double() @ weights.T).movedim(-1, 2 + axis)
    return maps.to(dtype)


def _weights(old: int, count: int, edge: float, mirrored: bool, mass: bool) -> Tensor:
    """The share ``[count, old]`` of each old cell in each new one: it goes to the two next to its place there.

    Where there are more new cells than old ones, an old cell is first spread as a triangle, whose parts leave none out.
    """
    parts = max(1, -(-count // old))
    steps = torch.arange(1 - parts, parts, dtype=torch.float64) / parts
    place = torch.arange(old, dtype=torch.float64).unsqueeze(1) + steps
    if mirrored:
        place = mirrored_place(place, old, edge)
    place = scaled_place(place, count / old, edge)
    place = place.clamp(0, count - 1) if mass else place
    near = (1 - (torch.arange(count).view(-1, 1, 1) - place).abs()).clamp(min=0)
    share = (near * (1 - steps.abs()) / parts).sum(-1)
    return share if mass else share / share.sum(1, keepdim=True)
