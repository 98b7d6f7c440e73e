"""The files that predict and visualize write, batch by batch, so that a command that was stopped goes on where it was."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from .boxes import detector
from .callbacks import output_folder
from .files import RecordFile, count_records, merge_records
from .messages import tell
from .sources import ImageFiles, Video


def inputs_of(output: dict[str, object]) -> Iterator[dict[str, object]]:
    """A batch of predictions, input by input; tensors keep an axis of one."""
    for i in range(len(output["index"])):
        yield {name: value[i : i + 1] if isinstance(value, Tensor) else value[i] for name, value in output.items()}


def _stamp(path: str | Path) -> list:
    """What changes when a file does."""
    stat = Path(path).stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def job_of(trainer: lightning.Trainer, module: lightning.LightningModule) -> str | None:
    """A digest of all that predictions depend on, None where the inputs cannot say what they are."""
    data = trainer.datamodule
    if not hasattr(data.predict_data, "identity"):
        return None
    options = {name: value for name, value in data.hparams.items() if name != "num_workers"}
    checkpoint = None if trainer.checkpoint is None else _stamp(trainer.checkpoint)
    about = [module.task, dict(module.hparams), options, checkpoint, trainer.world_size, trainer.show_maps,
             [_stamp(file) for file in data.predict_data.source.files], data.predict_data.identity()]  # fmt: skip
    return hashlib.sha256(json.dumps(about, default=str, sort_keys=True).encode()).hexdigest()[:16]


def folders_of(own: Path) -> list[Path]:
    """A run's folder and, where each command has a new one, those of earlier commands, one of which may have been stopped."""
    return [own, *(sorted(own.parent.glob("version_*")) if own.name.startswith("version_") else ())]


def answers_of(trainer: lightning.Trainer, name: str, source: ImageFiles | Video) -> Path:
    """Where a detector's answers are kept, of this file of its and these images, in the folder of the command that began."""
    code = getattr(sys.modules.get(detector(name).__module__), "__file__", None)
    about = [name, None if code is None else _stamp(code), [_stamp(file) for file in source.files]]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    paths = [folder / f".boxes-{digest}.{trainer.global_rank}" for folder in folders_of(output_folder(trainer))]
    return max(paths, key=count_records)


class PredictionFiles(Callback):
    """predict writes predictions.json and an overlay an input, visualize every map with samples besides.

    Everything is written batch by batch, so that memory does not grow with the number of inputs. Ranks write what is
    theirs, each to a file of its own in the folder that they share; the first of them joins these in the inputs' order.
    The same command goes on with the files of one that was stopped, in its folder, behind the last whole batch of every rank,
    so that batches, and with them the numbers to their last bit, are those of a run in one go.
    """

    def __init__(self) -> None:
        self.own: RecordFile | None = None

    def setup(self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        self.folder, self.job, data = output_folder(trainer), job_of(trainer, module), trainer.datamodule
        if self.job is not None:
            self.folder, data.predicted = self._left(trainer)
        if data.predicted:
            done = data.predicted * trainer.world_size
            tell(f"predict: goes on in {self.folder} after {done} of {len(data.predict_data)} inputs")
        self.own = RecordFile(self._part(self.folder, trainer.global_rank), data.predicted)

    def _part(self, folder: Path, rank: int) -> Path:
        return folder / f".predictions{'' if self.job is None else f'-{self.job}'}.{rank}"

    def _left(self, trainer: lightning.Trainer) -> tuple[Path, int]:
        """The folder where this very job was stopped, or the run's own, and the inputs of a rank that are done."""
        h, ranks, inputs = trainer.datamodule.hparams, trainer.world_size, len(trainer.datamodule.predict_data)
        counts = {folder: min(count_records(self._part(folder, rank)) for rank in range(ranks))
                  for folder in folders_of(self.folder)}  # fmt: skip
        folder = max(counts, key=counts.get)
        last = (-(-inputs // ranks) - 1) // h.batch_size  # there is always a batch to run
        done = min(counts[folder] // h.batch_size, last)
        return (folder, done * h.batch_size) if done > 0 else (self.folder, 0)

    def on_predict_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        for item in inputs_of(outputs):
            index = int(item["index"])
            if index % trainer.world_size == trainer.global_rank:  # the last batches are filled up to the same size
                self.own.write(index, module.write_prediction(item, self.folder / "predictions", trainer.show_maps))
        self.own.flush()

    def teardown(self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str) -> None:
        if self.own is None:
            return
        self.own.close()
        if trainer.datamodule.answers is not None:
            trainer.datamodule.answers.unlink(missing_ok=True)
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            parts = [self._part(self.folder, rank) for rank in range(trainer.world_size)]
            path = self.folder / "predictions.json"
            print(f"wrote {merge_records(parts, path)} predictions to {path}")
            for file in module.write_tables(path):
                print(f"wrote {file}")
            for part in parts:
                part.unlink()

    def on_exception(self, trainer, module, exception: BaseException) -> None:
        """Keep what is done, but not of inputs that are wrong."""
        wrong = isinstance(exception, ValueError | FileNotFoundError)
        if wrong and trainer.datamodule.answers is not None:
            trainer.datamodule.answers.unlink(missing_ok=True)
        if self.own is None:
            return
        if self.job is None or wrong:
            self.own.discard()
        else:
            self.own.close()
            tell(f"predict: stopped; the same command goes on in {self.folder}")
