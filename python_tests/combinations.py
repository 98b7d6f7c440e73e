"""Every objective of every task under every option that could make a wrong number without a word: one row each of a table.

``python python_tests/combinations.py`` writes ``bench/results/combinations.csv``; ``test_combinations.py`` makes the rows again.
A cell is ``ok``, ``-`` where the task has no such thing, or the message that refuses it.
"""

import contextlib
import csv
import io
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import lightning
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.objectives import OBJECTIVES, Debiased, options_of
from sampling_argmax_cuda.objectives.answers import OutputWithSigma, SubDistributions
from sampling_argmax_cuda.tasks.skeleton import task as skeleton_task
from sampling_argmax_cuda.trainers import adversary, networks, objective_module, resnet, trained_module
from sampling_argmax_cuda.trainers.landmark_module import LandmarkModule
from sampling_argmax_cuda.trainers.objective_module import REDUCTIONS, ObjectiveModule
from sampling_argmax_cuda.trainers.points import package_points

TABLE = Path(__file__).parents[1] / "bench" / "results" / "combinations.csv"
BATCH, SIDE = 8, 32  # samples, and pixels of an image's side
HOURGLASSES = dict(stacks=1, channels=8, norm="group")
POINT_CLOUDS = dict(keypoints=4, centers=(16, 8, 4, 2), width=0.1, norm="group")
OPTIONS = {
    "associative": dict(HOURGLASSES, plain=False), "coco": {}, "h36m": dict(volume=6), "mtfl": {},
    "mpii": dict(HOURGLASSES), "oct": dict(width=4, norm="group"), "keypointnet": dict(POINT_CLOUDS, dropout=0.0),
    "keypoints": dict(points=package_points("mtfl").as_mapping()),
    "skeleton": dict(POINT_CLOUDS),
}  # fmt: skip
OF_OBJECTIVES = {
    "keypointnet": dict(basis="gaussian"),
    "skeleton": dict(
        basis="gaussian", tau=0.05
    ),  # samples far apart, so that edges have other lengths in other batches
}
ADVERSARY = dict(stacks=1, channels=8, factor=0.1, rate=0.1, gamma=3.0)
VARIANTS = {
    "spread": dict(spread=0.5),
    "fading": dict(beta="tau", tau="fading"),
    "offset_sigma": dict(basis="gaussian"),
}
CELLS = ("offset", "offset_sigma")  # what cells learn, as a variant
LEARN = [*((name, "offset") for name in ("soft", "discrete", "sampling")), ("sampling", "offset_sigma")]
ROWS = [*((task, objective) for task in TASKS if task != "associative"
          for objective in (*OBJECTIVES, "discrete, spread", "sampling, spread", "sampling, fading")),
        ("associative", "tags"), ("associative", "tags, adversary"), ("mpii", "heatmap, adversary"),
        # One task has every objective; others share its network, or have a volume, or hourglasses, which refuse.
        *(("coco", f"{objective}, {cells}") for objective in OBJECTIVES for cells in CELLS),
        *(("h36m", f"{objective}, {cells}") for objective, cells in LEARN),
        *((task, "sampling, offset_sigma") for task in ("keypoints", "mtfl", "mpii"))]  # fmt: skip


class TinyNet(nn.Module):
    """Maps, positions and widths of the shapes of the networks on images, from one convolution."""

    def __init__(
        self, joints: int, volume: int | None, regresses: bool, widths: bool, cells: str | None = None
    ) -> None:
        super().__init__()
        self.shape, self.axes = (joints,) if volume is None else (joints, volume), 2 if volume is None else 3
        self.regresses, self.widths = regresses, widths
        self.maps = nn.Conv2d(3, joints * (volume or 1), 4, 4)
        self.position, self.sigma = (nn.Linear(3, joints * self.axes) for _ in range(2))
        self.cells = None if cells is None else resnet.CellHead(3, self.shape, 1.0 if cells == "offset_sigma" else None)
        for layer in [] if cells is None else self.cells.children():
            nn.init.normal_(layer.weight, std=0.3)

    def forward(self, images: Tensor) -> Tensor | OutputWithSigma:
        images = images.to(self.maps.weight.dtype)
        mean = images.mean((2, 3))
        place = self.maps(images).unflatten(1, self.shape)
        if self.cells is not None:
            return self.cells(nn.functional.avg_pool2d(images, 4), place)
        if self.regresses:
            place = self.position(mean).unflatten(1, (-1, self.axes))
        return (
            OutputWithSigma(place, self.sigma(mean).sigmoid().unflatten(1, (-1, self.axes))) if self.widths else place
        )


def tiny_maps(
    joints: int,
    depth: int,
    channels: int,
    norm: str,
    volume: int | None,
    widths: bool,
    gain: float,
    backbone: None,
    **cells,
) -> TinyNet:
    return TinyNet(joints, volume, False, widths, cells.get("sub_distributions"))


def tiny_positions(joints: int, depth: int, norm: str, volume: int | None, widths: bool, backbone: None) -> TinyNet:
    return TinyNet(joints, volume, True, widths)


def variant_of(name: str, variant: str) -> dict[str, object]:
    """The options of a variant that an objective has."""
    return {key: value for key, value in VARIANTS.get(variant, {}).items() if key in options_of(name)}


def make(task: str, objective: str, own: dict | None = None, **more) -> trained_module.TrainedModule:
    """A module with a small network and options ``own`` of the objective, equal for equal arguments.

    Raises ValueError for what is refused.
    """
    name, _, variant = objective.partition(", ")
    options = {
        **OPTIONS[task],
        **(dict(adversary=ADVERSARY) if variant == "adversary" else {}),
        **(dict(sub_distributions=variant) if variant in CELLS else {}),
        "optimizer": "sgd",
        "lr": 0.01,
        **more,
    }
    if task != "associative":
        usual = {"num_samples": 3, "tau": 1.0, "units": "centered", **OF_OBJECTIVES.get(task, {})}
        known = {key: value for key, value in usual.items() if key in options_of(name)}
        options = {
            "objective": {"name": name, **known, **variant_of(name, variant), **(own or {})},
            "reduction": "mean",
            **options,
        }
        if name in ("direct", "rle", "soft_rle", "sampling_rle") and task == "mpii":
            options["stacks"] = None
    torch.manual_seed(0)
    with (patch.object(networks, "PoseNet", tiny_maps),
          patch.object(networks, "RegressionNet", tiny_positions)):  # fmt: skip
        return TASKS[task][0](**options)


def make_batch(task: str, seed: int = 0, size: int = BATCH) -> dict[str, Tensor]:
    """A batch of training with points that are masked, and in h36m with depths that are not known."""
    rng = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(size, *shape, generator=rng)

    index = torch.arange(size)
    if task in ("keypointnet", "skeleton"):
        return {"points": rand(40, 3), "copies": rand(2, 4, 3), "weight": (rand(4) > 0.3).float(),
                "sigma": rand() * 0.1 + 0.05, "index": index}  # fmt: skip
    if task == "oct":
        return {
            "image": rand(1, 32, 16),
            "target": rand(9, 16) * 31,
            "weight": (rand(9, 16) > 0.3).float(),
            "index": index,
        }
    side, cells = (64, 15.0) if task in ("mpii", "associative") else (SIDE, SIDE / 4 - 1)
    batch = {"image": rand(3, side, side), "index": index}
    if task == "associative":
        target, weight = rand(3, 17, 2) * cells, (rand(3, 17) > 0.4).float()
        return {**batch, "target": target, "weight": weight, "mask": (rand(16, 16) > 0.2).float()}
    joints = 5 if task == "keypoints" else len(TASKS[task][0].landmarks)
    axes = 3 if task == "h36m" else 2
    target, weight = rand(joints, axes) * cells, (rand(joints) > 0.3).float()
    batch |= {"target": target.clamp(max=5) if axes == 3 else target, "weight": weight}
    if axes == 3:
        batch["axes"] = torch.ones_like(target)
        batch["axes"][..., 2] = (rand(joints) > 0.5).float()
    return batch


def attach(made: trained_module.TrainedModule, world: int = 1, rank: int = 0) -> trained_module.TrainedModule:
    """A module with as much of a trainer as its steps ask for."""
    made._trainer = SimpleNamespace(world_size=world, global_rank=rank, accumulate_grad_batches=1, global_step=0,
                                    barebones=True, is_global_zero=True, datamodule=None, current_epoch=0,
                                    state=SimpleNamespace(fn=TrainerFn.FITTING))  # fmt: skip
    return made.train()


def gradients(made: trained_module.TrainedModule, batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of a batch."""
    made.zero_grad()
    loss = made.step_loss(batch)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in made.parameters() if p.grad is not None]


def same_bits(a, b) -> bool:
    return torch.equal(a[0], b[0]) and all(torch.equal(x, y) for x, y in zip(a[1], b[1], strict=True))


def close(a: list[Tensor], b: list[Tensor], rtol: float = 2e-4) -> bool:
    """Equal up to the rounding of sums in another order, which is that of the largest gradients."""
    scale = max(float(x.abs().max()) for x in a)
    return scale > 0 and all(float((x - y).abs().max()) <= rtol * scale for x, y in zip(a, b, strict=True))


# ---- the columns ----


def unseen(task: str, objective: str, change: Callable[[dict[str, Tensor], float], dict[str, Tensor]]) -> str:
    """Loss and every gradient of a batch, and of one that differs in what is not known: by a number, or NaN."""
    batch = make_batch(task)
    before = gradients(attach(make(task, objective)), batch)
    assert before[0].isfinite() and all(g.isfinite().all() for g in before[1])
    assert any(g.abs().sum() > 0 for g in before[1])
    for value in (0.5, 1e3, float("nan")):
        after = gradients(attach(make(task, objective)), change({k: v.clone() for k, v in batch.items()}, value))
        assert same_bits(before, after), f"{task} {objective}: what is not known moved the loss when it became {value}"
    return "ok"


def unknown_axis(task: str, objective: str) -> str:
    if task != "h36m":
        return "-"

    def change(batch: dict[str, Tensor], value: float) -> dict[str, Tensor]:
        batch["target"][batch["axes"] == 0] = value
        return batch

    return unseen(task, objective, change)


def mask(task: str, objective: str) -> str:
    if task == "skeleton":
        return "-"  # it has no targets

    def change(batch: dict[str, Tensor], value: float) -> dict[str, Tensor]:
        if task == "keypointnet":
            batch["copies"].transpose(1, 2)[batch["weight"] == 0] = value
        else:
            batch["target"][batch["weight"] == 0] = value
        return batch

    return unseen(task, objective, change)


def mirror(task: str, objective: str, average: str) -> str:
    """A network that finds a dot, whichever way the image is: averaged with the mirrored image it is where it was."""
    if not issubclass(TASKS[task][0], LandmarkModule):
        return "-"
    try:
        made = make(task, objective, flip_test=True, average=average, stacks=None) if task == "mpii" else make(
            task, objective, flip_test=True, average=average)  # fmt: skip
    except ValueError as error:
        return str(error)
    truth = torch.tensor([[61.3, 47.2], [70.9, 66.4]])
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    images = torch.stack([(-((x - a).square() + (y - b).square()) / 18).exp() for a, b in truth])
    made.model = DotNet(made)
    found = made.eval().decode(images.unsqueeze(1).expand(-1, 3, -1, -1))["position"]
    # The largest cell is half a cell off, and its neighbours tell that to a quarter.
    error = (found[..., :2] * 4 - truth[:, None]).abs().max() / 4
    allowed = {"cross_entropy": 0.51, "heatmap": 0.26}.get(objective.partition(",")[0], 0.005)
    assert error <= allowed, f"{task} {objective} {average}: {error:.3f} cells off"
    return "ok"


class DotNet(nn.Module):
    """Every joint at the centre of an image's brightness."""

    def __init__(self, made: LandmarkModule) -> None:
        super().__init__()
        self.made, self.joints, self.volume = [made], len(made.landmarks), made.volume

    def forward(self, images: Tensor) -> Tensor | OutputWithSigma:
        objective, light = self.made[0].objective, images[:, 0]
        height, width = light.shape[1:]
        x, y = (
            (light.sum(axis) * torch.arange(n)).sum(1) / light.sum((1, 2)) / 4 for axis, n in ((1, width), (2, height))
        )
        cells = [torch.arange(n // 4.0) for n in (width, height)]
        squared = (cells[1][:, None] - y[:, None, None]).square() + (cells[0] - x[:, None, None]).square()
        maps = -squared / 4
        if not objective.logits:
            maps = maps.exp()
        if isinstance(objective, Debiased):  # whose peaks stand on a background of zeros
            maps = (1 + 500 * maps.exp()).log()
        maps = maps[:, None].expand(-1, self.joints, -1, -1)
        output = maps if self.volume is None else maps.unsqueeze(2).expand(-1, -1, self.volume, -1, -1)
        if self.made[0].hparams.sub_distributions is not None:  # every cell knows how far the dot is
            to = [x[:, None, None] - cells[0], y[:, None, None] - cells[1][:, None], torch.zeros(len(images), 1, 1)]
            offset = torch.stack(torch.broadcast_tensors(*to)[: output.dim() - 2], 1)
            offset = offset[:, None] if self.volume is None else offset[:, None, :, None]
            shape = (len(images), self.joints, output.dim() - 2, *output.shape[2:])
            return SubDistributions(output * 0, offset.expand(shape), torch.ones_like(output))
        if objective.regresses:
            axes = [x, y, torch.zeros_like(x)][: 2 if self.volume is None else 3]
            output = torch.stack(axes, -1)[:, None].expand(-1, self.joints, -1)
        axes = 2 if self.volume is None else 3
        return (
            OutputWithSigma(output, torch.full((len(images), self.joints, axes), 0.1))
            if objective.predicts_sigma
            else output
        )


def beta(task: str, objective: str) -> str:
    """A factor of the logits is in what is trained and in what is read, or in neither, or refused."""
    if not issubclass(TASKS[task][0], ObjectiveModule):
        return "-"
    try:
        one, three = (attach(make(task, objective, {"beta": b})) for b in (1.0, 3.0))
    except ValueError as error:
        return str(error)
    batch = make_batch(task)
    trained = not same_bits(gradients(one, batch), gradients(three, batch))
    with torch.no_grad():
        read = [m.objective.read(*row_input(m, batch))[0] for m in (one, three)]
    moved = not torch.equal(*read)
    peaks = objective.partition(",")[0] in ("cross_entropy",)  # a factor moves no largest cell
    assert trained == moved or (peaks and trained), f"{task} {objective}: beta is trained {trained}, read {moved}"
    return "ok"


def row_input(made: ObjectiveModule, batch: dict[str, Tensor]) -> tuple:
    if "points" in batch:
        points = batch["points"]
        return made(points) if isinstance(made(points), Tensor) else made(points)[0], points
    output = made(batch["image"])
    return (output[-1] if isinstance(output, list) else output,)


def reductions(task: str, objective: str) -> list[dict]:
    known = task not in ("associative", "skeleton")
    return [{"reduction": name} for name in REDUCTIONS] if known else [{}]


def accumulation(task: str, objective: str) -> str:
    """Two batches of 4 a step: the weights after two steps of one of 8, and the adversary's balance."""
    refused = {}
    for more in reductions(task, objective):
        whole, parts = make(task, objective, **more), make(task, objective, **more)
        batches = [make_batch(task, seed) for seed in (1, 5)]  # of other numbers of known points
        halves = [{k: v[h : h + BATCH // 2] for k, v in b.items()} for b in batches for h in (0, BATCH // 2)]
        try:
            start = [p.detach().double() for p in whole.parameters()]
            fit(whole, batches, 1)
            fit(parts, halves, 2)
        except ValueError as error:
            refused.setdefault(str(error).partition(", got")[0], []).append(more.get("reduction", ""))
            continue
        moved = [[p.detach() - q for p, q in zip(m.parameters(), start, strict=True)] for m in (whole, parts)]
        assert close(*moved, 1e-5), f"{task} {objective} {more}: accumulated batches are not the large one"
        if "adversary" in objective:
            assert 0 < whole.adversary.k and torch.allclose(whole.adversary.k, parts.adversary.k, rtol=1e-4)
    messages = [f"{message} ({', '.join(names)})" if any(names) else message for message, names in refused.items()]
    return "; ".join(messages) or "ok"


def fit(made: trained_module.TrainedModule, batches: list[dict], accumulate: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(accelerator="cpu", barebones=True, max_epochs=1, precision="64-true",
                                    accumulate_grad_batches=accumulate)  # fmt: skip
        trainer.fit(made, DataLoader(batches, batch_size=None))


def ranks(task: str, objective: str) -> str:
    """The mean of two ranks' gradients is that of the whole batch; what ranks tell each other is what both would say."""
    for more in reductions(task, objective):
        batch = make_batch(task, 3)
        expected = gradients(attach(make(task, objective, **more)), batch)
        halves = [{k: v[h : h + BATCH // 2] for k, v in batch.items()} for h in (0, BATCH // 2)]
        said = [said_by(attach(make(task, objective, **more), 2, rank), halves[rank]) for rank in range(2)]
        means, found = [torch.stack(pair).mean(0) for pair in zip(*said, strict=True)], []
        for rank in range(2):
            with over_ranks(partial(pop, list(means))):
                found.append(gradients(attach(make(task, objective, **more), 2, rank), halves[rank]))
        mean = [torch.stack(pair).mean(0) for pair in zip(*(f[1] for f in found), strict=True)]
        assert close(expected[1], mean), f"{task} {objective} {more}: two ranks are not one"
    return "ok"


def said_by(made: trained_module.TrainedModule, batch: dict[str, Tensor]) -> list[Tensor]:
    """What a rank tells the others in a step."""
    said: list[Tensor] = []

    def tell(x: Tensor) -> Tensor:
        said.append(x)
        return x

    with over_ranks(tell):
        gradients(made, batch)
    return said


def pop(means: list[Tensor], _: Tensor) -> Tensor:
    return means.pop(0)


@contextlib.contextmanager
def over_ranks(mean: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let ``mean`` make the means over ranks."""
    with contextlib.ExitStack() as stack:
        for place in (objective_module, adversary, skeleton_task):
            stack.enter_context(patch.object(place, "rank_mean", mean))
        yield


def resumed(task: str, objective: str) -> str:
    """Of every option with another value in the checkpoint, either the run says that it changes it, or it is refused."""
    made = attach(make(task, objective))
    own = {name: value for name, value in made.hparams.items() if not name.startswith("_")}
    parts = {name: value for name, value in own.items() if isinstance(value, dict)}
    changes = {f"model.{name}": {**own, name: ["other", value]} for name, value in own.items() if name not in parts}
    changes |= {f"{part}.{name}": {**own, part: {**options, name: ["other", value]}}
                for part, options in parts.items() for name, value in options.items()}  # fmt: skip
    for name, saved in changes.items():
        loops = {"epoch_progress": {k: dict(ready=1) for k in ("current", "total")},
                 "epoch_loop.batch_progress": {"is_last_batch": True, **{k: dict(processed=3) for k in ("current", "total")}},
                 "state_dict": {}}  # fmt: skip
        checkpoint = {"hyper_parameters": saved, "datamodule_hyper_parameters": {}, "state_dict": {},
                      "loops": {"fit_loop": loops}, "accumulate": 1}  # fmt: skip
        part, _, option = name.partition(".")
        try:
            with contextlib.redirect_stdout(io.StringIO()) as said:
                made.on_load_checkpoint(checkpoint)
            assert f"resumed with --{name} " in said.getvalue()
            refused = False
        except ValueError as error:
            assert f"{part}: {option} of the resumed run was ['other', " in str(error)
            refused = True
        assert refused == (name not in made.free), f"{task} {objective}: {name}"
    others = {name for name in made.free - changes.keys() if not name.startswith(("objective.", "adversary."))}
    assert not others, f"{task}: no option {others}"
    return "ok"


COLUMNS: dict[str, Callable[[str, str], str]] = {
    "unknown axis": unknown_axis, "mask": mask,
    "mirror, coords": lambda task, objective: mirror(task, objective, "coords"),
    "mirror, maps": lambda task, objective: mirror(task, objective, "maps"),
    "beta 3": beta, "accumulation": accumulation, "two ranks": ranks, "resumed with another option": resumed,
}  # fmt: skip


def row(task: str, objective: str) -> dict[str, str]:
    """The cells of an objective of a task. Raises AssertionError where one is wrong."""
    try:
        make(task, objective)
    except ValueError as error:
        return {"task": task, "objective": objective, **dict.fromkeys(COLUMNS, str(error))}
    return {"task": task, "objective": objective, **{name: column(task, objective) for name, column in COLUMNS.items()}}


def main() -> int:
    rows = list(itertools.starmap(row, ROWS))
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {len(rows)} rows to {TABLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
