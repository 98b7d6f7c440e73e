"""What a run says: a line an epoch, a table, where its files are, one warning of what looks wrong, and no tips of others."""

import csv
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import runs
import torch
from lightning.pytorch.trainer.states import TrainerFn
from test_keypoint_files import of_all, write

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.trainers import report
from sampling_argmax_cuda.trainers.report import PointTable, RunReport, table_lines

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

options = partial(runs.options, config="keypoints")


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> tuple[Path, str, str]:
    """The folder of a first run with the progress bar off, and what it wrote to the terminal."""
    import contextlib
    import io

    folder, out, err = tmp_path_factory.mktemp("first"), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["fit", *options(folder / "data", folder / "run", "--trainer.max_epochs=2")]) == 0
    return folder, out.getvalue(), err.getvalue()


def test_a_line_an_epoch(said):
    """Loss, score, the best so far and seconds, as the log has them."""
    folder, out, _ = said
    with (folder / "run" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["val/nme"]) for row in rows if row["val/nme"]]
    losses = [float(row["train/loss_epoch"]) for row in rows if row["train/loss_epoch"]]
    lines = re.findall(r"^epoch (\d)/2:  loss (\S+)  val/nme (\S+) \(best (\S+) of epoch (\d)\)  [\d.]+ s$", out, re.M)
    best = min(range(2), key=lambda i: scores[i])
    assert [line[0] for line in lines] == ["1", "2"] and len(scores) == 2
    for line, loss, score in zip(lines, losses, scores, strict=True):
        assert [float(x) for x in line[1:3]] == pytest.approx([loss, score], rel=1e-3)
    assert float(lines[1][3]) == pytest.approx(scores[best], rel=1e-3) and int(lines[1][4]) == best + 1


def test_a_table_and_where_the_files_are(said):
    folder, out, _ = said
    assert re.search(r"^score +epoch 2 \(last\) +epoch \d \(best\)$", out, re.M) and re.search(
        r"^val/mean_px +\S+ +\S+$", out, re.M
    )
    assert f"numbers and figures in {folder}/run/version_0; checkpoints in {folder}/run/checkpoints" in out
    assert re.search(r"^point +labelled +mean_px", out, re.M) and re.search(r"^jaw_left +6 ", out, re.M)
    assert (folder / "run" / "version_0" / "points.csv").is_file()
    assert (folder / "run" / "version_0" / "figures" / "points.png").is_file()


def test_what_is_trained_is_said_before(said):
    _, out, _ = said
    before = out.partition("epoch 1/2")[0]
    for line in ("4 points: handle, joint, jaw_left, jaw_right", "mirrored pairs: jaw_left | jaw_right", "train.json: 24 of tool",
                 "val.json: 6 of tool", "the mean shape of the training boxes is off by"):  # fmt: skip
        assert line in before


def test_no_tips_of_others(said):
    """Neither Lightning's own lines nor warnings that no option answers."""
    _, out, err = said
    for noise in ("Tip", "GPU available", "Seed set", "LeafSpec", "logging interval", "Experiment logs", "stopped"):
        assert noise not in out + err, noise
    assert not err.strip()


def test_few_images_are_told(said):
    """24 are few: one warning, that says what to do."""
    _, out, _ = said
    assert out.count("warning: ") == 1 and "warning: 24 training samples are few; annotate more, or start from" in out


def test_no_validation_is_told(tmp_path, capfd):
    write(tmp_path)
    more = [
        "--data.synthetic=false",
        "--data.batch_size=1",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1",
    ]
    assert main(["fit", *options(tmp_path, tmp_path / "run", *more)]) == 0
    out = capfd.readouterr().out
    assert (
        out.count(
            "warning: there is no validation data, so there are no scores and no best.ckpt; name some (--data.val_file)"
        )
        == 1
    )
    assert (
        re.search(r"^epoch 1/1:  loss \S+  [\d.]+ s$", out, re.M)
        and (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    )
    given = [
        f"--ckpt_path={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}",
        f"--data.root={tmp_path}",
        "--trainer.accelerator=cpu",
    ]
    assert main(["validate", *given, f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 1
    assert "validate: there is no validation data; --data.val_file names it" in capfd.readouterr().err


def test_points_that_never_count_are_told(tmp_path, capfd):
    """Boxes that hold none of the points, as of another image: training would learn nothing without a word."""
    write(tmp_path, change=of_all("bbox", [60, 50, 4, 4]))
    more = [
        "--data.synthetic=false",
        "--data.batch_size=1",
        "--trainer.max_epochs=2",
        "--data.margin=1",
        "--data.val_fraction=0.4",
    ]
    assert main(["fit", *options(tmp_path, tmp_path / "run", *more)]) == 0
    assert capfd.readouterr().out.count("warning: no point of this epoch counted: each is unlabelled") == 1


def trainer_at(epoch: int, **numbers: float) -> SimpleNamespace:
    metrics = {"train/loss_epoch": torch.tensor(1.0), **{f"val/{name}": torch.tensor(x) for name, x in numbers.items()}}
    return SimpleNamespace(
        current_epoch=epoch, max_epochs=99, callback_metrics=metrics, state=SimpleNamespace(fn=TrainerFn.FITTING)
    )


@pytest.mark.parametrize("mode, worse", [("min", 0.6), ("max", 0.4)])
def test_a_score_that_stands_still_is_told_once(mode, worse, capsys):
    """And still once where the run was resumed in between."""
    callback = RunReport("nme", mode)
    callback.began = callback.first = 0
    for epoch in range(3 * report.STILL):
        trainer = trainer_at(epoch, nme=0.5 if epoch == 1 else worse)
        callback.on_validation_end(trainer, None)
        callback.on_train_epoch_end(trainer, None)
        if epoch in (report.STILL // 2, report.STILL + 4):
            state, callback = callback.state_dict(), RunReport("nme", mode)
            callback.load_state_dict(state)
            callback.began = callback.first = 0
    lines = capsys.readouterr().out.splitlines()
    (place,) = (i for i, line in enumerate(lines) if line.startswith("warning: "))
    assert lines[place].startswith("warning: val/nme has not been better for 10 validations")
    assert lines[place - 1].startswith(f"epoch {report.STILL + 2}/99") and "(best 0.5 of epoch 2)" in lines[place - 1]


def test_table_lines():
    rows = [{"name": "a", "x": 1.0, "y": 12}, {"name": "long", "x": 0.123456}]
    assert table_lines(rows) == ["name       x   y", "a          1  12", "long  0.1235"]


def test_an_evaluation_without_a_table_writes_none(tmp_path):
    module = SimpleNamespace(evaluation=SimpleNamespace())
    trainer = SimpleNamespace(
        log_dir=str(tmp_path), is_global_zero=True, loggers=[1], state=SimpleNamespace(fn=TrainerFn.VALIDATING)
    )
    PointTable().on_validation_end(trainer, module)
    assert not list(tmp_path.iterdir())
