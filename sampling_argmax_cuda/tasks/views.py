"""Test-time averaging: the mirrored image, other scales and other checkpoints, by coordinates or by maps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .methods import Located, Method, place_of


@dataclass(frozen=True)
class Member:
    """A network with its method, and the width and height of the images that it was trained on (None: as they come)."""

    network: Callable[[Tensor], Tensor | Located]
    method: Method
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Views:
    """Which passes are averaged.

    Args:
        swapped: the point that each one becomes in a mirror.
        flip: whether the mirrored image is one of the views.
        scales: factors of the image's size, each rounded to multiples of 32 pixels.
        average: ``coords`` or ``maps``.
    """

    swapped: list[int]
    flip: bool = True
    scales: Sequence[float] = (1.0,)
    average: str = "coords"

    def __post_init__(self) -> None:
        if not self.scales or not all(scale > 0 for scale in self.scales):
            raise ValueError(f"model: scales must be numbers > 0, got {list(self.scales)}")

    def read(self, members: Sequence[Member], images: Tensor) -> tuple[Tensor | Located, Tensor, Tensor]:
        """The first output, and the mean positions ``[B, K, d]`` in cells and peaks ``[B, K]``."""
        outputs = list(self._outputs(members, images))
        first = outputs[0][1]
        if self.average == "maps":
            return first, *self._read_maps(outputs, images)
        read = [self._read_coords(*output, first, images) for output in outputs]
        return first, torch.stack([r[0] for r in read]).mean(0), torch.stack([r[1] for r in read]).mean(0)

    def _outputs(
        self, members: Sequence[Member], images: Tensor
    ) -> Iterator[tuple[Method, Tensor | Located, Tensor, bool]]:
        """Method, output, image and whether it was mirrored, of every view."""
        for member in members:
            width, height = member.image_size or (images.shape[-1], images.shape[-2])
            for scale in self.scales:
                view = resized(images, (height, width), scale, multiple=32)
                yield member.method, member.network(view), view, False
                if self.flip:
                    yield member.method, member.network(view.flip(-1)), view, True

    def _read_coords(self, method: Method, output: Tensor | Located, view: Tensor, mirrored: bool,
                     first: Tensor | Located, images: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
        position, peak = method.read(output)
        if mirrored:
            position, peak = position[:, self.swapped].clone(), peak[:, self.swapped]
            # Cell i is the left edge of the input's pixels 4i..4i+3 and pixel x mirrors to W_in - 1 - x.
            position[..., 0] = (view.shape[-1] - 1) / 4 - position[..., 0]
        if view.shape != images.shape:
            factor = position.new_tensor([images.shape[-1] / view.shape[-1], images.shape[-2] / view.shape[-2]])
            # Resizing keeps the images' borders, so pixel centres x + 1/2 scale; a cell is 4 pixels.
            position[..., :2] = (position[..., :2] + 0.125) * factor - 0.125
        place, wanted = place_of(output), place_of(first)
        if place.dim() == 5 and place.shape[2] != wanted.shape[2]:
            position[..., 2] *= wanted.shape[2] / place.shape[2]
        return position, peak

    def _read_maps(self, outputs, images: Tensor) -> tuple[Tensor, Tensor]:
        total, first = 0, outputs[0][0].maps(outputs[0][1])
        size = (*first.shape[2:-2], images.shape[-2] // 4, images.shape[-1] // 4)
        for method, output, _, mirrored in outputs:
            maps = method.maps(output)
            if mirrored:
                maps = unmirrored(maps, self.swapped)
            if maps.shape[2:] != size:
                maps = resample(maps, size)
                if method.logits:  # probabilities again
                    maps = maps / maps.flatten(2).sum(-1).view(*maps.shape[:2], *[1] * len(size))
            total = total + maps
        return outputs[0][0].read_maps(total / len(outputs))


def resized(images: Tensor, size: Sequence[int], scale: float, multiple: int) -> Tensor:
    """Images ``[B, C, H, W]`` at ``scale`` times ``size`` (H, W), each side rounded to a multiple of pixels."""
    wanted = [max(multiple, round(n * scale / multiple) * multiple) for n in size]
    if wanted == list(images.shape[-2:]):
        return images
    return interpolate(images, wanted, mode="bilinear", align_corners=False, antialias=True)


def unmirrored(maps: Tensor, swapped: Sequence[int]) -> Tensor:
    """The maps of a mirrored image ``[B, K, ..., W]`` as those of the image itself.

    Cell W - i lies nearest to where cell i mirrors to; the outermost column stays.
    """
    maps = maps.flip(-1)[:, swapped]
    return torch.cat([maps[..., :1], maps[..., :-1]], -1)


def resample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps ``[B, K, *axes]`` at other sizes, linear along each axis.

    Cell i of H and W is the left edge of 4 pixels, and images keep their borders when they are resized: cell j of n
    reads ``((4 j + 1/2) m / n - 1/2) / 4`` of m. Cell i of D is the share i / D of the depth.
    """
    for axis, count in enumerate(size):
        old, edge = maps.shape[2 + axis], 0.125 if axis >= len(size) - 2 else 0.0
        place = (torch.arange(count, device=maps.device) + edge) * old / count - edge
        low = place.floor().clamp(0, max(old - 2, 0)).long()
        share = (place - low).clamp(0, 1).to(maps.dtype).view(-1, *[1] * (len(size) - 1 - axis))
        high = (low + 1).clamp(max=old - 1)
        maps = maps.index_select(2 + axis, low) * (1 - share) + maps.index_select(2 + axis, high) * share
    return maps
