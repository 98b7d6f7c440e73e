"""Small problems of every objective, on grids of every number of axes and on point sets."""

import torch

from sampling_argmax_cuda.objectives import OBJECTIVES, LikelihoodOf, Objective, make_objective, options_of
from sampling_argmax_cuda.objectives.answers import OutputWithSigma
from sampling_argmax_cuda.objectives.targets import Target

SEED = torch.tensor([5, 0])
SIZES = {"line": (7,), "plane": (6, 5), "volume": (5, 4, 3), "cloud": (1, 1, 1)}  # cells of x, y, z
CELLS = 9  # points of a cloud
RLE = tuple(name for name, kind in OBJECTIVES.items() if issubclass(kind, LikelihoodOf))
SMALL = {"num_samples": 5, "tau": 1.0}  # what the tests of all objectives say to those that have it


def options(name: str, **more) -> dict:
    """The options of an objective: those of ``more``, and of the tests' own the ones that it has."""
    own = {**SMALL, **({"basis": "none"} if more.pop("cloud", False) else {})}
    return {"name": name, **{key: value for key, value in own.items() if key in options_of(name)}, **more}


def objective_of(name: str, shape: str = "plane", **more) -> Objective:
    torch.manual_seed(0)  # of RLE's flow
    axes = 3 if shape == "volume" else 2
    return make_objective(options(name, cloud=shape == "cloud", **more), axes).train()


class Problem:
    """Logits (positions, for an objective that regresses), widths, and where the points are; ``K`` is 3, ``B`` is 2."""

    def __init__(self, objective: Objective, shape: str, seed: int = 0) -> None:
        rng, self.objective, self.size = torch.Generator().manual_seed(seed), objective, SIZES[shape]
        axes = len(self.size)
        self.points = torch.randn(2, CELLS, axes, generator=rng) if shape == "cloud" else None
        cells = (CELLS,) if shape == "cloud" else tuple(reversed(self.size))
        self.position = torch.rand(2, 3, axes, generator=rng) * (torch.tensor(self.size) - 0.4)
        self.weight, self.known = torch.ones(2, 3), None
        tail = (axes,) if objective.regresses else cells
        self.output = torch.randn(2, 3, *tail, generator=rng)
        self.sigma = torch.rand(2, 3, axes, generator=rng) + 0.2

    def answer(self) -> torch.Tensor | OutputWithSigma:
        """What a network of the objective would answer."""
        return OutputWithSigma(self.output, self.sigma) if self.objective.predicts_sigma else self.output

    def run(self) -> tuple[torch.Tensor, ...]:
        """The loss of every point, and its gradients of the network's answer."""
        leaves = [x.clone().requires_grad_() for x in (self.output, self.sigma)[: 1 + self.objective.predicts_sigma]]
        target = Target(self.position, self.weight, self.size, self.known, self.points)
        answer = OutputWithSigma(*leaves) if self.objective.predicts_sigma else leaves[0]
        loss = self.objective.loss(answer, target, seed=SEED)
        return loss.detach(), *torch.autograd.grad(loss.sum(), leaves)
