"""Hugging Face's ViTPose and Sapiens2, fine-tuned with samples: transformers has no loss for the one, MSE for the other.

``--pretrained usyd-community/vitpose-base-simple`` or ``facebook/sapiens2-pose-0.4b`` starts from trained weights; without it
the network is a tiny one without any, which learns eight images by heart.
"""

import argparse
from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    Sapiens2Config,
    Sapiens2ForPoseEstimation,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
)

from sampling_argmax_cuda import expected_error, soft_argmax

POINTS = 3


def tiny(kind: str) -> PreTrainedModel:
    """A network of random weights for images of 64 x 64 pixels."""
    size: dict[str, Any] = dict(image_size=[64, 64], hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    last: dict[str, Any] = dict(num_labels=POINTS)
    if kind == "vitpose":
        size |= dict(patch_size=[16, 16], mlp_ratio=2, out_indices=[2])
        backbone = VitPoseBackboneConfig(**size)
        return VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, **last))
    last["head_config"] = {"upsample_out_channels": [32, 32], "conv_out_channels": [32]}
    return Sapiens2ForPoseEstimation(Sapiens2Config(**size, patch_size=16, intermediate_size=128, **last))


def load(name: str) -> PreTrainedModel:
    """A pretrained network whose last layer has our number of points, anew."""
    kind = Sapiens2ForPoseEstimation if "sapiens" in name.lower() else VitPoseForPoseEstimation
    return kind.from_pretrained(name, num_labels=POINTS, ignore_mismatched_sizes=True)


def draw(count: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images with a red, a green and a blue dot, and their centres ``[B, 3, 2]`` in pixels; yours come from a processor."""
    centre = torch.rand(count, POINTS, 2, generator=generator) * torch.tensor([width - 16.0, height - 16.0]) + 8
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = (x - centre[..., 0, None, None]) ** 2 + (y - centre[..., 1, None, None]) ** 2
    return torch.exp(-distance / (0.002 * height * width)), centre


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="as short as a test needs it")
    parser.add_argument("--model", choices=("vitpose", "sapiens2"), default="vitpose")
    parser.add_argument("--pretrained", help="name or folder of a network with a head")
    parser.add_argument("--steps", type=int, help="500 unless said")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    model = load(options.pretrained) if options.pretrained else tiny(options.model)
    part = getattr(model.config, "backbone_config", None) or model.config
    height, width = part.image_size
    images, centre = draw(8, height, width, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4 if options.pretrained else 2e-3)
    losses, stride = [], 4  # a heatmap's cells are 4 pixels apart
    for step in range(options.steps or (20 if options.smoke else 500)):
        heatmaps = model.train()(images).heatmaps  # [B, K, H/4, W/4], taken for logits
        loss = expected_error(heatmaps, centre / stride, num_samples=30, tau=1.0, seed=step).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.inference_mode():
        position = soft_argmax(model.eval()(images).heatmaps) * stride
    print(f"loss {losses[0]:.2f} to {losses[-1]:.2f} cells, error {(position - centre).norm(dim=-1).mean():.2f} px")
    return losses


if __name__ == "__main__":
    main()
