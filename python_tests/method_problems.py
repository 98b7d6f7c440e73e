"""Small problems of every method of localization, on grids of every number of axes and on clouds."""

import functools

import torch

from sampling_argmax_cuda.objectives.methods import Method, make_method
from sampling_argmax_cuda.objectives.objective import Located
from sampling_argmax_cuda.objectives.targets import Target
from sampling_argmax_cuda.tasks.coco.task import CocoPose

SEED = torch.tensor([5, 0])
SIZES = {"line": (7,), "plane": (6, 5), "volume": (5, 4, 3), "cloud": (1, 1, 1)}  # cells of x, y, z
CELLS = 9  # points of a cloud


@functools.cache
def defaults() -> dict:
    return dict(CocoPose(depth=18, head_channels=16).hparams)


def method_of(name: str, shape: str = "plane", **more) -> Method:
    torch.manual_seed(0)  # of RLE's flow
    options = {**defaults(), "method": name, "tau": 1.0, "num_samples": 5, "volume": 3 if shape == "volume" else None}
    return make_method({**options, **({"basis": "none"} if shape == "cloud" else {}), **more}).train()


class Problem:
    """Logits (positions, for a method that regresses), widths, and where the points are; ``K`` is 3, ``B`` is 2."""

    def __init__(self, method: Method, shape: str, seed: int = 0) -> None:
        rng, self.method, self.size = torch.Generator().manual_seed(seed), method, SIZES[shape]
        axes = len(self.size)
        self.points = torch.randn(2, CELLS, axes, generator=rng) if shape == "cloud" else None
        cells = (CELLS,) if shape == "cloud" else tuple(reversed(self.size))
        self.position = torch.rand(2, 3, axes, generator=rng) * (torch.tensor(self.size) - 0.4)
        self.weight, self.known = torch.ones(2, 3), None
        tail = (axes,) if method.regresses else cells
        self.place = torch.randn(2, 3, *tail, generator=rng)
        self.sigma = torch.rand(2, 3, axes, generator=rng) + 0.2

    def run(self) -> tuple[torch.Tensor, ...]:
        """The loss of every point, and its gradients of the network's answer."""
        leaves = [x.clone().requires_grad_() for x in (self.place, self.sigma)[: 1 + self.method.widths]]
        target = Target(self.position, self.weight, self.size, self.known, self.points)
        loss = self.method.loss(Located(*leaves) if self.method.widths else leaves[0], target, SEED)
        return loss.detach(), *torch.autograd.grad(loss.sum(), leaves)
