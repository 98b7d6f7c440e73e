"""PointNet++ (Qi et al., NeurIPS 2017) in PyTorch: single and multi-scale grouping, the same answer for the same cloud."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...clouds import farthest_points, neighbours
from ...trainers.resnet import norm_layer


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``[B, *index, C]`` of ``values`` ``[B, N, C]`` at ``index`` ``[B, ...]``."""
    flat = index.flatten(1)
    rows = values.gather(1, flat.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
    return rows.unflatten(1, index.shape[1:])


class SharedMlp(nn.Sequential):
    """1 x 1 convolutions with a norm and ReLU, in the weights' dtype, whatever that of the points is."""

    def __init__(self, channels: Sequence[int], norm: Callable[[int], nn.Module]) -> None:
        super().__init__(*[nn.Sequential(nn.Conv2d(a, b, 1, bias=False), norm(b), nn.ReLU(inplace=True))
                           for a, b in pairwise(channels)])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self[0][0].weight.dtype))


class SetAbstraction(nn.Module):
    """Features of ``count`` centres from the points around them, one branch a radius.

    Args:
        count: centres.
        inputs: channels of the points' features.
        branches: for each radius ``(radius, neighbours, channels)``.
        norm: makes the norm of so many channels.
    """

    def __init__(self, count: int, inputs: int, branches: Sequence[tuple[float, int, Sequence[int]]],
                 norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:  # fmt: skip
        super().__init__()
        self.count, self.shapes = count, [(radius, near) for radius, near, _ in branches]
        self.branches = nn.ModuleList([SharedMlp([inputs + 3, *channels], norm) for _, _, channels in branches])
        self.outputs = sum(channels[-1] for _, _, channels in branches)

    def forward(self, points: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Points ``[B, N, 3]`` and features ``[B, N, C]`` to centres ``[B, M, 3]`` and features ``[B, M, C']``."""
        centers = take(points, farthest_points(points, self.count))
        out = []
        for (radius, near), mlp in zip(self.shapes, self.branches, strict=True):
            index = neighbours(points, centers, near, radius=radius)
            group = take(points, index) - centers.unsqueeze(2)
            if features is not None:
                group = torch.cat([group, take(features, index)], -1)
            out.append(mlp(group.permute(0, 3, 1, 2)).max(3).values.transpose(1, 2))
        return centers, torch.cat(out, -1)


class FeaturePropagation(nn.Module):
    """Features of points from their three nearest centres, weighted by inverse squared distance, and their own."""

    def __init__(self, inputs: int, channels: Sequence[int], norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.mlp = SharedMlp([inputs, *channels], norm)

    def forward(self, points: Tensor, features: Tensor | None, centers: Tensor, coarse: Tensor) -> Tensor:
        index = neighbours(centers, points, 3)
        weight = 1 / ((take(centers, index) - points.unsqueeze(2)).square().sum(-1) + 1e-8)
        weight = weight / weight.sum(-1, keepdim=True)
        spread = (take(coarse, index) * weight.unsqueeze(-1)).sum(2)
        joined = spread if features is None else torch.cat([features, spread], -1)
        return self.mlp(joined.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2)


SSG = (
    ((0.1, 32, (32, 32, 64)),),
    ((0.2, 32, (64, 64, 128)),),
    ((0.4, 32, (128, 128, 256)),),
    ((0.8, 32, (256, 256, 512)),),
)
MSG = (
    ((0.05, 16, (16, 16, 32)), (0.1, 32, (32, 32, 64))), ((0.1, 16, (64, 64, 128)), (0.2, 32, (64, 96, 128))),
    ((0.2, 16, (128, 196, 256)), (0.4, 32, (128, 196, 256))), ((0.4, 16, (256, 256, 512)), (0.8, 32, (256, 384, 512))),
)  # fmt: skip
GROUPINGS = {"ssg": SSG, "msg": MSG}
_UP = ((256, 256), (256, 256), (256, 128), (128, 128, 128))  # from the coarsest level up


class PointNet(nn.Module):
    """Point clouds ``[B, N, 3]`` to logits ``[B, K, N]``, and the features ``[B, M, C]`` of the coarsest level.

    Args:
        outputs: maps K.
        grouping: ``ssg`` or ``msg``.
        centers: centres of the four levels.
        width: factor of all channels.
        dropout: of the last features.
        norm: as :func:`.norm_layer`.
    """

    def __init__(self, outputs: int, grouping: str = "ssg", centers: Sequence[int] = (1024, 256, 64, 16),
                 width: float = 1.0, dropout: float = 0.5, norm: str = "batch") -> None:  # fmt: skip
        super().__init__()
        if grouping not in GROUPINGS:
            raise ValueError(f"model: grouping must be one of {', '.join(GROUPINGS)}, got {grouping!r}")
        if len(centers) != 4 or any(a <= b for a, b in pairwise(centers)) or centers[-1] < 1:
            raise ValueError(f"model: centers must be 4 falling numbers >= 1, got {list(centers)}")
        if not width > 0:
            raise ValueError(f"model: width must be > 0, got {width}")

        def scaled(channels: Sequence[int]) -> list[int]:
            return [max(4, round(c * width)) for c in channels]

        make_norm = norm_layer(norm)
        self.down, sizes = nn.ModuleList(), [0]
        for count, branches in zip(centers, GROUPINGS[grouping], strict=True):
            self.down.append(SetAbstraction(count, sizes[-1], [(r, n, scaled(c)) for r, n, c in branches], make_norm))
            sizes.append(self.down[-1].outputs)
        self.coarse, self.up, inputs = sizes[-1], nn.ModuleList(), sizes[-1]
        for own, channels in zip(reversed(sizes[:-1]), _UP, strict=True):
            self.up.append(FeaturePropagation(inputs + own, scaled(channels), make_norm))
            inputs = scaled(channels)[-1]
        self.head = nn.Sequential(
            SharedMlp([inputs, inputs], make_norm), nn.Dropout(dropout), nn.Conv2d(inputs, outputs, 1)
        )

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        levels: list[tuple[Tensor, Tensor | None]] = [(points, None)]
        for layer in self.down:
            levels.append(layer(*levels[-1]))
        centers, features = levels.pop()
        coarse = features
        for layer in self.up:
            own, skip = levels.pop()
            features = layer(own, skip, centers, features)
            centers = own
        return self.head(features.transpose(1, 2).unsqueeze(-1)).squeeze(-1), coarse
