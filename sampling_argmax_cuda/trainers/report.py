"""What a run says: a line an epoch, a table at its end, scores by point, and what looks wrong, once each."""

import time

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from .callbacks import output_folder
from .figures import save_figure, table_figure
from .files import write_rows
from .messages import tell

FEW = 50  # training samples below which a run says so
STILL = 10  # validations without a better score after which a run says so


def shown(value: float) -> str:
    """Four digits of a number."""
    return f"{value:.4g}"


def table_lines(rows: list[dict[str, str | float]]) -> list[str]:
    """Rows with the same keys as lines of a text table, a missing number as nothing."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [
        names,
        *([shown(v) if isinstance(v := row.get(name, ""), float) else str(v) for name in names] for row in rows),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return ["  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
            for line in cells]  # fmt: skip


class RunReport(Callback):
    """Says how a training goes, with or without a progress bar.

    Args:
        metric: the main score, of the evaluation.
        mode: whether its ``min`` or ``max`` is best.
    """

    def __init__(self, metric: str, mode: str) -> None:
        self.metric, self.mode = f"val/{metric}", mode
        self.best: dict[str, float] = {}  # the numbers of the best validation, with its epoch
        self.last: dict[str, float] = {}
        self.since, self.told_still = 0, False  # validations since the best one
        self.known: Tensor | None = None  # points of the first epoch that count

    def state_dict(self) -> dict:
        return {"best": self.best, "last": self.last, "since": self.since, "told_still": self.told_still}

    def load_state_dict(self, state: dict) -> None:
        self.__dict__.update(state)

    # ---- before ----

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        data = trainer.datamodule
        self.began = time.perf_counter()
        self.first, self.known = trainer.current_epoch, None
        if data is None:
            return
        if len(data.train_data) < FEW:
            tell(f"warning: {len(data.train_data)} training samples are few; annotate more, or start from the weights of a "
                 "network that knows images (--model.weights)")  # fmt: skip
        if data.val_data is None:
            tell("warning: there is no validation data, so there are no scores and no best.ckpt; name some "
                 "(--data.val_file), or take a share of the training images (--data.val_fraction 0.1)")  # fmt: skip

    # ---- within ----

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_batch_start(self, trainer, module, batch, index) -> None:
        if trainer.current_epoch == self.first and "weight" in batch:
            count = (batch["weight"] > 0).sum()
            self.known = count if self.known is None else self.known + count

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        numbers = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
        self.last = {"epoch": trainer.current_epoch + 1, **numbers}
        new, sign = numbers.get(self.metric), 1 if self.mode == "min" else -1
        if new is not None and (not self.best or sign * new < sign * self.best[self.metric]):
            self.best, self.since = self.last, 0
        else:
            self.since += 1

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        numbers, epoch = trainer.callback_metrics, trainer.current_epoch + 1
        parts = [f"epoch {epoch}" + (f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else "") + ":"]
        parts += [f"loss {shown(float(numbers['train/loss_epoch']))}"] if "train/loss_epoch" in numbers else []
        if self.last.get("epoch") == epoch and self.metric in self.last:
            best = f"(best {shown(self.best[self.metric])} of epoch {self.best['epoch']})"
            parts.append(f"{self.metric} {shown(self.last[self.metric])} {best}")
        parts.append(f"{time.perf_counter() - self.began:.1f} s")
        tell("  ".join(parts))
        if self.known is not None and int(self.known) == 0 and trainer.current_epoch == self.first:
            tell("warning: no point of this epoch counted: each is unlabelled (visibility 0) or outside its crop; look at the "
                 "coordinates, which are pixels of the image file, and at the boxes")  # fmt: skip
        if self.since >= STILL and not self.told_still:
            self.told_still = True
            tell(f"warning: {self.metric} has not been better for {self.since} validations; look at figures/ of the run, try "
                 "another --model.lr, or stop: best.ckpt stays what it is")  # fmt: skip

    # ---- after ----

    def on_fit_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        folder = output_folder(trainer)
        names = [name for name in self.last if name.startswith("val/")]
        rows = [{"score": name, f"epoch {self.last['epoch']} (last)": self.last[name],
                 **({f"epoch {self.best['epoch']} (best)": self.best.get(name, "")} if self.best else {})}
                for name in names]  # fmt: skip
        for line in table_lines(rows) if rows else []:
            tell(line)
        files = [f"numbers and figures in {folder}"] if trainer.loggers else []
        callback = trainer.checkpoint_callback
        files += [f"checkpoints in {callback.dirpath}"] if callback is not None else []
        if files:
            tell("; ".join(files))


class PointTable(Callback):
    """Scores by point of an evaluation that has a ``table``: points.csv and figures/points.png, in the terminal at the end."""

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        folder, rows = output_folder(trainer), getattr(module.evaluation, "table", [])
        validating = trainer.state.fn == TrainerFn.VALIDATING
        if not rows or not trainer.is_global_zero or not (validating or trainer.loggers):
            return
        write_rows(folder / "points.csv", rows)
        save_figure(table_figure(rows, "point", "mean_px"), folder / "figures" / "points.png")
        if validating:
            self._print(rows)

    def on_fit_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._print(getattr(module.evaluation, "table", []))

    def _print(self, rows: list[dict]) -> None:
        for line in table_lines(rows) if rows else []:
            tell(line)
