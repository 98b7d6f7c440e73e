"""Losses and scores of every named recipe at smoke size: ``python -m bench.recipes`` compares them with the committed ones.

Every config of the package is run by the real command on data that its task generates: two epochs of three steps, one thread,
fixed seeds. ``bench/results/recipes.csv`` holds every logged number; a change that must not change results leaves all of them
as they are on the machine that wrote the file. Elsewhere other instruction sets round otherwise, and ``--rtol`` says how far
off a number may be (Adam's first steps make a rounding error as large as a step).
"""

import argparse
import contextlib
import csv
import io
import math
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from sampling_argmax_cuda.__main__ import main as command

TABLE = Path(__file__).parent / "results" / "recipes.csv"
_IMAGES = ("--data.image_size=[64,64]", "--data.synthetic_train=24", "--data.synthetic_val=6", "--data.batch_size=8")
_RESNET = (*_IMAGES, "--model.depth=18", "--model.head_channels=16", "--model.norm=group")
_STACKS = (*_IMAGES, "--model.stacks=1", "--model.channels=16", "--model.norm=group")
_CLOUDS = ("--data.points=128", "--data.synthetic_train=24", "--data.synthetic_val=6", "--data.batch_size=8",
           "--model.keypoints=10", "--model.centers=[32,16,8,4]", "--model.width=0.1", "--model.norm=group")  # fmt: skip
SMALL = {
    "associative": (*_STACKS, "--model.plain=false"),
    "coco": _RESNET,
    "h36m": (*_RESNET, "--model.volume=8", "--data.epoch_size=12"),
    "keypointnet": _CLOUDS,
    "keypoints": _RESNET,
    "mpii": _STACKS,
    "mtfl": _RESNET,
    "oct": ("--data.synthetic_train=2", "--data.synthetic_val=1", "--data.batch_size=4", "--data.rows=64",
            "--data.flip=0.5", "--model.width=4", "--model.norm=group"),
    "skeleton": (*_CLOUDS, "--data.noise=0.01"),
}  # fmt: skip
TASKS = ("associative", "associative_overfit", "coco", "coco_overfit", "coco_released", "coco_rle", "h36m",
         "h36m_challenge", "h36m_released", "h36m_rle", "keypointnet", "keypoints", "mpii", "mtfl", "mtfl_released",
         "oct", "oct_released", "skeleton")  # fmt: skip
OBJECTIVES = ("cross_entropy", "crps", "debiased", "direct", "discrete", "dsnt", "energy", "fading", "gaussian", "heatmap",
              "integral_l1", "integral_l2", "rle", "rle_released", "sampling_rle", "soft", "soft_dr", "soft_rle", "soft_vr",
              "triangular", "uniform")  # fmt: skip
RECIPES = [*((task,) for task in TASKS), *(("coco", objective) for objective in OBJECTIVES),
           ("coco_released", "gaussian_reweighted"), ("mpii", "adversarial"), ("associative", "adversarial"),
           *((task, objective) for task in ("keypointnet", "oct") for objective in ("soft", "soft_vr", "soft_dr")),
           *(("h36m", objective) for objective in ("heatmap", "cross_entropy", "soft_dr")),
           *(("mpii", objective) for objective in ("soft", "uniform", "cross_entropy"))]  # fmt: skip


def options(recipe: tuple[str, ...], folder: Path) -> list[str]:
    """The command line of a recipe."""
    task = recipe[0].partition("_")[0]
    configs = [part for name in recipe for part in ("--config", name)]
    return ["fit", *configs, f"--data.root={folder / 'data' / task}", "--data.synthetic=true", "--data.num_workers=0",
            *SMALL[task], "--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.devices=1",
            "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
            "--trainer.check_val_every_n_epoch=1", f"--trainer.default_root_dir={folder / '-'.join(recipe)}"]  # fmt: skip


def numbers_of(recipe: tuple[str, ...], folder: Path) -> dict[str, str]:
    """Every logged number of a run by its name and epoch, as Python writes it."""
    with contextlib.redirect_stdout(io.StringIO()):
        if command(options(recipe, folder)) != 0:
            raise SystemExit(f"{' + '.join(recipe)} failed")
    log = folder / "-".join(recipe) / "version_0" / "metrics.csv"
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"{name} {row['epoch']}": value for row in rows for name, value in row.items()
            if value and name not in ("epoch", "step")}  # fmt: skip


def read_table() -> dict[tuple[str, str], str]:
    with TABLE.open(newline="") as file:
        return {(row["recipe"], row["number"]): row["value"] for row in csv.DictReader(file)}


def close(a: str, b: str | None, rtol: float) -> bool:
    return a == b or (b is not None and math.isclose(float(a), float(b), rel_tol=rtol))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="write these recipes' rows of the table instead of comparing"
    )
    parser.add_argument("--rtol", type=float, default=0.0, help="largest relative difference")
    parser.add_argument("--only", default="", help="run the recipes whose names hold this text")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    known, wrong = read_table() if TABLE.exists() else {}, 0
    table = {key: value for key, value in known.items() if args.only not in key[0]}  # what is not run stays
    with tempfile.TemporaryDirectory() as folder:
        for recipe in RECIPES:
            name = " + ".join(recipe)
            if args.only not in name:
                continue
            found = numbers_of(recipe, Path(folder))
            table |= {(name, number): value for number, value in found.items()}
            off = [number for number, value in found.items() if not close(value, known.get((name, number)), args.rtol)]
            wrong += len(off)
            print(f"{name}: {len(found)} numbers, {len(off)} differ: {off[:3]}", file=sys.stderr)
    if args.write:
        names = [" + ".join(recipe) for recipe in RECIPES]
        with TABLE.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["recipe", "number", "value"])
            writer.writerows((*key, table[key]) for key in sorted(table, key=lambda key: names.index(key[0])))
        return 0
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
