"""Skeleton Merger: maps of keypoints by PointNet++, strengths of the edges between them, and points along the edges."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...checks import arithmetic_dtype
from ...trainers.resnet import norm_layer
from ..keypointnet.pointnet import PointNet

MOST, LEAST, STEP = 200, 15, 0.01  # points of an edge, and their distance


class Merger(nn.Module):
    """Point clouds in [-1, 1] to logits of K keypoints and strengths of their K (K - 1) / 2 edges.

    Args:
        keypoints: K.
        grouping, centers, width, norm: those of :class:`.PointNet`.
    """

    def __init__(self, keypoints: int, grouping: str = "msg", centers: Sequence[int] = (1024, 256, 64, 16),
                 width: float = 1.0, norm: str = "batch") -> None:  # fmt: skip
        super().__init__()
        if keypoints < 2:
            raise ValueError(f"model: keypoints must be >= 2, got {keypoints}")
        self.encoder = PointNet(keypoints, grouping, centers, width, dropout=0.0, norm=norm)
        self.mix = nn.Linear(keypoints, keypoints)
        pairs = torch.triu_indices(keypoints, keypoints, 1)
        self.register_buffer("pairs", pairs, persistent=False)
        make_norm, sizes = (
            norm_layer(norm),
            [self.encoder.coarse, max(8, round(512 * width)), max(8, round(256 * width))],
        )
        layers = []
        for a, b in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Conv2d(a, b, 1), make_norm(b), nn.ReLU(inplace=True)]
        self.strength = nn.Sequential(*layers, nn.Conv2d(sizes[-1], pairs.shape[1], 1))
        self.offsets = nn.Parameter(0.002 * torch.randn(pairs.shape[1], MOST, 3))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B, K, N]`` and strengths ``[B, E]`` of point clouds ``[B, N, 3]``."""
        maps, coarse = self.encoder(points)
        logits = self.mix(maps.log_softmax(1).transpose(1, 2)).transpose(1, 2)
        pooled = coarse.amax(1)[:, :, None, None]
        strength = self.strength(pooled).flatten(1)
        return logits, strength.to(arithmetic_dtype(strength)).sigmoid()

    def lengths(self, keypoints: Tensor) -> Tensor:
        """Mean lengths ``[E]`` of the edges of keypoints ``[B, K, 3]``, without gradients."""
        return (keypoints[:, self.pairs[0]] - keypoints[:, self.pairs[1]]).detach().norm(dim=-1).mean(0)

    def skeleton(self, keypoints: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Points ``[B, E, P, 3]`` along the edges of keypoints ``[B, K, 3]``, and which of them count, ``[E, P]``.

        An edge has one point each 0.01 of its ``length`` ``[E]``, the mean over the batch, 15 to 200, moved by learnt offsets.
        """
        a, b = keypoints[:, self.pairs[0]], keypoints[:, self.pairs[1]]
        count = (length / STEP).floor().clamp(LEAST, MOST)
        place = torch.arange(int(count.max()), device=keypoints.device)
        share = (place / (count[:, None] - 1)).clamp(max=1)[None, :, :, None]
        parts = share * a.unsqueeze(2) + (1 - share) * b.unsqueeze(2)
        return parts + self.offsets[:, : len(place)], place < count[:, None]
