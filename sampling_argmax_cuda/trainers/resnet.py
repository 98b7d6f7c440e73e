"""ResNet with a deconvolution head (Xiao et al., "Simple Baselines", ECCV 2018), torchvision's state-dict names."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..checks import arithmetic_dtype
from ..objectives.answers import Answer, OutputWithSigma, SubDistributions

DEPTHS = {18: ("basic", (2, 2, 2, 2)), 34: ("basic", (3, 4, 6, 3)), 50: ("bottleneck", (3, 4, 6, 3)),
          101: ("bottleneck", (3, 4, 23, 3)), 152: ("bottleneck", (3, 8, 36, 3))}  # fmt: skip
NORMS = ("batch", "frozen", "group")


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that always uses its running statistics, so a result never depends on the rest of the batch."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.train(False)  # from the beginning: a trainer need not call train() on a new module

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        return super().train(False)


def norm_layer(kind: str) -> Callable[[int], nn.Module]:
    """``batch``, ``frozen`` (running statistics only) or ``group`` (32 groups or fewer)."""
    if kind not in NORMS:
        raise ValueError(f"model: norm must be one of {', '.join(NORMS)}, got {kind!r}")
    if kind == "group":
        return lambda channels: nn.GroupNorm(math.gcd(32, channels), channels)
    return nn.BatchNorm2d if kind == "batch" else FrozenBatchNorm2d


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Block(nn.Module):
    """What the two residual blocks share: the shortcut, and the activation after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(convolution(inputs, outputs, 1, stride), norm(outputs))

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.residual(x) + shortcut)


class BasicBlock(Block):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__(inputs, width, stride, norm)
        self.conv1, self.bn1 = convolution(inputs, width, 3, stride), norm(width)
        self.conv2, self.bn2 = convolution(width, width, 3), norm(width)

    def residual(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Bottleneck(Block):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__(inputs, 4 * width, stride, norm)
        self.conv1, self.bn1 = convolution(inputs, width, 1), norm(width)
        self.conv2, self.bn2 = convolution(width, width, 3, stride), norm(width)
        self.conv3, self.bn3 = convolution(width, 4 * width, 1), norm(4 * width)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))


class ResNet(nn.Module):
    """Images ``[B, 3, H, W]`` to features ``[B, C, H/32, W/32]`` in the weights' dtype; C = 512 (depth 18, 34) or 2048."""

    stride = 32

    def __init__(self, depth: int = 50, norm: str = "batch") -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"model: depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        kind, blocks = DEPTHS[depth]
        block, make_norm = (BasicBlock if kind == "basic" else Bottleneck), norm_layer(norm)
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), make_norm(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)
        channels = 64
        for i, count in enumerate(blocks):
            layers = []
            for j in range(count):
                width = 64 * 2**i
                layers.append(block(channels, width, 2 if i > 0 and j == 0 else 1, make_norm))
                channels = width * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*layers))
        self.channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x.to(self.conv1.weight.dtype)))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class DeconvHead(nn.Sequential):
    """2x transposed convolutions and a 1x1 convolution: features ``[B, C, H/stride, W/stride]`` to maps ``[B, K, H/to, W/to]``."""

    def __init__(self, inputs: int, maps: int, channels: int = 256, norm: str = "batch", stride: int = 32,
                 to: int = 4) -> None:  # fmt: skip
        make_norm, layers = norm_layer(norm), []
        for _ in range(int(math.log2(stride // to))):
            deconvolution = nn.ConvTranspose2d(inputs, channels, 4, 2, padding=1, bias=False)
            nn.init.normal_(deconvolution.weight, std=1e-3)
            layers += [deconvolution, make_norm(channels), nn.ReLU(inplace=True)]
            inputs = channels
        final = nn.Conv2d(inputs, maps, 1)
        nn.init.normal_(final.weight, std=1e-3)
        nn.init.zeros_(final.bias)
        super().__init__(*layers, final)

    def last_features(self, x: Tensor) -> Tensor:
        """What the last layer makes the maps of."""
        for layer in list(self)[:-1]:
            x = layer(x)
        return x


class NormedLinear(nn.Linear):
    """A linear layer of its input's direction, ``W x / |x| + b``: the published RegressFlow's layer of positions."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.normalize(x, dim=-1), self.weight, self.bias)


class SigmaHead(nn.Linear):
    """Features ``[B, C, h, w]`` to the width of each of ``joints`` positions ``[B, K, axes]`` in (LEAST, 1)."""

    LEAST = 1e-4

    def __init__(self, channels: int, joints: int, axes: int) -> None:
        super().__init__(channels, joints * axes)
        self.axes = axes

    def forward(self, features: Tensor) -> Tensor:
        # In float32 at least: a sigmoid of 16 bits is 0 or 1 too soon.
        sigma = super().forward(features.mean((2, 3)))
        sigma = sigma.to(arithmetic_dtype(sigma)).sigmoid()
        return (self.LEAST + (1 - self.LEAST) * sigma).unflatten(-1, (-1, self.axes))


class CellHead(nn.Module):
    """A head's last features ``[B, C, h, w]`` to the :class:`.SubDistributions` of its maps ``[B, *shape, h, w]``.

    Offsets begin at 0 and widths at ``sigma`` cells, so that a network begins as the one without them.

    Args:
        channels: channels C.
        shape: of the maps without height and width: joints, or joints and depth.
        sigma: width, > 0, that every cell begins with; None where widths are not learnt.
    """

    LEAST = 1e-4  # of the first width: none is 0

    def __init__(self, channels: int, shape: tuple[int, ...], sigma: float | None) -> None:
        super().__init__()
        self.shape, maps = shape, math.prod(shape)
        self.offset = nn.Conv2d(channels, (1 + len(shape)) * maps, 1)
        self.sigma = None if sigma is None else nn.Conv2d(channels, maps, 1)
        for layer in (self.offset, self.sigma):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        if sigma is not None:
            self.least = self.LEAST * sigma
            self.start = math.log(math.expm1(sigma - self.least))  # of which softplus is what is left of sigma

    def forward(self, features: Tensor, maps: Tensor) -> SubDistributions:
        joints, *depth = self.shape
        offset = self.offset(features).unflatten(1, (joints, 1 + len(self.shape), *depth))
        # In float32 at least: between cells 16 bits have few places.
        offset = offset.to(arithmetic_dtype(offset))
        if self.sigma is None:
            return SubDistributions(maps, offset)
        raw = self.sigma(features).unflatten(1, self.shape)
        width = nn.functional.softplus(raw.to(arithmetic_dtype(raw)) + self.start)
        return SubDistributions(maps, offset, self.least + width)


class LandmarkNet(nn.Module):
    """A network with a ``backbone``, which may be frozen: no gradients, and its norms and dropout as in evaluation."""

    backbone: nn.Module
    frozen = False

    def freeze_backbone(self) -> None:
        self.backbone.requires_grad_(False)
        self.frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> "LandmarkNet":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self


class PoseNet(LandmarkNet):
    """Images ``[B, 3, H, W]`` to one map of logits a joint, ``[B, K, H/s, W/s]``, or ``[B, K, D, H/s, W/s]``, s its stride.

    Args:
        joints: points K.
        depth: layers of the ResNet.
        head_channels: channels of the deconvolutions.
        norm: as :func:`norm_layer`.
        volume: cells D of the maps' depth axis, or None for flat maps.
        widths: answer with the maps and the width of each position, :class:`.OutputWithSigma`.
        gain: factor of the maps, > 0, that the head learns them by.
        backbone: what makes the features, with ``channels`` and a ``stride`` of 4, 8, 16 or 32; None for the ResNet.
        stride: pixels a cell of the maps: 4, 8, 16 or 32, at most the backbone's.
        sub_distributions: None, ``offset`` or ``offset_sigma``: answer with :class:`.SubDistributions`.
        sigma: width, > 0, in cells that cells of ``offset_sigma`` begin with.
    """

    def __init__(self, joints: int, depth: int = 50, head_channels: int = 256, norm: str = "batch", volume: int | None = None,
                 widths: bool = False, gain: float = 1.0, backbone: nn.Module | None = None, *, stride: int = 4,
                 sub_distributions: str | None = None, sigma: float = 1.0) -> None:  # fmt: skip
        super().__init__()
        if volume is not None and volume < 1:
            raise ValueError(f"model: volume must be >= 1, got {volume}")
        if not 0 < gain < math.inf:
            raise ValueError(f"model: gain must be > 0, got {gain}")
        self.gain = gain
        self.shape = (joints,) if volume is None else (joints, volume)
        self.backbone = ResNet(depth, norm) if backbone is None else backbone
        if stride > self.backbone.stride:
            raise ValueError(f"model: stride must be at most the backbone's {self.backbone.stride}, got {stride}")
        maps = math.prod(self.shape)
        self.head = DeconvHead(self.backbone.channels, maps, head_channels, norm, self.backbone.stride, stride)
        self.sigma = SigmaHead(self.backbone.channels, joints, 1 + len(self.shape)) if widths else None
        self.cells = None  # made last, so that all other weights begin as those of the network without it
        if sub_distributions is not None:
            start = sigma if sub_distributions == "offset_sigma" else None
            self.cells = CellHead(self.head[-1].in_channels, self.shape, start)

    def forward(self, images: Tensor) -> Answer:
        features = self.backbone(images)
        last = self.head.last_features(features)
        maps = self.head[-1](last).unflatten(1, self.shape) * self.gain
        if self.cells is not None:
            return self.cells(last, maps)
        return maps if self.sigma is None else OutputWithSigma(maps, self.sigma(features))

    def scale_output(self, gain: float) -> None:
        """Multiply the maps by ``gain``: maps trained as heatmaps have a peak of 1, which is flat as logits."""
        with torch.no_grad():
            self.head[-1].weight.mul_(gain)
            self.head[-1].bias.mul_(gain)


class RegressionNet(LandmarkNet):
    """Images ``[B, 3, H, W]`` to positions ``[B, K, d]`` in cells of the maps that :class:`PoseNet` would make.

    The mean of the features and one linear layer give centered coordinates (Sun et al., ECCV 2018, direct baseline); with
    ``widths`` the layer is :class:`NormedLinear` and the answer :class:`.OutputWithSigma` (Li et al., ICCV 2021, RegressFlow).
    """

    def __init__(self, joints: int, depth: int = 50, norm: str = "batch", volume: int | None = None,
                 widths: bool = False, backbone: nn.Module | None = None) -> None:  # fmt: skip
        super().__init__()
        self.volume, self.axes = volume, 2 if volume is None else 3
        self.backbone = ResNet(depth, norm) if backbone is None else backbone
        self.head = (NormedLinear if widths else nn.Linear)(self.backbone.channels, joints * self.axes)
        self.sigma = SigmaHead(self.backbone.channels, joints, self.axes) if widths else None
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor | OutputWithSigma:
        features = self.backbone(images)
        centered = self.head(features.mean((2, 3))).unflatten(1, (-1, self.axes))
        # In bfloat16 positions behind cell 32 would be a quarter of one apart.
        centered = centered.to(arithmetic_dtype(centered))
        size = [images.shape[-1] // 4, images.shape[-2] // 4, self.volume][: self.axes]
        position = (centered + 0.5) * centered.new_tensor(size)
        return position if self.sigma is None else OutputWithSigma(position, self.sigma(features))
