"""Keypoints of point clouds: the cells of a map are the cloud's own points, and positions lie between them."""

import argparse

import torch
from torch import Tensor, nn

from sampling_argmax_cuda import expected_error, heatmap_moments


def draw(count: int, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boxes of random sides, turned around z: points of the surface ``[B, N, 3]`` and the four top corners ``[B, 4, 3]``."""
    sides = 0.4 + 0.6 * torch.rand(count, 1, 3, generator=generator)
    unit = 2 * torch.rand(count, points, 3, generator=generator) - 1
    face = torch.randint(3, (count, points, 1), generator=generator)  # the axis that a point's face is normal to
    unit = torch.where(face == torch.arange(3), unit.sign(), unit)
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]]).expand(count, 4, 3)
    angle = 0.7 * (2 * torch.rand(count, generator=generator) - 1)
    turn = torch.eye(3).repeat(count, 1, 1)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -angle.sin(), angle.sin()
    return unit * sides @ turn.mT, corners * sides @ turn.mT


class PointNet(nn.Module):
    """Points ``[B, N, 3]`` to logits ``[B, K, N]``: each point's own features beside the cloud's largest."""

    def __init__(self, keypoints: int = 4, width: int = 64) -> None:
        super().__init__()
        self.own = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, keypoints))

    def forward(self, points: Tensor) -> Tensor:
        own = self.own(points)
        cloud = own.amax(1, keepdim=True).expand_as(own)
        return self.head(torch.cat([own, cloud], -1)).transpose(1, 2)


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="as short as a test needs it")
    options = parser.parse_args(argv)
    steps, points = (40, 256) if options.smoke else (1000, 1024)
    torch.manual_seed(0)
    generator, net = torch.Generator().manual_seed(0), PointNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for step in range(steps):
        clouds, corners = draw(16, points, generator)
        loss = expected_error(  # in the cloud's units; a gaussian as wide as points are apart moves samples off them
            net(clouds), corners, points=clouds, num_samples=30, tau=1.0, basis="gaussian", sigma=0.05, metric="euclidean",
            seed=step,
        ).mean()  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    clouds, corners = draw(64, points, generator)
    with torch.inference_mode():
        moments = heatmap_moments(net(clouds), points=clouds)
    error, spread = (moments.mean - corners).norm(dim=-1), moments.variance.sum(-1).sqrt()
    print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}, error {error.mean():.3f}, spread of the maps {spread.mean():.3f}")
    return losses


if __name__ == "__main__":
    main()
