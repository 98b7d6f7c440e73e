"""A training loop of your own with automatic mixed precision: three dots, one map of logits each."""

import argparse

import torch
from torch import Tensor, nn

from sampling_argmax_cuda.objectives import SamplingArgmax

STRIDE = 4  # pixels of an image to a cell of its maps


def draw(count: int, generator: torch.Generator, size: int = 64) -> tuple[Tensor, Tensor]:
    """Noisy images ``[B, 3, size, size]`` with a red, a green and a blue dot, and their centres ``[B, 3, 2]`` x, y in pixels."""
    centre = 8 + (size - 16) * torch.rand(count, 3, 2, generator=generator)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    distance = (x - centre[..., 0, None, None]) ** 2 + (y - centre[..., 1, None, None]) ** 2
    return torch.exp(-distance / 18) + 0.2 * torch.randn(count, 3, size, size, generator=generator), centre


def network(channels: int = 32) -> nn.Module:
    """Images ``[B, 3, H, W]`` to logits ``[B, 3, H/4, W/4]``, and nothing behind them: no softmax, no sigmoid."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 5, 2, padding=2), nn.ReLU(), nn.Conv2d(channels, channels, 5, 2, padding=2), nn.ReLU(),
        nn.Conv2d(channels, channels, 5, padding=2), nn.ReLU(), nn.Conv2d(channels, 3, 1),
    )  # fmt: skip


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="as short as a test needs it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)
    epochs, steps = (3, 10) if options.smoke else (20, 50)

    torch.manual_seed(0)
    generator, device = torch.Generator().manual_seed(0), options.device
    net, objective = network().to(device), SamplingArgmax(num_samples=30, tau="coco").to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    half = torch.float16 if device == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(device, enabled=half is torch.float16)  # bfloat16 has the range of float32
    losses = []
    for epoch in range(epochs):
        objective.set_epoch(epoch)  # the temperature
        net.train()
        objective.train()
        total = 0.0
        for _ in range(steps):
            images, centre = (x.to(device) for x in draw(16, generator))
            with torch.autocast(device, half):
                logits = net(images)
            loss = objective.loss(logits, centre / STRIDE).mean()  # of half-precision logits, in float32
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            total += loss.item()
        losses.append(total / steps)

        net.eval()
        objective.eval()
        images, centre = (x.to(device) for x in draw(64, generator))
        with torch.inference_mode():
            position, peak = objective.read(net(images))  # soft-argmax, in cells
        error = (position * STRIDE - centre).norm(dim=-1).mean()
        print(f"epoch {epoch}: loss {losses[-1]:.3f} cells, error {error:.2f} px, peak {peak.mean():.2f}")
    return losses


if __name__ == "__main__":
    main()
