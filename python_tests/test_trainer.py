"""The trainer through its command line: it learns, resumes bit for bit, splits over processes, and says what is wrong."""

import inspect
import json
import math
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import task_runs
import torch
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from runs import fit, logged, losses_of, one_and_two, options, run, same_weights, two_processes_equal

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.commands.unused import unused_options
from sampling_argmax_cuda.objectives import FROM_TRAINER, OBJECTIVES
from sampling_argmax_cuda.tasks.coco.reader import PERSON
from sampling_argmax_cuda.tasks.coco.task import CocoPose
from sampling_argmax_cuda.trainers.adversary import Adversary
from sampling_argmax_cuda.trainers.resnet import PoseNet, ResNet
from sampling_argmax_cuda.trainers.trained_module import TrainedModule

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data") / "coco"


class Run(NamedTuple):
    """A run of one epoch that many tests read: its folder, its last checkpoint and what was warned of."""

    folder: Path
    last: dict
    warned: list[str]

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("trained")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        last = fit(data, folder, "--trainer.max_epochs=1", "--model.flip_test=false")
    return Run(folder, last, [str(warning.message) for warning in caught])


def test_resumed_run_equals_an_uninterrupted_one(trained, data, tmp_path):
    """Loader processes change nothing either."""
    same = ("--model.flip_test=false", "--trainer.max_epochs=2")
    whole = fit(data, tmp_path / "whole", *same, "--data.num_workers=2")
    parts = fit(data, tmp_path / "parts", *same, f"--ckpt_path={trained.checkpoint}")
    assert same_weights(whole, parts) and whole["global_step"] == parts["global_step"] == 6
    other = fit(data, tmp_path / "other", "--model.seed=1", "--trainer.max_epochs=1", "--trainer.logger=false")
    assert not same_weights(trained.last, other)
    assert list((tmp_path / "whole").rglob("epoch_*_images.png")) and list((tmp_path / "whole").rglob("metrics.csv"))
    assert list((tmp_path / "parts").rglob("curves.png"))
    curves = [run["callbacks"]["RunFigures"]["history"] for run in (whole, parts)]
    assert [row["epoch"] for row in curves[0]] == [1, 2] and curves[0] == curves[1]
    assert all({"train/loss_epoch", "val/error", "val/AP", "lr"} <= row.keys() for row in curves[0])


@pytest.mark.parametrize("launcher", ["lightning", pytest.param("torchrun", marks=pytest.mark.long)])
def test_two_processes_equal_one(launcher, trained, data, tmp_path):
    two_processes_equal(trained.folder, data, tmp_path, "--model.flip_test=false", launcher=launcher)


def test_rle_resumes(data, tmp_path):
    """The flow is part of the checkpoint, and gradients are clipped one by one."""
    step = ("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0", "--config", "rle_released")
    whole = task_runs.resumed(task_runs.trained(fit, data, tmp_path, *step, "--model.clip_each=0.1"))
    assert any("likelihood.flows.0" in name for name in whole["state_dict"])
    free = fit(data, tmp_path / "free", *step, "--trainer.max_epochs=2")
    assert not same_weights(whole, free)


@pytest.mark.long
def test_rle_splits_over_processes(data, tmp_path):
    """Slurm starts them."""
    one_and_two(data, tmp_path, "--config", "sampling_rle", "--trainer.limit_val_batches=0", launcher="slurm")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_takes_a_step(objective, data, tmp_path, monkeypatch):
    """Of every parameter, by a gradient that is a number; and what was trained is scored. Nothing is logged or saved unasked."""
    ended = []
    monkeypatch.setattr(
        CocoPose, "on_train_end", lambda module: ended.append((module, module.trainer.callback_metrics))
    )
    assert main(["fit", *options(data, tmp_path, f"--objective={objective}", "--trainer.max_epochs=1",
                                 "--trainer.limit_train_batches=1", "--trainer.check_val_every_n_epoch=1",
                                 "--trainer.logger=false", "--trainer.enable_checkpointing=false")]) == 0  # fmt: skip
    assert not list(tmp_path.rglob("*.csv")) and not list(tmp_path.rglob("*.ckpt"))
    ((module, metrics),) = ended
    state = module.optimizers().state_dict()["state"]
    assert len(state) == len(list(module.parameters())) and module.global_step == 1
    for of_one in state.values():
        assert of_one["step"] == 1 and of_one["exp_avg"].isfinite().all() and of_one["exp_avg_sq"].isfinite().all()
    assert all(of_one["exp_avg"].any() for of_one in state.values())
    assert all(math.isfinite(metrics[name]) for name in ("train/loss_epoch", "val/error"))


# A network that has learnt nothing is 4 cells off: the middle of 16 is what its soft-argmax reads.
LEARN = ["--model.norm=batch", "--model.head_channels=32", "--model.lr=0.002", "--model.flip_test=false", "--data.scale=0",
         "--data.rotation=0", "--data.flip=0"]  # fmt: skip
MANY = ["--data.synthetic_train=192", "--data.synthetic_val=32", "--data.batch_size=16"]
DRAWS = ["--objective.num_samples=10"]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("many")


@pytest.mark.long
def test_training_reaches_a_stated_error(many, tmp_path):
    """Below 1.3 cells of 16."""
    more = [*LEARN, *MANY, *DRAWS, "--objective.beta=tau", "--objective.tau=4.0", "--model.milestones=[5]"]
    assert run("validate", *options(many, tmp_path / "random", *more)) == 0
    fit(many, tmp_path / "run", *more, "--trainer.max_epochs=6", "--trainer.check_val_every_n_epoch=6")
    errors = [logged(tmp_path / run)["val/error"][-1] for run in ("random", "run")]
    assert errors[0] > 3.5 and errors[1] < 1.3
    losses = losses_of(tmp_path / "run")
    assert len(losses) == 6 and losses[-1] < 0.8 * losses[0]


@pytest.mark.long
@pytest.mark.parametrize("config, epochs, bound", [("rle", 4, 1.6), ("soft_rle", 5, 2.5), ("sampling_rle", 5, 2.6)])
def test_rle_reaches_a_stated_error(config, epochs, bound, many, tmp_path):
    """In cells of 16; the likelihood of the errors rises all the time."""
    draws = [*DRAWS, "--objective.tau=1.0"] if config == "sampling_rle" else []
    fit(many, tmp_path, *LEARN, *MANY, "--config", config, *draws, f"--trainer.max_epochs={epochs}",
        f"--trainer.check_val_every_n_epoch={epochs}")  # fmt: skip
    assert logged(tmp_path)["val/error"][-1] < bound
    losses = losses_of(tmp_path)
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 10


@pytest.mark.parametrize("config, drop", [("triangular", 1), ("rle", 20), ("soft_rle", 10), ("sampling_rle", 5)])
def test_nine_steps_lower_the_loss(config, drop, tmp_path_factory, tmp_path):
    """In every epoch; and one of RLE finds its way to the joints at once."""
    few = ["--data.synthetic_train=48", "--data.batch_size=16", "--trainer.enable_checkpointing=false"]
    validated = 3 if config == "rle" else 4
    assert main(["fit", *options(tmp_path_factory.getbasetemp() / "few", tmp_path, *LEARN, *few, "--config", config,
                                 f"--trainer.check_val_every_n_epoch={validated}")]) == 0  # fmt: skip
    losses = losses_of(tmp_path)
    assert len(losses) == 3 and losses == sorted(losses, reverse=True) and 0 < losses[-1] < losses[0] - drop
    assert config != "rle" or logged(tmp_path)["val/error"][-1] < 2.5


def test_validate_and_predict(trained, data, tmp_path):
    checkpoint = f"--ckpt_path={trained.folder / 'checkpoints' / 'best.ckpt'}"
    assert run("validate", *options(data, tmp_path / "validate", checkpoint, "--model.flip_test=true")) == 0
    images = f"--data.images={data / 'val2017'}"
    assert run("predict", *options(data, tmp_path / "predict", checkpoint, images)) == 0
    folder = tmp_path / "predict" / "version_0"
    records = json.loads((folder / "predictions.json").read_text())
    assert len(records) == 6 and all(len(r["keypoints"]) == 51 for r in records)
    assert len(list((folder / "predictions").glob("*.png"))) == 6


def test_the_command_line_wins_over_the_checkpoint(trained, data, tmp_path, monkeypatch):
    """A checkpoint brings its options, the size of its images and its task; what is written besides wins."""
    seen = []
    monkeypatch.setattr(CocoPose, "on_validation_start", lambda module: seen.append(module))
    given = [f"--data.root={data}", "--data.synthetic=true", "--data.synthetic_train=24", "--data.synthetic_val=6",
             "--data.num_workers=0", "--trainer.accelerator=cpu", "--trainer.devices=1", "--model.rescore=product",
             "--model.scales=[1.0,1.5]", f"--trainer.default_root_dir={tmp_path}", f"--ckpt_path={trained.checkpoint}"]  # fmt: skip
    assert run("validate", *given) == 0
    (module,) = seen
    assert module.hparams.depth == 18 and module.hparams.norm == "group" and module.hparams.flip_test is False
    assert tuple(module.hparams.scales) == (1.0, 1.5) and module.evaluation.rule == "product"
    assert tuple(module.trainer.datamodule.hparams.image_size) == (64, 64)


def test_ensemble_of_a_checkpoint_with_itself_changes_nothing(trained, data, tmp_path):
    checkpoint = trained.checkpoint
    more = [f"--ckpt_path={checkpoint}", "--model.flip_test=true"]
    scores = []
    for i, members in enumerate(([], [f"--model.ensemble=[{checkpoint},{checkpoint}]"])):
        assert run("validate", *options(data, tmp_path / str(i), *more, *members)) == 0
        scores.append(logged(tmp_path / str(i))["val/error"])
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
    maps = [f"--model.ensemble=[{checkpoint}]", "--model.average=maps"]
    assert run("validate", *options(data, tmp_path / "maps", *more, *maps)) == 0
    results = json.loads((tmp_path / "maps" / "version_0" / "results.json").read_text())
    assert results and all(
        len(r["keypoints"]) == 51 and {"image_id", "category_id", "score"} <= r.keys() for r in results
    )


def test_missing_ensemble_is_named(data, tmp_path, capfd):
    assert run("validate", *options(data, tmp_path, "--model.ensemble=[/nowhere.ckpt]")) == 1
    assert "model: ensemble checkpoint /nowhere.ckpt does not exist" in capfd.readouterr().err


def test_maps_start_from_a_heatmap_checkpoint(data, tmp_path, capfd):
    """Maps of the same shape are taken over, scaled; regression takes the backbone; strict loading wants everything."""
    fit(data, tmp_path / "heat", "--config=heatmap", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    checkpoint = tmp_path / "heat" / "checkpoints" / "last.ckpt"
    heat = torch.load(checkpoint, weights_only=True)["state_dict"]
    given = dict(depth=18, head_channels=16, norm="group", weights=str(checkpoint))
    module = CocoPose(**given, weights_gain=10.0, weights_strict=True)
    assert torch.equal(module.model.head[-1].weight, 10 * heat["model.head.9.weight"])
    assert torch.equal(module.model.backbone.conv1.weight, heat["model.backbone.conv1.weight"])
    assert "0 skipped; 0 mismatched; 0 missing" in capfd.readouterr().out
    CocoPose(**given, objective="direct")
    assert "skipped (head.0.weight, " in capfd.readouterr().out
    with pytest.raises(ValueError, match=r"does not fit the model: .*2 missing \(head.bias, head.weight\)"):
        CocoPose(**given, objective="direct", weights_strict=True)
    with pytest.raises(ValueError, match="model: weights_gain needs an objective with maps"):
        CocoPose(**given, objective="direct", weights_gain=2.0)


def validate(data: Path, folder: Path, boxes: Path) -> dict[str, list[float]]:
    assert run("validate", *options(data, folder, f"--data.boxes={boxes}")) == 0
    return {name: values for name, values in logged(folder).items() if name.startswith("val/")}


def test_validation_on_detections_logs_what_it_can_measure(trained, data, tmp_path):
    people = validate(data, tmp_path / "people", data / "detections_val.json")
    assert {"val/AP", "val/error", "val/pearson"} <= people.keys() and not {"val/APl", "val/ARl"} & people.keys()
    assert all(math.isfinite(value) and (value >= 0 or name == "val/pearson") for name, (value,) in people.items())
    alone = tmp_path / "alone.json"
    image = json.loads((data / "detections_val.json").read_text())[0]["image_id"]
    alone.write_text(json.dumps([{"image_id": image, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.3}]))
    nobody = validate(data, tmp_path / "nobody", alone)
    assert nobody["val/AP"] == [0] and not {"val/error", "val/pearson"} & nobody.keys()


def test_a_run_can_be_repeated_from_its_config(trained, tmp_path):
    """The loggers are in no config as objects, which could not be written."""
    assert not [m for m in trained.warned if "Unable to serialize" in m or "LightningCLI's args" in m]
    config, again = trained.folder / "version_0" / "config.yaml", tmp_path / "again"
    assert yaml.safe_load(config.read_text())["trainer"]["enable_model_summary"] is False  # which no page of help has
    assert main(["fit", f"--config={config}", f"--trainer.default_root_dir={again}"]) == 0
    assert same_weights(trained.last, torch.load(again / "checkpoints" / "last.ckpt", weights_only=False))
    assert logged(again)["val/AP"] == logged(trained.folder)["val/AP"]


PAGES = [*(("fit", task) for task in TASKS), ("validate", "coco"), ("predict", "oct"), ("visualize", "skeleton")]


@pytest.mark.parametrize("command, task", PAGES)
def test_help_says_what_each_option_is(command, task, capsys, monkeypatch):
    """In groups; of the objective that is chosen, and of an adversary where a task can have one."""
    module, data = TASKS[task]
    default = getattr(module, "default_objective", None)
    parts = {"model": module, "data": data, **({} if default is None else {"objective": OBJECTIVES[default["name"]]})}
    if "adversary" in inspect.signature(module).parameters:
        parts["adversary"] = Adversary
    linked = {"model": {"objective", "adversary"}, "data": {*module.linked.values()}, "objective": {*FROM_TRAINER},
              "adversary": {"maps", "norm", "plain"}}  # fmt: skip
    linked["model"] |= {*module.from_data}
    if task == "associative":
        linked["data"].add("stride")  # that of the hourglasses
    for name in unused_options(command, module, data):
        part, _, option = name.partition(".")
        linked[part].add(option)
    text = page(["--task", task], capsys, monkeypatch, command)
    for part, cls in parts.items():
        check_lines(text, part, cls, linked[part])
    titles = re.findall(r"^(\w+)(?: \(.*\))?:$", text, re.M)
    groups = [part for part in ("objective", "adversary") if part in parts]
    free = [name for name in module.free - TrainedModule.free if name.startswith("model.")]
    evaluation = ["evaluation"] if free else []
    optimised = ["optimisation"] if command == "fit" else []
    assert titles == ["options", "checkpoint", *groups, "network", *optimised, *evaluation, "data", "trainer"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_help_of_every_objective(objective, capsys, monkeypatch):
    check_lines(
        page(["--objective", objective], capsys, monkeypatch), "objective", OBJECTIVES[objective], set(FROM_TRAINER)
    )


def page(argv: list[str], capsys, monkeypatch, command: str = "fit") -> str:
    monkeypatch.setenv("COLUMNS", "400")  # no help takes more than a line
    with pytest.raises(SystemExit) as stop:
        main([command, *argv, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def check_lines(text: str, part: str, cls: type, without: set[str]) -> None:
    """Each argument of a class, but for those that others give it, has a line of the page."""
    owners = [owner for owner in cls.__mro__ if owner.__module__.startswith("sampling_argmax_cuda")]
    names = {name for owner in owners for name in inspect.signature(owner).parameters} - {"kwargs", *without}
    for name in names & (names if part in ("model", "data") else {*inspect.signature(cls).parameters}):
        shown = re.search(rf"^ +--{part}\.{name} (?:[A-Z_]+|{{.*?}}|\[.*?\])\s+(.*?)\(type: ", text, re.M | re.S)
        assert shown and re.fullmatch(r"\S.{8,}\. ", shown[1]), f"--{part}.{name} has no line of help"


@pytest.mark.parametrize(
    "more, message",
    [
        (["--data.synthetic=false", "--data.root=/nowhere"], "annotation file /nowhere/annotations/"),
        (["--objective.tau=0.0"], "tau must be > 0, got 0.0"),
        (["--objective.basis=tri"], "basis must be one of none, uniform, triangular, gaussian, got 'tri'"),
        (["--objective=hard"], "objective: name must be one of soft"),
        (["--model.depth=19"], "depth must be one of 18, 34, 50, 101, 152, got 19"),
        (["--model.weights=/nowhere.pth"], "weights file /nowhere.pth does not exist"),
        (["--data.batch_size=99"], "training samples are fewer than one global batch of 99"),
        (["--data.image_size=[65,64]"], "image_size must be two positive multiples of 32"),
        (["--config=nothing"], "no config of that name"),
    ],
)
def test_error_messages(data, tmp_path, capfd, more, message):
    try:
        status = main(["fit", *options(data, tmp_path, *more)])
    except SystemExit as stop:  # the argument parser's own way out
        status = stop.code
    assert status != 0
    assert message in capfd.readouterr().err


def test_a_fault_in_a_worker_is_one_line(trained, data, tmp_path, capfd):
    broken = tmp_path / "coco"
    shutil.copytree(data, broken)
    for image in (broken / "train2017").iterdir():
        image.unlink()
    capfd.readouterr()
    arguments = options(broken, tmp_path / "run", "--data.num_workers=2", "--data.synthetic=false")
    assert main(["fit", *arguments]) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("sampling-argmax fit: ")]
    assert len(lines) == 1 and re.search(r"image .*png does not exist \(image \d+ of .*json\)", lines[0])


REAL = Path(os.environ.get("SAMPLING_ARGMAX_DATA", "/nowhere")) / "coco"


@pytest.mark.skipif(not REAL.is_dir(), reason="SAMPLING_ARGMAX_DATA has no COCO images")
@pytest.mark.parametrize(
    "config",
    [
        "debiased",
        "rle",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("heatmap", "direct", "dsnt", "integral_l2", "soft_rle")
        ),
    ],
)
def test_baselines_on_real_images(config, tmp_path):
    """A step on four real images, then detector boxes, mirrored and at two scales."""
    more = ["--config", config, "--data.synthetic=false", "--data.train_split=val2017", "--data.batch_size=12",
            "--trainer.max_epochs=1", f"--data.boxes={REAL / 'detections.json'}"]  # fmt: skip
    fit(REAL, tmp_path / "fit", *more)
    checkpoint = tmp_path / "fit" / "checkpoints" / "last.ckpt"
    scales = [] if config in ("direct", "rle") else ["--model.scales=[1.0,1.5]"]
    assert run("validate", *options(REAL, tmp_path / "val", *more, *scales, f"--ckpt_path={checkpoint}")) == 0
    results = json.loads((tmp_path / "val" / "version_0" / "results.json").read_text())
    found = np.array([r["keypoints"] for r in results]).reshape(-1, 17, 3)
    assert 50 < len(results) <= 118 and np.isfinite(found).all() and (np.abs(found[..., :2]) < 1500).all()
    assert official(REAL / "annotations" / "person_keypoints_val2017.json", results) == pytest.approx(
        [logged(tmp_path / "val")[f"val/{name}"][0] for name in ("AP", "AP50", "AR", "AR50")]
    )
    # Wherever a person is, a network of one step is closer to its joints than the corner of its crop.
    assert logged(tmp_path / "val")["val/error"][0] < 0.5 * np.hypot(16, 16)


def official(annotations: Path, results: list[dict]) -> list[float]:
    """AP, AP50, AR and AR50 by pycocotools alone, from the files."""
    truth = COCO(str(annotations))
    scores = COCOeval(truth, truth.loadRes(results), "keypoints")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    return [scores.stats[i] for i in (0, 1, 5, 6)]


def test_predict_needs_images(data, tmp_path, capfd):
    assert run("predict", *options(data, tmp_path)) == 1
    assert "predict: --data.images must name a folder of images" in capfd.readouterr().err


def test_frozen_norms_never_look_at_the_batch():
    """Neither when they are new nor after train(); and they keep their statistics."""
    net, x = PoseNet(3, 18, 16, "frozen"), torch.randn(4, 3, 64, 64)
    new = net(x)
    assert torch.equal(net.train()(x), new)
    torch.testing.assert_close(net(x[:1]), new[:1], rtol=1e-4, atol=1e-6)
    assert all(m.num_batches_tracked == 0 for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_gain_is_a_factor_of_the_maps():
    """Of the same weights: an option of every task with this network, which a checkpoint of before does not have."""
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    made = {}
    for gain in (1.0, 4.0):
        torch.manual_seed(0)
        made[gain] = CocoPose(depth=18, head_channels=16, norm="frozen", gain=gain)
    assert torch.equal(made[4.0](x), 4 * made[1.0](x)) and made[1.0](x).abs().max() > 0
    assert same_weights({"state_dict": made[1.0].state_dict()}, {"state_dict": made[4.0].state_dict()})
    for gain in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="model: gain must be > 0, got"):
            PoseNet(3, 18, 16, gain=gain)


def test_resnet_has_torchvision_names():
    state = ResNet(50).state_dict()
    learned = sum(x.numel() for name, x in ResNet(50).named_parameters())
    assert learned == 25_557_032 - (2048 * 1000 + 1000)  # torchvision's count without its classifier
    names = {"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias",
             "layer3.5.conv3.weight", "layer4.2.bn3.num_batches_tracked"}  # fmt: skip
    assert names <= state.keys() and len(state) == 318
    assert sum(p.numel() for p in ResNet(18).parameters()) == 11_689_512 - (512 * 1000 + 1000)


class Mirrored(torch.nn.Module):
    """Maps that follow the image: a mirrored image gives mirrored maps of swapped joints, exactly."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, images):
        plain = images[0, 0, 0, 0] == 0
        return self.maps if plain else self.maps.flip(-1)[:, PERSON.mirrored()].roll(1, -1)


def test_flip_test_of_a_mirrored_model_moves_a_quarter_cell():
    """Maps that mirror cell i to W - i leave W - 1/4 - (W - x) = x - 1/4 of the mirrored pass."""
    maps = torch.full((1, 17, 16, 16), -1e4)
    maps[0, torch.arange(17), 5, 3 + torch.arange(17) % 9] = 0
    module = CocoPose(depth=18, head_channels=16, flip_test=True)
    module.model = Mirrored(maps)
    images = torch.zeros(1, 3, 64, 64)
    images[..., -1] = 1
    position = module.decode(images)["position"]
    x = 3 + torch.arange(17) % 9
    assert torch.allclose(position[0, :, 0], x - 0.125, atol=1e-4) and (position[0, :, 1] - 5).abs().max() < 1e-4
