"""``sampling-argmax fit | validate | predict | visualize``: LightningCLI over the shared module and a task's data."""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import lightning
import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from ..tasks.associative.task import PeopleData, PeoplePose
from ..tasks.coco.task import CocoData, CocoPose
from ..tasks.h36m.task import BodyPose, H36mData
from ..tasks.keypointnet.task import CloudKeypoints, KeypointNetData
from ..tasks.mpii.task import MpiiData, PersonPose
from ..tasks.mtfl.task import FaceLandmarks, MtflData
from ..tasks.oct.task import OctData, RetinalSurfaces
from ..tasks.skeleton.task import SkeletonData, SkeletonMerger
from ..trainers.callbacks import BestCheckpoint, PredictionFiles, RunPictures, ValidationFile
from ..trainers.files import read_text
from ..trainers.resume import changed_options
from ..trainers.trainer import TaskTrainer
from ..trainers.weights import read_checkpoint

TASKS = {
    "associative": (PeoplePose, PeopleData),
    "coco": (CocoPose, CocoData),
    "h36m": (BodyPose, H36mData),
    "keypointnet": (CloudKeypoints, KeypointNetData),
    "mpii": (PersonPose, MpiiData),
    "mtfl": (FaceLandmarks, MtflData),
    "oct": (RetinalSurfaces, OctData),
    "skeleton": (SkeletonMerger, SkeletonData),
}
COMMANDS = ("fit", "validate", "predict", "visualize")
# Options of the data that a network was trained for; the others say where the files are, or how they are read.
OF_NETWORK = ("image_size", "rows", "category")
tell = rank_zero_only(print)


def run_callbacks(folder: Path, best: tuple[str, str]) -> list[Callback]:
    """What every run has: the best and the last checkpoint, pictures, and the files of predictions.

    Checkpoints have one place a run, whatever the loggers' version, so that ``--ckpt_path last`` finds them again.
    """
    where = {"dirpath": str(folder / "checkpoints"), "enable_version_counter": False}
    metric, mode = best
    best = BestCheckpoint(filename="best", monitor=f"val/{metric}", mode=mode, save_on_train_epoch_end=False, **where)
    last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **where)
    return [best, last, RunPictures(), ValidationFile(), PredictionFiles()]


def run_loggers(folder: Path) -> list:
    """CSV and TensorBoard side by side in one version folder."""
    tensorboard = TensorBoardLogger(folder, name="")
    return [tensorboard, CSVLogger(folder, name="", version=tensorboard.version)]


class NamedConfig(ActionConfigFile):
    """A config that may be one of the package's, by its name. A parser ``of_files`` leaves these out."""

    def __call__(self, parser, cfg, values, option_string=None) -> None:
        if Path(values).is_file() or not getattr(parser, "of_files", False):
            super().__call__(parser, cfg, config_path(values), option_string)


class TaskCLI(LightningCLI):
    """LightningCLI with the callbacks and loggers of a run in its folder, which is known once all options are.

    As defaults of the parser the loggers would be objects, which could not be written into the run's config.yaml.
    """

    def __init__(self, argv: list[str]) -> None:
        self.argv, self.task = argv, chosen_task(argv)
        module, data = TASKS[self.task]
        self.links = module.linked
        trainer = {"default_root_dir": "runs", "use_distributed_sampler": False, "num_sanity_val_steps": 0,
                   "log_every_n_steps": 10}  # fmt: skip
        # An abbreviation would be an option to the parser alone, and not to those who look for it by its name.
        parsers = {name: {"allow_abbrev": False} for name in COMMANDS}
        super().__init__(
            module, data, args=argv, seed_everything_default=0, save_config_kwargs={"overwrite": True},
            trainer_class=TaskTrainer, auto_configure_optimizers=False, trainer_defaults=trainer,
            parser_kwargs={"allow_abbrev": False, **parsers},
        )  # fmt: skip

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, each with the arguments that are no options of it."""
        return {name: {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}
                for name in COMMANDS}  # fmt: skip

    def init_parser(self, **kwargs) -> LightningArgumentParser:
        parser = LightningArgumentParser(**kwargs)
        parser.add_argument(
            "-c", "--config", action=NamedConfig, help="YAML or JSON file, or a name of the package's configs"
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        known = tuple(TASKS)
        for name, own in self.links.items():
            parser.link_arguments(f"model.{name}", f"data.{own}")
        parser.add_argument(
            "--task", default=self.task, choices=known, help="what is localized; a config names its own"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parse ``args``, which are the command line itself."""
        self.config = parser.parse_args(args)

    def named(self, recipes: bool) -> Namespace:
        """What the command line and its files say, the package's configs or not, without defaults and linked options."""
        self.links = {}
        parser = self._prepare_subcommand_parser(TaskTrainer, self.config.subcommand, allow_abbrev=False)
        parser.of_files = not recipes
        return parser.parse_args(self.argv[1:], defaults=False)

    @property
    def folder(self) -> Path:
        """The run's folder, from whatever source its option came."""
        return Path(self.config[self.config.subcommand].trainer.default_root_dir or ".").expanduser()

    def _parse_ckpt_path(self) -> None:
        """Take the options of a given checkpoint instead of defaults and of the package's configs, which are recipes.

        What the command line or a config file says wins. What differs, on either side, is told.
        """
        command = self.config.subcommand
        path = checkpoint_path(self.config[command].ckpt_path, self.folder, command)
        if path is None:
            if command != "fit" and not self.config[command].model.get("weights"):
                tell("no --ckpt_path and no --model.weights: this network has not been trained")
            return
        self.config[command].ckpt_path = str(path)
        checkpoint = read_checkpoint(path)
        if checkpoint["task"] != self.task:
            raise ValueError(f"--ckpt_path: {path} is of task {checkpoint['task']}, not {self.task}")
        data, written, recipes = checkpoint["datamodule_hyper_parameters"], self.named(False), self.named(True)
        saved = {"model": checkpoint["hyper_parameters"],
                 "data": {name: data[name] for name in OF_NETWORK if name in data}}  # fmt: skip
        if command != "fit":  # a resumed run says itself what it changes
            if "weights" in saved["model"]:
                saved["model"] = {**saved["model"], "weights": None}  # those of the checkpoint itself are loaded
            for part, options in saved.items():
                told = changed_options(options, written.get(part, Namespace()).as_dict())
                for name, (before, now) in told.items():
                    tell(f"--{part}.{name} {now!r} instead of the checkpoint's {before!r}")
        taken = {part: {name: value for name, value in options.items()
                        if not name.startswith("_") and f"{part}.{name}" not in written}
                 for part, options in saved.items()}  # fmt: skip
        for part, options in taken.items():
            told = changed_options(options, recipes.get(part, Namespace()).as_dict())
            for name, (before, now) in told.items():
                tell(f"--{part}.{name} {before!r} of the checkpoint, not {now!r} of the package's config")
        self.config = self.parser.parse_object({command: taken}, self.config)

    def instantiate_trainer(self, **kwargs) -> lightning.Trainer:
        """The trainer, with the run's loggers unless the options name others or none."""
        callbacks = run_callbacks(self.folder, TASKS[self.task][0].best)
        if self._get(self.config_init, "trainer.enable_checkpointing") is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ModelCheckpoint)]
        self.trainer_defaults["callbacks"] = callbacks
        if self._get(self.config_init, "trainer.logger") is None:
            kwargs["logger"] = run_loggers(self.folder)
        return super().instantiate_trainer(**kwargs)


def checkpoint_path(given: str | None, folder: Path, command: str) -> Path | None:
    """The file that ``--ckpt_path`` stands for, which may be last or best of the run; None for a run that begins."""
    if given is None:
        return None
    path = folder / "checkpoints" / f"{given}.ckpt" if given in ("last", "best") else Path(given)
    if command == "fit" and given == "last" and not path.is_file():
        tell(f"--ckpt_path last: there is no {path} yet, so this run begins")
        return None
    return path


def config_path(name: str) -> str:
    """A file as it is; a bare name stands for a config that the package brings."""
    if Path(name).is_file():
        return name
    folder = resources.files("sampling_argmax_cuda") / "configs"
    known = {item.name.removesuffix(".yaml"): item
             for place in (folder, folder / "objectives") for item in place.iterdir() if item.name.endswith(".yaml")}  # fmt: skip
    if name not in known:
        names = ", ".join(sorted(known))
        raise FileNotFoundError(f"--config: no file {name}, and no config of that name (known: {names})")
    return str(known[name])


def read_config(path: str) -> dict:
    """The content of a config. Raises ValueError that names the file and the line."""
    try:
        content = yaml.safe_load(read_text(path, "--config"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"--config {path}: {where}{getattr(error, 'problem', None) or error}") from None
    if not isinstance(content or {}, dict):
        raise ValueError(f"--config {path}: expected options by name, got {type(content).__name__}")
    return content or {}


def named_options(argv: list[str]) -> Iterator[tuple[str, str]]:
    """The task and the checkpoint as the command line and its configs name them, in their order."""
    parser = argparse.ArgumentParser(prog="sampling-argmax", add_help=False, allow_abbrev=False)
    for flags in (("--task",), ("--ckpt_path",), ("-c", "--config")):
        name = flags[-1].removeprefix("--")
        parser.add_argument(
            *flags, dest="named", action="append", default=[], type=lambda value, name=name: (name, value)
        )
    for name, value in parser.parse_known_args(argv)[0].named:
        content = read_config(config_path(value)) if name == "config" else {name: value}
        yield from ((key, content[key]) for key in ("task", "ckpt_path") if content.get(key) is not None)


def chosen_task(argv: list[str]) -> str:
    """The task, read before anything else because it decides which options there are: the last one named wins.

    Where none is named it is that of the checkpoint.
    """
    named = dict(named_options(argv))
    path = named.get("ckpt_path")
    saved = read_checkpoint(path)["task"] if "task" not in named and path and Path(path).is_file() else "coco"
    task = named.get("task", saved)
    if task not in TASKS:
        raise ValueError(f"--task must be one of {', '.join(TASKS)}, got {task!r}")
    return task


def check_environment() -> None:
    """Raise ValueError where an environment variable is one of those that other command lines take for options."""
    commands = "|".join(name.upper() for name in COMMANDS)
    for name, value in os.environ.items():
        enabled = name == "JSONARGPARSE_DEFAULT_ENV" and value.lower() == "true"
        if enabled or re.match(rf"PL_((TASK)?TRAINER_|CONFIG$|({commands})__)", name):
            raise ValueError(
                f"environment variable {name} is no option: options come from the command line and its configs"
            )


def main(argv: list[str]) -> int:
    """Run one command; a wrong input prints one line and gives status 1."""
    if argv and argv[0] == "demo":
        from .demo import main as demo

        return demo(argv[1:])
    if argv and argv[0] == "study":
        from .study import main as study

        return study(argv[1:])
    try:
        check_environment()
        torch.set_float32_matmul_precision("high")
        TaskCLI(argv)
    except (ValueError, FileNotFoundError) as error:
        # A loader process sends its whole traceback as the message; its last line is the error's own.
        message = str(error).strip().splitlines()[-1] if str(error).startswith("Caught ") else str(error)
        print(f"sampling-argmax {argv[0]}: {message}", file=sys.stderr)
        return 1
    return 0
