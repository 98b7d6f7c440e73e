"""A U-Net of segmentation-models-pytorch: its masks are maps of logits as they come, one cell a pixel."""

import argparse

import segmentation_models_pytorch as smp
import torch
from plain_loop import draw

from sampling_argmax_cuda import LocalizationLoss


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="as short as a test needs it")
    parser.add_argument("--architecture", default="Unet", help="a class of the library: Unet, FPN, DeepLabV3Plus, ...")
    parser.add_argument("--encoder", default="resnet18", help="of smp.encoders.get_encoder_names(), or tu-NAME of timm")
    parser.add_argument("--pretrained", action="store_true", help="with weights of ImageNet")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    weights = "imagenet" if options.pretrained else None
    net = smp.create_model(options.architecture, options.encoder, weights, classes=3)  # no activation: logits
    criterion = LocalizationLoss("sampling", coords="pixels", stride=1, num_samples=30, tau=1.0)
    optimizer, generator = torch.optim.AdamW(net.parameters(), lr=1e-3), torch.Generator().manual_seed(0)
    losses = []
    for step in range(12 if options.smoke else 1000):
        images, centre = draw(8, generator)  # [8, 3, 64, 64], and x, y of three points in its pixels
        loss = criterion(net(images), centre, seed=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    images, centre = draw(32, generator)
    with torch.inference_mode():
        position = criterion.decode(net.eval()(images))
    print(f"loss {losses[0]:.2f} to {losses[-1]:.2f} px, error {(position - centre).norm(dim=-1).mean():.2f} px")
    return losses


if __name__ == "__main__":
    main()
