"""The demo, on few images: it trains three objectives, draws their maps of one point, and prints its tables."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from sampling_argmax_cuda import SoftArgmax
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


def test_the_picture_shows_the_law_of_the_map():
    """Of a map on one cell: draws within it, and regions that are its central 50 and 90 %, in pixels."""
    output = torch.full((1, 1, 16, 12), -100.0)
    output[0, 0, 5, 3] = 0  # x = 3, y = 5
    preview = {"image": torch.zeros(1, 3, 64, 48), "output": output, "position": torch.tensor([[[3.0, 5.0]]]),
               "target": torch.tensor([[[4.0, 5.0]]]), "weight": torch.ones(1, 1)}  # fmt: skip
    module = SimpleNamespace(preview=preview, objective=SoftArgmax())
    _, axes = demo.cases_figure({"soft-argmax": module}).axes
    draws, prediction, truth = (line.get_xydata() for line in axes.lines)
    assert len(draws) == 60 and (abs(draws - [12, 20]) <= 2).all() and draws.std(0).min() > 0.8
    assert prediction.tolist() == [[12, 20]] and truth.tolist() == [[16, 20]]
    corners = [(*box.get_xy(), box.get_width(), box.get_height()) for box in axes.patches[1::2]]
    assert corners == [pytest.approx((11, 19, 2, 2), abs=1e-4), pytest.approx((10.2, 18.2, 3.6, 3.6), abs=1e-4)]
    assert axes.get_xlabel() == "90 % region: 4 px wide"
    left, right, bottom, top = axes.images[1].get_extent()
    assert (left + 3.5 * 4, top + 5.5 * 4) == (12, 20) and (right - left, bottom - top) == (48, 64)


def test_names_of_lines_do_not_lie_on_one_another():
    axes = Figure().subplots()
    lines = {name: axes.plot([0, 1], [0, end])[0] for name, end in (("a", 1.0), ("b", 1.01), ("c", 5.0))}
    demo.name_lines(axes, lines)
    heights = sorted(text.get_position()[1] for text in axes.texts)
    assert len(heights) == 3 and min(b - a for a, b in zip(heights, heights[1:], strict=False)) >= 0.07
