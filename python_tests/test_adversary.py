"""Self-adversarial training: gradients by themselves, the balance, and both tasks through the command line."""

import csv
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import runs
import task_runs
import test_associative
import test_mpii
import torch
from combinations import attach, gradients, make, make_batch
from runs import last, logged, two_processes_equal
from task_runs import Trained, resumed

from bench import two_processes
from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.tasks.associative.task import BottomUpPose
from sampling_argmax_cuda.tasks.mpii.task import MpiiPose
from sampling_argmax_cuda.trainers.adversary import Adversary

pytestmark = pytest.mark.written_memory


def problem() -> tuple[Adversary, torch.Tensor, torch.Tensor, torch.Tensor]:
    """An adversary with a balance, images, maps and true maps."""
    torch.manual_seed(0)
    adversary = Adversary(2, 8, factor=0.3, maps=5, norm="group")
    adversary.k.fill_(0.4)
    return adversary, torch.randn(2, 3, 64, 64), torch.rand(2, 5, 16, 16), torch.rand(2, 5, 16, 16)


def test_each_network_has_the_gradient_of_its_own_loss():
    """One backward pass gives what two would: the other network is a constant in each."""
    adversary, images, maps, truth = problem()
    maps.requires_grad_()
    parameters = list(adversary.net.parameters())
    total, real, fake = adversary.loss(images, maps, truth)
    grads = torch.autograd.grad(total, [maps, *parameters])

    small = torch.nn.functional.interpolate(images, (16, 16), mode="area")

    def error(x: torch.Tensor) -> torch.Tensor:
        return (adversary.net(torch.cat([small, x], 1))[-1] - x).square().mean()

    torch.testing.assert_close(real, error(truth).detach())
    torch.testing.assert_close(fake, error(maps).detach())
    for_maps = torch.autograd.grad(0.3 * error(maps), maps)[0]
    for_weights = torch.autograd.grad(error(truth) - 0.4 * error(maps.detach()), parameters, allow_unused=True)
    torch.testing.assert_close(grads[0], for_maps)
    for got, expected in zip(grads[1:], for_weights, strict=True):
        torch.testing.assert_close(got, torch.zeros_like(got) if expected is None else expected, rtol=1e-4, atol=1e-6)
    assert for_maps.abs().max() > 0 and not real.requires_grad


def test_the_balance_follows_its_recurrence():
    adversary, expected, seen = Adversary(1, 8, rate=0.02, maps=5), 0.0, []
    for pair in torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.5]):
        adversary.balance(*pair)
        expected = min(1.0, max(0.0, expected + 0.02 * (0.5 * pair[0].item() - pair[1].item())))
        assert abs(adversary.k.item() - expected) <= 1e-9
        seen.append(expected)
    assert min(seen) == 0 and max(seen) > 0.05
    adversary.k.fill_(0.999)
    adversary.balance(torch.tensor(100.0), torch.tensor(0.0))
    assert adversary.k == 1


def test_learning_rates_are_apart():
    module = MpiiPose(
        stacks=1, channels=8, objective="heatmap", adversary={"stacks": 1, "channels": 8, "lr": 0.32}, lr=0.1
    )
    optimizer = module.configure_optimizers()
    assert module.rates()["adversary"] == 0.32
    counts = {part: sum(len(group["params"]) for group in optimizer.param_groups if group["part"] == part)
              for part in ("", "adversary")}  # fmt: skip
    assert counts["adversary"] == len(list(module.adversary.parameters()))
    assert sum(counts.values()) == len(list(module.parameters()))


def test_a_joint_that_does_not_count_has_no_map_on_either_side():
    module = attach(make("mpii", "heatmap, adversary"))
    batch = make_batch("mpii")
    batch["weight"][:, 3] = 0
    gradients(module, batch)
    weight = module.model.scores[-1].weight.grad
    assert (weight[3] == 0).all() and all((weight[k] != 0).any() for k in range(16) if k != 3)


@pytest.mark.parametrize(
    "module, wrong, message",
    [
        (MpiiPose, dict(objective="sampling"), "model: an adversary needs objective heatmap, got sampling"),
        (MpiiPose, dict(objective="heatmap", adversary={"rate": 0.0}), "adversary: rate must be > 0, got 0.0"),
        (BottomUpPose, dict(adversary={"lr": 0.0}), "adversary: lr must be > 0, got 0.0"),
        (BottomUpPose, dict(adversary={"stacks": 0}), "model: stacks must be >= 1, got 0"),
    ],
)
def test_wrong_options_are_named(module, wrong, message):
    adversary = {"stacks": 1, "channels": 8, **wrong.pop("adversary", {})}
    with pytest.raises(ValueError, match=message):
        module(stacks=1, channels=8, adversary=adversary, **wrong)


# ---- the command line ----

OPTIONS = {"mpii": test_mpii.options, "associative": test_associative.options}
SMALL = ["--config", "adversarial", "--adversary.stacks=1", "--adversary.channels=8", "--adversary.rate=0.01",
         "--adversary.gamma=20", "--model.lr=1e-4", "--model.norm=frozen"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module", params=OPTIONS)
def trained(request, data, tmp_path_factory) -> tuple[str, Trained]:
    """A task and its runs.

    Without norms: at the bottom of an hourglass over a small image they divide rounding by its own deviation.
    """
    task = request.param
    fit = partial(runs.fit, config=task, options=OPTIONS[task])
    return task, task_runs.trained(fit, data / task, tmp_path_factory.mktemp("runs"), *SMALL)


def test_resumed_run_equals_an_uninterrupted_one(trained):
    """The balance, too, goes on where it was."""
    _, folders = trained
    assert resumed(folders)["state_dict"]["adversary.k"] > 0
    numbers = logged(folders.whole)
    assert (
        numbers["train/k"] == sorted(numbers["train/k"])
        and {"train/real", "train/fake", "train/measure"} <= numbers.keys()
    )


@pytest.mark.long
def test_two_processes_equal_one(trained, data, tmp_path):
    """Every step ends on both, with the losses and the balance of one process."""
    task, folders = trained
    two = two_processes_equal(folders.whole, data / task, tmp_path, *SMALL, "--trainer.max_epochs=2", half=2, config=task,
                              options=OPTIONS[task], least_dims=4)  # fmt: skip
    k = [run["state_dict"]["adversary.k"].item() for run in (last(folders.whole), two)]
    assert k[0] == pytest.approx(k[1], rel=1e-3) and k[0] > 0


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_table_of_two_processes(real, tmp_path, monkeypatch):
    """The committed one has 200 steps five times (bench/results/two_processes.csv). Short, both runs are the one of one process."""
    seen = []

    def run(command: list[str], **_) -> None:
        seen.append(command)
        if command[-2:] == ["--trainer.devices=2", "--trainer.strategy=ddp"]:
            command = [*command[:-2], "--trainer.devices=1", "--data.batch_size=4"]
        assert command[:3] == [sys.executable, "-m", "sampling_argmax_cuda"] and main(command[3:]) == 0

    if not real:
        monkeypatch.setattr(subprocess, "run", run)
    two_processes.main(["--repeats", "1", "--steps", "4", "--output", str(tmp_path / "table.csv")])
    with (tmp_path / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["steps"] == "4" and float(row["largest_relative_difference"]) < 1e-5
    assert real or ["--data.batch_size=4" in command for command in seen] == [True, False]


def test_an_adversary_without_stacks_is_none():
    for options in (None, {"stacks": None}):
        assert BottomUpPose(stacks=1, channels=8, adversary=options).adversary is None
