"""The modules: what they call, the temperature schedule, and its return with a checkpoint."""

import copy

import pytest
import torch

from sampling_argmax_cuda import SamplingArgmax, SoftArgmax, axis_sample, expected_error, sample, soft_argmax
from sampling_argmax_cuda.objectives.sampling import axis_sampling_loss
from sampling_argmax_cuda.objectives.schedules import ExponentialTau


def heatmaps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("grid", [(9,), (5, 6), (3, 4, 5)])
def test_training_samples_and_evaluation_decodes(grid):
    z = heatmaps(2, 3, *grid)
    module = SamplingArgmax(num_samples=4, basis="uniform", tau=0.5, beta=2.0)
    expected = sample(z, num_samples=4, basis="uniform", tau=0.5, beta=2.0, seed=7)
    assert torch.equal(module(z, seed=7), expected)
    assert module(z).shape == (2, 3, 4, len(grid))
    assert torch.equal(module.eval()(z), soft_argmax(z, beta=2.0))


def test_released_form_trains_with_beta_tau_and_decodes_with_one():
    z = heatmaps(2, 3, 5, 6)
    module = SamplingArgmax(num_samples=4, tau="coco", beta="tau", estimator="axis", clip_grad=2.0)
    module.set_epoch(10)
    assert module.tau == pytest.approx(1.4)
    expected = axis_sample(z, num_samples=4, tau=module.tau, beta=module.tau, clip_grad=2.0, seed=1)
    assert torch.equal(module(z, seed=1), expected)
    assert torch.equal(module.eval()(z), soft_argmax(z))


def test_points():
    z, points = heatmaps(2, 3, 20), heatmaps(2, 20, 3)
    module = SamplingArgmax(num_samples=4, basis="gaussian", sigma=0.1)
    expected = sample(z, num_samples=4, basis="gaussian", sigma=0.1, tau=1.0, points=points, seed=1)
    assert torch.equal(module(z, points, seed=1), expected)
    assert torch.equal(module.eval()(z, points), soft_argmax(z, points=points))
    assert torch.equal(SoftArgmax()(z, points), soft_argmax(z, points=points))


def test_loss_is_the_operator_with_the_same_settings():
    z, target, weight = heatmaps(2, 3, 5, 6), heatmaps(2, 3, 2), torch.rand(2, 3)
    cell = SamplingArgmax(num_samples=4, tau=0.5, metric="l2")
    options = {"num_samples": 4, "tau": 0.5, "seed": 5, "metric": "l2"}
    actual = cell.loss(z, target, weight, seed=5)
    assert torch.equal(actual, expected_error(z, target, weight, **options))
    axis = SamplingArgmax(num_samples=4, tau=0.5, estimator="axis", basis="gaussian", reweight=2.0, metric="l2")
    actual = axis.loss(z, target, weight, seed=5)
    expected = axis_sampling_loss(z, target, weight, basis="gaussian", reweight=2.0, **options)
    assert torch.equal(actual, expected)


def test_noise_follows_the_generator():
    z = heatmaps(2, 3, 5, 6)
    module = SamplingArgmax(num_samples=2)
    first, again = (module(z, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    torch.manual_seed(0)
    first, second = module(z), module(z)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(module(z), first)


def test_schedule_by_epoch():
    module = SamplingArgmax(tau="h36m")
    for epoch in (0, 1, 50, 300):
        module.set_epoch(epoch)
        assert module.tau == pytest.approx(max(0.5, 5 - epoch / 50))
    assert SamplingArgmax(tau=ExponentialTau(2.0, 0.1, 0.5)).tau == 2.0


def test_a_checkpoint_brings_the_temperature_back(tmp_path):
    model = torch.nn.Sequential(torch.nn.Identity(), SamplingArgmax(tau="coco"))
    model[1].set_epoch(10)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    resumed = torch.nn.Sequential(torch.nn.Identity(), SamplingArgmax(tau="coco"))
    assert resumed[1].tau == 2.0
    resumed.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert resumed[1].tau == model[1].tau == pytest.approx(1.4)
    assert int(resumed[1].epoch) == 10


def test_a_copy_is_independent_and_half_precision_keeps_the_epoch():
    module = SamplingArgmax(tau="coco")
    module.set_epoch(5)
    other = copy.deepcopy(module)
    other.set_epoch(20)
    assert (int(module.epoch), int(other.epoch)) == (5, 20)
    other.load_state_dict(module.state_dict())
    assert other.tau == module.tau == pytest.approx(1.7)
    assert module.half().epoch.dtype == torch.int64


def test_repr():
    text = repr(SamplingArgmax(num_samples=5, basis="gaussian", tau=0.5, estimator="axis", reweight=0.5))
    for part in (
        "num_samples=5",
        "basis='gaussian'",
        "tau=0.5",
        "estimator='axis'",
        "reweight=0.5",
        "sigma=1.0",
    ):
        assert part in text
    assert repr(SoftArgmax(2.0)) == "SoftArgmax(beta=2.0)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "SamplingArgmax: num_samples must be an integer >= 1, got 0"),
        ({"basis": "cubic"}, "SamplingArgmax: basis must be one of .*, got 'cubic'"),
        ({"beta": 0.0}, "SamplingArgmax: beta must be > 0, got 0.0"),
        ({"beta": "auto"}, "SamplingArgmax: beta must be a number > 0 or 'tau', got 'auto'"),
        ({"estimator": "row"}, "SamplingArgmax: estimator must be one of cell, axis, got 'row'"),
        ({"reweight": 2.0}, "SamplingArgmax: reweight and clip_grad need estimator 'axis', got 'cell'"),
        ({"clip_grad": 2.0}, "SamplingArgmax: reweight and clip_grad need estimator 'axis', got 'cell'"),
        ({"tau": 0.0}, "make_schedule: tau must be > 0, got 0.0"),
        ({"tau": lambda epoch: -1.0}, "SamplingArgmax: tau at epoch 0 must be > 0, got -1.0"),
    ],
)
def test_constructor_errors(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingArgmax(**options)


@pytest.mark.parametrize("epoch", [-1, 1.5, True])
def test_set_epoch_errors(epoch):
    with pytest.raises(ValueError, match=f"SamplingArgmax: epoch must be an integer >= 0, got {epoch}"):
        SamplingArgmax().set_epoch(epoch)


def test_call_errors():
    module = SamplingArgmax(estimator="axis")
    with pytest.raises(ValueError, match="SamplingArgmax: points need estimator 'cell', got 'axis'"):
        module(heatmaps(2, 3, 20), heatmaps(2, 20, 3))
    with pytest.raises(ValueError, match="SamplingArgmax: points need estimator 'cell', got 'axis'"):
        module.loss(heatmaps(2, 3, 20), heatmaps(2, 3, 3), points=heatmaps(2, 20, 3))
    with pytest.raises(ValueError, match="SoftArgmax: beta must be > 0, got -1.0"):
        SoftArgmax(-1.0)
