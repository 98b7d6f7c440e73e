"""``sampling-argmax fit | validate | predict | visualize``: LightningCLI over the module and the data of a task."""

import os
import re
import sys
from collections.abc import Mapping
from inspect import signature
from pathlib import Path

import lightning
import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..objectives import FROM_TRAINER, OBJECTIVES
from ..trainers.adversary import Adversary
from ..trainers.callbacks import BestCheckpoint, RunFigures, ValidationFile
from ..trainers.messages import quiet, tell
from ..trainers.predictions import PredictionFiles
from ..trainers.report import PointTable, RunReport
from ..trainers.resume import changed_options
from ..trainers.trainer import TaskTrainer
from .configs import Choice, choose, config_path, spelled_out
from .help import Page, arrange
from .tasks import TASKS
from .unused import refuse_unused, unused_options

COMMANDS = ("fit", "validate", "predict", "visualize", "calibrate")
# Options of the data that a network was trained for; the others say where the files are, or how they are read.
OF_NETWORK = ("image_size", "rows", "category", "points", "margin")


def run_callbacks(folder: Path, best: tuple[str, str]) -> list[Callback]:
    """What every run has: the best and the last checkpoint, figures, the files of predictions, and what it says.

    Checkpoints have one place a run, whatever the loggers' version, so that ``--ckpt_path last`` finds them again.
    """
    where = {"dirpath": str(folder / "checkpoints"), "enable_version_counter": False}
    metric, mode = best
    report = RunReport(metric, mode)
    best = BestCheckpoint(filename="best", monitor=f"val/{metric}", mode=mode, save_on_train_epoch_end=False, **where)
    last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **where)
    return [best, last, RunFigures(), ValidationFile(), PredictionFiles(), report, PointTable()]


def run_loggers(folder: Path) -> list:
    """CSV and TensorBoard side by side in one version folder."""
    tensorboard = TensorBoardLogger(folder, name="")
    return [tensorboard, CSVLogger(folder, name="", version=tensorboard.version)]


class NamedConfig(ActionConfigFile):
    """A config that may be one of the package's, by its name. A parser ``of_files`` leaves these out."""

    def __call__(self, parser, cfg, values, option_string=None) -> None:
        if Path(values).is_file() or not getattr(parser, "of_files", False):
            content, path = parser.choice.read(values), config_path(values)
            if "objective" in content:  # without the options of other objectives
                path = yaml.safe_dump(content)
            super().__call__(parser, cfg, path, option_string)


class TaskCLI(LightningCLI):
    """LightningCLI with the callbacks and loggers of a run in its folder, which is known once all options are.

    As defaults of the parser the loggers would be objects, which could not be written into the run's config.yaml.
    """

    def __init__(self, argv: list[str]) -> None:
        self.argv = spelled_out(argv)
        self.everything = "--help_all" in self.argv
        self.argv = ["--help" if item == "--help_all" else item for item in self.argv]
        self.choice: Choice = choose(self.argv)
        self.module, data = TASKS[self.choice.task]
        refuse_unused(self.argv, self.argv[0], self.module, data)
        self.links = True  # whether options of the model are taken from others
        trainer = {"default_root_dir": "runs", "use_distributed_sampler": False, "num_sanity_val_steps": 0,
                   "log_every_n_steps": 10}  # fmt: skip
        # An abbreviation would be an option to the parser alone, and not to those who look for it by its name.
        usage = "sampling-argmax {} [--config NAME] [--objective NAME] [--OPTION VALUE ...]"
        parsers = {name: {"allow_abbrev": False, "usage": usage.format(name)} for name in self.subcommands()}
        super().__init__(
            self.module, data, args=self.argv, seed_everything_default=0, save_config_kwargs={"overwrite": True},
            trainer_class=TaskTrainer, auto_configure_optimizers=False, trainer_defaults=trainer,
            parser_kwargs={"allow_abbrev": False, "formatter_class": Page, **parsers},
        )  # fmt: skip

    def subcommands(self) -> dict[str, set[str]]:
        """The command that runs, for the others' parsers take time, with the arguments that are no options of it."""
        return {self.argv[0]: {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}}

    def init_parser(self, **kwargs) -> LightningArgumentParser:
        parser = LightningArgumentParser(**kwargs)
        parser.choice = self.choice
        parser.add_argument(
            "-c", "--config", action=NamedConfig, help="YAML or JSON file, or a name of the package's configs"
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--task", default=self.choice.task, choices=tuple(TASKS), help="what is localized; a config names its own"
        )
        self._add_objective(parser)
        if "adversary" in signature(self.module).parameters:
            parser.add_class_arguments(Adversary, "adversary", instantiate=False, skip={"maps", "norm", "plain"})
            parser.set_defaults({"adversary.stacks": None})
        if self.links:
            self._link(parser)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if {"-h", "--help"} & {*self.argv}:  # what a page leaves out would be left out of a run's config.yaml too
            unused = unused_options(subcommand, self.module, TASKS[self.choice.task][1])
            arrange(parser, self.module, unused, self.everything)
        return parser

    def _add_objective(self, parser: LightningArgumentParser) -> None:
        name = self.choice.objective
        if name is None:
            return
        parser.add_class_arguments(OBJECTIVES[name], "objective", instantiate=False, skip=set(FROM_TRAINER))
        parser.groups["objective"].add_argument(
            "--objective.name", default=name, choices=tuple(OBJECTIVES),
            help="what is trained and how a position is read; --objective NAME --help has the options of another",
        )  # fmt: skip
        own = self.module.default_objective
        if own["name"] == name:
            parser.set_defaults({f"objective.{key}": value for key, value in own.items()})

    def _link(self, parser: LightningArgumentParser) -> None:
        """The parts are options of the model, and some of these of the data."""
        for name, own in self.module.linked.items():
            parser.link_arguments(f"model.{name}", f"data.{own}")
        for name, own in self.module.from_data.items():
            parser.link_arguments(f"data.{own}", f"model.{name}", apply_on="instantiate")
        for part, as_option in (("objective", _objective), ("adversary", _adversary)):
            if part in parser.groups:
                parser.link_arguments(part, f"model.{part}", as_option)

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parse ``args``, which are the command line itself."""
        self.config = parser.parse_args(args)

    def named(self, recipes: bool) -> dict[str, dict]:
        """What the command line and its files say, the package's configs or not, without defaults and linked options."""
        self.links = False
        parser = self._prepare_subcommand_parser(TaskTrainer, self.config.subcommand, allow_abbrev=False)
        parser.of_files = not recipes
        found = parser.parse_args(self.argv[1:], defaults=False)
        return {part: found.get(part, Namespace()).as_dict() for part in ("objective", "adversary", "model", "data")}

    @property
    def folder(self) -> Path:
        """The run's folder, from whatever source its option came."""
        return Path(self.config[self.config.subcommand].trainer.default_root_dir or ".").expanduser()

    def _parse_ckpt_path(self) -> None:
        """Take the options of a given checkpoint instead of defaults and of the package's configs, which are recipes.

        What the command line or a config file says wins. What differs, on either side, is told.
        """
        command = self.config.subcommand
        given = self.config[command].ckpt_path
        path = self.choice.checkpoint
        if path is None:
            if given is not None:
                tell(
                    f"--ckpt_path last: there is no {self.folder / 'checkpoints' / 'last.ckpt'} yet, so this run begins"
                )
            elif command != "fit" and not self.config[command].model.get("weights"):
                tell("no --ckpt_path and no --model.weights: this network has not been trained")
            return
        self.config[command].ckpt_path = str(path)
        if self.choice.saved["task"] != self.choice.task:
            raise ValueError(f"--ckpt_path: {path} is of task {self.choice.saved['task']}, not {self.choice.task}")
        saved, written, recipes = saved_options(self.choice.saved), self.named(False), self.named(True)
        if command != "fit":  # a resumed run says itself what it changes
            if "weights" in saved["model"]:
                saved["model"]["weights"] = None  # those of the checkpoint itself are loaded
            for name, (before, now) in _differences(saved, written):
                tell(f"--{name} {now!r} instead of the checkpoint's {before!r}")
        if self.choice.recipe is not None:
            recipes["objective"]["name"] = self.choice.recipe
        known = self.config[command]
        taken = {part: {name: value for name, value in options.items() if name in known[part] and name not in written[part]}
                 for part, options in saved.items() if part in known}  # fmt: skip
        for name, (before, now) in _differences(taken, recipes):
            tell(f"--{name} {before!r} of the checkpoint, not {now!r} of the package's config")
        self.config = self.parser.parse_object({command: taken}, self.config)

    def instantiate_trainer(self, **kwargs) -> lightning.Trainer:
        """The trainer, with the run's loggers unless the options name others or none."""
        callbacks = self.callbacks()
        if self._get(self.config_init, "trainer.enable_checkpointing") is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ModelCheckpoint)]
        self.trainer_defaults["callbacks"] = callbacks
        if self._get(self.config_init, "trainer.logger") is None and "logger" not in kwargs:
            kwargs["logger"] = run_loggers(self.folder)
        return super().instantiate_trainer(**kwargs)

    def callbacks(self) -> list[Callback]:
        """What the run leaves behind."""
        return run_callbacks(self.folder, self.module.best)


def _objective(options: dict) -> dict:  # jsonargparse makes a dict of what it passes here, as it says
    return options


def _adversary(options: dict) -> dict | None:
    """The options of the discriminator, None where it has no stacks."""
    return None if options["stacks"] is None else options


def saved_options(checkpoint: Mapping) -> dict[str, dict]:
    """The options of a checkpoint as the parts of the command line have them."""
    model = {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}
    data = checkpoint["datamodule_hyper_parameters"]
    parts = {"objective": model.pop("objective", {}), "adversary": model.pop("adversary", None) or {"stacks": None}}
    return {**parts, "model": model, "data": {name: data[name] for name in OF_NETWORK if name in data}}


def _differences(saved: dict[str, dict], other: dict[str, dict]) -> list[tuple[str, tuple]]:
    """The options of every part that have another value there, by their full names."""
    return [item for part, own in saved.items() for item in changed_options(own, other[part], part).items()]


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
    return run(TaskCLI, argv)


def run(command_line: type[TaskCLI], argv: list[str]) -> int:
    """Run a command of a command line; a wrong input prints one line and gives status 1."""
    try:
        check_environment()
        torch.set_float32_matmul_precision("high")
        with quiet():
            command_line(argv)
    except (ValueError, FileNotFoundError) as error:
        # A loader process sends its whole traceback as the message; its last line is the error's own.
        message = str(error).strip().splitlines()[-1] if str(error).startswith("Caught ") else str(error)
        print(f"sampling-argmax {argv[0]}: {message}", file=sys.stderr)
        return 1
    return 0
