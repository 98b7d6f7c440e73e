"""Whole training steps against the naive forms, or beside a part of theirs: ``python -m bench.steps [--tasks oct ...]``.

Both forms of a task are run in turn in one process, ``--rounds`` times; the table has medians and the spread of the rounds.
"""

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from sampling_argmax_cuda.clouds import farthest_points, neighbours
from sampling_argmax_cuda.commands.naive import looped_chamfer, paper_samples, sorted_neighbours
from sampling_argmax_cuda.objectives import Objective
from sampling_argmax_cuda.tasks.associative.losses import tag_loss
from sampling_argmax_cuda.tasks.associative.task import BottomUpPose
from sampling_argmax_cuda.tasks.keypointnet import pointnet
from sampling_argmax_cuda.tasks.keypointnet.task import PointCloudKeypoints
from sampling_argmax_cuda.tasks.oct.task import RetinalSurfaces
from sampling_argmax_cuda.tasks.skeleton import task as skeleton
from sampling_argmax_cuda.tasks.skeleton.chamfer import composite_chamfer

RESULTS = Path(__file__).parent / "results" / "steps.csv"
Forms = dict[str, Callable[[], torch.Tensor]]


def _seeded(module: torch.nn.Module) -> torch.nn.Module:
    module.row_seed = lambda output: torch.tensor([0, 0], device=output.device)
    return module.train()


def _naive(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of a module with eager samples in place of the operator's."""
    module = copy.deepcopy(module)
    objective = module.objective

    def samples(logits, points=None, *, num_samples=None, sigma=None, seed=None):
        if points is None:
            draws = paper_samples(logits, objective.num_samples, objective.tau, objective.basis)
            return objective.possible(draws)
        scale = sigma.view(-1, 1, 1)  # the naive form's normals have a deviation of 1
        draws = paper_samples(logits, objective.num_samples, objective.tau, objective.basis, points=points / scale)
        return draws * scale.unsqueeze(-1)

    objective.draws = lambda output, target, seed: samples(output, target.points, sigma=target.sigma)
    objective.target_loss = partial(Objective.target_loss, objective)  # not the fused pass, which draws its own
    return module


def _searching(step: Callable[[], torch.Tensor], eager: bool) -> torch.Tensor:
    """A step with the fused searches in clouds, or with those of the published PointNet++ in eager PyTorch."""
    pointnet.farthest_points = partial(farthest_points, backend="reference") if eager else farthest_points
    pointnet.neighbours = sorted_neighbours if eager else neighbours
    return step()


def oct_forms(columns: int = 1024, num_samples: int = 30) -> Forms:
    """The published experiment's batch: 2 B-scans of 128 x 1,024, 9 surfaces, 30 samples, U-Net of width 16."""
    batch = {"image": torch.rand(2, 1, 128, columns), "target": torch.rand(2, 9, columns).cumsum(1) * 14,
             "weight": torch.ones(2, 9, columns)}  # fmt: skip
    objective = dict(name="sampling", tau=1.0, basis="uniform", metric="smooth_l1", num_samples=num_samples)
    ours = _seeded(RetinalSurfaces(width=16, reduction="mean", objective=objective))
    naive = _naive(ours)
    return {"fused": lambda: ours.step_loss(batch), "naive": lambda: naive.step_loss(batch)}


def keypointnet_forms(points: int = 2048, num_samples: int = 30, **more) -> Forms:
    """8 clouds of 2,048 points, 10 keypoints, 30 samples, PointNet++ (SSG); naive: samples and searches in eager PyTorch."""
    batch = {"points": torch.rand(8, points, 3) - 0.5, "copies": torch.rand(8, 1, 10, 3) - 0.5, "weight": torch.ones(8, 10),
             "sigma": torch.full((8,), 0.02)}  # fmt: skip
    objective = dict(name="sampling", tau=1.0, basis="gaussian", metric="euclidean", num_samples=num_samples)
    ours = _seeded(PointCloudKeypoints(keypoints=10, reduction="mean", objective=objective, **more))
    naive = _naive(ours)
    return {"fused": lambda: _searching(lambda: ours.step_loss(batch), eager=False),
            "naive": lambda: _searching(lambda: naive.step_loss(batch), eager=True)}  # fmt: skip


def skeleton_forms(points: int = 2048, **more) -> Forms:
    """8 clouds of 2,048 points, 10 keypoints, 45 edges, PointNet++ (MSG).

    loop: the published loop over edges; naive: that, and the published searches in clouds.
    """
    batch = {"points": torch.rand(8, points, 3) - 0.5, "sigma": torch.full((8,), 0.02)}
    objective = dict(name="sampling", tau=1.0, basis="gaussian", num_samples=1)
    ours = _seeded(skeleton.SkeletonMerger(objective=objective, **more))

    def step(chamfer: Callable, eager: bool) -> torch.Tensor:
        skeleton.composite_chamfer = chamfer
        return _searching(lambda: ours.step_loss(batch), eager)

    return {"fused": lambda: step(composite_chamfer, eager=False), "loop": lambda: step(looped_chamfer, eager=False),
            "naive": lambda: step(looped_chamfer, eager=True)}  # fmt: skip


def chamfer_forms() -> Forms:
    """The composite chamfer distance alone: 8 clouds of 2,048 points, 45 edges of 100 points."""
    cloud, strength = torch.rand(8, 2048, 3) * 2 - 1, torch.rand(8, 45)
    parts, used = (torch.rand(8, 45, 100, 3) * 2 - 1).requires_grad_(), torch.ones(45, 100, dtype=torch.bool)
    return {"fused": lambda: composite_chamfer(cloud, parts, used, strength).mean(),
            "naive": lambda: looped_chamfer(cloud, parts, used, strength).mean()}  # fmt: skip


def associative_forms(size: int = 512, people: int = 10, **more) -> Forms:
    """One image of the published network, 4 plain stacks of 256 channels at 512 x 512, with 10 people; tags: their loss alone."""
    cells = size // 4
    visible = (torch.arange(30) < people).float().view(1, 30, 1).expand(1, 30, 17)
    batch = {"image": torch.rand(1, 3, size, size), "target": torch.rand(1, 30, 17, 2) * (cells - 1), "weight": visible,
             "mask": torch.ones(1, cells, cells)}  # fmt: skip
    ours = BottomUpPose(**more).train()
    tags = torch.rand(ours.hparams.stacks, 17, cells, cells, requires_grad=True)
    place = torch.randint(cells * cells, (1, 30, 17))

    def alone() -> torch.Tensor:
        parts = [tag_loss(stack.unsqueeze(0), place, visible) for stack in tags]
        return sum((part.pull + part.push).mean() for part in parts)

    return {"step": lambda: ours.step_loss(batch), "tags": alone}


TASKS = {"oct": oct_forms, "keypointnet": keypointnet_forms, "skeleton": skeleton_forms, "chamfer": chamfer_forms,
         "associative": associative_forms}  # fmt: skip


def measure(forms: Forms, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of forward and backward of each form in every round, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for i in range(rounds + 1):
        for name, form in forms.items():
            start = time.perf_counter()
            form().backward()
            if i > 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="what to measure")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file")
    args = parser.parse_args(argv)
    rows = ["task,form,median_ms,least_ms,most_ms,rounds,threads"]
    for task in args.tasks:
        torch.manual_seed(0)
        for form, times in measure(TASKS[task](), args.rounds).items():
            median = sorted(times)[len(times) // 2]
            numbers = ",".join(f"{x:.1f}" for x in (median, min(times), max(times)))
            rows.append(f"{task},{form},{numbers},{len(times)},{torch.get_num_threads()}")
            print(rows[-1])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
