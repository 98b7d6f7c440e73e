"""What training really sees, watched through the real command: order, augmentation, rates, noise, and where a run goes on."""

import inspect
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import lightning
import numpy as np
import pytest
import runs
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from recorder import recorded, seen
from runs import SAMPLES, SMALL, launched, same_weights, small

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.objectives.schedules import make_schedule
from sampling_argmax_cuda.trainers import callbacks, predictions
from sampling_argmax_cuda.trainers.epochs import EpochLoader, EpochOrder, GlobalBatches

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

RECORD = ("--trainer.callbacks+=recorder.Recorder", "--trainer.limit_val_batches=0")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


def fit(task: str, data: Path, run: Path, *more: str) -> dict:
    """The last checkpoint of a run that is recorded."""
    assert main(["fit", *small(task, data, run, *RECORD, *more)]) == 0
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def batches_of(run: Path, *ranks: int) -> list[dict]:
    """Every batch of a run; the parts of several ranks joined."""
    parts = [recorded(run, rank) for rank in ranks or (0,)]
    return [{**lines[0], "samples": sum((line["samples"] for line in lines), [])} for lines in zip(*parts, strict=True)]


def expected(task: str, data: Path, epochs, accumulate: int = 1) -> list[list]:
    """The samples of every batch as a function of (seed, epoch, index) alone, by the data set itself."""
    options = dict(item.removeprefix("--data.").split("=") for item in SMALL[task] if item.startswith("--data."))
    config = small(task, data, data)
    module = parsed_data(task, config)
    dataset, out = module.dataset(train=True), []
    for epoch in epochs:
        order = EpochOrder(dataset, True, module.hparams.seed)
        order.set_epoch(epoch)
        for indices in GlobalBatches(order, int(options["batch_size"]), 0, 1, accumulate):
            samples = [dataset.sample(i, epoch) for i in indices]
            out.append(sum((seen({k: torch.tensor(v)[None] for k, v in s.items() if k in ("image", "points", "index")})
                            for s in samples), []))  # fmt: skip
    return out


def parsed_data(task: str, options: list[str]):
    """The data module that a command line describes."""
    found = []
    original = TASKS[task][1].setup
    TASKS[task][1].setup = lambda self, stage: found.append(self)
    try:
        runs.run("validate", *options, "--trainer.limit_val_batches=0")
    finally:
        TASKS[task][1].setup = original
    return found[0]


@pytest.fixture(scope="module")
def run_of(data, tmp_path_factory) -> Callable[[str], Path]:
    """Three recorded epochs of a task, which are trained once."""

    @cache
    def trained(task: str) -> Path:
        folder = tmp_path_factory.mktemp(task)
        assert main(["fit", *small(task, data, folder, *RECORD, "--trainer.enable_checkpointing=false")]) == 0
        return folder

    return trained


@pytest.mark.parametrize("task", SMALL)
def test_no_epoch_is_like_another(task, data, run_of):
    """Three epochs: each its own order and its own crops, as (seed, epoch, index) say, with rates and temperatures to match."""
    lines = batches_of(run_of(task))
    assert [line["samples"] for line in lines] == expected(task, data, range(3))
    epochs = [[sample for line in lines if line["epoch"] == e for sample in line["samples"]] for e in range(3)]
    orders = [[index for index, _ in epoch] for epoch in epochs]
    pixels = [{digest for _, digest in epoch} for epoch in epochs]
    assert len({tuple(order) for order in orders}) == 3
    # A mirror alone leaves half of the samples as they were.
    least = 1 if task == "oct" else len(pixels[0])
    assert all(len(a - b) >= least for a, b in ((pixels[0], pixels[1]), (pixels[1], pixels[2]), (pixels[0], pixels[2])))


def test_loader_processes_and_another_seed(data, run_of, tmp_path):
    alone = batches_of(run_of("mpii"))
    fit("mpii", data, tmp_path / "workers", "--data.num_workers=2")
    assert alone == batches_of(tmp_path / "workers")
    fit("mpii", data, tmp_path / "other", "--data.seed=1", f"--data.root={tmp_path / 'data'}")
    assert not [a for a, b in zip(alone, batches_of(tmp_path / "other"), strict=True) if a["samples"] == b["samples"]]


def test_an_overfitted_run_sees_its_own_batches(data, tmp_path):
    """The samples of the first batches stay; their augmentation is that of the epoch."""
    fit("mpii", data, tmp_path, "--trainer.overfit_batches=2")
    epochs = [[line["samples"] for line in batches_of(tmp_path) if line["epoch"] == e] for e in range(3)]
    assert [len(epoch) for epoch in epochs] == [2, 2, 2]
    indices = [[[i for i, _ in batch] for batch in epoch] for epoch in epochs]
    assert indices[0] == indices[1] == indices[2] and indices[0][0] != indices[0][1]
    assert len({str(epoch) for epoch in epochs}) == 3


def test_a_run_on_fewer_samples_sees_the_same_ones_in_every_epoch(data, tmp_path):
    fit("mpii", data, tmp_path, "--data.train_samples=16", "--data.batch_size=8")
    epochs = [
        [index for line in batches_of(tmp_path) if line["epoch"] == e for index, _ in line["samples"]] for e in range(3)
    ]
    assert [len(set(epoch)) for epoch in epochs] == [16, 16, 16] == [len(epoch) for epoch in epochs]
    assert len({frozenset(epoch) for epoch in epochs}) == 1 and len({tuple(epoch) for epoch in epochs}) == 3
    assert max(epochs[0]) >= 16, "the first of the files are no sample of them"


def test_fewer_samples_are_a_part_of_more():
    """Which ones is a function of the seed, in whole groups; evaluation has all."""
    few, more, other = (set(EpochOrder(range(40), True, seed, samples=n)) for n, seed in ((10, 3), (20, 3), (10, 4)))
    assert len(few) == 10 and few < more and few != other
    assert list(EpochOrder(range(40), False, 3, samples=10)) == list(range(40))
    pairs = type("Pairs", (list,), {"together": 2})(range(40))
    order = list(EpochOrder(pairs, True, 3, samples=10))
    assert len(order) == 10 and [i + 1 for i in order[::2]] == order[1::2]
    for dataset, samples, told in (
        (range(40), 41, "at most 40, got 41"),
        (pairs, 9, "at most 40 and a multiple of 2, got 9"),
    ):
        with pytest.raises(ValueError, match=f"data: train_samples must be {told}"):
            EpochOrder(dataset, True, 3, samples=samples)


@pytest.mark.long
def test_two_ranks_see_what_one_process_sees(data, run_of, tmp_path, monkeypatch):
    """By loader processes of their own."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    one = batches_of(run_of("mpii"))
    run(small("mpii", data, tmp_path, *RECORD, "--data.batch_size=4", "--trainer.devices=2", "--trainer.strategy=ddp",
              "--data.num_workers=2"))  # fmt: skip
    two = batches_of(tmp_path, 0, 1)
    assert [line["samples"] for line in one] == [line["samples"] for line in two]
    assert [line["lr"] for line in one] == [line["lr"] for line in two]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_batches_of_a_rank_go_on_where_they_were_left(rank, accumulate):
    batches = GlobalBatches(EpochOrder(range(24), True, 3), 3, rank, 2, accumulate)
    whole = list(batches)
    assert len(whole) == len(batches) == 4
    for start in range(4):
        batches.start = start
        assert list(batches) == whole[start:] and list(batches) == whole


def run(options: list[str]) -> None:
    for command, own in launched("lightning", options):
        assert subprocess.run(command, env=os.environ | own, timeout=300).returncode == 0


# ---- where a run goes on ----


EPOCHS, STEPS = "--trainer.max_epochs=3", "--trainer.max_steps=9"
STOPS = [*((stop, EPOCHS, 0) for stop in (1, 2, 3, 4, 6)), (2, STEPS, 0), (3, STEPS, 0), (2, EPOCHS, 2)]


@pytest.mark.parametrize("stop, again, workers", STOPS)
def test_a_run_goes_on_where_it_was_left(stop, again, workers, whole, data, tmp_path):
    """After any step of an epoch of three: the batches, rates, temperatures and weights of an uninterrupted run."""
    common = (*SCHEDULED, f"--data.num_workers={workers}")
    fit("mpii", data, tmp_path, *common, f"--trainer.max_steps={stop}")
    last = fit("mpii", data, tmp_path, *common, again, "--ckpt_path=last")
    weights, lines = whole
    assert batches_of(tmp_path) == lines
    assert same_weights(weights, last) and last["global_step"] == 9
    assert [row["epoch"] for row in last["callbacks"]["RunFigures"]["history"]] == [1, 2, 3]


SCHEDULED = ("--objective=sampling", "--objective.tau=coco", "--model.milestones=[1,2]", SAMPLES)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> tuple[dict, list[dict]]:
    path = tmp_path_factory.mktemp("whole")
    return fit("mpii", data, path, *SCHEDULED), batches_of(path)


def test_noise_that_fades_goes_by_the_part_of_the_run(data, tmp_path):
    """From 1 to 10, step by step, in a run of epochs and in one of steps; a run that goes on goes on there too."""
    fading = ("--config", "fading", SAMPLES)
    expected = [pytest.approx(10 ** (step / 9)) for step in range(9)]
    for name, length in (("steps", STEPS), ("epochs", EPOCHS)):
        weights = fit("mpii", data, tmp_path / name, *fading, length)  # the last one's are compared below
        assert [line["tau"] for line in batches_of(tmp_path / name)] == expected
    fit("mpii", data, tmp_path / "again", *fading, EPOCHS, "--trainer.callbacks+=recorder.Stop")
    assert len(batches_of(tmp_path / "again")) == 3
    last = fit("mpii", data, tmp_path / "again", *fading, EPOCHS, "--ckpt_path=last")
    assert [line["tau"] for line in batches_of(tmp_path / "again")] == expected
    assert same_weights(weights, last) and last["state_dict"]["objective.progress"] == pytest.approx(8 / 9)


def test_rates_and_temperatures_are_those_of_the_epoch(whole):
    _, lines = whole
    first, taus = lines[0]["lr"], make_schedule("coco")
    assert [line["lr"] for line in lines] == pytest.approx([first * 0.1**e for e in range(3) for _ in range(3)])
    assert [line["tau"] for line in lines] == [taus(e) for e in range(3) for _ in range(3)]


@pytest.mark.parametrize(
    "kept, left", [("trainer.check_val_every_n_epoch=1", [3, 6, 9]), ("trainer.val_check_interval=1", [1, 2])]
)
def test_a_run_goes_on_from_its_best_checkpoint(kept, left, whole, data, tmp_path):
    """That is written at the end of a validation, within an epoch or behind its last batch."""
    common = (*SCHEDULED, f"--{kept}", "--trainer.limit_val_batches=1")
    fit("mpii", data, tmp_path, *common, f"--trainer.max_steps={left[-2]}")
    best, seen = tmp_path / "checkpoints" / "best.ckpt", batches_of(tmp_path)
    step = torch.load(best, weights_only=True)["global_step"]
    assert step in left
    last = fit("mpii", data, tmp_path, *common, "--trainer.max_epochs=3", f"--ckpt_path={best}")
    weights, lines = whole
    assert batches_of(tmp_path)[len(seen) :] == lines[step:]
    assert same_weights(weights, last)


def test_a_run_goes_on_with_the_step_that_was_not_taken(data, tmp_path):
    """A checkpoint between two batches of one step: the step begins again with the first of them."""
    common = ("--trainer.accumulate_grad_batches=2", "--data.batch_size=4")
    every = ("--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=1",
             "--trainer.callbacks.save_top_k=-1", "--trainer.callbacks.filename={step}")  # fmt: skip
    weights = fit("mpii", data, tmp_path / "whole", *common, "--trainer.max_epochs=2", *every,
                  f"--trainer.callbacks.dirpath={tmp_path / 'steps'}")  # fmt: skip
    whole = batches_of(tmp_path / "whole")
    assert [line["step"] for line in whole] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    for step in (1, 2, 4):
        path = tmp_path / "steps" / f"step={step}.ckpt"
        state = torch.load(path, weights_only=True)
        progress = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
        progress["processed"] += 1  # as if the first batch of the next step had been seen
        torch.save(state, path)
        run = tmp_path / str(step)
        last = fit("mpii", data, run, *common, "--trainer.max_epochs=2", f"--ckpt_path={path}")
        assert batches_of(run) == whole[2 * step :]
        assert same_weights(weights, last)


# ---- what a resumed run may change ----


def test_a_resumed_run_says_what_it_changes_and_refuses_the_rest(data, tmp_path, capfd):
    fit("coco", data, tmp_path, "--config", "soft_rle", "--trainer.max_steps=2")  # of three an epoch
    again = ("--config", "soft_rle", "--trainer.max_epochs=2", "--ckpt_path=last")
    refused = {
        "--objective.beta=2.0": "objective: beta of the resumed run was 1.0, got 2.0; a resumed run may change model.average, ",
        "--model.depth=34": "model: depth of the resumed run was 18, got 34",
        "--data.flip=0.1": "data: flip of the resumed run was 0.5, got 0.1",
        "--data.scale=0.1": "data: scale of the resumed run was 0.3, got 0.1",
        "--data.batch_size=6": "data: global batch of the resumed run was 8, got 6",
        "--trainer.accumulate_grad_batches=3": "data: global batch of the resumed run was 8, got 24",
    }
    for option, message in refused.items():
        capfd.readouterr()
        assert main(["fit", *small("coco", data, tmp_path, *again, option)]) == 1
        assert message in capfd.readouterr().err
    changes = ("--objective.flow_lr=0.25", "--model.lr=0.01", "--model.weight_decay=0.5", "--model.milestones=[9]")
    halves = ("--data.batch_size=4", "--trainer.accumulate_grad_batches=2")
    capfd.readouterr()
    last = fit("coco", data, tmp_path, *again, *changes, *halves)
    said = capfd.readouterr().out
    for line in ("objective.flow_lr 0.25 instead of 1.0", "model.lr 0.01 instead of 0.001", "model.milestones"):
        assert f"resumed with --{line}" in said
    groups = {(group["part"], group["decays"]): group for group in last["optimizer_states"][0]["param_groups"]}
    assert {key: (group["lr"], group["weight_decay"]) for key, group in groups.items()} == {
        ("", True): (0.01, 0.5), ("", False): (0.01, 0.0), ("objective", True): (0.0025, 0.5), ("objective", False): (0.0025, 0.0)
    }  # fmt: skip
    assert [line["lr"] for line in batches_of(tmp_path)[2:]] == [0.01] * 8


def test_a_checkpoint_of_an_older_version_is_one_line(whole, data, tmp_path, capfd):
    last, _ = whole
    torch.save({name: value for name, value in last.items() if name != "accumulate"}, tmp_path / "old.ckpt")
    assert main(["fit", *small("mpii", data, tmp_path, f"--ckpt_path={tmp_path / 'old.ckpt'}")]) == 1
    assert "the checkpoint is of an older version and cannot be resumed" in capfd.readouterr().err


def test_norms_and_biases_do_not_decay(data, tmp_path):
    last = fit("mpii", data, tmp_path, "--trainer.max_steps=1", "--model.optimizer=adamw", "--model.weight_decay=0.1")
    shapes = [last["state_dict"][name].dim() for name in last["state_dict"] if not name.startswith("objective.")]
    for group in last["optimizer_states"][0]["param_groups"]:
        assert group["weight_decay"] == (0.1 if group["decays"] else 0.0)
        assert len(group["params"]) == sum((dim > 1) == group["decays"] for dim in shapes)


# ---- hooks ----

FRAMEWORK = (lightning.LightningModule, lightning.LightningDataModule, BasePredictionWriter, torch.utils.data.Sampler)
ASKED = {"set_epoch", "state_dict", "load_state_dict"}  # what the framework looks for on loaders and samplers


def hooks_of(cls: type) -> set[str]:
    """The functions of our own that a class has in place of the framework's."""
    own = {name for base in cls.__mro__ if base.__module__.startswith("sampling_argmax_cuda") for name in vars(base)}
    known = ASKED.union(*(dir(base) for base in FRAMEWORK))
    return {name for name in own & known if not name.startswith("_") and inspect.isfunction(getattr(cls, name))}


def test_every_hook_is_called_by_the_framework(data, tmp_path, monkeypatch):
    """What a class defines in place of Lightning's is called in a run, its resumption, a validation or predictions.

    One of these fails, at an image of which half is missing.
    """
    module, of_data = TASKS["mpii"]
    ours = [
        module,
        of_data,
        EpochOrder,
        EpochLoader,
        callbacks.BestCheckpoint,
        callbacks.RunFigures,
        callbacks.ValidationFile,
        predictions.PredictionFiles,
    ]
    called = set()
    for cls in ours:
        for name in hooks_of(cls):
            original = getattr(cls, name)

            def watched(self, *args, _name=(cls, name), _original=original, **kwargs):
                called.add(_name)
                return _original(self, *args, **kwargs)

            monkeypatch.setattr(cls, name, watched)
    logged = "--trainer.logger=lightning.pytorch.loggers.CSVLogger", f"--trainer.logger.save_dir={tmp_path}"
    common = small("mpii", data, tmp_path, *logged, "--trainer.limit_val_batches=1")
    assert main(["fit", *common, "--trainer.max_steps=2"]) == 0
    assert main(["fit", *common, "--trainer.max_epochs=1", "--ckpt_path=last"]) == 0
    last = f"--ckpt_path={tmp_path / 'checkpoints' / 'last.ckpt'}"
    assert runs.run("validate", *common, last) == 0
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("one.png", "two.png"):
        cv2.imwrite(str(photos / name), np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    assert runs.run("predict", *common, last, f"--data.images={photos}") == 0
    whole = next(photos.iterdir()).read_bytes()
    (photos / "half.png").write_bytes(whole[: len(whole) // 2])
    assert runs.run("predict", *common, last, f"--data.images={photos}") == 1
    assert {(cls, name) for cls in ours for name in hooks_of(cls)} - called == set()
    every = set().union(*(hooks_of(cls) for pair in TASKS.values() for cls in pair))
    assert every <= {name for _, name in called}
