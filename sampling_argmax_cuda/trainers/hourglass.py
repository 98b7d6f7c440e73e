"""Stacked hourglasses (Newell et al., ECCV 2016): the same maps estimated again and again, each estimate supervised."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from .resnet import norm_layer

DEPTH = 4  # times that an hourglass halves its maps
Block = Callable[[int, int], nn.Module]


class Residual(nn.Module):
    """``skip(x) + f(x)``: f three convolutions 1, 3, 1 of half as many channels between, each behind a norm and a ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        half, layers = outputs // 2, []
        for a, b, size in ((inputs, half, 1), (half, half, 3), (half, outputs, 1)):
            layers += [norm(a), nn.ReLU(), nn.Conv2d(a, b, size, padding=size // 2)]
        self.body = nn.Sequential(*layers)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


class Plain(nn.Sequential):
    """A 3 x 3 convolution and a ReLU, without a norm: the block of associative embedding's network."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))


class Hourglass(nn.Module):
    """``up(x) + enlarged(after(inner(before(halved(x)))))``, inner another hourglass or, at the bottom, a block.

    Args:
        depth: times that maps are halved.
        channels: of the first level.
        block: makes a block of so many inputs and outputs.
        growth: channels that each level below has more.
    """

    def __init__(self, depth: int, channels: int, block: Block, growth: int = 0) -> None:
        super().__init__()
        below = channels + growth
        self.up, self.before, self.after = block(channels, channels), block(channels, below), block(below, channels)
        self.inner = Hourglass(depth - 1, below, block, growth) if depth > 1 else block(below, below)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        low = self.after(self.inner(self.before(max_pool2d(x, 2))))
        return up + interpolate(low, up.shape[-2:], mode="nearest")


class HourglassNet(nn.Module):
    """Images ``[B, 3, H, W]`` to maps ``[B, K, H/4, W/4]``: the last stack's; in training a list of every stack's.

    Args:
        maps: number of maps K.
        stacks: hourglasses one behind the other.
        channels: of the hourglasses, a multiple of 8.
        norm: as :func:`.norm_layer`.
        plain: associative embedding's network (Newell et al., NeurIPS 2017): convolutions without norms, and half as many
            channels more at each level of an hourglass.
        inputs: channels of the input.
        reduce: whether the input is four times as large as the maps, or has their size.
    """

    def __init__(self, maps: int, stacks: int = 8, channels: int = 256, norm: str = "batch", plain: bool = False,
                 inputs: int = 3, reduce: bool = True) -> None:  # fmt: skip
        super().__init__()
        if stacks < 1:
            raise ValueError(f"model: stacks must be >= 1, got {stacks}")
        if channels < 8 or channels % 8:
            raise ValueError(f"model: channels must be a multiple of 8, got {channels}")
        make_norm, quarter, half = nn.Identity if plain else norm_layer(norm), channels // 4, channels // 2
        block: Block = Plain if plain else partial(Residual, norm=make_norm)
        self.stem = nn.Sequential(
            nn.Conv2d(inputs, quarter, 7, 2 if reduce else 1, padding=3), make_norm(quarter), nn.ReLU(inplace=True),
            block(quarter, half), nn.MaxPool2d(2) if reduce else nn.Identity(), block(half, half), block(half, channels),
        )  # fmt: skip

        def features() -> nn.Module:
            return nn.Sequential(
                Hourglass(DEPTH, channels, block, half if plain else 0), block(channels, channels),
                nn.Conv2d(channels, channels, 1), make_norm(channels), nn.ReLU(inplace=True),
            )  # fmt: skip

        self.features = nn.ModuleList([features() for _ in range(stacks)])
        self.scores = nn.ModuleList([nn.Conv2d(channels, maps, 1) for _ in range(stacks)])
        self.merge_features = nn.ModuleList([nn.Conv2d(channels, channels, 1) for _ in range(stacks - 1)])
        self.merge_scores = nn.ModuleList([nn.Conv2d(maps, channels, 1) for _ in range(stacks - 1)])

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        x, out = self.stem(images.to(self.scores[0].weight.dtype)), []
        for i, (features, scores) in enumerate(zip(self.features, self.scores, strict=True)):
            y = features(x)
            out.append(scores(y))
            if i < len(self.merge_features):
                x = x + self.merge_features[i](y) + self.merge_scores[i](out[-1])
        return out if self.training else out[-1]

    def scale_output(self, gain: float) -> None:
        """Multiply the last maps by ``gain``, as :meth:`.PoseNet.scale_output`."""
        with torch.no_grad():
            self.scores[-1].weight.mul_(gain)
            self.scores[-1].bias.mul_(gain)
