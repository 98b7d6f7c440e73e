"""The trainer through its command line: it learns, resumes bit for bit, splits over processes, and says what is wrong."""

import inspect
import json
import math
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from runs import almost_the_same, fit, logged, losses_of, one_and_two, options, resumed, run_two, same_weights

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.objectives import OBJECTIVES
from sampling_argmax_cuda.tasks.coco.annotations import PERSON
from sampling_argmax_cuda.tasks.coco.task import CocoPose
from sampling_argmax_cuda.trainers.resnet import PoseNet, ResNet

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data") / "coco"


def test_resumed_run_equals_an_uninterrupted_one(data, tmp_path):
    """Loader processes change nothing either."""
    whole = fit(data, tmp_path / "whole", "--data.num_workers=2")
    fit(data, tmp_path / "parts", "--trainer.max_epochs=1")
    parts = fit(data, tmp_path / "parts", "--ckpt_path=last")
    assert same_weights(whole, parts) and whole["global_step"] == parts["global_step"] == 9
    other = fit(data, tmp_path / "other", "--model.seed=1")
    assert not same_weights(whole, other)
    assert list((tmp_path / "whole").rglob("epoch_*_images.png")) and list((tmp_path / "whole").rglob("metrics.csv"))
    assert list((tmp_path / "parts").rglob("curves.png"))
    curves = [run["callbacks"]["RunFigures"]["history"] for run in (whole, parts)]
    assert [row["epoch"] for row in curves[0]] == [1, 2, 3] and curves[0] == curves[1]
    assert all({"train/loss_epoch", "val/error", "val/AP", "lr"} <= row.keys() for row in curves[0])


@pytest.mark.parametrize("launcher", ["lightning", "torchrun", "slurm"])
def test_two_processes_equal_one(launcher, data, tmp_path):
    one = fit(data, tmp_path / "one", "--trainer.max_epochs=1")
    two = run_two(data, tmp_path / "two", launcher=launcher)
    assert losses_of(tmp_path / "one") == pytest.approx(losses_of(tmp_path / "two"), rel=1e-4)
    almost_the_same(one, two)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_takes_a_step(objective, data, tmp_path):
    """Of every parameter, by a gradient that is a number; and what was trained is scored."""
    last = fit(data, tmp_path, f"--objective={objective}", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1",
               "--trainer.check_val_every_n_epoch=1")  # fmt: skip
    (optimizer,) = last["optimizer_states"]
    names = [name for name in last["state_dict"] if not name.endswith((".epoch", "bn_running_mean"))]
    assert len(optimizer["state"]) == len(names) and last["global_step"] == 1
    for state in optimizer["state"].values():
        assert state["step"] == 1 and state["exp_avg"].isfinite().all() and state["exp_avg_sq"].isfinite().all()
    still = sum(not state["exp_avg"].any() for state in optimizer["state"].values())
    assert still == 0
    assert all(math.isfinite(value) for value in (*losses_of(tmp_path), *logged(tmp_path)["val/error"]))


def test_training_reaches_a_stated_error(tmp_path):
    """Below 1.3 cells of 16. The soft-argmax of a network that has learnt nothing is the middle, 4 cells off."""
    more = ["--data.synthetic_train=192", "--data.synthetic_val=32", "--data.batch_size=16", "--model.norm=batch",
            "--model.head_channels=32", "--objective.num_samples=10", "--objective.beta=tau", "--objective.tau=4.0",
            "--model.lr=0.002", "--model.milestones=[5]", "--model.flip_test=false", "--data.scale=0", "--data.rotation=0",
            "--data.flip=0"]  # fmt: skip
    assert main(["validate", *options(tmp_path / "data", tmp_path / "random", *more)]) == 0
    fit(tmp_path / "data", tmp_path / "run", *more, "--trainer.max_epochs=6", "--trainer.check_val_every_n_epoch=6")
    errors = [logged(tmp_path / run)["val/error"][-1] for run in ("random", "run")]
    assert errors[0] > 3.5 and errors[1] < 1.3
    losses = losses_of(tmp_path / "run")
    assert len(losses) == 6 and losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("config, epochs, bound", [("rle", 4, 1.6), ("soft_rle", 5, 2.5), ("sampling_rle", 5, 2.6)])
def test_rle_reaches_a_stated_error(config, epochs, bound, tmp_path_factory):
    """In cells of 16, where a network that has learnt nothing is 4 off; the likelihood of the errors rises all the time."""
    data = tmp_path_factory.getbasetemp() / "rle_data"
    draws = ["--objective.num_samples=10", "--objective.tau=1.0"] if config == "sampling_rle" else []
    more = ["--config", config, *draws, "--data.synthetic_train=192", "--data.synthetic_val=32", "--data.batch_size=16",
            "--model.norm=batch", "--model.head_channels=32", "--model.lr=0.002", "--model.flip_test=false", "--data.scale=0",
            "--data.rotation=0", "--data.flip=0"]  # fmt: skip
    run = tmp_path_factory.mktemp(config)
    fit(data, run, *more, f"--trainer.max_epochs={epochs}", f"--trainer.check_val_every_n_epoch={epochs}")
    assert logged(run)["val/error"][-1] < bound
    losses = losses_of(run)
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 10


def test_rle_resumes_and_splits_over_processes(data, tmp_path):
    """The flow is part of the checkpoint, and gradients are clipped one by one."""
    more = ["--config", "rle_released", "--model.clip_each=0.1"]
    whole = resumed(fit, data, tmp_path, *more)
    assert any("likelihood.flows.0" in name for name in whole["state_dict"])
    free = fit(data, tmp_path / "free", "--config", "rle_released", "--trainer.max_epochs=2")
    assert not same_weights(whole, free)
    one_and_two(data, tmp_path, "--config", "sampling_rle")


def test_validate_and_predict(data, tmp_path):
    fit(data, tmp_path, "--trainer.max_epochs=1")
    checkpoint = f"--ckpt_path={tmp_path / 'checkpoints' / 'best.ckpt'}"
    assert main(["validate", *options(data, tmp_path / "validate", checkpoint)]) == 0
    images = f"--data.images={data / 'val2017'}"
    assert main(["predict", *options(data, tmp_path / "predict", checkpoint, images)]) == 0
    folder = tmp_path / "predict" / "version_0"
    records = json.loads((folder / "predictions.json").read_text())
    assert len(records) == 6 and all(len(r["keypoints"]) == 51 for r in records)
    assert len(list((folder / "predictions").glob("*.png"))) == 6


def test_the_command_line_wins_over_the_checkpoint(data, tmp_path, monkeypatch):
    """A checkpoint brings its options, the size of its images and its task; what is written besides wins."""
    fit(data, tmp_path / "fit", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--model.flip_test=false")
    checkpoint, seen = str(tmp_path / "fit" / "checkpoints" / "last.ckpt"), []
    monkeypatch.setattr(CocoPose, "on_validation_start", lambda module: seen.append(module))
    given = [f"--data.root={data}", "--data.synthetic=true", "--data.synthetic_train=24", "--data.synthetic_val=6",
             "--data.num_workers=0", "--trainer.accelerator=cpu", "--trainer.devices=1", "--model.rescore=product",
             "--model.scales=[1.0,1.5]", f"--trainer.default_root_dir={tmp_path}", f"--ckpt_path={checkpoint}"]  # fmt: skip
    assert main(["validate", *given]) == 0
    (module,) = seen
    assert module.hparams.depth == 18 and module.hparams.norm == "group" and module.hparams.flip_test is False
    assert tuple(module.hparams.scales) == (1.0, 1.5) and module.evaluation.rule == "product"
    assert tuple(module.trainer.datamodule.hparams.image_size) == (64, 64)


def test_ensemble_of_a_checkpoint_with_itself_changes_nothing(data, tmp_path):
    fit(data, tmp_path / "fit", "--trainer.max_epochs=1")
    checkpoint, scores = tmp_path / "fit" / "checkpoints" / "last.ckpt", []
    for i, more in enumerate(([], [f"--model.ensemble=[{checkpoint},{checkpoint}]"])):
        assert main(["validate", *options(data, tmp_path / str(i), f"--ckpt_path={checkpoint}", *more)]) == 0
        scores.append(logged(tmp_path / str(i))["val/error"])
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
    maps = [f"--model.ensemble=[{checkpoint}]", "--model.average=maps"]
    assert main(["validate", *options(data, tmp_path / "maps", f"--ckpt_path={checkpoint}", *maps)]) == 0
    results = json.loads((tmp_path / "maps" / "version_0" / "results.json").read_text())
    assert results and all(
        len(r["keypoints"]) == 51 and {"image_id", "category_id", "score"} <= r.keys() for r in results
    )


def test_missing_ensemble_is_named(data, tmp_path, capfd):
    assert main(["validate", *options(data, tmp_path, "--model.ensemble=[/nowhere.ckpt]")]) == 1
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


def validate(data: Path, run: Path, boxes: Path) -> dict[str, list[float]]:
    assert main(["validate", *options(data, run, f"--data.boxes={boxes}")]) == 0
    return {name: values for name, values in logged(run).items() if name.startswith("val/")}


def test_validation_on_detections_logs_what_it_can_measure(data, tmp_path):
    fit(data, tmp_path / "fit", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    people = validate(data, tmp_path / "people", data / "detections_val.json")
    assert {"val/AP", "val/error", "val/pearson"} <= people.keys() and not {"val/APl", "val/ARl"} & people.keys()
    assert all(math.isfinite(value) and (value >= 0 or name == "val/pearson") for name, (value,) in people.items())
    alone = tmp_path / "alone.json"
    image = json.loads((data / "detections_val.json").read_text())[0]["image_id"]
    alone.write_text(json.dumps([{"image_id": image, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.3}]))
    nobody = validate(data, tmp_path / "nobody", alone)
    assert nobody["val/AP"] == [0] and not {"val/error", "val/pearson"} & nobody.keys()


def test_a_run_can_be_repeated_from_its_config(data, tmp_path):
    """The loggers are in no config as objects, which could not be written, and options still choose others."""
    short = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = fit(data, tmp_path / "first", *short)
    messages = [str(warning.message) for warning in caught]
    assert not [m for m in messages if "Unable to serialize" in m or "LightningCLI's args" in m]
    config, again = tmp_path / "first" / "version_0" / "config.yaml", tmp_path / "again"
    assert main(["fit", f"--config={config}", f"--trainer.default_root_dir={again}"]) == 0
    assert same_weights(first, torch.load(again / "checkpoints" / "last.ckpt", weights_only=False))
    assert logged(again)["val/AP"] == logged(tmp_path / "first")["val/AP"]
    fit(data, tmp_path / "mute", "--trainer.logger=false", *short)
    assert not list((tmp_path / "mute").rglob("metrics.csv"))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("command", ["fit", "validate", "predict", "visualize"])
def test_help_says_what_each_option_is(command, task, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # no help takes more than a line
    with pytest.raises(SystemExit) as stop:
        main([command, "--task", task, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    module, data = TASKS[task]
    for group, task_class in (("model", module), ("data", data)):
        owners = [owner for owner in task_class.__mro__ if owner.__module__.startswith("sampling_argmax_cuda")]
        names = {name for owner in owners for name in inspect.signature(owner).parameters} - {"kwargs"}
        for name in names - (set(module.linked.values()) if group == "data" else set()):
            shown = re.search(rf"^ +--{group}\.{name} (?:[A-Z_]+|{{.*?}}|\[.*?\])\s+(.*?)\(type: ", text, re.M | re.S)
            assert shown and re.fullmatch(r"\S.{8,}\. ", shown[1]), f"--{group}.{name} has no line of help"


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


def test_a_fault_in_a_worker_is_one_line(data, tmp_path, capfd):
    broken = tmp_path / "coco"
    fit(data, tmp_path / "synthetic", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1")  # draws the data
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
@pytest.mark.parametrize("config", ["heatmap", "direct", "dsnt", "debiased", "integral_l2", "rle", "soft_rle"])
def test_baselines_on_real_images(config, tmp_path):
    """A step on four real images, then detector boxes, mirrored and at two scales."""
    more = ["--config", config, "--data.synthetic=false", "--data.train_split=val2017", "--data.batch_size=12",
            "--trainer.max_epochs=1", f"--data.boxes={REAL / 'detections.json'}"]  # fmt: skip
    fit(REAL, tmp_path / "fit", *more)
    checkpoint = tmp_path / "fit" / "checkpoints" / "last.ckpt"
    scales = [] if config in ("direct", "rle") else ["--model.scales=[1.0,1.5]"]
    assert main(["validate", *options(REAL, tmp_path / "val", *more, *scales, f"--ckpt_path={checkpoint}")]) == 0
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
    assert main(["predict", *options(data, tmp_path)]) == 1
    assert "predict: --data.images must name a folder of images" in capfd.readouterr().err


def test_frozen_norms_never_look_at_the_batch():
    """Neither when they are new nor after train(); and they keep their statistics."""
    net, x = PoseNet(3, 18, 16, "frozen"), torch.randn(4, 3, 64, 64)
    new = net(x)
    assert torch.equal(net.train()(x), new)
    torch.testing.assert_close(net(x[:1]), new[:1], rtol=1e-4, atol=1e-6)
    assert all(m.num_batches_tracked == 0 for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))


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
