"""Losses against formulas written out in NumPy, and the closed-form gradient of the discrete expectation."""

import math

import numpy as np
import pytest
import torch
from row_problems import GRIDS, SAMPLING, positions, problem
from scipy.special import softmax

from sampling_argmax_cuda import expected_error, js_divergence, sample
from sampling_argmax_cuda.objectives.discrete import discrete_expectation_loss
from sampling_argmax_cuda.objectives.reduction import reduce_loss
from sampling_argmax_cuda.objectives.regularized import kl_divergence, variance_regularizer
from sampling_argmax_cuda.objectives.sampling import axis_sampling_loss
from sampling_argmax_cuda.objectives.soft import soft_argmax_loss
from sampling_argmax_cuda.ops import axis_sample

METRICS = ("l1", "l2", "euclidean", "smooth_l1")


def distance(offset: np.ndarray, metric: str) -> np.ndarray:
    size = np.abs(offset)
    if metric == "l1":
        return size.sum(-1)
    if metric == "l2":
        return (size**2).sum(-1)
    if metric == "euclidean":
        return np.linalg.norm(offset, axis=-1)
    return np.where(size < 1, size**2 / 2, size - 0.5).sum(-1)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("metric", METRICS)
def test_soft_argmax_and_discrete_expectation_values(grid, metric):
    logits, target, weight = problem(grid)
    p = softmax(0.8 * logits.numpy().reshape(2, 3, -1), axis=-1)
    cells = positions(grid)
    expected = distance(p @ cells - target.numpy(), metric) * weight.numpy()
    actual = soft_argmax_loss(logits, target, weight, beta=0.8, metric=metric)
    np.testing.assert_allclose(actual, expected, rtol=1e-10)
    distances = distance(cells - target.numpy()[:, :, None], metric)
    actual = discrete_expectation_loss(logits, target, weight, beta=0.8, metric=metric)
    np.testing.assert_allclose(actual, (p * distances).sum(-1) * weight.numpy(), rtol=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_points_laid_on_a_grid_equal_the_grid(metric):
    logits, target, weight = problem((3, 4, 5))
    points = torch.from_numpy(positions((3, 4, 5))).double().expand(2, -1, -1)
    for loss in (soft_argmax_loss, discrete_expectation_loss):
        on_grid = loss(logits, target, weight, metric=metric)
        on_points = loss(logits.flatten(2), target, weight, metric=metric, points=points)
        torch.testing.assert_close(on_points, on_grid)
    js = js_divergence(logits, target, 1.2)
    torch.testing.assert_close(js_divergence(logits.flatten(2), target, 1.2, points=points), js)
    kl = kl_divergence(logits, target, 1.2)
    torch.testing.assert_close(kl_divergence(logits.flatten(2), target, 1.2, points=points), kl)
    variance = variance_regularizer(logits, 1.2)
    torch.testing.assert_close(variance_regularizer(logits.flatten(2), 1.2, points=points), variance)


@pytest.mark.parametrize("metric", METRICS)
def test_discrete_expectation_gradient_is_p_times_centred_distance(metric):
    logits, target, _ = problem()
    logits.requires_grad_()
    discrete_expectation_loss(logits, target, beta=0.8, metric=metric).sum().backward()
    p = softmax(0.8 * logits.detach().numpy().reshape(2, 3, -1), axis=-1)
    d = distance(positions((5, 6)) - target.numpy()[:, :, None], metric)
    expected = 0.8 * p * (d - (p * d).sum(-1, keepdims=True))
    np.testing.assert_allclose(logits.grad.flatten(2), expected, rtol=1e-9, atol=1e-13)


def test_discrete_expectation_bounds_the_error_of_the_expectation():
    """Jensen: the expected distance is never below the error of the mean; one-hot maps have no gap."""
    logits, target, _ = problem()
    gap = discrete_expectation_loss(logits, target) - soft_argmax_loss(logits, target)
    assert (gap > 0).all()
    one_hot = torch.full((1, 1, 5, 6), -math.inf, dtype=torch.float64)
    one_hot[0, 0, 1, 4] = 0
    target = torch.tensor([[[2.5, 3.0]]], dtype=torch.float64)
    assert discrete_expectation_loss(one_hot, target).item() == soft_argmax_loss(one_hot, target).item() == 3.5


@pytest.mark.parametrize("metric", METRICS)
def test_sampling_losses_are_the_mean_distance_of_the_samples(metric):
    logits, target, weight = problem()
    for loss, op in ((axis_sampling_loss, axis_sample), (expected_error, sample)):
        samples = op(logits, **SAMPLING).numpy()
        expected = distance(samples - target.numpy()[:, :, None], metric).mean(-1) * weight.numpy()
        assert np.isfinite(expected).all()
        actual = loss(logits, target, weight, metric=metric, **SAMPLING)
        np.testing.assert_allclose(actual, expected, rtol=1e-9)


def test_axis_sampling_loss_passes_every_option_on():
    logits, target, _ = problem()
    options = {"basis": "gaussian", "sigma": 0.5, "reweight": 2.0, "clip_grad": 3.0, "beta": 0.8, **SAMPLING}
    z, same = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = axis_sampling_loss(z, target, **options)
    expected = (axis_sample(same, **options) - target[:, :, None]).abs().sum(-1).mean(-1)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(z.grad, same.grad)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("loss", [soft_argmax_loss, discrete_expectation_loss])
def test_no_error_has_no_gradient(loss, metric):
    """A map of one cell, hit exactly: the norm's slope is taken as 0 there."""
    logits = torch.zeros(1, 1, 1, 1, requires_grad=True)
    target = torch.zeros(1, 1, 2, requires_grad=True)
    error = loss(logits, target, metric=metric)
    error.sum().backward()
    assert error.item() == 0 and logits.grad.item() == 0 and (target.grad == 0).all()


def test_reductions():
    loss = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.5, 1.5]])
    weight = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.5, 1.0]])
    assert reduce_loss(loss, weight).item() == pytest.approx(8 / 6)
    assert reduce_loss(loss, weight, "batch").item() == pytest.approx(8 / 3)
    assert reduce_loss(loss, weight, "visible").item() == pytest.approx(8 / 4.5)
    assert reduce_loss(loss, None, "visible").item() == pytest.approx(8 / 6)
    assert reduce_loss(loss, torch.zeros(3, 2), "visible").item() == 8
    assert reduce_loss(loss, weight, "none") is loss


def bad_calls():
    z, t, w = problem()
    for name, loss in (
        ("SoftArgmax", soft_argmax_loss),
        ("Discrete", discrete_expectation_loss),
        ("SamplingArgmax", lambda *a, **o: axis_sampling_loss(*a, num_samples=2, **{"tau": 1.0, **o})),
    ):
        yield (
            name,
            lambda f=loss: f(z, t[..., :1], w),
            r"target must be \[B, K, d\] = \[2, 3, 2\], got \(2, 3, 1\)",
        )
        yield name, lambda f=loss: f(z, t, w[:1]), r"weight must be \[B, K\] = \[2, 3\], got \(1, 3\)"
        yield name, lambda f=loss: f(z, t, w, metric="l3"), "metric must be one of l1, .*, got 'l3'"
        yield name, lambda f=loss: f(z, t, w, beta=0.0), "beta must be > 0, got 0.0"
        yield name, lambda f=loss: f(z[0, 0], t, w), "logits must be .*got"
        yield name, lambda f=loss: f(z.long(), t, w), "logits must be float32, .*, got torch.int64"
        yield name, lambda f=loss: f(z, t.to("meta"), w), "target must be on the logits' device cpu, got meta"
    points = torch.zeros(2, 30, 2)
    yield "SoftArgmax", lambda: soft_argmax_loss(z, t, points=points), "points need logits"
    yield "make_schedule", lambda: axis_sampling_loss(z, t, num_samples=2, tau=0.0), "tau must be > 0, got 0.0"
    yield "reduce_loss", lambda: reduce_loss(w, w, "sum"), "reduction must be one of mean, .*, got 'sum'"
    yield "reduce_loss", lambda: reduce_loss(w[0]), r"per_keypoint must be \[B, K\], got \(3,\)"
    yield "reduce_loss", lambda: reduce_loss(w, w[:1]), r"weight must be \[B, K\] = \[2, 3\], got \(1, 3\)"


@pytest.mark.parametrize(("name", "call", "message"), list(bad_calls()))
def test_errors(name, call, message):
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        call()
