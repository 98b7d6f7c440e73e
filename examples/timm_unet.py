"""A U-Net on any encoder of timm: each level of its features is enlarged and joined with the one above."""

import argparse
from typing import Any

import timm
import torch
from plain_loop import draw
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sampling_argmax_cuda import expected_error, soft_argmax

FINEST = 4  # pixels of the image to a cell of the maps


class UNet(nn.Module):
    """Images ``[B, 3, H, W]`` to logits ``[B, K, H/4, W/4]``.

    Args:
        encoder: timm's name of a network with features of several sizes.
        points: maps K.
        pretrained: load timm's weights.
        width: channels of the decoder.
    """

    def __init__(self, encoder: str, points: int, pretrained: bool = False, width: int = 64) -> None:
        super().__init__()
        self.encoder = timm.create_model(encoder, pretrained=pretrained, features_only=True)
        info: Any = self.encoder.feature_info
        self.levels = [i for i, reduction in enumerate(info.reduction()) if reduction >= FINEST]
        assert info.reduction()[self.levels[0]] == FINEST, f"{encoder} has no features of a quarter of the image's size"
        self.inputs = nn.ModuleList(nn.Conv2d(info.channels()[i], width, 1) for i in self.levels)
        self.joined = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU())
            for _ in self.levels[1:]
        )
        self.head = nn.Conv2d(width, points, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        own = [layer(features[i]) for layer, i in zip(self.inputs, self.levels, strict=True)]
        x = own.pop()
        for layer, finer in zip(self.joined, reversed(own), strict=True):
            x = layer(finer + interpolate(x, finer.shape[-2:], mode="nearest"))
        return self.head(x)


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="as short as a test needs it")
    parser.add_argument("--encoder", default="resnet10t", help="any of timm.list_models() with features")
    parser.add_argument("--pretrained", action="store_true", help="with timm's weights")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    generator, net = torch.Generator().manual_seed(0), UNet(options.encoder, 3, options.pretrained)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    losses = []
    for step in range(25 if options.smoke else 1000):
        images, centre = draw(8, generator)
        loss = expected_error(net(images), centre / FINEST, num_samples=30, tau=1.0, seed=step).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    images, centre = draw(32, generator)
    with torch.inference_mode():
        position = soft_argmax(net.eval()(images)) * FINEST
    print(f"loss {losses[0]:.2f} to {losses[-1]:.2f} cells, error {(position - centre).norm(dim=-1).mean():.2f} px")
    return losses


if __name__ == "__main__":
    main()
