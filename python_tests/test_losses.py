"""Losses and regularisers against formulas written out in NumPy, closed-form gradients, and dsntnn."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from sampling_argmax_cuda import expected_error, js_divergence, sample, soft_argmax
from sampling_argmax_cuda.coords import convert_coords
from sampling_argmax_cuda.losses import (
    axis_sampling_loss,
    discrete_expectation_loss,
    reduce_loss,
    soft_argmax_loss,
)
from sampling_argmax_cuda.ops import axis_sample
from sampling_argmax_cuda.regularizers import distribution_regularizer, kl_divergence, variance_regularizer

METRICS = ("l1", "l2", "euclidean", "smooth_l1")
GRIDS = ((7,), (5, 6), (3, 4, 5))
LN2 = math.log(2)
SAMPLING = {"num_samples": 5, "tau": 0.7, "seed": 3}

LOSSES = {
    "soft_argmax": lambda z, t, w: soft_argmax_loss(z, t, w),
    "discrete_expectation": lambda z, t, w: discrete_expectation_loss(z, t, w),
    "euclidean": lambda z, t, w: discrete_expectation_loss(z, t, w, metric="euclidean"),
    "axis_sampling": lambda z, t, w: axis_sampling_loss(z, t, w, **SAMPLING),
    "expected_error": lambda z, t, w: expected_error(z, t, w, **SAMPLING),
    "variance": lambda z, t, w: variance_regularizer(z, 1.5, w),
    "distribution": lambda z, t, w: distribution_regularizer(z, t, 1.5, w),
    "kl": lambda z, t, w: distribution_regularizer(z, t, 1.5, w, divergence="kl"),
    "oct": lambda z, t, w: distribution_regularizer(z, t, 2.0, w, centre="prediction", normalized=False),
}


def problem(grid=(5, 6), rows=(2, 3), dtype=torch.float64, seed=0):
    """Logits, a target inside the map and weights in (0, 2)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*rows, *grid, generator=generator, dtype=dtype) * 2
    target = torch.rand(*rows, len(grid), generator=generator, dtype=dtype)
    target = target * torch.tensor(grid[::-1], dtype=dtype)
    weight = torch.rand(rows, generator=generator, dtype=dtype) * 2
    return logits, target, weight


def positions(grid) -> np.ndarray:
    """[N, d] cells in row-major order, x first."""
    return np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij")[::-1], -1).reshape(-1, len(grid))


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
    assert (
        discrete_expectation_loss(one_hot, target).item() == soft_argmax_loss(one_hot, target).item() == 3.5
    )


@pytest.mark.parametrize("metric", METRICS)
def test_sampling_losses_are_the_mean_distance_of_the_samples(metric):
    logits, target, weight = problem()
    for loss, op in ((axis_sampling_loss, axis_sample), (expected_error, sample)):
        samples = op(logits, **SAMPLING).numpy()
        expected = distance(samples - target.numpy()[:, :, None], metric).mean(-1) * weight.numpy()
        actual = loss(logits, target, weight, metric=metric, **SAMPLING)
        np.testing.assert_allclose(actual, expected, rtol=1e-9)


@pytest.mark.parametrize("grid", GRIDS)
def test_js_divergence_value(grid):
    logits, target, _ = problem(grid)
    p = softmax(logits.numpy().reshape(2, 3, -1), axis=-1)
    squared = ((positions(grid) - target.numpy()[:, :, None]) ** 2).sum(-1)
    q = np.exp(-squared / (2 * 1.3**2))
    q /= q.sum(-1, keepdims=True)
    actual = js_divergence(logits, target, 1.3)
    np.testing.assert_allclose(actual, jensenshannon(p, q, axis=-1) ** 2, rtol=1e-9)
    np.testing.assert_allclose(kl_divergence(logits, target, 1.3), (p * np.log(p / q)).sum(-1), rtol=1e-9)


def test_js_divergence_limits():
    cells = torch.arange(9, dtype=torch.float64)
    target = torch.full((1, 1, 1), 4.0, dtype=torch.float64)
    gaussian = (-((cells - 4) ** 2) / (2 * 1.5**2))[None, None]
    assert abs(js_divergence(gaussian, target, 1.5).item()) < 1e-15
    assert abs(kl_divergence(gaussian, target, 1.5).item()) < 1e-15
    far = torch.full((1, 1, 99), -math.inf, dtype=torch.float64)
    far[..., 98] = 0
    assert js_divergence(far, target, 0.5).item() == pytest.approx(LN2, rel=1e-12)


def test_sigma_may_differ_by_row():
    logits, target, _ = problem()
    sigma = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    for k in range(3):
        expected = js_divergence(logits[:, k : k + 1], target[:, k : k + 1], float(sigma[0, k]))
        torch.testing.assert_close(js_divergence(logits, target, sigma)[:, k : k + 1], expected)
        expected = variance_regularizer(logits[:, k : k + 1], float(sigma[0, k]))
        torch.testing.assert_close(variance_regularizer(logits, sigma)[:, k : k + 1], expected)


@pytest.mark.parametrize("grid", GRIDS)
def test_variance_regularizer_value_and_units(grid):
    logits, _, weight = problem(grid)
    p = softmax(logits.numpy().reshape(2, 3, -1), axis=-1)
    cells = positions(grid)
    variance = p @ cells**2 - (p @ cells) ** 2
    expected = ((variance - 2.0**2) ** 2).sum(-1) * weight.numpy()
    np.testing.assert_allclose(variance_regularizer(logits, 2.0, weight), expected, rtol=1e-9)
    sizes = np.array(grid[::-1])
    expected = ((variance / sizes**2 - (2.0 / sizes) ** 2) ** 2).sum(-1) * weight.numpy()
    actual = variance_regularizer(logits, 2.0, weight, units="normalized")
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


def test_published_oct_variant():
    """q is an unnormalised Gaussian at the prediction, whatever the target."""
    logits, target, weight = problem((11,))
    p = softmax(logits.numpy(), axis=-1)
    mean = (p * np.arange(11)).sum(-1, keepdims=True)
    q = np.exp(-((np.arange(11) - mean) ** 2) / (2 * 2.0**2))
    m = (p + q) / 2
    expected = (p * np.log(p / m) + q * np.log(q / m)).sum(-1) / 2 * weight.numpy()
    actual = distribution_regularizer(logits, target, 2.0, weight, centre="prediction", normalized=False)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)
    default = distribution_regularizer(logits, target, 2.0, weight)
    torch.testing.assert_close(default, js_divergence(logits, target, 2.0) * weight)
    kl = distribution_regularizer(logits, target, 2.0, weight, divergence="kl")
    torch.testing.assert_close(kl, kl_divergence(logits, target, 2.0) * weight)


def test_dsntnn_agrees():
    dsntnn = pytest.importorskip("dsntnn")
    logits, target, _ = problem((6, 6), rows=(1, 3))
    heatmaps = dsntnn.flat_softmax(logits)
    centre = convert_coords(target, 6, "index", "cell")
    mean = convert_coords(soft_argmax(logits), 6, "index", "cell")
    torch.testing.assert_close(mean, dsntnn.dsnt(heatmaps))
    torch.testing.assert_close(
        js_divergence(logits, target, 1.0), dsntnn.js_reg_losses(heatmaps, centre, 1.0)
    )
    torch.testing.assert_close(
        kl_divergence(logits, target, 1.0), dsntnn.kl_reg_losses(heatmaps, centre, 1.0)
    )
    torch.testing.assert_close(variance_regularizer(logits, 1.0), dsntnn.variance_reg_losses(heatmaps, 1.0))
    cells = soft_argmax_loss(logits, target, metric="euclidean") * 2 / 6
    torch.testing.assert_close(cells, dsntnn.euclidean_losses(mean, centre))


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("axis_sampling", "expected_error")])
def test_gradcheck(name):
    logits, target, weight = problem((3, 4), rows=(1, 2))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, target, weight), (logits,))


@pytest.mark.parametrize("name", ["soft_argmax", "discrete_expectation", "euclidean", "distribution"])
def test_gradcheck_of_target_and_weight(name):
    logits, target, weight = problem((3, 4), rows=(1, 2))
    arguments = (logits, target.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda t, w: LOSSES[name](logits, t, w), arguments[1:])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_weight_zero_stops_everything(name, spoilt):
    logits, target, weight = problem(dtype=torch.float32)
    weight[0, 1] = weight[1, 2] = 0
    logits[0, 1] = spoilt
    target[1, 2] = spoilt
    logits.requires_grad_()
    loss = LOSSES[name](logits, target, weight)
    assert loss.isfinite().all() and loss[0, 1] == 0 and loss[1, 2] == 0
    loss.sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[0, 1] == 0).all() and (logits.grad[1, 2] == 0).all()
    kept = torch.tensor([[0, 0], [0, 2], [1, 0], [1, 1]])
    assert all((logits.grad[b, k] != 0).any() for b, k in kept)


@pytest.mark.parametrize("name", LOSSES)
def test_nan_spoils_its_own_row_only(name):
    logits, target, _ = problem(dtype=torch.float32)
    clean = LOSSES[name](logits, target, None)
    logits[0, 1, 2, 3] = math.nan
    loss = LOSSES[name](logits, target, None)
    assert loss[0, 1].isnan()
    keep = torch.ones(2, 3, dtype=torch.bool)
    keep[0, 1] = False
    assert torch.equal(loss[keep], clean[keep])


@pytest.mark.parametrize("name", LOSSES)
def test_masked_cells_have_gradient_zero(name):
    logits, target, weight = problem()
    logits[:, :, 1:3, 4] = -math.inf
    logits.requires_grad_()
    LOSSES[name](logits, target, weight).sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, :, 1:3, 4] == 0).all() and (logits.grad[:, :, 0] != 0).any()


@pytest.mark.parametrize("name", LOSSES)
def test_empty_batch(name):
    logits, target, weight = problem()
    loss = LOSSES[name](logits[:0].requires_grad_(), target[:0], weight[:0])
    assert loss.shape == (0, 3)
    total = reduce_loss(loss, weight[:0])
    assert total.item() == 0
    total.backward()


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_logits_give_float32_losses_and_bfloat16_gradients(name):
    logits, target, weight = problem(dtype=torch.float32)
    exact = LOSSES[name](logits.bfloat16().float(), target, weight)
    logits = logits.bfloat16().requires_grad_()
    loss = LOSSES[name](logits, target, weight)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=1e-5, atol=1e-5)
    loss.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


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
        ("soft_argmax_loss", soft_argmax_loss),
        ("discrete_expectation_loss", discrete_expectation_loss),
        ("axis_sampling_loss", lambda *a, **o: axis_sampling_loss(*a, num_samples=2, **{"tau": 1.0, **o})),
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
    yield "soft_argmax_loss", lambda: soft_argmax_loss(z, t, points=points), "points need logits"
    yield "axis_sample", lambda: axis_sampling_loss(z, t, num_samples=2, tau=0.0), "tau must be > 0, got 0.0"
    yield "js_divergence", lambda: js_divergence(z, t, 0.0), "sigma must be > 0, got 0.0"
    yield "js_divergence", lambda: js_divergence(z, t[:1], 1.0), r"target must be .*got \(1, 3, 2\)"
    yield "js_divergence", lambda: js_divergence(z, t, torch.ones(4)), r"sigma must broadcast to \[B, K\]"
    yield "kl_divergence", lambda: kl_divergence(z, t, math.nan), "sigma must be > 0, got nan"
    regularizer = distribution_regularizer
    yield "distribution_regularizer", lambda: regularizer(z, t, -1.0), "sigma must be > 0, got -1.0"
    yield "distribution_regularizer", lambda: regularizer(z, t, 1.0, divergence="tv"), "js, kl, got 'tv'"
    yield (
        "distribution_regularizer",
        lambda: regularizer(z, t, 1.0, centre="peak"),
        "target, prediction, got 'peak'",
    )
    yield "distribution_regularizer", lambda: regularizer(z, t, 1.0, w[0]), r"weight must be \[B, K\]"
    yield "variance_regularizer", lambda: variance_regularizer(z, 0.0), "sigma must be > 0, got 0.0"
    yield (
        "variance_regularizer",
        lambda: variance_regularizer(z, 1.0, units="px"),
        "cells, normalized, got 'px'",
    )
    on_points = {"points": points, "units": "normalized"}
    yield "variance_regularizer", lambda: variance_regularizer(z.flatten(2), 1.0, **on_points), "no axis size"
    yield "reduce_loss", lambda: reduce_loss(w, w, "sum"), "reduction must be one of mean, .*, got 'sum'"
    yield "reduce_loss", lambda: reduce_loss(w[0]), r"per_keypoint must be \[B, K\], got \(3,\)"
    yield "reduce_loss", lambda: reduce_loss(w, w[:1]), r"weight must be \[B, K\] = \[2, 3\], got \(1, 3\)"


@pytest.mark.parametrize(("name", "call", "message"), list(bad_calls()))
def test_errors(name, call, message):
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        call()
