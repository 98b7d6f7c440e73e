"""A callback of a run, named on its command line, that writes down what every batch of training really was."""

import hashlib
import json
from pathlib import Path

from lightning.pytorch.callbacks import Callback


def digest(array) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def seen(batch: dict) -> list[list]:
    """Index and a digest of the pixels (or points) of every sample."""
    pixels = batch["image"] if "image" in batch else batch["points"]
    return [[int(i), digest(x)] for i, x in zip(batch["index"], pixels.cpu().numpy(), strict=True)]


class Recorder(Callback):
    """Appends a line a batch to ``batches_RANK.jsonl`` in the run's folder: epoch, step, learning rate, temperature, samples."""

    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.line = {"epoch": trainer.current_epoch, "batch": index, "step": trainer.global_step, "lr": rate}

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        line = {**self.line, "tau": getattr(module, "tau", None), "samples": seen(batch)}
        path = Path(trainer.default_root_dir) / f"batches_{trainer.global_rank}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class Stop(Callback):
    """Ends a run behind its first epoch, as a user does who goes on another day."""

    def on_train_epoch_end(self, trainer, module) -> None:
        trainer.should_stop = True


def recorded(run: Path, rank: int = 0) -> list[dict]:
    return [json.loads(line) for line in (run / f"batches_{rank}.jsonl").read_text().splitlines()]
