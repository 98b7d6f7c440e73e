"""Targets in pixels where cells are meant are noticed once, in an op and in an objective, and nothing else is."""

import warnings

import pytest
import torch

from sampling_argmax_cuda import SamplingArgmax, expected_error, notices
from sampling_argmax_cuda.notices import notice_far_target
from sampling_argmax_cuda.objectives import SoftArgmax
from sampling_argmax_cuda.objectives.targets import Target

LOGITS = torch.randn(2, 3, 16, 12, generator=torch.Generator().manual_seed(0))
CELLS = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([11.0, 15.0])
PIXELS = CELLS * 4 + 20


def by_op(target, weight=None):
    return expected_error(LOGITS, target, weight, num_samples=2, tau=1.0, seed=0)


def by_objective(target, weight=None):
    return SoftArgmax().loss(LOGITS, target, weight)


def by_module(target, weight=None):
    return SamplingArgmax(num_samples=2).loss(LOGITS, target, weight, seed=0)


USES = pytest.mark.parametrize("use", [by_op, by_objective, by_module])


@pytest.fixture(autouse=True)
def first_call(monkeypatch):
    """Every test is a process of its own to what looks once."""
    monkeypatch.setattr(notices, "_looked", set())


def warned(use, *arguments) -> list[str]:
    notices._looked.clear()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for _ in range(3):
            use(*arguments)
    return [str(w.message) for w in found if "outside its map" in str(w.message)]


@USES
def test_pixels_for_cells_are_noticed_once(use):
    found = warned(use, PIXELS)
    assert len(found) == 1 and "divide by the stride" in found[0]


@USES
def test_later_calls_are_not_looked_at(use):
    """They would pay for it each time."""
    use(CELLS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        use(PIXELS)


@USES
def test_what_does_not_count_is_not_noticed(use):
    """Targets in the map, or beyond it by less than its length; rows of weight 0; what is not finite."""
    assert not warned(use, CELLS)
    assert not warned(use, CELLS + torch.tensor([11.0, 15.0]))
    assert not warned(use, CELLS - torch.tensor([11.0, 15.0]))
    masked, weight = CELLS.clone(), torch.ones(2, 3)
    masked[0, 1], masked[1, 2], weight[0, 1], weight[1, 2] = 500.0, torch.nan, 0.0, 0.0
    assert not warned(use, masked, weight)
    weight[0, 1] = 1.0
    assert warned(use, masked, weight)


def test_coordinates_that_are_not_known_are_not_noticed():
    target, axes = CELLS.clone(), torch.ones(2, 3, 2)
    target[1, 2, 0] = 500.0
    assert warned(lambda own: SoftArgmax().loss(LOGITS, Target(target, None, (12, 16), axes=own)), axes)
    axes[1, 2, 0] = 0.0
    assert not warned(lambda own: SoftArgmax().loss(LOGITS, Target(target, None, (12, 16), axes=own)), axes)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("place", [-13.0, 33.0])
def test_either_axis_and_side(axis, place):
    target = CELLS.clone()
    target[1, 2, axis] = place * (1 if axis == 0 else 16 / 12)
    with pytest.warns(UserWarning, match="a target is further outside its map than the map is long"):
        notice_far_target(target, None, (12, 16))


def test_transforms_and_graphs_are_not_looked_at():
    def loss(target):
        notice_far_target(target, None, (12, 16))
        return target.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.func.vmap(loss)(PIXELS[None])
        torch.func.grad(loss)(PIXELS)
        loss(PIXELS.to("meta"))
        notice_far_target(torch.empty(0, 3, 2), None, (12, 16))
