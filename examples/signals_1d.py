"""Times of events in 1-D signals: onset and peak of a pulse, with an interval that says how sure the network is."""

import argparse

import torch
from torch import Tensor, nn

from sampling_argmax_cuda import heatmap_moments
from sampling_argmax_cuda.objectives import SamplingArgmax


def draw(count: int, generator: torch.Generator, length: int = 256) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy signals ``[B, 1, W]``, the times of onset and peak of their pulses ``[B, 2, 1]`` in samples, and weights ``[B, 2]``.

    Of every fourth signal nobody has said the onset: its weight is 0, and its time NaN.
    """
    onset = 32 + (length - 128) * torch.rand(count, 1, 1, generator=generator)
    rise = 10 + 20 * torch.rand(count, 1, 1, generator=generator)
    since = (torch.arange(length) - onset).clamp(min=0) / rise
    pulses = since * torch.exp(1 - since)  # highest, 1, at onset + rise
    noise = 0.3 * torch.rand(count, 1, 1, generator=generator) * torch.randn(count, 1, length, generator=generator)
    times, weight = torch.cat([onset, onset + rise], 1), torch.ones(count, 2)
    times[::4, 0], weight[::4, 0] = torch.nan, 0
    return pulses + noise, times, weight


def network(events: int = 2, width: int = 32) -> nn.Module:
    """Signals ``[B, 1, W]`` to logits ``[B, events, W]``: dilated convolutions, which see 125 samples."""
    layers: list[nn.Module] = [nn.Conv1d(1, width, 5, padding=2), nn.ReLU()]
    for dilation in (2, 4, 8, 16):
        layers += [nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv1d(width, events, 1))


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="as short as a test needs it")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    generator, net = torch.Generator().manual_seed(0), network()
    objective = SamplingArgmax(spread=0.5)  # the energy score, which is proper: a map's width comes to be the error's
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for step in range(60 if options.smoke else 1000):
        signals, times, weight = draw(32, generator)
        loss = objective.loss(net(signals), times, weight, seed=step).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    signals, times, weight = draw(256, generator)
    with torch.inference_mode():
        moments = heatmap_moments(net(signals))
    error, spread = (moments.mean - times).squeeze(-1), moments.variance.sqrt().squeeze(-1)
    known = weight > 0
    inside = (error.abs() <= 2 * spread)[known].float().mean()
    print(f"loss {losses[0]:.1f} to {losses[-1]:.1f}; mean error {error.abs()[known].mean():.1f} samples, spread of the maps "
          f"{spread.mean():.1f}, within two spreads {inside:.0%}")  # fmt: skip
    return losses


if __name__ == "__main__":
    main()
