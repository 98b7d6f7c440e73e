"""The figures: what is drawn where, for maps in two and three dimensions and for networks without maps."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from sampling_argmax_cuda.objectives import Direct, Heatmap, SamplingArgmax, SoftArgmax
from sampling_argmax_cuda.trainers import figures

pytestmark = pytest.mark.written_memory  # matplotlib reads memory that it did not write

BONES = ((0, 1), (1, 2))


def preview(output: torch.Tensor, axes: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    place = torch.rand(2, 3, axes, generator=rng) * 10
    return {"image": torch.zeros(2, 3, 64, 48), "output": output, "target": place, "position": place + 1,
            "weight": torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])}  # fmt: skip


@pytest.mark.parametrize(
    "method, shape, panels",
    [(SoftArgmax(), (2, 3, 16, 12), 4), (SoftArgmax(), (2, 3, 5, 16, 12), 4),
     (SamplingArgmax(), (2, 3, 5, 16, 12), 4),
     (Heatmap(2.0), (2, 3, 16, 12), 4), (Direct(), (2, 3, 2), 1)],
)  # fmt: skip
def test_overlays_of_every_kind_of_output(method, shape, panels, tmp_path):
    output = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    figure = figures.overlay_figure(preview(output, max(2, len(shape) - 2) if len(shape) > 3 else 2), method, BONES)
    assert len(figure.axes) == 2 * panels
    figures.save_figure(figure, tmp_path / "a" / "b.png")
    assert (tmp_path / "a" / "b.png").read_bytes().startswith(b"\x89PNG") and len(list((tmp_path / "a").iterdir())) == 1


def test_every_map_says_its_spread():
    output = torch.full((1, 3, 16, 12), -40.0)
    output[0, :, 8, 6] = 0
    output[0, 2, 2, 6] = 0
    position = torch.tensor([[6.0, 8], [6, 8], [6, 5]])
    names = ("nose", "left", "right")
    method = SamplingArgmax(tau=0.01)
    figure = figures.maps_figure(torch.zeros(3, 64, 48), output, method, position, names)
    titles = [axes.get_title() for axes in figure.axes[:3]]
    spread = [float(title.split("±")[1]) for title in titles]
    assert [title.split()[0] for title in titles] == list(names)
    # A peak of one cell has the triangular basis' deviation on two axes; two peaks six cells apart have 3 on one.
    assert spread[:2] == pytest.approx([np.sqrt(2 / 6)] * 2, abs=0.15) and spread[2] == pytest.approx(3, abs=0.4)
    for other in (Heatmap(2.0), SoftArgmax()):  # what has no samples has no spread of them
        figure = figures.maps_figure(torch.zeros(3, 64, 48), output, other, position, names)
        assert figure.axes[0].get_title() == "nose" and len(figure.axes[0].lines) == 1


def test_the_ellipse_is_one_deviation():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(20000, 2)) * [3, 1] @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + [5, 7]
    axes = Figure().subplots()
    figures.draw_spread(axes, draws)
    (ellipse,) = axes.patches
    assert ellipse.center == pytest.approx([5, 7], abs=0.1)
    assert sorted([ellipse.width, ellipse.height]) == pytest.approx([2, 6], rel=0.03)
    turned = ellipse.angle + (90 if ellipse.height > ellipse.width else 0)
    assert np.tan(np.radians(turned)) == pytest.approx(0.6 / 0.8, rel=0.05)


def test_flat_maps_sum_over_depth():
    output = torch.randn(2, 3, 5, 4, 6)
    maps = figures.flat_maps(output, SoftArgmax())
    expected = output.flatten(2).softmax(-1).view_as(output).sum(2)
    assert np.allclose(maps, expected) and np.allclose(maps.sum((2, 3)), 1)


def test_a_cell_is_drawn_about_its_position():
    """Cell i lies about the centre of pixel i * stride, where samples and targets of cell i are drawn."""
    heat = np.zeros((16, 12))
    heat[5, 3] = 1
    axes = Figure().subplots()
    figures.draw_map(axes, np.zeros((64, 48, 3)), heat, None)
    left, right, bottom, top = axes.images[1].get_extent()
    assert (left + 3.5 * (right - left) / 12, top + 5.5 * (bottom - top) / 16) == (12, 20)
    assert (right - left, bottom - top) == (48, 64)


def test_curves_have_a_panel_a_number():
    history = [{"epoch": 1, "a": 3.0}, {"epoch": 2, "a": 2.0, "b": 5.0}]
    figure = figures.curves_figure(history, ["a", "b"])
    lines = [axes.lines[0] for axes in figure.axes]
    assert [list(line.get_ydata()) for line in lines] == [[3, 2], [5]] and list(lines[1].get_xdata()) == [2]
