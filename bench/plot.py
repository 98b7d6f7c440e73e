"""``python -m bench.plot``: bench/results/speed.png from the CSV alone."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

RESULTS = Path("bench/results")


def main() -> None:
    latest = {}
    for row in csv.DictReader((RESULTS / "cpu.csv").open()):
        latest[row["shape"], row["op"], row["provider"]] = row
    groups = sorted({(shape, op) for shape, op, _ in latest})
    figure = Figure(figsize=(9, 0.5 * len(latest) ** 0.9 + 1.5), layout="constrained")
    axes, names, colors = figure.subplots(), [], {"ours": "tab:blue"}
    for shape, op in groups:
        for (s, o, provider), row in latest.items():
            if (s, o) == (shape, op):
                axes.barh(len(names), float(row["median_ms"]), color=colors.get(provider, "tab:gray"))
                names.append(f"{shape} {op}: {provider}")
    axes.set(xscale="log", xlabel="ms, forward + backward (median)", yticks=range(len(names)), yticklabels=names)
    axes.invert_yaxis()
    figure.savefig(RESULTS / "speed.png", dpi=110)


if __name__ == "__main__":
    main()
