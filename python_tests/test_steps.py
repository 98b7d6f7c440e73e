"""The benchmark of training steps: both forms compute the same, and the table has what it says."""

import csv

import pytest
import torch

from bench import steps
from sampling_argmax_cuda.clouds import neighbours
from sampling_argmax_cuda.tasks.naive import sorted_neighbours


def test_both_forms_of_the_chamfer_distance_are_equal():
    forms = steps.chamfer_forms()
    torch.testing.assert_close(forms["fused"](), forms["naive"]())


@pytest.mark.parametrize("forms", [steps.keypointnet_forms, steps.skeleton_forms])
def test_forms_are_steps(forms):
    """The loss of a naive step is that of a fused one up to the samples' noise and the networks' first weights."""
    torch.manual_seed(0)
    losses = {name: form() for name, form in forms(points=256, centers=(32, 16, 8, 4), width=0.1).items()}
    assert all(loss.item() == pytest.approx(losses["naive"].item(), rel=0.3) for loss in losses.values())
    losses["fused"].backward()


def test_associative_forms_are_a_step_and_its_tags():
    forms = steps.associative_forms(size=64, stacks=2, channels=8)
    for form in forms.values():
        loss = form()
        loss.backward()
        assert loss.item() > 0


def test_published_searches_find_the_same():
    points = torch.rand(2, 200, 3, generator=torch.Generator().manual_seed(0))
    for count, radius in ((3, torch.inf), (16, 0.2)):
        found = sorted_neighbours(points, points[:, :40], count, radius=radius)
        assert torch.equal(found, neighbours(points, points[:, :40], count, radius=radius))


def test_the_table(tmp_path, monkeypatch, capsys):
    x = torch.ones(3, requires_grad=True)
    monkeypatch.setitem(steps.TASKS, "chamfer", lambda: {"fused": x.sum, "naive": lambda: (x * x).sum()})
    steps.main(["--tasks", "chamfer", "--rounds", "3", "--output", str(tmp_path / "a" / "steps.csv")])
    with (tmp_path / "a" / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["form"] for row in rows] == ["fused", "naive"] and rows[0]["rounds"] == "3"
    assert float(rows[0]["least_ms"]) <= float(rows[0]["median_ms"]) <= float(rows[0]["most_ms"])
    assert "chamfer,naive," in capsys.readouterr().out
