"""The study: its grid, what it runs, how it goes on, and the table that it writes."""

import csv
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from sampling_argmax_cuda.commands import study, study_table
from sampling_argmax_cuda.commands.study import main

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write


def grid(**more) -> list[study.Setting]:
    defaults = dict(
        task="coco",
        objectives=["soft", "sampling"],
        forms=["paper", "released"],
        bases=["uniform", "gaussian"],
        samples=[1, 30],
        taus=None,
        strides=[""],
        sub_distributions=["none"],
    )
    return study.settings_of(Namespace(**{**defaults, **more}))


def test_the_grid_is_a_product_for_sampling_only():
    cells = grid()
    assert len(cells) == len(set(cells)) == 1 + 2 * 2 * 2
    assert [cell.name for cell in cells[:3]] == ["soft", "sampling paper uniform S=1", "sampling paper uniform S=30"]


def test_point_clouds_have_one_form_and_basis():
    cells = grid(task="keypointnet", forms=None, bases=None, samples=[30])
    assert [cell.name for cell in cells] == ["soft", "sampling paper gaussian S=30"]
    assert len(grid(forms=None, bases=None, samples=[30])) == 1 + 2 * 3
    assert study.Setting("soft_vr").options("skeleton") == ["--objective=soft_vr", "--objective.reg_weight=10.0"]


def test_released_options_are_those_of_the_task():
    released = study.Setting("sampling", "released", "gaussian", "30")
    coco, mtfl, h36m = (released.options(task) for task in ("coco", "mtfl", "h36m"))
    assert {
        "--objective.reweight=2.0",
        "--objective.clip_grad=2.0",
        "--objective.estimator=axis",
        "--objective.beta=tau",
    } <= set(coco)
    assert study.Setting("energy", "paper", "uniform", "5", "0.5", "0.003").options("mtfl") == [
        "--config", "energy", "--objective.estimator=cell", "--objective.beta=1.0", "--objective.basis=uniform",
        "--objective.num_samples=5", "--objective.tau=0.5", "--model.lr=0.003",
    ]  # fmt: skip
    fading = study.Setting("fading", "paper", "triangular", "30").options("mtfl")
    assert "--objective.beta=tau" in fading and not [o for o in fading if o.startswith("--objective.tau")]
    assert study.Setting("crps").options("mtfl") == ["--config", "crps"]
    assert "--objective.reweight=2.0" in mtfl and not [o for o in (*mtfl, *h36m) if "clip_grad" in o]
    assert not [o for o in h36m if "reweight" in o]
    assert study.Setting("soft").options("coco") == ["--objective=soft"]


def test_sub_distributions_are_those_that_an_objective_knows():
    """Each at every stride; the released form, and soft-argmax with widths, are no cells of the grid."""
    cells = grid(objectives=["soft", "heatmap", "crps", "energy"], samples=[30], strides=["4", "16"],
                 sub_distributions=["none", "offset", "offset_sigma"])  # fmt: skip
    assert [(cell.name, cell.stride) for cell in cells[:4]] == [
        ("soft stride=4", "4"), ("soft stride=16", "16"), ("soft offset stride=4", "4"), ("soft offset stride=16", "16")
    ]  # fmt: skip
    learnt = {(cell.objective, cell.form, cell.basis, cell.cells) for cell in cells if cell.cells}
    assert learnt == {("soft", "", "", "offset"), ("crps", "", "", "offset"), ("energy", "paper", "uniform", "offset"),
                      ("energy", "paper", "gaussian", "offset"), ("energy", "paper", "gaussian", "offset_sigma")}  # fmt: skip
    assert len(cells) == len(set(cells)) == 2 * (1 + 1 + 1 + 4 + len(learnt))
    assert study.Setting("soft", stride="16", cells="offset", rate="0.1").options("coco") == [
        "--objective=soft", "--model.lr=0.1", "--model.stride=16", "--model.sub_distributions=offset"
    ]  # fmt: skip


def fake(monkeypatch, fail_at: int | None = None) -> list[list[str]]:
    """Runs that train nothing: AP is 0.5, 0.1 times the seed and 10 times the rate; the error 2 for soft and 1 otherwise."""
    seen: list[list[str]] = []

    def run(argv: list[str]) -> int:
        seen.append(argv)
        if fail_at is not None and len(seen) > fail_at:
            return 1
        options = dict(item.split("=", 1) for item in argv if "=" in item)
        folder = Path(options["--trainer.default_root_dir"]) / "version_0"
        folder.mkdir(parents=True)
        ap = 0.5 + 0.1 * int(options["--model.seed"]) + 10 * float(options.get("--model.lr", 0))
        error = 2 if options.get("--objective") == "soft" else 1
        (folder / "metrics.csv").write_text(f"epoch,val/AP,val/error,train/loss\n0,,,3\n1,0.1,9,\n2,{ap},{error},\n")
        return 0

    monkeypatch.setattr(study.fit, "main", run)
    return seen


ARGUMENTS = ["--objectives", "soft", "sampling", "--forms", "paper", "--bases", "triangular", "--model.depth=18"]


def test_table_of_means_and_spread(monkeypatch, tmp_path, capsys):
    seen = fake(monkeypatch)
    assert main(["study", *ARGUMENTS, "--output", str(tmp_path)]) == 0
    assert len(seen) == 6 and all("--model.depth=18" in argv and "synthetic" in argv for argv in seen)
    lines = (tmp_path / "study.md").read_text().splitlines()
    assert lines[0] == "| setting | seeds | AP | error | AP - soft's (95 %) | AP, paper |"
    spread = np.std([0.5, 0.6, 0.7], ddof=1)
    assert lines[2] == f"| soft epochs=20 | 3 | 0.600 ± {spread:.3f} | 2.000 ± 0.000 |  | 0.645 |"
    sampling = "sampling paper triangular S=30 epochs=20"
    assert lines[3] == f"| {sampling} | 3 | 0.600 ± {spread:.3f} | 1.000 ± 0.000 | +0.000 ± 0.000 | 0.698 |"
    assert capsys.readouterr().out == (tmp_path / "study.md").read_text()
    with (tmp_path / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "0", "1", "1", "2", "2"] and rows[0]["basis"] == ""
    assert (tmp_path / "study.png").stat().st_size > 5000


@pytest.mark.parametrize("tuned", [4, 2])
def test_every_setting_has_its_best_rate_of_as_many_runs(tuned, monkeypatch, tmp_path):
    """The runs that choose it have a seed of their own, are of the first or the named length and are in no mean."""
    seen = fake(monkeypatch)
    more = ["--rates", "0.001", "0.02", "0.003", "--epochs", "4", "8", "--seeds", "1", "2", "--root", "real"]
    more += ["--tuning_epochs", str(tuned)] if tuned != 4 else []
    assert main(["study", *ARGUMENTS, *more, "--output", str(tmp_path)]) == 0
    options = [dict(item.split("=", 1) for item in argv if "=" in item) for argv in seen]
    found = [tuple(o[f"--{n}"] for n in ("model.lr", "model.seed", "trainer.max_epochs")) for o in options]
    assert found[:6] == [(rate, "100", str(tuned)) for _ in range(2) for rate in ("0.001", "0.02", "0.003")]
    assert found[6:] == [("0.02", seed, length) for length in ("4", "8") for seed in ("1", "2") for _ in range(2)]
    assert all(o["--data.root"] == "real" for o in options) and not any("synthetic" in argv for argv in seen)
    lines = (tmp_path / "study.md").read_text().splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [[f"| {name} lr=0.02 epochs={length}", "2"] for name in
        ("soft", "sampling paper triangular S=30") for length in (4, 8)]  # fmt: skip


def test_a_lower_error_is_the_better_one():
    rows = [{"task": "mtfl", **{f: "" for f in ("form", "basis", "num_samples", "tau")}, "objective": "soft", "seed": "100",
             "epochs": "4", "rate": rate, "abs_px": value} for rate, value in (("1", "3"), ("2", "2"), ("3", "9"))]  # fmt: skip
    args = Namespace(task="mtfl", rates=["1", "2", "3"], tuning_seed=100, tuning_epochs=4)
    assert study.chosen(args, rows, study.Setting("soft")).rate == "2"


def test_differences_are_of_the_same_seeds():
    own, soft = {"0": 1.0, "1": 3.0, "2": 2.0}, {"0": 0.5, "1": 2.0, "3": 9.0}
    assert study_table.difference(own, soft) == "+0.750 ± 3.177"  # t of 1 degree of freedom: 12.706
    assert study_table.difference(own, {"0": 1.0}) == ""


def test_what_a_coarser_map_loses():
    """The paired difference in pixels to the same setting at the finest stride; of that one itself, and of other lengths, none."""
    common = {"form": "", "basis": "", "num_samples": "", "pckh": "0.5", "objective": "soft"}
    rows = [{**common, "seed": str(seed), "epochs": epochs, "stride": stride, "cells": cells, "crop_px": str(px + 0.1 * seed)}
            for epochs, stride, cells, px in (("8", "4", "", 2), ("8", "16", "", 3), ("8", "4", "offset", 1),
                                              ("8", "16", "offset", 1.5), ("9", "16", "", 7)) for seed in (0, 1)]  # fmt: skip
    head, _, *lines = study_table.table(rows, "mpii").splitlines()
    assert head == "| setting | seeds | pckh | crop_px | crop_px - finest stride's (95 %) |"
    assert [line.split(" | ")[-1].strip(" |") for line in lines] == ["", "+1.000 ± 0.000", "", "+0.500 ± 0.000", ""]


def test_a_task_that_the_paper_does_not_have():
    row = {"objective": "soft", "form": "", "basis": "", "num_samples": "", "seed": "0", "epochs": "9", "pckh": "0.5",
           "error": "2", "crps": "1.5"}  # fmt: skip
    assert study_table.table([row], "mpii").splitlines()[0] == "| setting | seeds | pckh | error | crps |"
    assert study_table.table([row], "mpii").splitlines()[2] == "| soft epochs=9 | 1 | 0.500 | 2.000 | 1.500 |"


def test_a_stopped_study_goes_on(monkeypatch, tmp_path, capsys):
    fake(monkeypatch, fail_at=3)
    assert main(["study", *ARGUMENTS, "--output", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "sampling paper triangular S=30 with seed 1 failed" in told and "hours left" in told
    assert len(study.read_rows(tmp_path / "study.csv")) == 3
    folder = tmp_path / "runs" / "sampling_paper_triangular_S30_seed1_epochs20" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_bytes(b"")
    seen = fake(monkeypatch)
    assert main(["study", *ARGUMENTS, "--output", str(tmp_path)]) == 0
    assert len(seen) == 3 and [("--ckpt_path=last" in argv) for argv in seen] == [True, False, False]
    assert len(study.read_rows(tmp_path / "study.csv")) == 6
    assert main(["study", *ARGUMENTS, "--output", str(tmp_path)]) == 0 and len(seen) == 3


def test_how_long_is_left():
    rows = [{"seconds": "100", "epochs": "10"}, {"seconds": "40", "epochs": "2"}, {"seconds": "30", "epochs": "2"}]
    assert study.hours_left(rows, 480) == ", about 2.0 hours left" and study.hours_left([], 3) == ""


def test_two_studies_never_share_a_folder(monkeypatch, tmp_path, capsys):
    def second(argv: list[str]) -> int:
        return main(["study", *ARGUMENTS, "--output", str(tmp_path)])

    monkeypatch.setattr(study.fit, "main", second)
    assert main(["study", *ARGUMENTS, "--output", str(tmp_path)]) == 1
    assert f"another study is at work in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, message",
    [
        (["--epochs", "0"], "--epochs, --tuning_epochs and --samples must be >= 1"),
        (["--tuning_epochs", "0"], "--epochs, --tuning_epochs and --samples must be >= 1"),
        (["--samples", "0"], "--epochs, --tuning_epochs and --samples must be >= 1"),
        (["--rates", "1", "2", "--seeds", "100"], "--tuning_seed must be none of --seeds"),
        (["--speed=3"], "unknown option --speed=3"),
        (["--bases", "square"], "invalid choice: 'square'"),
    ],
)
def test_wrong_options(more, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["study", "--output", str(tmp_path), *more])
    assert stop.value.code == 2 and message in capsys.readouterr().err
