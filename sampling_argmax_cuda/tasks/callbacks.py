"""Pictures and files that a run leaves behind."""

from collections.abc import Iterator
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import BasePredictionWriter, Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from .files import write_json
from .pictures import curves_figure, save_figure


def output_folder(trainer: lightning.Trainer) -> Path:
    """Where the files of a run go: its log folder, or its root where nothing is logged.

    Every rank has to ask, because the log folder is a broadcast from rank 0: ranks that do not would leave it waiting.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


class RunPictures(Callback):
    """After every validation pictures/epoch_NNNN_*.png and, of the whole run, pictures/curves.png in the log folder.

    Its history is part of the checkpoints, so that a resumed run draws its curves from the first epoch on.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []

    def state_dict(self) -> dict:
        return {"history": self.history}

    def load_state_dict(self, state: dict) -> None:
        self.history = list(state["history"])

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        folder = output_folder(trainer) / "pictures"
        if trainer.is_global_zero and trainer.loggers and module.preview:
            for name, figure in module.figures():
                save_figure(figure, folder / f"epoch_{trainer.current_epoch:04d}_{name}.png")

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        names = ["train/loss_epoch", "val/error", f"val/{module.best[0]}", "lr"]
        known = {name: float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics}
        self.history.append({"epoch": trainer.current_epoch + 1, **known})
        names = [name for name in names if any(name in row for row in self.history)]
        folder = output_folder(trainer) / "pictures"
        if trainer.is_global_zero and trainer.loggers and names:
            save_figure(curves_figure(self.history, names), folder / "curves.png")


class ValidationFile(Callback):
    """validate writes results.json: every prediction, in the format that the task's evaluation reads."""

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        path = output_folder(trainer) / "results.json"
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.VALIDATING:
            write_json(path, module.evaluation.results)
            print(f"wrote {len(module.evaluation.results)} results to {path}")


def images_of(predictions: list[dict]) -> Iterator[dict]:
    """The predictions of batches, image by image; tensors keep an axis of one."""
    for batch in predictions:
        for i, name in enumerate(batch["file_name"]):
            rest = {key: value[i : i + 1] for key, value in batch.items() if isinstance(value, Tensor)}
            yield {"file_name": str(name), **rest}


class PredictionFiles(BasePredictionWriter):
    """predict writes predictions.json and an overlay an image, visualize every map with samples besides."""

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(self, trainer, module, predictions, batch_indices) -> None:
        folder, records = output_folder(trainer), []
        for item in images_of(predictions):
            records.append(module.write_prediction(item, folder / "predictions", trainer.show_maps))
        write_json(folder / "predictions.json", records)
        print(f"wrote {len(records)} predictions to {folder / 'predictions.json'}")
