"""The benchmark on a tiny shape: columns, a refusal to time what is wrong, and the plot from the CSV alone."""

import csv

import pytest
import torch

from bench import plot, run
from bench.shapes import Shape

TINY = {"grid": Shape((2, 3, 8, 6), 4), "volume": Shape((3, 2, 4, 5, 6), 3), "line": Shape((2, 3, 16), 4),
        "cloud": Shape((2, 2, 12), 4, points=3)}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(run, "SHAPES", TINY)
    monkeypatch.setattr(torch, "compile", lambda f: f)  # its own tests are slow; here it is one more provider


@pytest.mark.written_memory
def test_measures_every_shape(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "LARGEST_TENSOR", 4 * 3 * 2 * 120 * 2)  # two of volume's three batch elements
    out = tmp_path / "cpu.csv"
    run.main(["--shapes", *TINY, "--rounds", "2", "--out", str(out)])
    rows = list(csv.DictReader(out.open()))
    assert tuple(rows[0]) == run.COLUMNS
    assert all(float(r["median_ms"]) > 0 and int(r["bytes"]) > 0 for r in rows)
    by = {(r["shape"], r["op"], r["provider"], int(r["batch"])): int(r["bytes"]) for r in rows}
    assert by["volume", "sample", "eager", 2] > 10 * by["volume", "sample", "ours", 2]
    assert ("volume", "sample", "ours", 3) in by and ("volume", "sample", "eager", 3) not in by
    results, outer = 4 * 6 * (4 * 3 + 48), 4 * 6 * 4 * 2 + 16  # the sum, its gradient, that made dense, the seed
    assert by["grid", "sample", "ours", 2] == results + outer
    assert {"kornia", "dsntnn"} <= {provider for _, op, provider, _ in by if op == "soft_argmax"}
    plot.main([str(out)])
    assert (tmp_path / "cpu.png").stat().st_size > 10_000


def test_wrong_results_are_not_timed(tiny, tmp_path, monkeypatch):
    right = run.soft_argmax
    wrong = lambda logits, backend="auto", **x: right(logits, backend=backend, **x) + 0.1 * (backend != "reference")  # noqa: E731
    monkeypatch.setattr(run, "soft_argmax", wrong)
    with pytest.raises(SystemExit, match="soft_argmax: disagrees"):
        run.main(["--shapes", "grid", "--rounds", "1", "--out", str(tmp_path / "cpu.csv")])


@pytest.mark.parametrize("shape", TINY.values(), ids=TINY)
def test_naive_peers_have_the_law_of_ours(shape):
    """Means over many samples of the paper's and the released estimator agree with the reference's."""
    x = run.inputs(shape, 1, "cpu")
    for name, call in run.operators(shape).items():
        if name not in ("sample", "axis_sample"):
            continue
        torch.manual_seed(0)
        naive = run.peers(name, shape)["eager"].func
        tau, basis = 0.8, "gaussian" if shape.points else "triangular"
        theirs = naive(num_samples=20_000, tau=tau, basis=basis, **x).mean(2)
        beta = tau if name == "axis_sample" else 1.0
        ours = call.func(num_samples=20_000, tau=tau, beta=beta, basis=basis, seed=3, **x).mean(2)
        assert (theirs - ours).abs().max() < 0.1
