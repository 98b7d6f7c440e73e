"""``sampling-argmax fit | validate | predict | visualize``: LightningCLI over the shared module and a task's data."""

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

from .associative.task import PeopleData, PeoplePose
from .callbacks import BestCheckpoint, PredictionFiles, RunPictures, ValidationFile
from .coco.task import CocoData, CocoPose
from .h36m.task import BodyPose, H36mData
from .keypointnet.task import CloudKeypoints, KeypointNetData
from .mpii.task import MpiiData, PersonPose
from .mtfl.task import FaceLandmarks, MtflData
from .oct.task import OctData, RetinalSurfaces
from .skeleton.task import SkeletonMerger

TASKS = {
    "associative": (PeoplePose, PeopleData),
    "coco": (CocoPose, CocoData),
    "h36m": (BodyPose, H36mData),
    "keypointnet": (CloudKeypoints, KeypointNetData),
    "mpii": (PersonPose, MpiiData),
    "mtfl": (FaceLandmarks, MtflData),
    "oct": (RetinalSurfaces, OctData),
    "skeleton": (SkeletonMerger, KeypointNetData),
}


def run_callbacks(folder: str, best: tuple[str, str]) -> list:
    """What every run has: the best and the last checkpoint, pictures, and the files of predictions.

    Checkpoints have one place a run, whatever the loggers' version, so that ``--ckpt_path last`` finds them again.
    """
    where = {"dirpath": str(Path(folder) / "checkpoints"), "enable_version_counter": False}
    metric, mode = best
    best = BestCheckpoint(filename="best", monitor=f"val/{metric}", mode=mode, save_on_train_epoch_end=False, **where)
    last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **where)
    return [best, last, RunPictures(), ValidationFile(), PredictionFiles()]


class TaskTrainer(lightning.Trainer):
    """Lightning's trainer with one more command."""

    show_maps = False

    def visualize(
        self,
        model: lightning.LightningModule | None = None,
        datamodule: lightning.LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Predict on a folder of images and draw every map with samples and their spread.

        Args:
            model: the model to show.
            datamodule: the data whose images are shown.
            ckpt_path: checkpoint of the weights; last or best of the run, or a path.
        """
        self.show_maps = True
        self.predict(model, datamodule=datamodule, ckpt_path=ckpt_path, return_predictions=False)


class TaskCLI(LightningCLI):
    """LightningCLI with the callbacks and loggers of a run in its folder.

    The loggers are no defaults of the parser: as objects they could not be written into the run's config.yaml.
    """

    def __init__(self, folder: str, task: str, argv: list[str]) -> None:
        self.folder, self.task, self.argv = folder, task, argv
        module, data = TASKS[task]
        trainer = {"default_root_dir": folder, "callbacks": run_callbacks(folder, module.best), "use_distributed_sampler": False,
                   "num_sanity_val_steps": 0, "log_every_n_steps": 10}  # fmt: skip
        super().__init__(
            module, data, args=argv, seed_everything_default=0, save_config_kwargs={"overwrite": True},
            trainer_class=TaskTrainer, auto_configure_optimizers=False, trainer_defaults=trainer,
        )  # fmt: skip

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, each with the arguments that are no options of it."""
        return {name: {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}
                for name in ("fit", "validate", "predict", "visualize")}  # fmt: skip

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        known = tuple(TASKS)
        for name, own in TASKS[self.task][0].linked.items():
            parser.link_arguments(f"model.{name}", f"data.{own}")
        parser.add_argument(
            "--task", default=self.task, choices=known, help="what is localized; a config names its own"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parse ``args``, which are the command line itself with the configs' names resolved."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Take the options of a given checkpoint, and the size of its images; the command line itself wins over them."""
        command = self.config.subcommand
        given = [
            f"{option}={value}"
            for option, value in given_options(self.argv)
            if option.startswith(("--model.", "--data."))
        ]
        explicit = self.parser.parse_args([command, *given])
        super()._parse_ckpt_path()
        path = self.config[command].get("ckpt_path")
        if path and Path(path).is_file():
            trained = torch.load(path, map_location="cpu", weights_only=True).get("datamodule_hyper_parameters", {})
            if "image_size" in trained:
                self.config[command].data.image_size = tuple(trained["image_size"])
        for option in given:
            name = option.partition("=")[0].removeprefix("--")
            self.config[command][name] = explicit[command][name]

    def instantiate_trainer(self, **kwargs) -> lightning.Trainer:
        """The trainer, with the run's loggers unless the options name others or none."""
        if self._get(self.config_init, "trainer.logger") is None:
            kwargs["logger"] = default_loggers(self.folder)
        return super().instantiate_trainer(**kwargs)


def config_path(name: str) -> str:
    """A file as it is; a bare name stands for a config that the package brings."""
    if Path(name).is_file():
        return name
    folder = resources.files(__package__) / "configs"
    known = {item.name.removesuffix(".yaml"): item
             for place in (folder, folder / "methods") for item in place.iterdir() if item.name.endswith(".yaml")}  # fmt: skip
    if name not in known:
        names = ", ".join(sorted(known))
        raise FileNotFoundError(f"--config: no file {name}, and no config of that name (known: {names})")
    return str(known[name])


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
        elif option == "--ckpt_path" and Path(value).is_file():
            task = torch.load(value, map_location="cpu", weights_only=True).get("task", task)
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
    if argv and argv[0] == "study":
        from .study import main as study

        return study(argv[1:])
    try:
        argv = resolve_configs(argv)
        torch.set_float32_matmul_precision("high")
        TaskCLI(run_folder(argv), chosen_task(argv), argv)
    except (ValueError, FileNotFoundError) as error:
        # A loader process sends its whole traceback as the message; its last line is the error's own.
        message = str(error).strip().splitlines()[-1] if str(error).startswith("Caught ") else str(error)
        print(f"sampling-argmax {argv[0]}: {message}", file=sys.stderr)
        return 1
    return 0
