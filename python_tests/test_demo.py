"""The demo, on few images: it trains three objectives, draws their maps of one point, and prints its tables."""

from functools import partial

import pytest

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.commands import demo

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write


def test_demo_compares_its_objectives(tmp_path, monkeypatch, capsys):
    few, real = dict(synthetic_train=8, synthetic_val=4, batch_size=8), demo.MtflData
    monkeypatch.setattr(demo, "MtflData", lambda **options: real(**{**options, **few}))
    monkeypatch.setattr(demo, "TQDMProgressBar", partial(demo.TQDMProgressBar, leave=False))
    measure = demo.measure_op
    monkeypatch.setattr(demo, "measure_op", lambda draw: measure(lambda logits: draw(logits[:1, :3])))
    assert main(["demo", "--epochs", "1", "--output", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    rows = [
        line.split()
        for line in text.splitlines()
        if line.startswith(("soft-argmax ", "sampling-argmax ", "energy score "))
    ]
    assert len(rows) == 3 and all(0 < float(row[-5]) < 60 and 0 < float(row[-4]) < 8 for row in rows)
    assert all(0 <= float(row[-3]) <= float(row[-2]) <= 1 for row in rows)
    assert "fused" in text and "naive eager" in text
    figures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert figures == {"hard_case.png", "training.png"}


def test_wrong_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--epochs", "0"])
    assert stop.value.code == 2 and "--epochs must be >= 1, got 0" in capsys.readouterr().err
