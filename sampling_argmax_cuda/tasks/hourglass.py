"""Stacked hourglasses (Newell et al., ECCV 2016): the same maps estimated again and again, each estimate supervised."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from .models import norm_layer

DEPTH = 4  # times that an hourglass halves its maps


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


class Hourglass(nn.Module):
    """``up(x) + enlarged(low(inner(low(halved(x)))))``, inner another hourglass or, at the bottom, a residual."""

    def __init__(self, depth: int, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.up, self.before, self.after = (Residual(channels, channels, norm) for _ in range(3))
        self.inner = Hourglass(depth - 1, channels, norm) if depth > 1 else Residual(channels, channels, norm)

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
    """

    def __init__(self, maps: int, stacks: int = 8, channels: int = 256, norm: str = "batch") -> None:
        super().__init__()
        if stacks < 1:
            raise ValueError(f"model: stacks must be >= 1, got {stacks}")
        if channels < 8 or channels % 8:
            raise ValueError(f"model: channels must be a multiple of 8, got {channels}")
        make_norm, quarter, half = norm_layer(norm), channels // 4, channels // 2
        self.stem = nn.Sequential(
            nn.Conv2d(3, quarter, 7, 2, padding=3), make_norm(quarter), nn.ReLU(inplace=True),
            Residual(quarter, half, make_norm), nn.MaxPool2d(2), Residual(half, half, make_norm),
            Residual(half, channels, make_norm),
        )  # fmt: skip

        def features() -> nn.Module:
            return nn.Sequential(
                Hourglass(DEPTH, channels, make_norm), Residual(channels, channels, make_norm),
                nn.Conv2d(channels, channels, 1), make_norm(channels), nn.ReLU(inplace=True),
            )  # fmt: skip

        self.features = nn.ModuleList([features() for _ in range(stacks)])
        self.scores = nn.ModuleList([nn.Conv2d(channels, maps, 1) for _ in range(stacks)])
        self.merge_features = nn.ModuleList([nn.Conv2d(channels, channels, 1) for _ in range(stacks - 1)])
        self.merge_scores = nn.ModuleList([nn.Conv2d(maps, channels, 1) for _ in range(stacks - 1)])

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        x, out = self.stem(images), []
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
