"""``sampling-argmax fit | validate | predict``: LightningCLI over the shared module and a task's data."""

import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from .callbacks import OverlayPictures, PredictionFiles
from .data import CocoData, MtflData
from .module import CocoPose, FaceLandmarks

TASKS = {"coco": (CocoPose, CocoData), "mtfl": (FaceLandmarks, MtflData)}


def run_callbacks(folder: str, best: tuple[str, str]) -> list:
    """What every run has: the best and the last checkpoint, pictures, and the files of predictions.

    Checkpoints have one place a run, whatever the loggers' version, so that ``--ckpt_path last`` finds them again.
    """
    where = {"dirpath": str(Path(folder) / "checkpoints"), "enable_version_counter": False}
    metric, mode = best
    best = ModelCheckpoint(filename="best", monitor=f"val/{metric}", mode=mode, save_on_train_epoch_end=False, **where)
    last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **where)
    return [best, last, OverlayPictures(), PredictionFiles()]


class TaskCLI(LightningCLI):
    """LightningCLI with the callbacks and loggers of a run in its folder.

    The loggers are no defaults of the parser: as objects they could not be written into the run's config.yaml.
    """

    def __init__(self, folder: str, task: str, argv: list[str]) -> None:
        self.folder, self.task = folder, task
        module, data = TASKS[task]
        trainer = {"default_root_dir": folder, "callbacks": run_callbacks(folder, module.best), "use_distributed_sampler": False,
                   "num_sanity_val_steps": 0, "log_every_n_steps": 10}  # fmt: skip
        super().__init__(
            module, data, args=argv, seed_everything_default=0, save_config_kwargs={"overwrite": True},
            trainer_defaults=trainer,
        )  # fmt: skip

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        known = tuple(TASKS)
        parser.add_argument(
            "--task", default=self.task, choices=known, help="what is localized; a config names its own"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parse ``args``, which are the command line itself with the configs' names resolved."""
        self.config = parser.parse_args(args)

    def instantiate_trainer(self, **kwargs) -> lightning.Trainer:
        """The trainer, with the run's loggers unless the options name others or none."""
        if self._get(self.config_init, "trainer.logger") is None:
            kwargs["logger"] = default_loggers(self.folder)
        return super().instantiate_trainer(**kwargs)


def config_path(name: str) -> str:
    """A file as it is; a bare name stands for a config that the package brings."""
    if Path(name).exists():
        return name
    configs = resources.files(__package__) / "configs"
    known = sorted(item.name.removesuffix(".yaml") for item in configs.iterdir() if item.name.endswith(".yaml"))
    if name not in known:
        raise FileNotFoundError(f"--config: no file {name}, and no config of that name (known: {', '.join(known)})")
    return str(configs / f"{name}.yaml")


def resolve_configs(argv: list[str]) -> list[str]:
    """Replace the names after ``--config`` by files."""
    out = []
    for i, item in enumerate(argv):
        if item.startswith("--config="):
            item = "--config=" + config_path(item.removeprefix("--config="))
        elif i > 0 and argv[i - 1] == "--config":
            item = config_path(item)
        out.append(item)
    return out


def given_options(argv: list[str]) -> Iterator[tuple[str, str]]:
    """Options and their values, written as one word or as two."""
    for i, item in enumerate(argv):
        option, equals, value = item.partition("=")
        if equals:
            yield option, value
        elif i + 1 < len(argv):
            yield option, argv[i + 1]


def chosen_task(argv: list[str]) -> str:
    """The task, read before anything else because it decides which options there are: the last one named wins."""
    task = "coco"
    for option, value in given_options(argv):
        if option == "--task":
            task = value
        elif option == "--config" and Path(value).is_file():
            content = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            task = content.get("task", task) if isinstance(content, dict) else task
    if task not in TASKS:
        raise ValueError(f"--task must be one of {', '.join(TASKS)}, got {task!r}")
    return task


def default_loggers(folder: str) -> list:
    """CSV and TensorBoard side by side in one version folder."""
    tensorboard = TensorBoardLogger(folder, name="")
    return [tensorboard, CSVLogger(folder, name="", version=tensorboard.version)]


def run_folder(argv: list[str]) -> str:
    """The run's folder, read before anything else because loggers and checkpoints live in it."""
    return dict(given_options(argv)).get("--trainer.default_root_dir", "runs")


def main(argv: list[str]) -> int:
    """Run one command; a wrong input prints one line and gives status 1."""
    if argv and argv[0] == "demo":
        from .demo import main as demo

        return demo(argv[1:])
    try:
        argv = resolve_configs(argv)
        torch.set_float32_matmul_precision("high")
        TaskCLI(run_folder(argv), chosen_task(argv), argv)
    except (ValueError, FileNotFoundError) as error:
        print(f"sampling-argmax {argv[0]}: {error}", file=sys.stderr)
        return 1
    return 0
