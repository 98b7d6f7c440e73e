"""Runs of the trainers, small enough for a test: their options, what they leave behind, and two processes of one run."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import recipes
from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.commands.configs import choose, spelled_out
from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.commands.unused import unused_options
from sampling_argmax_cuda.objectives import options_of

SAMPLES = "--objective.num_samples=4"


def fitting(arguments: list[str]) -> list[str]:
    """A command line without the number of samples where its objective has none."""
    try:
        name = choose(["fit", *spelled_out(arguments)]).objective
    except (ValueError, FileNotFoundError):
        return arguments  # the command itself has to refuse it
    known = name is not None and "num_samples" in options_of(name)
    return [item for item in arguments if known or item != SAMPLES]


def options(data: Path, run: Path, *more: str, config: str = "coco") -> list[str]:
    return fitting([
        "--config", config, f"--data.root={data}", "--data.synthetic=true", "--data.synthetic_train=24",
        "--data.synthetic_val=6", "--data.image_size=[64,64]", "--data.batch_size=8", "--data.num_workers=0",
        "--model.depth=18", "--model.head_channels=16", "--model.norm=group", SAMPLES,
        "--trainer.max_epochs=3", "--trainer.accelerator=cpu", "--trainer.devices=1",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={run}", *more,
    ])  # fmt: skip


OF_IMAGES = ("--data.image_size", "--model.depth", "--model.head", "--model.norm", "--data.synthetic_")


def options_without_images(data: Path, run: Path, config: str, own: list[str]) -> list[str]:
    """The options of a task without images: those of all tasks and its own."""
    return [option for option in options(data, run, config=config) if not option.startswith(OF_IMAGES)] + own


def fit(data: Path, run: Path, *more: str, config: str = "coco", options: Callable[..., list[str]] = options) -> dict:
    """The last checkpoint of a run."""
    assert main(["fit", *options(data, run, *more, config=config)]) == 0
    return last(run)


def run(command: str, *arguments: str) -> int:
    """Run a command with what it uses of the options of a training."""
    try:
        unused = unused_options(command, *TASKS[choose([command, *spelled_out(list(arguments))]).task])
    except (ValueError, FileNotFoundError):
        unused = set()  # the command itself has to refuse it
    return main([command, *(item for item in arguments if item.partition("=")[0].removeprefix("--") not in unused)])


def same_weights(a: dict, b: dict) -> bool:
    return all(torch.equal(x, b["state_dict"][name]) for name, x in a["state_dict"].items())


def logged(run: Path) -> dict[str, list[float]]:
    """Every logged number of a run, from the CSV log."""
    with (run / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def losses_of(run: Path) -> list[float]:
    """The training loss of every epoch."""
    return logged(run)["train/loss_epoch"]


def launched(launcher: str, arguments: list[str]) -> list[tuple[list[str], dict[str, str]]]:
    """The processes of one run of two ranks, with their environments, as a launcher starts them."""
    fit = [sys.executable, "-m", "sampling_argmax_cuda", "fit", *arguments]
    if launcher == "torchrun":
        return [([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *fit[1:]], {})]
    if launcher == "slurm":
        job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
               "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0", "MASTER_ADDR": "localhost"}  # fmt: skip
        return [(fit, {**job, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}) for rank in range(2)]
    return [(fit, {})]


def run_two(data: Path, run: Path, *more: str, launcher: str = "lightning", config: str = "coco",
            options: Callable[..., list[str]] = options) -> dict:  # fmt: skip
    """A run of two gloo processes with the global batch of :func:`fit`."""
    arguments = options(data, run, "--trainer.max_epochs=1", "--data.batch_size=4", "--trainer.devices=2",
                        "--trainer.strategy=ddp", *more, config=config)  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    started = [subprocess.Popen(command, env=environment | own) for command, own in launched(launcher, arguments)]
    assert [process.wait(timeout=300) for process in started] == [0] * len(started)
    return last(run)


def almost_the_same(one: dict, two: dict, last_bias: str = "model.head.9.bias", least_dims: int = 0) -> None:
    """The mean over ranks adds gradients in another order, which Adam turns into up to a step where they are tiny.

    The last bias moves no softmax, so its gradient is rounding alone; so is that of a bias in front of a norm of one channel,
    which is why narrow networks compare the tensors of ``least_dims`` axes or more.
    """
    assert one["global_step"] == two["global_step"]
    names = [name for name, x in one["state_dict"].items() if name != last_bias and x.dim() >= least_dims]
    assert names
    for name in names:
        difference = one["state_dict"][name] - two["state_dict"][name]
        assert difference.abs().double().mean() <= 2e-5, name


def last(run: Path) -> dict:
    """The last checkpoint of a run."""
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)


def two_processes_equal(one: Path, data: Path, two: Path, *more: str, half: int = 4, config: str = "coco",
                        launcher: str = "lightning", options: Callable[..., list[str]] = options, **compare) -> dict:  # fmt: skip
    """The last checkpoint of two processes with ``half`` of a batch each, which is almost that of the run ``one``."""
    found = run_two(data, two, *more, f"--data.batch_size={half}", launcher=launcher, config=config, options=options)
    almost_the_same(last(one), found, **compare)
    assert losses_of(one) == pytest.approx(losses_of(two), rel=1e-4)
    return found


def one_and_two(data: Path, folder: Path, *more: str, half: int = 4, config: str = "coco", launcher: str = "lightning",
                options: Callable[..., list[str]] = options, **compare) -> tuple[dict, dict]:  # fmt: skip
    """The last checkpoints of an epoch on one process and on two with ``half`` of a batch each, which are almost the same."""
    one = fit(data, folder / "one", "--trainer.max_epochs=1", *more, config=config, options=options)
    return one, two_processes_equal(folder / "one", data, folder / "two", *more, half=half, config=config, launcher=launcher,
                                    options=options, **compare)  # fmt: skip


# What makes a run of each task a matter of seconds: three steps an epoch, a global batch of 8. Skeletons have one sample.
SMALL = {task: own if task == "skeleton" else (*own, SAMPLES) for task, own in recipes.SMALL.items()}


def small(task: str, data: Path, run: Path, *more: str) -> list[str]:
    """The options of a small run of a task on data that it draws in its own folder under ``data``."""
    return fitting([
        "--config", task, f"--data.root={data / task}", "--data.synthetic=true", "--data.num_workers=0", *SMALL[task],
        "--trainer.max_epochs=3", "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.logger=false",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={run}", *more,
    ])  # fmt: skip
