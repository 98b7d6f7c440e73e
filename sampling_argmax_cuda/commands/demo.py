"""``sampling-argmax demo``: train soft-argmax and sampling-argmax on synthetic images, compare, and show figures."""

import argparse
import time
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from matplotlib.figure import Figure
from torch.profiler import ProfilerActivity, profile

from ..ops import sample
from ..tasks.coco.task import CocoData, CocoPose
from ..trainers.figures import overlay_figure, save_figure
from .naive import paper_samples

OBJECTIVES = {"soft-argmax": {"name": "soft"}, "sampling-argmax": {"name": "sampling", "num_samples": 30, "tau": 1.0}}


class History(Callback):
    """Validation metrics of every epoch and the median time of a training step."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.steps: list[float] = []
        self._start = 0.0

    def on_train_batch_start(self, *_) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_) -> None:
        self.steps.append(time.perf_counter() - self._start)

    def on_validation_end(self, trainer, module) -> None:
        names = ("val/error", "val/AP", "val/pearson")
        metrics = trainer.callback_metrics  # a correlation is not always there
        self.epochs.append({name: float(metrics.get(name, float("nan"))) for name in names})


def train(options: dict, epochs: int, folder: Path) -> tuple[History, CocoPose]:
    """One run on synthetic data; both objectives see the same images, order and initial weights."""
    lightning.seed_everything(0, verbose=False)
    data = CocoData(
        root=str(folder / "data"), synthetic=True, synthetic_train=448, synthetic_val=96, image_size=(96, 128),
        batch_size=32, num_workers=0, scale=0.15, rotation=20.0,
    )  # fmt: skip
    module = CocoPose(depth=18, head_channels=64, milestones=(epochs * 3 // 4,), flip_test=False, objective=options)
    history = History()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="auto", devices=1, logger=False, enable_checkpointing=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        callbacks=[history, TQDMProgressBar(refresh_rate=1)],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return history, module


def measure_op(function) -> tuple[float, float]:
    """Median milliseconds of forward + backward, and mebibytes that it allocates, on a batch of 8 COCO maps."""
    logits = torch.randn(8, 17, 64, 48, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def run() -> None:
        torch.autograd.grad(function(logits).sum(), logits)

    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    sizes = [e.nbytes() for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    peak = current = 0
    for size in sizes:  # frees are negative
        current += size
        peak = max(peak, current)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return sorted(times)[2] * 1e3, peak / 2**20


def print_table(rows: list[tuple[str, History]], ops: dict[str, tuple[float, float]]) -> None:
    print(f"\n{'objective':<17}{'error (cells)':>14}{'AP':>8}{'calibration':>13}{'ms / step':>11}")
    for name, history in rows:
        last, step = history.epochs[-1], sorted(history.steps)[len(history.steps) // 2] * 1e3
        print(f"{name:<17}{last['val/error']:>14.3f}{last['val/AP']:>8.3f}{last['val/pearson']:>13.3f}{step:>11.1f}")
    print(f"\n{'sample, 8x17x64x48, S = 30, forward + backward':<50}{'ms':>9}{'peak MiB':>11}")
    for name, (milliseconds, memory) in ops.items():
        print(f"{name:<50}{milliseconds:>9.1f}{memory:>11.1f}")
    print("\ncalibration: Pearson correlation of a person's mean peak probability and OKS")


def plot(rows: list[tuple[str, History]], path: Path) -> None:
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, (name, label) in zip(
        figure.subplots(1, 2), (("val/error", "error (cells)"), ("val/AP", "AP")), strict=True
    ):
        for method, history in rows:
            axes.plot(range(1, len(history.epochs) + 1), [e[name] for e in history.epochs], "o-", ms=3, label=method)
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("sampling-argmax demo", description=__doc__)
    parser.add_argument("--epochs", type=int, default=13, help="epochs of each objective")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder of data, figures and plot")
    args = parser.parse_args(argv[1:])
    if args.epochs < 1:
        parser.error(f"--epochs must be >= 1, got {args.epochs}")
    warnings.filterwarnings("ignore", module="lightning")
    rows = []
    for name, options in OBJECTIVES.items():
        print(f"training {name}")
        history, module = train(options, args.epochs, args.output)
        rows.append((name, history))
        save_figure(
            overlay_figure(module.preview, module.objective, module.landmarks.bones), args.output / f"{name}.png"
        )
    plot(rows, args.output / "training.png")
    ops = {
        "fused": measure_op(lambda z: sample(z, num_samples=30, tau=1.0, seed=0)),
        "naive eager": measure_op(lambda z: paper_samples(z, 30, 1.0, "triangular")),
    }
    print_table(rows, ops)
    print(f"\nfigures: {args.output}/soft-argmax.png, sampling-argmax.png, training.png")
    return 0
