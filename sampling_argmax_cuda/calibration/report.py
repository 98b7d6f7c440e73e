"""The report of a calibration: Markdown, a figure, and numbers as JSON has them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .calibration import Calibration
from .scores import HIGH, LEVELS, Points, scores_of, short_scores

ROWS = {"error_px": "mean error, px", "within": "share within the radius", "confidence": "mean confidence",
        "ece": "expected calibration error", "brier": "Brier score", "crps": "CRPS of the marginals, cells",
        "nll": "negative log-likelihood, nats", "pearson": "Pearson, confidence and error",
        "spearman": "Spearman, confidence and error"}  # fmt: skip
Report = dict[str, object]


def report_of(calibration: Calibration, before: Points, after: Points, fitted: int, names: Sequence[str]) -> Report:
    """The numbers of points that the calibration was not fitted on."""
    present = np.unique(after.point)
    return {
        "radius": str(calibration.radius), "temperature": calibration.temperature, "fitted_on": fitted,
        "reported_on": len(after.error), "map": {"spread": calibration.spread, "probability": calibration.probability},
        "before": scores_of(before), "after": scores_of(after),
        "points": {names[k]: short_scores(after.of(after.point == k)) for k in present},
    }  # fmt: skip


def as_json(value):
    """A report with None in place of numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table; numbers have three digits behind the point."""
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *cells]] + [""]


def _high(numbers: Mapping) -> str:
    if numbers["count"] == 0:
        return "none"
    return f"{numbers['count']} points, mean {numbers['confidence']:.3f}, {100 * numbers['within']:.1f} % within"


def markdown(report: Report, checkpoint: str) -> str:
    """The report as a page beside its figure."""
    before, after = report["before"], report["after"]
    out = [f"# Calibration of {checkpoint}", "",
           f"Radius {report['radius']}, temperature {report['temperature']:.3f}. Fitted on {report['fitted_on']} points; all "
           f"numbers below are of {report['reported_on']} points on other images. Confidence is the peak of the map before, and "
           "the probability that the error is at most the radius after.", ""]  # fmt: skip
    rows = [(text, before[name], after[name]) for name, text in ROWS.items()]
    rows += [(f"in the central {100 * level:g} % of an axis", before["coverage"][f"{level:g}"], after["coverage"][f"{level:g}"])
             for level in LEVELS]  # fmt: skip
    rows.append((f"confidence {HIGH} or more", _high(before["high"]), _high(after["high"])))
    out += _lines(("", "before", "after"), rows)
    out += ["## Reliability", "", "Ten groups of equally many points, by confidence after calibration.", ""]
    out += _lines(
        ("points", "mean confidence", "share within the radius"),
        [tuple(group.values()) for group in after["reliability"]],
    )
    columns = ("count", "error_px", "within", "confidence", "ece", "crps", "nll", "spearman")
    out += ["## By point, after", ""]
    rows = [(name, *(own[key] for key in columns), own["coverage"]["0.9"]) for name, own in report["points"].items()]
    out += _lines(("point", *columns, "in the central 90 %"), rows)
    return "\n".join([*out, "![calibration](calibration.png)", ""])


def figure_of(report: Report, before: Points, after: Points) -> Figure:
    """Reliability, coverage, PIT, error against confidence, risk and coverage, and confidence by point."""
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    panels = figure.subplots(2, 3).flat
    for axes, draw in zip(panels, (_reliability, _coverage, _pit, _errors, _risk), strict=False):
        for name, points, color in (("before", before, "tab:orange"), ("after", after, "tab:blue")):
            draw(axes, report[name], points, color, name)
        axes.legend(fontsize=7)
    _by_point(figure.axes[-1], report["points"])
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    return figure


def _diagonal(axes, x: str, y: str) -> None:
    axes.plot([0, 1], [0, 1], ":", color="gray", lw=1)
    axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1))


def _reliability(axes, numbers: Mapping, points: Points, color: str, label: str) -> None:
    groups = numbers["reliability"]
    axes.plot([g["confidence"] for g in groups], [g["within"] for g in groups], "o-", color=color, ms=3, label=label)
    _diagonal(axes, "confidence", "share within the radius")


def _coverage(axes, numbers: Mapping, points: Points, color: str, label: str) -> None:
    found = [numbers["coverage"][f"{level:g}"] for level in LEVELS]
    axes.plot(LEVELS, found, "o-", color=color, ms=3, label=label)
    _diagonal(axes, "level of central regions", "share of coordinates inside")


def _pit(axes, numbers: Mapping, points: Points, color: str, label: str) -> None:
    shares = numbers["pit"]
    axes.stairs(np.array(shares) * len(shares), np.linspace(0, 1, len(shares) + 1), color=color, label=label)
    axes.axhline(1, ls=":", color="gray", lw=1)
    axes.set(xlabel="probability below the truth (PIT)", ylabel="density")


def _errors(axes, numbers: Mapping, points: Points, color: str, label: str) -> None:
    axes.plot(points.confidence, points.error, ".", color=color, ms=2, alpha=0.3, label=label)
    axes.set(xlabel="confidence", ylabel="error, px", yscale="symlog", ylim=(0, None))


def _risk(axes, numbers: Mapping, points: Points, color: str, label: str) -> None:
    curve = numbers["risk_coverage"]
    axes.plot([c["share"] for c in curve], [c["error"] for c in curve], "o-", color=color, ms=3, label=label)
    axes.set(xlabel="share of points kept, most confident first", ylabel="their mean error, px", ylim=(0, None))


def _by_point(axes, points: Mapping[str, Mapping]) -> None:
    place = np.arange(len(points))
    for offset, name, label in ((-0.2, "confidence", "mean confidence"), (0.2, "within", "share within the radius")):
        axes.barh(place + offset, [own[name] for own in points.values()], 0.4, label=label)
    axes.set_yticks(place, list(points), fontsize=max(3, min(7, 200 // max(1, len(points)))))
    axes.invert_yaxis()
    axes.legend(fontsize=7)
