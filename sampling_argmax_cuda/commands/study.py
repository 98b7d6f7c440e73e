"""``sampling-argmax study``: objectives over learning rates, lengths and seeds; CSV, table and plot with the spread."""

import argparse
import fcntl
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from statistics import median

from ..objectives import OBJECTIVES, LikelihoodOf
from ..objectives.answers import SUB_DISTRIBUTIONS
from ..trainers.figures import save_figure
from ..trainers.files import write_atomically, write_rows
from . import fit
from .study_table import CLAIMS, LOWER, Row, label, last_numbers, plot, read_rows, table

FORMS = {"paper": {"estimator": "cell", "beta": "1.0"}, "released": {"estimator": "axis", "beta": "tau"}}
BASES = ("uniform", "triangular", "gaussian")
# Configs of objectives beside the objectives themselves, and those of them that draw samples.
CONFIGS = ("energy", "fading", "crps")
SAMPLED = ("sampling", "energy", "fading")
# Tasks without a grid, which have the paper's form and the gaussian basis only.
POINT_CLOUDS = ("keypointnet", "skeleton")
# Factors of VR and DR where they are not those of the images. Of the order of DSNT's 100 in [-1, 1] coordinates, VR's falls
# with the 4th power of the map's cells (128 in a column); the units of point clouds are no cells but lengths below 1.
REGULARIZERS = {"oct": (6e-6, 1.0), "keypointnet": (10.0, 0.1), "skeleton": (10.0, 0.1)}
# The config that makes a task small enough for two cores; the other tasks on images share one.
SYNTHETIC = {name: f"synthetic_{name}" for name in ("mpii", "oct", "keypointnet", "skeleton")}


@dataclass(frozen=True)
class Setting:
    """One cell of the grid; form, basis, num_samples and tau are those of samples and empty otherwise.

    ``stride`` and ``cells``, the sub-distributions that cells learn, are the model's options, empty for its own.
    """

    objective: str
    form: str = ""
    basis: str = ""
    num_samples: str = ""
    tau: str = ""
    rate: str = ""
    stride: str = ""
    cells: str = ""

    @property
    def name(self) -> str:
        return label(asdict(self))

    def options(self, task: str) -> list[str]:
        """The options of ``fit`` that this cell stands for."""
        model = {"lr": self.rate, "stride": self.stride, "sub_distributions": self.cells}
        rate = [f"--model.{name}={value}" for name, value in model.items() if value]
        if self.objective in CONFIGS:
            return ["--config", self.objective, *self._of_samples(task), *rate]
        out = [f"--objective={self.objective}", *rate]
        if issubclass(OBJECTIVES[self.objective], LikelihoodOf):
            return [*out, "--objective.units=centered"]
        variance, distribution = REGULARIZERS.get(task, (0.001, 1.0))
        own = {"heatmap": ["--model.reduction=mean"], "soft_vr": [f"--objective.reg_weight={variance}"],
               "soft_dr": [f"--objective.reg_weight={distribution}"]}  # fmt: skip
        return [*out, *own.get(self.objective, []), *self._of_samples(task)]

    def _of_samples(self, task: str) -> list[str]:
        if self.objective not in SAMPLED:
            return []
        own = {**FORMS[self.form], "basis": self.basis, "num_samples": self.num_samples}
        if self.objective == "fading":
            own["beta"] = "tau"  # what makes it fade
        if self.tau:
            own["tau"] = self.tau
        if self.form == "released" and task != "h36m":
            own |= {"reweight": "0.5" if task == "oct" else "2.0"} if self.basis == "gaussian" else {}
            own |= {"clip_grad": "2.0"} if task == "coco" else {}
        return [f"--objective.{name}={value}" for name, value in own.items()]


def settings_of(args: argparse.Namespace) -> list[Setting]:
    """The cells of the grid without their learning rates, in the order of the table."""
    out = []
    clouds = args.task in POINT_CLOUDS
    forms = args.forms or (["paper"] if clouds else list(FORMS))
    bases = args.bases or (["gaussian"] if clouds else BASES)
    for name in args.objectives:
        taus = [""] if name == "fading" else args.taus or [""]
        if name in SAMPLED:
            out += [Setting(name, form, basis, str(count), tau)
                    for form in forms for basis in bases for count in args.samples for tau in taus]  # fmt: skip
        else:
            out.append(Setting(name))
    return [replace(own, stride=stride, cells="" if cells == "none" else cells)
            for own in out for cells in args.sub_distributions if learns(own, cells) for stride in args.strides]  # fmt: skip


def learns(own: Setting, cells: str) -> bool:
    """Whether the objective of a setting knows of these sub-distributions."""
    if cells == "none":
        return True
    if own.objective in SAMPLED:
        return own.form == "paper" and (cells == "offset" or own.basis == "gaussian")
    return cells == "offset" and own.objective in ("soft", "discrete", "crps")


@dataclass(frozen=True)
class Run:
    """A setting with its learning rate, a seed and a length; its numbers are a row of the CSV."""

    task: str
    setting: Setting
    seed: int
    epochs: int

    @property
    def key(self) -> tuple[str, ...]:
        return (self.task, *astuple(self.setting), str(self.seed), str(self.epochs))


def setting_of(row: Row) -> Setting:
    """The setting that a row is a run of; a file from before there was an option has none of it."""
    return Setting(**{f.name: row.get(f.name) or "" for f in fields(Setting)})


def key_of(row: Row) -> tuple[str, ...]:
    """The :attr:`Run.key` that a row has."""
    return (row["task"], *astuple(setting_of(row)), row["seed"], row["epochs"])


def runs_of(args: argparse.Namespace, rows: list[Row]) -> Iterator[Run]:
    """The runs of the study in order: those that choose the learning rates, then every length and seed.

    ``rows`` grows while they are run: a rate is the best one's of the runs with the tuning seed, at the length of tuning.
    """
    settings, rates = settings_of(args), args.rates
    if len(rates) > 1:
        for setting in settings:
            for rate in rates:
                yield Run(args.task, replace(setting, rate=rate), args.tuning_seed, args.tuning_epochs)
    for epochs in args.epochs:
        for seed in args.seeds:
            for setting in settings:
                yield Run(args.task, chosen(args, rows, setting), seed, epochs)


def chosen(args: argparse.Namespace, rows: list[Row], setting: Setting) -> Setting:
    """The setting at the learning rate whose run with the tuning seed was best."""
    if len(args.rates) < 2:
        return replace(setting, rate=args.rates[0] if args.rates else "")
    main, _ = CLAIMS[args.task]
    found = {key_of(row): float(row[main]) for row in rows if row.get(main)}
    candidates = [replace(setting, rate=rate) for rate in args.rates]
    sign = 1 if main in LOWER else -1
    return min(candidates, key=lambda own: sign * found[Run(args.task, own, args.tuning_seed, args.tuning_epochs).key])


def arguments_of(args: argparse.Namespace, rest: list[str], run: Run, folder: Path) -> list[str]:
    """The command line of ``fit`` that a run is."""
    real = args.root is not None
    size = [] if real else ["--config", SYNTHETIC.get(args.task, "synthetic")]
    epochs = run.epochs
    # The rate falls twice, late: a first fall at three quarters, where a run is short.
    milestones = f"[{epochs * 3 // 4},{epochs * 9 // 10}]" if epochs >= 10 else f"[{epochs * 3 // 4}]"
    own = [f"--data.root={args.root if real else args.output / 'data'}", f"--trainer.max_epochs={epochs}",
           f"--model.milestones={milestones}", f"--trainer.default_root_dir={folder}", f"--seed_everything={run.seed}",
           f"--model.seed={run.seed}", f"--trainer.check_val_every_n_epoch={epochs}"]  # fmt: skip
    again = ["--ckpt_path=last"] if (folder / "checkpoints" / "last.ckpt").is_file() else []
    return ["fit", "--config", args.task, *size, *run.setting.options(args.task), *own, *rest, *again]


def train(args: argparse.Namespace, rest: list[str], run: Run) -> Row:
    """Train a run, from its last checkpoint if it has one; its row of the table."""
    name = f"{run.setting.name.replace(' ', '_').replace('=', '')}_seed{run.seed}_epochs{run.epochs}"
    folder = args.output / "runs" / name
    start = time.perf_counter()
    if fit.main(arguments_of(args, rest, run, folder)) != 0:
        raise ValueError(f"{run.setting.name} with seed {run.seed} failed")
    seconds, numbers = f"{time.perf_counter() - start:.0f}", last_numbers(folder)
    if run.setting.stride and "error" in numbers:  # in cells, which are no unit of several strides
        numbers["crop_px"] = f"{float(numbers['error']) * int(run.setting.stride):.6g}"
    return {"task": run.task, **asdict(run.setting), "seed": str(run.seed), "epochs": str(run.epochs), "seconds": seconds,
            **numbers}  # fmt: skip


def hours_left(rows: list[Row], epochs: int) -> str:
    """How long so many epochs take at the median pace of the rows, in words."""
    paces = [float(row["seconds"]) / int(row["epochs"]) for row in rows]
    return f", about {median(paces) * epochs / 3600:.1f} hours left" if paces else ""


def train_all(args: argparse.Namespace, rest: list[str], path: Path) -> list[Row]:
    """Run what has no row yet, one after the other; every row is written when it is there."""
    rows = read_rows(path)
    done = {key_of(row) for row in rows}
    tuning = len(args.rates) * len(settings_of(args)) if len(args.rates) > 1 else 0
    total = tuning * args.tuning_epochs + sum(args.epochs) * len(args.seeds) * len(settings_of(args))
    for run in runs_of(args, rows):
        if run.key not in done:
            print(
                f"study: {run.setting.name}, seed {run.seed}, {run.epochs} epochs{hours_left(rows, total)}",
                file=sys.stderr,
            )
            rows.append(train(args, rest, run))
            done.add(run.key)
            write_rows(path, rows)
        total -= run.epochs
    return rows


def shown_rows(args: argparse.Namespace, rows: list[Row]) -> list[Row]:
    """The rows of the table in its order: those of the task and its seeds, every setting at its own learning rate."""
    order = {setting: place for place, setting in enumerate(settings_of(args))}
    own = [row for row in rows if row["task"] == args.task and int(row["seed"]) in args.seeds]

    def place(row: Row) -> tuple[int, int]:
        return order.get(replace(setting_of(row), rate=""), len(order)), int(row["epochs"])

    return sorted(own, key=place)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sampling-argmax study", description="Compare objectives over seeds on synthetic or real data. Options of `fit` "
        "(--objective.*, --model.*, --data.*, --trainer.*) may follow and hold for every run. Started again, it goes on."
    )  # fmt: skip
    parser.add_argument("--task", choices=sorted(CLAIMS), default="coco", help="what is localized")
    parser.add_argument("--root", type=Path, help="folder of the task's real files (default: synthetic data)")
    parser.add_argument("--output", type=Path, default=Path("study-output"), help="folder of runs, CSV, table and plot")
    parser.add_argument("--epochs", type=int, nargs="+", default=[20], help="lengths of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of weights and noise")
    parser.add_argument("--rates", nargs="+", default=[], help="learning rates; of several each setting has its best")
    parser.add_argument("--tuning_seed", type=int, default=100, help="seed of the runs that choose the learning rates")
    parser.add_argument(
        "--tuning_epochs", type=int, help="length of the runs that choose them (default: the first length)"
    )
    parser.add_argument("--objectives", nargs="+", choices=(*OBJECTIVES, *CONFIGS), help="objectives to compare",
                        default=["soft", "soft_vr", "soft_dr", "sampling"])  # fmt: skip
    parser.add_argument("--forms", nargs="+", choices=FORMS, help="forms of sampling (point clouds: paper)")
    parser.add_argument("--bases", nargs="+", choices=BASES, help="bases of sampling (point clouds: gaussian)")
    parser.add_argument("--samples", type=int, nargs="+", default=[30], help="numbers of samples S")
    parser.add_argument("--taus", nargs="+", help="temperatures of samples (default: the config's)")
    parser.add_argument("--strides", nargs="+", default=[""], choices=("4", "8", "16", "32"),
                        help="pixels a cell, the first of which others are compared with (default: the task's)")  # fmt: skip
    parser.add_argument("--sub_distributions", nargs="+", default=["none"], choices=("none", *SUB_DISTRIBUTIONS),
                        help="what cells learn besides, where the objective knows of it")  # fmt: skip
    return parser


def _checked(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = _parser()
    args, rest = parser.parse_known_args(argv[1:])
    wrong = [item for item in rest if not item.startswith(("--objective.", "--model.", "--data.", "--trainer."))]
    if wrong:
        parser.error(f"unknown option {wrong[0]} (options of fit are written --model.name=value)")
    args.tuning_epochs = args.epochs[0] if args.tuning_epochs is None else args.tuning_epochs
    if min(*args.epochs, args.tuning_epochs) < 1 or min(args.samples) < 1:
        parser.error("--epochs, --tuning_epochs and --samples must be >= 1")
    if args.tuning_seed in args.seeds and len(args.rates) > 1:
        parser.error(f"--tuning_seed must be none of --seeds, which are to be unseen, got {args.tuning_seed}")
    return args, rest


def main(argv: list[str]) -> int:
    args, rest = _checked(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    with (args.output / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            rows = train_all(args, rest, args.output / "study.csv")
        except BlockingIOError:
            print(f"sampling-argmax study: another study is at work in {args.output}", file=sys.stderr)
            return 1
        except ValueError as error:
            print(f"sampling-argmax study: {error}", file=sys.stderr)
            return 1
    shown = shown_rows(args, rows)
    text = table(shown, args.task)
    write_atomically(args.output / "study.md", text.encode())
    save_figure(plot(shown, args.task), args.output / "study.png")
    print(text, end="")
    return 0
