"""``python -m bench.plot``: time and bytes of the newest measurement of every line, from the CSV alone."""

import argparse
import csv
from pathlib import Path

try:
    from matplotlib.figure import Figure
except ImportError:
    raise SystemExit("matplotlib is not installed: pip install matplotlib") from None

RESULTS = Path(__file__).parent / "results"
COLORS = {"ours": "tab:blue", "ours, triton": "tab:cyan"}


def newest(path: Path) -> list[dict]:
    """One row per shape, op, provider and batch, in the order of the file."""
    latest = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            latest[row["shape"], row["op"], row["batch"], row["provider"]] = row
    return sorted(latest.values(), key=lambda row: (row["shape"], row["op"], -int(row["batch"])))


def draw(rows: list[dict], out: Path) -> None:
    figure = Figure(figsize=(13, 0.24 * len(rows) + 1.2), layout="constrained")
    names = [f"{r['shape']} (batch {r['batch']}) {r['op']}: {r['provider']}" for r in rows]
    panels = figure.subplots(1, 2, sharey=True)
    labels = ("ms, forward + backward (median)", "bytes allocated, forward + backward")
    for axes, column, label in zip(panels, ("median_ms", "bytes"), labels, strict=True):
        axes.barh(range(len(rows)), [float(r[column]) for r in rows],
                  color=[COLORS.get(r["provider"], "tab:gray") for r in rows])  # fmt: skip
        axes.set(xscale="log", xlabel=label, yticks=range(len(rows)), yticklabels=names)
        axes.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    panels[0].set_title(rows[0]["device"], loc="left")
    figure.savefig(out, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path, nargs="?", default=RESULTS / "cpu.csv", help="measurements")
    path = parser.parse_args(arguments).csv
    draw(newest(path), path.with_suffix(".png"))


if __name__ == "__main__":
    main()
