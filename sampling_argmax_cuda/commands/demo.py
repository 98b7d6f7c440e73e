"""``sampling-argmax demo``: soft-argmax, sampling-argmax and the energy score on synthetic faces, in error and in calibration."""

import argparse
import time
import warnings
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch.profiler import ProfilerActivity, profile

from ..calibration.laws import central_region
from ..ops import sample
from ..tasks.mtfl.task import MtflData, MtflLandmarks
from ..trainers.figures import cells_extent, flat_maps, save_figure, shown_image
from .naive import paper_samples

OBJECTIVES = {
    "soft-argmax": {"name": "soft"},
    "sampling-argmax": {"name": "sampling", "num_samples": 30, "tau": 1.0},
    "energy score": {"name": "sampling", "num_samples": 30, "tau": 0.5, "spread": 0.5},
}
STRIDE, DRAWS = 4, 60  # pixels of the input a cell of the map, and draws shown of a map
BLUE = {"color": "#1b6ca8", "mec": "white", "mew": 0.4}
METRICS = ("val/abs_px", "val/crps", "val/cover_50", "val/cover_90")


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
        self.epochs.append({name: float(trainer.callback_metrics[name]) for name in METRICS})


def train(options: dict, epochs: int, folder: Path) -> tuple[History, MtflLandmarks]:
    """One run on synthetic faces; all objectives see the same images, order and initial weights."""
    lightning.seed_everything(0, verbose=False)
    data = MtflData(
        root=str(folder / "data"), synthetic=True, synthetic_train=512, synthetic_val=128, image_size=(64, 64),
        batch_size=32, num_workers=0, scale=0.2, rotation=30.0,
    )  # fmt: skip
    module = MtflLandmarks(
        depth=18, head_channels=64, milestones=(epochs * 3 // 4,), flip_test=False, objective=options
    )
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


def print_table(rows: dict[str, History], ops: dict[str, tuple[float, float]]) -> None:
    print(
        f"\n{'objective':<17}{'error (px)':>12}{'CRPS (cells)':>14}{'50 % hold':>11}{'90 % hold':>11}{'ms / step':>11}"
    )
    for name, history in rows.items():
        error, crps, half, most = (history.epochs[-1][metric] for metric in METRICS)
        step = sorted(history.steps)[len(history.steps) // 2] * 1e3
        print(f"{name:<17}{error:>12.3f}{crps:>14.3f}{half:>11.2f}{most:>11.2f}{step:>11.1f}")
    print(f"\n{'sample, 8x17x64x48, S = 30, forward + backward':<50}{'ms':>9}{'peak MiB':>11}")
    for name, (milliseconds, memory) in ops.items():
        print(f"{name:<50}{milliseconds:>9.1f}{memory:>11.1f}")
    print(
        "\n50 and 90 % hold: how often the truth lies in the central region of that probability of the map, per coordinate"
    )


def plot(rows: dict[str, History], path: Path) -> None:
    """Error and CRPS by epoch."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    labels = (("val/abs_px", "error (px)"), ("val/crps", "CRPS of the map (cells)"))
    for axes, (name, label) in zip(figure.subplots(1, 2), labels, strict=True):
        curves = {method: [epoch[name] for epoch in history.epochs] for method, history in rows.items()}
        lines = {method: axes.plot(range(1, len(y) + 1), y, "o-", ms=3)[0] for method, y in curves.items()}
        axes.set(xlabel="epoch", ylabel=label, yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        name_lines(axes, lines)
    save_figure(figure, path)


def name_lines(axes, lines: dict) -> None:
    """A name beside the end of each line, no two on one another."""
    low = -1.0
    for name, line in sorted(lines.items(), key=lambda item: item[1].get_ydata()[-1]):
        end = axes.transAxes.inverted().transform(axes.transData.transform(line.get_xydata()[-1]))[1]
        low = max(end, low + 0.07)
        axes.text(1.02, low, name, transform=axes.transAxes, va="center", color=line.get_color())


def hard_case(modules: dict[str, MtflLandmarks]) -> tuple[int, int]:
    """Image and point of the previews that all objectives together are furthest off."""
    errors = sum(
        (m.preview["position"] - m.preview["target"]).norm(dim=-1) * m.preview["weight"] for m in modules.values()
    )
    image, point = np.unravel_index(int(errors.argmax()), errors.shape)
    return int(image), int(point)


def draw_law(axes, module: MtflLandmarks, image: int, point: int) -> float:
    """A map over its image with draws and central regions of its law; the mean side of the 90 % region in pixels."""
    preview, objective = module.preview, module.objective
    output, shown = (
        preview["output"][image : image + 1, point : point + 1].float(),
        shown_image(preview["image"][image]),
    )
    law = flat_maps(output, objective)
    axes.imshow(shown.mean(-1), cmap="gray", vmin=-1.2, vmax=1.2)
    axes.imshow(np.ones_like(law[0, 0]), extent=cells_extent(shown, law[0, 0]), cmap="autumn", vmin=0, vmax=1.6,
                alpha=0.85 * law[0, 0] / law.max())  # fmt: skip
    # As good as cells of the map, drawn by their probabilities, and places within them: the law that the regions are of.
    draws = sample(output, num_samples=DRAWS, tau=0.01, beta=objective.beta, basis="uniform", seed=0)
    axes.plot(*(draws[0, 0].cpu().numpy() * STRIDE).T, "o", ms=3.6, label=f"{DRAWS} draws of the map", **BLUE)
    for level, style in ((0.5, "-"), (0.9, "--")):
        low, high = central_region(torch.from_numpy(law), level)[0, 0].numpy() * STRIDE
        axes.add_patch(Rectangle(low, *(high - low), fill=False, color="white", lw=3.6, alpha=0.8))
        axes.add_patch(Rectangle(low, *(high - low), fill=False, ls=style, lw=1.8, label=f"{100 * level:.0f} % region"))
    axes.plot(*(preview["position"][image, point].cpu().numpy() * STRIDE), "X", ms=9, mec="white", color="tab:red",
              label="prediction")  # fmt: skip
    draw_truth(axes, module, image, point)
    return float((high - low).mean())


def draw_truth(axes, module: MtflLandmarks, image: int, point: int) -> None:
    where = module.preview["target"][image, point].cpu().numpy() * STRIDE
    axes.plot(*where, "P", ms=10, mec="black", color="lime", label="truth")


def cases_figure(modules: dict[str, MtflLandmarks]) -> Figure:
    """One hard point: the image, then what each objective's map says of it."""
    image, point = hard_case(modules)
    figure = Figure(figsize=(3.2 * (len(modules) + 1), 4.3), layout="constrained")
    first, *others = figure.subplots(1, len(modules) + 1)
    module = next(iter(modules.values()))
    shown = shown_image(module.preview["image"][image])
    first.imshow(shown)
    draw_truth(first, module, image, point)
    first.set_title("image", fontsize=15, weight="bold")
    first.set_xlabel("the point they miss by most", fontsize=13)
    for axes, (name, module) in zip(others, modules.items(), strict=True):
        side = draw_law(axes, module, image, point)
        axes.set_title(name, fontsize=15, weight="bold")
        axes.set_xlabel(f"90 % region: {side:.0f} px wide", fontsize=13)
    figure.legend(
        *others[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=13, frameon=False
    )
    for axes in (first, *others):
        axes.set(xlim=(-0.5, shown.shape[1] - 0.5), ylim=(shown.shape[0] - 0.5, -0.5), xticks=[], yticks=[])
    return figure


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("sampling-argmax demo", description=__doc__)
    parser.add_argument("--epochs", type=int, default=16, help="epochs of each objective")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder of data, figures and plot")
    args = parser.parse_args(argv[1:])
    if args.epochs < 1:
        parser.error(f"--epochs must be >= 1, got {args.epochs}")
    warnings.filterwarnings("ignore", module="lightning")
    rows, modules = {}, {}
    for name, options in OBJECTIVES.items():
        print(f"training {name}")
        rows[name], modules[name] = train(options, args.epochs, args.output)
    save_figure(cases_figure(modules), args.output / "hard_case.png")
    plot(rows, args.output / "training.png")
    ops = {
        "fused": measure_op(lambda z: sample(z, num_samples=30, tau=1.0, seed=0)),
        "naive eager": measure_op(lambda z: paper_samples(z, 30, 1.0, "triangular")),
    }
    print_table(rows, ops)
    print(f"\nfigures: {args.output}/hard_case.png, training.png")
    return 0
