"""A residual U-Net that also sees where it looks: the input, its row and its column, all three in [0, 1]."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from ...trainers.resnet import norm_layer


class ResidualBlock(nn.Module):
    """``PReLU(conv(x) + f(x))`` with ``f`` = convolution, norm, PReLU, convolution, norm, all 3 x 3."""

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), norm(outputs), nn.PReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), norm(outputs),
        )  # fmt: skip
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(x) + self.residual(x))


class SurfaceNet(nn.Module):
    """B-scans ``[B, 1, H, W]`` to logits ``[B, surfaces, H, W]``; H and W are multiples of 16.

    Args:
        surfaces: number of surfaces.
        width: channels of every block but the last, which has half of them.
        norm: as :func:`.norm_layer`.
    """

    def __init__(self, surfaces: int, width: int = 64, norm: str = "batch") -> None:
        super().__init__()
        make_norm = norm_layer(norm)
        if width < 2:
            raise ValueError(f"model: width must be >= 2, got {width}")
        self.down = nn.ModuleList([ResidualBlock(3 if i == 0 else width, width, make_norm) for i in range(4)])
        self.middle = ResidualBlock(width, width, make_norm)
        self.up = nn.ModuleList([ResidualBlock(2 * width, width, make_norm) for _ in range(4)])
        self.head = nn.Sequential(ResidualBlock(width, width // 2, make_norm), nn.Conv2d(width // 2, surfaces, 1))

    def forward(self, images: Tensor) -> Tensor:
        x, skips = self._with_place(images).to(self.head[-1].weight.dtype), []
        for block in self.down:
            skips.append(block(x))
            x = max_pool2d(skips[-1], 2)
        x = self.middle(x)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([interpolate(x, scale_factor=2, mode="nearest"), skip], 1))
        return self.head(x)

    @staticmethod
    def _with_place(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        row, column = (torch.arange(n, device=images.device, dtype=images.dtype) / n for n in (height, width))
        shape = (len(images), 1, height, width)
        return torch.cat([images, row[:, None].expand(shape), column.expand(shape)], 1)
