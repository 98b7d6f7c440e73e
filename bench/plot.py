"""``python -m bench.plot``: a figure of the newest times at a shape and the same numbers as a table, from the CSV alone."""

import argparse
import csv
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

try:
    from matplotlib.figure import Figure
except ImportError:
    raise SystemExit("matplotlib is not installed: pip install matplotlib") from None

ROOT = Path(__file__).parents[1]
RESULTS, IMAGES = ROOT / "bench" / "results", ROOT / "docs" / "images"
# In the order of the figure, and what is shown beside an op of another name.
OPS = ("sample", "axis_sample", "expected_error", "soft_argmax")
SHOWN_WITH = {"sample + l1": "expected_error"}
NAMES = {"ours": "ours", "eager": "eager PyTorch", "sample + l1": "ours: sample, then L1"}
OURS, OTHERS = "#1b6ca8", "#8c8c8c"


def newest(path: Path, shape: str) -> dict[str, list[dict]]:
    """The newest row of each op's providers, ours first, on the largest batch that all of them ran."""
    rows: dict[str, dict[tuple[str, str, int], dict]] = {op: {} for op in OPS}
    with path.open() as file:
        for row in csv.DictReader(file):
            op = SHOWN_WITH.get(row["op"], row["op"])
            if row["shape"] == shape and op in rows:
                rows[op][row["op"], row["provider"], int(row["batch"])] = row
    return {op: _same_batch(list(found.values())) for op, found in rows.items() if found}


def _same_batch(rows: list[dict]) -> list[dict]:
    batches = [row["batch"] for row in rows]
    shared = max(batches, key=lambda batch: (batches.count(batch), int(batch)))
    kept = [row for row in rows if row["batch"] == shared]
    return sorted(kept, key=lambda row: (row["provider"] != "ours", row["op"] in SHOWN_WITH))


def named(row: dict) -> str:
    """What a reader calls a row's provider."""
    return NAMES.get(row["op"] if row["op"] in SHOWN_WITH else row["provider"], row["provider"])


def milliseconds(row: dict) -> str:
    """Two digits after the point below 10, one below 1,000, none from there on."""
    value = Decimal(row["median_ms"])
    digits = (value < 1000) + (value < 10)
    return f"{value.quantize(Decimal(10) ** -digits, ROUND_HALF_UP):,} ms"


def against_ours(row: dict, ours: dict) -> str:
    """How many times ours a peer's time is."""
    times = float(row["median_ms"]) / float(ours["median_ms"])
    return f"{times:.1f}x" if times >= 1 else f"{times:.2f}x"


def table(groups: dict[str, list[dict]]) -> str:
    """Each op's times and allocated bytes as Markdown, a column ours and one the others."""
    lines = ["| forward + backward | ours | others |", "|---|---|---|"]
    for op, (ours, *others) in groups.items():
        said = [f"{named(row)} {milliseconds(row)} ({against_ours(row, ours)}), {_megabytes(row)}" for row in others]
        lines.append(f"| `{op}` | {milliseconds(ours)}, {_megabytes(ours)} | {'; '.join(said)} |")
    return "\n".join(lines)


def _megabytes(row: dict) -> str:
    value = int(row["bytes"]) / 1e6
    return f"{value:,.0f} MB" if value >= 100 else f"{value:.1f} MB"


def draw(groups: dict[str, list[dict]], shape: str) -> Figure:
    """Times as dots on one logarithmic axis, each with its name and number beside it."""
    count = sum(len(rows) + 1 for rows in groups.values())
    figure = Figure(figsize=(8, 0.27 * count + 1), layout="constrained")
    axes, y = figure.subplots(), 0
    for op, (ours, *others) in groups.items():
        axes.annotate(op, (0, y), (-8, 0), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
                      va="center", family="monospace", weight="bold")  # fmt: skip
        for row in (ours, *others):
            _dot(axes, y, row, ours)
            y += 1
        y += 1
    axes.set(xscale="log", xlabel="milliseconds, forward + backward (less is better)", yticks=[], ylim=(y - 1.3, -0.7))
    times = [float(row["median_ms"]) for rows in groups.values() for row in rows]
    axes.set_xlim(min(times) / 1.5, max(times) * 30)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_title(title(groups, shape), loc="left", fontsize=10)
    return figure


def title(groups: dict[str, list[dict]], shape: str) -> str:
    """What was timed, and how far ahead of each peer the first op is."""
    op, (ours, *others) = next(iter(groups.items()))
    ahead = " and ".join(f"{against_ours(row, ours)} as fast as {named(row)}" for row in others)
    said = f"{op}: {ahead}\n" if others else ""
    return f"{said}shape {shape}, batch {ours['batch']}; {ours['device']}, {ours['threads']} threads"


def _dot(axes, y: int, row: dict, ours: dict) -> None:
    mine = named(row).startswith("ours")
    color, times = OURS if mine else OTHERS, "" if row is ours else f"  {against_ours(row, ours)}"
    axes.plot(float(row["median_ms"]), y, "o", ms=8 if mine else 7, color=color)
    axes.annotate(f"{named(row)}  {milliseconds(row)}{times}", (float(row["median_ms"]), y), (9, 0), va="center",
                  textcoords="offset points", color=color if mine else "black", fontsize=9)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path, nargs="?", default=RESULTS / "cpu.csv", help="measurements")
    parser.add_argument("--shape", default="coco", help="of which shape")
    parser.add_argument("--out", type=Path, help="the figure (docs/images, under the CSV's name)")
    given = parser.parse_args(arguments)
    groups = newest(given.csv, given.shape)
    if not groups:
        parser.error(f"{given.csv} has no rows of shape {given.shape}")
    draw(groups, given.shape).savefig(given.out or IMAGES / f"{given.csv.stem}.png", dpi=100)
    print(table(groups))


if __name__ == "__main__":
    main()
