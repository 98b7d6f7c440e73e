"""Figures and files that a run leaves behind."""

from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from .figures import curves_figure, save_figure
from .files import write_json
from .messages import tell


def output_folder(trainer: lightning.Trainer) -> Path:
    """Where the files of a run go: its log folder, or its root where nothing is logged.

    Every rank has to ask, because the log folder is a broadcast from rank 0: ranks that do not would leave it waiting.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


class BestCheckpoint(ModelCheckpoint):
    """The checkpoint of the best validation; none where a validation cannot measure what is best, which is said once."""

    told = False

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self.monitor in trainer.callback_metrics:
            super().on_validation_end(trainer, module)
        elif trainer.state.fn == TrainerFn.FITTING and not self.told:
            self.told = True
            tell(f"validation has no {self.monitor}, so there is no {self.filename}.ckpt; last.ckpt is the newest")


class RunFigures(Callback):
    """After every validation figures/epoch_NNNN_*.png and, of the whole run, figures/curves.png in the log folder.

    Its history is part of the checkpoints, so that a resumed run draws its curves from the first epoch on.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []

    def state_dict(self) -> dict:
        return {"history": self.history}

    def load_state_dict(self, state: dict) -> None:
        self.history = list(state["history"])

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        folder = output_folder(trainer) / "figures"
        if trainer.is_global_zero and trainer.loggers and module.preview:
            for name, figure in module.figures():
                save_figure(figure, folder / f"epoch_{trainer.current_epoch:04d}_{name}.png")

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        names = ["train/loss_epoch", "val/error", f"val/{module.best[0]}", "lr"]
        known = {name: float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics}
        epoch = trainer.current_epoch + 1
        # A run that was stopped within this epoch has a row of it already.
        self.history = [row for row in self.history if row["epoch"] < epoch] + [{"epoch": epoch, **known}]
        names = [name for name in names if any(name in row for row in self.history)]
        folder = output_folder(trainer) / "figures"
        if trainer.is_global_zero and trainer.loggers and names:
            save_figure(curves_figure(self.history, names), folder / "curves.png")


class ValidationFile(Callback):
    """validate writes results.json: every prediction, in the format that the task's evaluation reads."""

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        path = output_folder(trainer) / "results.json"
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.VALIDATING:
            write_json(path, module.evaluation.results)
            print(f"wrote {len(module.evaluation.results)} results to {path}")
