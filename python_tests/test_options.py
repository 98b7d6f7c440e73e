"""An option has the same effect from the command line and from a config, and none silently from anywhere else."""

from pathlib import Path

import cv2
import lightning
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.commands.fit import TaskCLI
from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.tasks.coco.task import CocoPose
from sampling_argmax_cuda.tasks.mtfl.task import MtflLandmarks
from sampling_argmax_cuda.trainers.points import package_points

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

VERSION = {"pytorch-lightning_version": lightning.__version__}
SMALL = {"depth": 18, "head_channels": 16, "norm": "group"}
COMMON = [*(f"--model.{name}={value}" for name, value in SMALL.items()), "--trainer.accelerator=cpu"]


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Start a command up to where it would run, in an empty folder; what it would run with."""
    seen = []
    monkeypatch.setattr(TaskCLI, "_run_subcommand", lambda cli, command: seen.append(cli))
    monkeypatch.chdir(tmp_path)

    def started(*argv: str) -> TaskCLI:
        assert main(list(argv)) == 0
        return seen.pop()

    return started


def given(source: str, option: str, value, folder: Path) -> list[str]:
    """The option as the command line of a source has it."""
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]
    if source == "equals":
        return [f"--{option}={text}"]
    if source == "words":
        return [f"--{option}", text]
    for key in reversed(option.split(".")):
        value = {key: value}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8-sig" if source == "marked" else "utf-8")
    return ["-c", str(path)] if source == "short" else [f"--config={path}"]


SOURCES = ("equals", "words", "config", "short", "marked")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """A checkpoint of each of two tasks, as the trainer writes them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for module, size in ((CocoPose(flip_test=False, **SMALL), (64, 96)), (MtflLandmarks(**SMALL), (64, 64))):
        content = {"state_dict": module.state_dict(), "task": module.task, "hyper_parameters": dict(module.hparams),
                   "datamodule_hyper_parameters": {"image_size": size}, **VERSION}  # fmt: skip
        torch.save(content, folder / f"{module.task}.ckpt")
    return folder


def places(cli: TaskCLI) -> set[Path]:
    """The folders that a run writes to."""
    loggers = {
        Path(logger.save_dir if isinstance(logger, TensorBoardLogger) else logger.root_dir)
        for logger in cli.trainer.loggers
    }
    saves = {Path(callback.dirpath).parent for callback in cli.trainer.checkpoint_callbacks}
    return {path.resolve() for path in (Path(cli.trainer.default_root_dir), *loggers, *saves)}


@pytest.mark.parametrize("source", SOURCES)
def test_a_run_has_one_folder(source, start, tmp_path):
    """And the config that is saved says which."""
    assert places(start("fit", *COMMON)) == {tmp_path / "runs"}
    cli = start("fit", *COMMON, *given(source, "trainer.default_root_dir", str(tmp_path / "own"), tmp_path))
    assert places(cli) == {tmp_path / "own"} and cli.config.fit.trainer.default_root_dir == str(tmp_path / "own")


@pytest.mark.parametrize("source", SOURCES)
def test_options_of_the_trainer(source, start, tmp_path):
    kinds = lambda cli: [type(logger) for logger in cli.trainer.loggers]  # noqa: E731
    assert kinds(start("fit", *COMMON)) == [TensorBoardLogger, CSVLogger]
    assert kinds(start("fit", *COMMON, *given(source, "trainer.logger", False, tmp_path))) == []
    own = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path / "csv")}}
    assert kinds(start("fit", *COMMON, *given(source, "trainer.logger", own, tmp_path))) == [CSVLogger]
    monitor = [{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}]
    cli = start("fit", *COMMON, *given(source, "trainer.callbacks", monitor, tmp_path))
    assert [type(c) for c in cli.trainer.callbacks].count(LearningRateMonitor) == 1
    assert len(cli.trainer.checkpoint_callbacks) == 2
    cli = start("fit", *COMMON, *given(source, "trainer.enable_checkpointing", False, tmp_path))
    assert not [c for c in cli.trainer.callbacks if isinstance(c, ModelCheckpoint)]


@pytest.mark.parametrize("source", SOURCES)
def test_the_task_and_the_checkpoint(source, start, checkpoints, tmp_path, capfd):
    """The last task that is named wins; a checkpoint has its own, which no other is taken for."""
    assert start("fit", *COMMON, *given(source, "task", "mtfl", tmp_path)).choice.task == "mtfl"
    assert start("fit", *COMMON, "--task=coco", *given(source, "task", "mtfl", tmp_path)).choice.task == "mtfl"
    assert start("fit", *COMMON, *given(source, "task", "mtfl", tmp_path), "--task=coco").choice.task == "coco"
    path = given(source, "ckpt_path", str(checkpoints / "mtfl.ckpt"), tmp_path)
    cli = start("validate", *path)
    assert (
        cli.choice.task == "mtfl"
        and cli.model.hparams.depth == 18
        and tuple(cli.datamodule.hparams.image_size) == (64, 64)
    )
    assert cli.config.validate.ckpt_path == str(checkpoints / "mtfl.ckpt")
    assert main(["validate", "--task=coco", *path]) == 1
    assert "mtfl.ckpt is of task mtfl, not coco" in capfd.readouterr().err


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_written_wins_over_the_checkpoint(source, start, checkpoints, tmp_path, capfd):
    path = f"--ckpt_path={checkpoints / 'coco.ckpt'}"
    start("validate", *COMMON)
    assert "this network has not been trained" in capfd.readouterr().out
    cli = start("validate", path)
    assert cli.model.hparams.flip_test is False and tuple(cli.datamodule.hparams.image_size) == (64, 96)
    said = capfd.readouterr().out
    assert "instead of the checkpoint's" not in said and "not been trained" not in said
    cli = start("validate", *given(source, "model.flip_test", True, tmp_path), path)
    assert cli.model.hparams.flip_test is True and cli.model.hparams.depth == 18
    assert "--model.flip_test True instead of the checkpoint's False\n" in capfd.readouterr().out
    cli = start("validate", path, *given(source, "data.image_size", [32, 64], tmp_path))
    assert tuple(cli.datamodule.hparams.image_size) == (32, 64)
    assert "--data.image_size" in capfd.readouterr().out


@pytest.mark.parametrize("source", SOURCES)
def test_a_recipe_of_the_package_is_none_of_the_checkpoint(source, start, checkpoints, tmp_path, capfd):
    """coco has another depth and size, heatmap another objective; what is written besides them wins over all."""
    own = given(source, "objective.num_samples", 7, tmp_path)
    for flags in (["-c", "coco", "--config=heatmap"], ["--config", "coco", "-c=heatmap"]):
        cli = start("predict", *flags, *own, f"--ckpt_path={checkpoints / 'coco.ckpt'}")
        assert cli.model.hparams.depth == 18 and cli.model.hparams.objective["name"] == "sampling"
        assert tuple(cli.datamodule.hparams.image_size) == (64, 96) and cli.model.hparams.objective["num_samples"] == 7
        assert cli.datamodule.hparams.rotation == 40.0 and cli.config.predict.trainer.max_epochs == 140
    said = capfd.readouterr().out.splitlines()
    lines = [line for line in said if "instead of the checkpoint's" in line]
    assert lines == ["--objective.num_samples 7 instead of the checkpoint's 30"] * 2
    assert said.count("--objective.name 'sampling' of the checkpoint, not 'heatmap' of the package's config") == 2
    assert said.count("--model.depth 18 of the checkpoint, not 50 of the package's config") == 2
    assert not [
        line for line in said if line.startswith("--objective.num_samples") and "of the checkpoint, not" in line
    ]


def test_a_checkpoint_of_another_network_is_one_line(checkpoints, tmp_path, capfd):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    given = [f"--ckpt_path={checkpoints / 'coco.ckpt'}", f"--data.images={tmp_path / 'images'}", "--model.head_channels=8",
             "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path / 'run'}"]  # fmt: skip
    assert main(["predict", *given]) == 1
    message = "model: the checkpoint is of a network with other options: 0 missing; 0 unknown; "
    assert message in capfd.readouterr().err


FIVE = package_points("mtfl").as_mapping()
GAUSSIAN = {"name": "sampling", "basis": "gaussian"}
ADVERSARY = {"stacks": 1, "channels": 8, "factor": 0.1, "rate": 0.1, "gamma": 0.5, "lr": 0.3}
TASK_OPTIONS = {
    "associative": ({"stacks": 1, "channels": 8, "threshold": 0.3}, {"image_size": (64, 64)}),
    "coco": ({**SMALL, "rescore": "product"}, {"image_size": (64, 64)}),
    "h36m": ({**SMALL, "volume": 8, "lift": "bones"}, {"image_size": (64, 64)}),
    "keypointnet": (
        {"keypoints": 5, "width": 0.1, "objective": GAUSSIAN, "centers": (8, 4, 2, 1)},
        {"category": "table"},
    ),
    "keypoints": ({**SMALL, "points": FIVE}, {"image_size": (64, 64), "points": FIVE}),
    "mpii": ({"stacks": 1, "channels": 8, "objective": "heatmap", "adversary": ADVERSARY}, {"image_size": (64, 64)}),
    "mtfl": (SMALL, {"image_size": (64, 64)}),
    "oct": ({"width": 4, "ordered": False, "objective": {"name": "soft_vr", "reg_weight": 0.3}}, {"rows": 48}),
    "skeleton": ({"keypoints": 4, "width": 0.1, "objective": GAUSSIAN, "self_pairs": True}, {"category": "table"}),
}


@pytest.mark.parametrize("command", ["fit", "predict"])
@pytest.mark.parametrize("task", TASKS)
def test_a_checkpoint_brings_what_its_network_is(task, command, start, tmp_path):
    """Every option of the model, those of the data that the network was trained for, and those that are linked to them."""
    own, data = TASK_OPTIONS[task]
    module, path = TASKS[task][0](**own), tmp_path / "a.ckpt"
    linked = {name: module.hparams[option] for option, name in module.linked.items()}
    torch.save({"state_dict": {}, "task": task, "hyper_parameters": dict(module.hparams),
                "datamodule_hyper_parameters": {"flip": 0.1, **data}, **VERSION}, path)  # fmt: skip
    cli = start(command, f"--ckpt_path={path}", *given("config", "model.seed", 3, tmp_path))
    for name, value in {**module.hparams, "seed": 3}.items():
        found = cli.model.hparams[name]
        assert (tuple(found) if isinstance(found, list) else found) == (
            tuple(value) if isinstance(value, list) else value
        )
    for name, value in {**data, **linked, "flip": 0.5}.items():
        assert cli.datamodule.hparams[name] == (
            list(value) if isinstance(cli.datamodule.hparams[name], list) else value
        )


@pytest.mark.parametrize("command", ["fit", "validate", "predict", "visualize"])
def test_the_checkpoints_of_the_run(command, start, checkpoints, tmp_path, capfd):
    """last and best are files of its folder. Only a training may begin without them."""
    folder = tmp_path / "own" / "checkpoints"
    folder.mkdir(parents=True)
    root = given("config", "trainer.default_root_dir", str(tmp_path / "own"), tmp_path)
    for name in ("last", "best"):
        status = main([command, *root, f"--ckpt_path={name}"])
        if (command, name) == ("fit", "last"):
            assert status == 0 and "so this run begins" in capfd.readouterr().out
        else:
            assert status == 1 and f"{folder / name}.ckpt does not exist" in capfd.readouterr().err
        (folder / f"{name}.ckpt").write_bytes((checkpoints / "coco.ckpt").read_bytes())
        cli = start(command, *root, f"--ckpt_path={name}")
        assert cli.config[command].ckpt_path == str(folder / f"{name}.ckpt") and cli.model.hparams.depth == 18


@pytest.mark.parametrize(
    "option", ["--trainer.default_root=x", "--trainer.default_root x", "--tas mtfl", "--ckpt x", "--conf coco"]
)
def test_abbreviations_are_refused(option, start, capfd):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *option.split()])
    assert stop.value.code == 2 and "rguments" in capfd.readouterr().err or "not" in capfd.readouterr().err


@pytest.mark.parametrize(
    "name", ["PL_TRAINER_DEFAULT_ROOT_DIR", "PL_TASKTRAINER_MAX_EPOCHS", "PL_FIT__TRAINER__MAX_EPOCHS", "PL_CONFIG",
             "PL_PREDICT__CONFIG", "JSONARGPARSE_DEFAULT_ENV"]
)  # fmt: skip
def test_the_environment_has_no_options(name, start, monkeypatch, capfd):
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")  # Lightning's own, for the processes that it starts
    start("fit", *COMMON)
    monkeypatch.setenv(name, "true")
    assert main(["fit", *COMMON]) == 1
    assert f"environment variable {name} is no option" in capfd.readouterr().err


@pytest.mark.parametrize(
    "content, message",
    [
        (b"task: coco\nmodel: [1\n", "line 3: "),
        (b"# gr\xfc\xdfe\n", r"line 1 is not UTF-8 (byte 0xfc)"),
        (b"task: coco\r\nmodel:\r\n  name: \xfc\r\n", "line 3 is not UTF-8"),
        (b"just words", "expected options by name, got str"),
    ],
)
def test_broken_configs_are_named_with_their_line(content, message, tmp_path, capfd):
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    assert main(["fit", "--config", str(path)]) == 1
    error = capfd.readouterr().err
    assert f"--config {path}" in error and message in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("task", TASKS)
def test_predictions_are_not_kept(task, capfd):
    """Lightning's own option to return them is none of these commands'."""
    with pytest.raises(SystemExit):
        main(["predict", "--task", task, "--help"])
    assert "--return_predictions" not in capfd.readouterr().out
