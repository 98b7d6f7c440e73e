"""``sampling-argmax study``: objectives, forms, bases and sample counts over seeds; CSV, table and plot with the spread."""

import argparse
import csv
import io
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..objectives import OBJECTIVES, LikelihoodOf
from ..trainers.figures import save_figure
from ..trainers.files import write_atomically
from . import fit

FORMS = {"paper": ["--objective.estimator=cell", "--objective.beta=1.0"],
         "released": ["--objective.estimator=axis", "--objective.beta=tau"]}  # fmt: skip
BASES = ("uniform", "triangular", "gaussian")
POINT_CLOUDS = (
    "keypointnet",
    "skeleton",
)  # tasks without a grid, which have the paper's form and the gaussian basis only
# What the paper reports (its Tables 1 and 4 to 8), by objective or basis, and the name that the number has here. In Table 5
# the MAD of soft-argmax looks like micrometres while the others are pixels; Tables 6 and 7 are averages over categories.
CLAIMS = {
    "coco": ("AP", {"soft": 0.645, "soft_vr": 0.606, "soft_dr": 0.556, "uniform": 0.682, "triangular": 0.698,
                    "gaussian": 0.683}),
    "h36m": ("mpjpe_mm", {"soft": 50.4, "soft_vr": 49.7, "soft_dr": 51.9, "uniform": 49.6, "triangular": 49.5,
                          "gaussian": 50.9}),
    "mtfl": ("abs_px", {"soft": 3.18, "soft_vr": 3.16, "soft_dr": 3.15, "uniform": 3.00, "triangular": 2.98,
                        "gaussian": 2.94}),
    "mpii": ("pckh", {}),
    "oct": ("mad_px", {"soft": 3.08, "soft_vr": 0.743, "soft_dr": 0.746, "uniform": 0.735, "triangular": 0.744,
                       "gaussian": 0.740}),
    "keypointnet": ("pck_0.05", {"soft": 0.382, "soft_vr": 0.379, "soft_dr": 0.390, "gaussian": 0.399}),
    "skeleton": ("das", {"soft": 0.591, "soft_vr": 0.623, "soft_dr": 0.506, "gaussian": 0.630}),
}  # fmt: skip


# Factors of VR and DR where they are not those of the images. Of the order of DSNT's 100 in [-1, 1] coordinates, VR's falls
# with the 4th power of the map's cells (128 in a column); the units of point clouds are no cells but lengths below 1.
REGULARIZERS = {"oct": (6e-6, 1.0), "keypointnet": (10.0, 0.1), "skeleton": (10.0, 0.1)}
# The config that makes a task small enough for two cores; the other tasks on images share one.
SYNTHETIC = {name: f"synthetic_{name}" for name in ("mpii", "oct", "keypointnet", "skeleton")}


@dataclass(frozen=True)
class Setting:
    """One cell of the grid; form, basis and num_samples are those of objective sampling and empty otherwise."""

    objective: str
    form: str = ""
    basis: str = ""
    num_samples: str = ""

    @property
    def name(self) -> str:
        return " ".join(
            x for x in (self.objective, self.form, self.basis, self.num_samples and f"S={self.num_samples}") if x
        )

    def options(self, task: str) -> list[str]:
        """The options of ``fit`` that this cell stands for."""
        out = [f"--objective={self.objective}"]
        variance, distribution = REGULARIZERS.get(task, (0.001, 1.0))
        if issubclass(OBJECTIVES[self.objective], LikelihoodOf):
            return [*out, "--objective.units=centered"]
        out += {"heatmap": ["--model.reduction=mean"], "soft_vr": [f"--objective.reg_weight={variance}"],
                "soft_dr": [f"--objective.reg_weight={distribution}"]}.get(self.objective, [])  # fmt: skip
        if self.objective != "sampling":
            return out
        out += [*FORMS[self.form], f"--objective.basis={self.basis}", f"--objective.num_samples={self.num_samples}"]
        if self.form == "released" and task != "h36m":
            factor = 0.5 if task == "oct" else 2.0
            out += [f"--objective.reweight={factor}"] if self.basis == "gaussian" else []
            out += ["--objective.clip_grad=2.0"] if task == "coco" else []
        return out


def settings_of(args: argparse.Namespace) -> list[Setting]:
    """The cells of the grid, in the order of the table."""
    out = []
    clouds = args.task in POINT_CLOUDS
    forms, bases = (
        args.forms or (["paper"] if clouds else list(FORMS)),
        args.bases or (["gaussian"] if clouds else BASES),
    )
    for name in args.objectives:
        if name == "sampling":
            out += [
                Setting(name, form, basis, str(count)) for form in forms for basis in bases for count in args.samples
            ]
        else:
            out.append(Setting(name))
    return out


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows as CSV, atomically; the columns are those of all rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def last_numbers(run: Path) -> dict[str, str]:
    """The last value of every validation metric of a run, to 6 digits."""
    files = sorted(run.glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.removeprefix("version_")))
    numbers: dict[str, str] = {}
    for row in read_rows(files[-1]):
        numbers |= {name.removeprefix("val/"): f"{float(value):.6g}" for name, value in row.items()
                    if name.startswith("val/") and value}  # fmt: skip
    return numbers


def run_cell(args: argparse.Namespace, rest: list[str], setting: Setting, seed: int) -> dict[str, str]:
    """Train one cell with one seed, from its last checkpoint if it has one; its row of the table."""
    folder = args.output / "runs" / f"{setting.name.replace(' ', '_').replace('=', '')}_seed{seed}"
    argv = ["fit", "--config", args.task, "--config", SYNTHETIC.get(args.task, "synthetic"), f"--data.root={args.output / 'data'}",
            f"--trainer.max_epochs={args.epochs}", f"--model.milestones=[{args.epochs * 3 // 4}]",
            f"--trainer.default_root_dir={folder}", f"--seed_everything={seed}", f"--model.seed={seed}",
            f"--trainer.check_val_every_n_epoch={args.epochs}", *setting.options(args.task), *rest]  # fmt: skip
    if (folder / "checkpoints" / "last.ckpt").is_file():
        argv.append("--ckpt_path=last")
    start = time.perf_counter()
    if fit.main(argv) != 0:
        raise ValueError(f"{setting.name} with seed {seed} failed")
    seconds = f"{time.perf_counter() - start:.0f}"
    return {"task": args.task, **asdict(setting), "seed": str(seed), "epochs": str(args.epochs), "seconds": seconds,
            **last_numbers(folder)}  # fmt: skip


def collect(rows: list[dict[str, str]], metric: str) -> dict[Setting, np.ndarray]:
    """The metric of every seed, by setting, in the order of the rows."""
    found = defaultdict(list)
    for row in rows:
        if row.get(metric):
            found[Setting(**{f.name: row[f.name] for f in fields(Setting)})].append(float(row[metric]))
    return {setting: np.array(values) for setting, values in found.items()}


def table(rows: list[dict[str, str]], task: str) -> str:
    """A Markdown table: mean and standard deviation over seeds of the main metrics, beside the paper's number."""
    main, claims = CLAIMS[task]
    names = [name for name in (main, "error", "pearson", "std_px", "dice") if any(row.get(name) for row in rows)]
    columns = {name: collect(rows, name) for name in names}
    head = ["setting", "seeds", *names] + ([f"{main}, paper"] if claims else [])
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for setting, values in columns[main].items():
        cells = [f"{v.mean():.3f} ± {v.std(ddof=1) if len(v) > 1 else float('nan'):.3f}" if v is not None else ""
                 for v in (columns[name].get(setting) for name in names)]  # fmt: skip
        claim = [str(claims.get(setting.basis or setting.objective, ""))] if claims else []
        lines.append(" | ".join([setting.name, str(len(values)), *cells, *claim]))
    return "".join(f"| {line} |\n" for line in lines)


def plot(rows: list[dict[str, str]], task: str) -> Figure:
    """Every seed as a point, means as bars with one standard deviation."""
    main, _ = CLAIMS[task]
    names = [name for name in (main, "error") if any(row.get(name) for row in rows)]
    settings = list(collect(rows, main))
    figure = Figure(figsize=(5 * len(names), 1.2 + 0.35 * len(settings)), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False).flat, names, strict=True):
        for place, (_, values) in enumerate(reversed(collect(rows, name).items())):
            spread = values.std(ddof=1) if len(values) > 1 else 0
            axes.errorbar(values.mean(), place, xerr=spread, fmt="s", color="tab:blue", capsize=4)
            axes.plot(values, np.full(len(values), place), ".", color="tab:orange")
        axes.set_yticks(range(len(settings)), [setting.name for setting in reversed(settings)], fontsize=7)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    return figure


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sampling-argmax study", description="Compare objectives over seeds on synthetic images. Options of `fit` "
        "(--objective.*, --model.*, --data.*, --trainer.*) may follow and hold for every run. Started again, it goes on."
    )  # fmt: skip
    parser.add_argument("--task", choices=sorted(CLAIMS), default="coco", help="what is localized")
    parser.add_argument("--output", type=Path, default=Path("study-output"), help="folder of runs, CSV, table and plot")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of weights and noise")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=["soft", "soft_vr", "soft_dr", "sampling"],
                        help="objectives to compare")  # fmt: skip
    parser.add_argument("--forms", nargs="+", choices=FORMS, help="forms of sampling (point clouds: paper)")
    parser.add_argument("--bases", nargs="+", choices=BASES, help="bases of sampling (point clouds: gaussian)")
    parser.add_argument("--samples", type=int, nargs="+", default=[30], help="numbers of samples S")
    return parser


def main(argv: list[str]) -> int:
    parser = _parser()
    args, rest = parser.parse_known_args(argv[1:])
    wrong = [item for item in rest if not item.startswith(("--objective.", "--model.", "--data.", "--trainer."))]
    if wrong:
        parser.error(f"unknown option {wrong[0]} (options of fit are written --model.name=value)")
    if args.epochs < 1 or min(args.samples) < 1:
        parser.error("--epochs and --samples must be >= 1")
    path = args.output / "study.csv"
    rows, keys = read_rows(path), ("task", "objective", "form", "basis", "num_samples", "seed", "epochs")
    done = {tuple(row[key] for key in keys) for row in rows}
    for seed in args.seeds:
        for setting in settings_of(args):
            key = (args.task, *asdict(setting).values(), str(seed), str(args.epochs))
            if key in done:
                continue
            print(f"study: {setting.name}, seed {seed}", file=sys.stderr)
            try:
                rows.append(run_cell(args, rest, setting, seed))
            except ValueError as error:
                print(f"sampling-argmax study: {error}", file=sys.stderr)
                return 1
            write_rows(path, rows)
    order = {setting: place for place, setting in enumerate(settings_of(args))}
    shown = [row for row in rows if row["task"] == args.task]
    shown.sort(key=lambda row: order.get(Setting(**{f.name: row[f.name] for f in fields(Setting)}), len(order)))
    text = table(shown, args.task)
    write_atomically(args.output / "study.md", text.encode())
    save_figure(plot(shown, args.task), args.output / "study.png")
    print(text, end="")
    return 0
