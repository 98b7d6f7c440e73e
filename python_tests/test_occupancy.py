"""The committed model of a GPU's time is of the launches as they are, and no kernel of the four operators strays from its bound."""

import csv

from bench import occupancy


def committed() -> list[dict]:
    with occupancy.RESULT.open(newline="") as file:
        return list(csv.DictReader(file))


def test_launches_are_those_of_the_table(shim):
    """`python -m bench.occupancy` makes it again, with the registers of the compiled kernels."""
    shapes = list(dict.fromkeys(row["shape"] for row in committed()))
    try:
        found = list(occupancy.launches(shim, shapes))
    finally:
        shim.settings(4, 227 * 1024, 0)
    columns = ("shape", "kernel", "grid", "threads", "shared_bytes")
    asked = [(x.shape, x.short, x.text, str(x.threads), str(x.shared)) for x in found]
    assert asked == [tuple(row[c] for c in columns) for row in committed()]


def test_expected_times_are_near_their_bounds():
    """At most 1.3 times the bound at the shapes of COCO and Human3.6M; of the kernels that put parts together no bound is known."""
    rows = [row for row in committed() if row["shape"] in ("coco", "h36m")]
    rows = [row for row in rows if not row["kernel"].startswith(("row_tops", "sample_combine", "soft_argmax_combine"))]
    assert len(rows) == 13 and all(float(row["ratio"]) <= 1.3 for row in rows)
