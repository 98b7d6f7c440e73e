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
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)  # its own tests are slow; here it is one more provider


def one_row_needs(op: str, shape: Shape) -> int:
    return run.allocations(run.peers(op, shape)["eager"], run.inputs(shape, 1, "cpu"))[1]


@pytest.mark.written_memory
def test_measures_every_shape(tiny, tmp_path, monkeypatch, capsys):
    need = one_row_needs("sample", TINY["volume"])
    monkeypatch.setattr(run, "free_memory", lambda device: 2 * 2 * need)  # half of it: two of volume's three elements
    out = tmp_path / "cpu.csv"
    run.main(["--shapes", "grid,volume", "line", "cloud", "--rounds", "2", "--out", str(out)])
    rows = list(csv.DictReader(out.open()))
    assert tuple(rows[0]) == run.COLUMNS
    assert all(float(r["p20_ms"]) <= float(r["median_ms"]) <= float(r["p80_ms"]) for r in rows)
    assert all(int(r["bytes"]) >= int(r["peak_bytes"]) > 0 for r in rows)
    by = {(r["shape"], r["op"], r["provider"], int(r["batch"])): r for r in rows}
    naive, ours = by["volume", "sample", "eager", 2], by["volume", "sample", "ours", 2]
    assert int(naive["bytes"]) > 10 * int(ours["bytes"])
    assert need < int(naive["peak_bytes"]) < 2.1 * need
    assert ("volume", "sample", "ours", 3) in by and ("volume", "sample", "eager", 3) not in by
    results, outer = 4 * 6 * (4 * 3 + 48), 4 * 6 * 4 * 2 + 16  # the sum, its gradient, that made dense, the seed
    outer += 16  # tau and beta
    assert int(by["grid", "sample", "ours", 2]["bytes"]) == results + outer
    libraries = {(shape, provider) for shape, op, provider, _ in by if op == "soft_argmax" and provider != "ours"}
    assert libraries == {("grid", "kornia"), ("grid", "dsntnn"), ("volume", "dsntnn"), ("line", "dsntnn")}
    text = capsys.readouterr()
    assert "volume      sample          peers run on 2 of 3 batch elements" in text.err and text.out == ""
    plot.main([str(out), "--shape", "grid", "--out", str(tmp_path / "times.png")])
    assert (tmp_path / "times.png").stat().st_size > 10_000
    assert capsys.readouterr().out.count("\n| `") == 4


def test_the_figure_and_the_table_have_the_newest_times_of_one_batch(tmp_path):
    """By name: what was measured last, on the largest batch that all providers ran, and a peer that is faster below 1x."""
    rows = [("sample", "ours", 4, 50), ("sample", "ours", 2, 90), ("sample", "ours", 2, 20), ("sample", "eager", 2, 2500),
            ("sample + l1", "ours", 4, 1.234), ("expected_error", "ours", 4, 1), ("soft_argmax", "ours", 4, 2),
            ("soft_argmax", "dsntnn", 4, 1.9)]  # fmt: skip
    more = {"shape": "coco", "bytes": 2_500_000, "device": "a machine", "threads": 2}
    with (tmp_path / "cpu.csv").open("w") as file:
        writer = csv.DictWriter(file, ("op", "provider", "batch", "median_ms", *more))
        writer.writeheader()
        writer.writerows(dict(zip(("op", "provider", "batch", "median_ms"), row, strict=True)) | more for row in rows)
        writer.writerow({"op": "sample", "provider": "ours", "batch": 2, "median_ms": 1, **more, "shape": "other"})
    groups = plot.newest(tmp_path / "cpu.csv", "coco")
    assert plot.table(groups).splitlines()[2:] == [
        "| `sample` | 20.0 ms, 2.5 MB | eager PyTorch 2,500 ms (125.0x), 2.5 MB |",
        "| `expected_error` | 1.00 ms, 2.5 MB | ours: sample, then L1 1.23 ms (1.2x), 2.5 MB |",
        "| `soft_argmax` | 2.00 ms, 2.5 MB | dsntnn 1.90 ms (0.95x), 2.5 MB |",
    ]
    (axes,) = plot.draw(groups, "coco").axes
    assert [float(line.get_xdata()[0]) for line in axes.lines] == [20, 2500, 1, 1.234, 2, 1.9]
    assert "eager PyTorch  2,500 ms  125.0x" in [text.get_text() for text in axes.texts]
    assert plot.title(groups, "coco").startswith("sample: 125.0x as fast as eager PyTorch\n")
    with pytest.raises(SystemExit):
        plot.main([str(tmp_path / "cpu.csv"), "--shape", "none"])


def test_peers_that_do_not_fit_are_left_out_aloud(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "free_memory", lambda device: 2)
    run.main(["--shapes", "line", "--rounds", "1", "--out", str(tmp_path / "cpu.csv")])
    assert {row["provider"] for row in csv.DictReader((tmp_path / "cpu.csv").open())} == {"ours"}
    assert "peers run on 0 of 2 batch elements" in capsys.readouterr().err


def test_quick_leaves_the_results_alone(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    run.main(["--quick", "--shapes", "line"])
    assert not list(tmp_path.iterdir())
    run.main(["--quick", "--shapes", "line", "--out", str(tmp_path / "quick.csv")])
    assert {row["batch"] for row in csv.DictReader((tmp_path / "quick.csv").open())} == {"1"}


def test_other_columns_are_not_mixed(tmp_path):
    (tmp_path / "old.csv").write_text("date,op\n")
    with pytest.raises(SystemExit, match="other columns"):
        run.append(tmp_path / "old.csv", [])


class WrongGradient(torch.autograd.Function):
    """The identity, whose gradient is 1 % too large."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 1.01 * grad


@pytest.mark.parametrize("fault", [lambda y: y + 0.1, WrongGradient.apply], ids=["values", "gradient"])
def test_wrong_results_are_not_timed(tiny, tmp_path, monkeypatch, fault):
    right = run.soft_argmax

    def wrong(logits, backend="auto", **x):
        y = right(logits, backend=backend, **x)
        return y if backend == "reference" else fault(y)

    monkeypatch.setattr(run, "soft_argmax", wrong)
    out = tmp_path / "cpu.csv"
    with pytest.raises(SystemExit, match="soft_argmax: disagrees"):
        run.main(["--shapes", "grid", "--rounds", "1", "--out", str(out)])
    assert "soft_argmax" not in {row["op"] for row in csv.DictReader(out.open())}


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
