"""The rows of a study's CSV, their table and their plot."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student

Row = dict[str, str]

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
LOWER = ("mpjpe_mm", "abs_px", "mad_px")  # main metrics of which less is better
# The columns besides, where a task has them: errors, then what the maps are worth as laws.
SHOWN = ("error", "crop_px", "pearson", "std_px", "dice", "crps", "spread", "cover_50", "cover_90")


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file, none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def last_numbers(run: Path) -> Row:
    """The last value of every validation metric of a run, to 6 digits."""
    files = sorted(run.glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.removeprefix("version_")))
    numbers: Row = {}
    for row in read_rows(files[-1]):
        numbers |= {name.removeprefix("val/"): f"{float(value):.6g}" for name, value in row.items()
                    if name.startswith("val/") and value}  # fmt: skip
    return numbers


def label(row: Row) -> str:
    """What a row, or a setting by its fields, is a run of, but for its seed."""
    named = {"S": "num_samples", "tau": "tau", "stride": "stride", "lr": "rate", "epochs": "epochs"}
    numbers = {key: row.get(name) for key, name in named.items()}
    parts = [
        row["objective"],
        row["form"],
        row["basis"],
        row.get("cells"),
        *(f"{key}={value}" for key, value in numbers.items() if value),
    ]
    return " ".join(part for part in parts if part)


def collect(rows: list[Row], metric: str) -> dict[str, dict[str, float]]:
    """The metric by label and seed, in the order of the rows."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row.get(metric):
            found[label(row)][row["seed"]] = float(row[metric])
    return found


def mean_and_spread(values: list[float]) -> str:
    """Mean and standard deviation; of one value the value."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def difference(values: dict[str, float], other: dict[str, float]) -> str:
    """Mean of the differences to another setting with the same seeds, and half the width of its 95 % interval."""
    pairs = [values[seed] - other[seed] for seed in values if seed in other]
    if len(pairs) < 2:
        return ""
    half = student.ppf(0.975, len(pairs) - 1) * np.std(pairs, ddof=1) / np.sqrt(len(pairs))
    return f"{np.mean(pairs):+.3f} ± {half:.3f}"


def finest(row: Row, rows: list[Row]) -> str:
    """The label of what a row's setting is at the finest stride, with the same epochs and its own learning rate; "" for itself."""
    same = [name for name in row if name in ("objective", "form", "basis", "num_samples", "tau", "cells", "epochs")]
    alike = [other for other in rows if all(other.get(name) == row[name] for name in same) and other.get("stride")]
    found = min(alike, key=lambda other: int(other["stride"]), default=row)
    return "" if found.get("stride") == row.get("stride") else label(found)


def table(rows: list[Row], task: str) -> str:
    """A Markdown table: mean and standard deviation over seeds, paired differences to soft-argmax and to the finest stride, the
    paper's number."""
    main, claims = CLAIMS[task]
    names = [name for name in (main, *SHOWN) if any(row.get(name) for row in rows)]
    columns = {name: collect(rows, name) for name in names}
    plain = [row for row in rows if row["objective"] == "soft" and not row.get("cells") and row.get(main)]
    soft = {(row["epochs"], row.get("stride")): columns[main][label(row)] for row in plain}
    paired = len({row["objective"] for row in rows}) > 1 and bool(soft)
    coarse = len({row.get("stride") or "" for row in rows}) > 1
    head = ["setting", "seeds", *names] + ([f"{main} - soft's (95 %)"] if paired else [])
    head += ["crop_px - finest stride's (95 %)"] if coarse else []
    head += [f"{main}, paper"] if claims else []
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for name, row in {label(row): row for row in rows if row.get(main)}.items():
        cells = [mean_and_spread(list(columns[x][name].values())) if name in columns[x] else "" for x in names]
        if paired:
            own = soft.get((row["epochs"], row.get("stride")), {}) if row["objective"] != "soft" else {}
            cells.append(difference(columns[main][name], own))
        if coarse:
            found = columns.get("crop_px", {})
            cells.append(difference(found.get(name, {}), found.get(finest(row, rows), {})))
        if claims:
            cells.append(str(claims.get(row["basis"] or row["objective"], "")))
        lines.append(" | ".join([name, str(len(columns[main][name])), *cells]))
    return "".join(f"| {line} |\n" for line in lines)


def plot(rows: list[Row], task: str) -> Figure:
    """Every seed as a point, means as bars with one standard deviation."""
    main, _ = CLAIMS[task]
    names = [name for name in (main, "error", "crps", "cover_90") if any(row.get(name) for row in rows)]
    labels = list(collect(rows, main))
    figure = Figure(figsize=(3 + 3 * len(names), 1.2 + 0.35 * len(labels)), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False, sharey=True).flat, names, strict=True):
        found = collect(rows, name)
        for place, setting in enumerate(reversed(labels)):
            values = list(found.get(setting, {}).values())
            if values:
                spread = np.std(values, ddof=1) if len(values) > 1 else 0
                axes.errorbar(np.mean(values), place, xerr=spread, fmt="s", color="tab:blue", capsize=4)
                axes.plot(values, np.full(len(values), place), ".", color="tab:orange")
        axes.set_yticks(range(len(labels)), labels[::-1], fontsize=7)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    return figure
