"""Regularisers against formulas written out in NumPy and SciPy, and against dsntnn."""

import math

import numpy as np
import pytest
import torch
from row_problems import GRIDS, positions, problem
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from sampling_argmax_cuda import js_divergence, soft_argmax
from sampling_argmax_cuda.coords import convert_coords
from sampling_argmax_cuda.objectives.regularized import distribution_regularizer, kl_divergence, variance_regularizer
from sampling_argmax_cuda.objectives.soft import soft_argmax_loss


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
    assert js_divergence(far, target, 0.5).item() == pytest.approx(math.log(2), rel=1e-12)


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
    torch.testing.assert_close(js_divergence(logits, target, 1.0), dsntnn.js_reg_losses(heatmaps, centre, 1.0))
    torch.testing.assert_close(kl_divergence(logits, target, 1.0), dsntnn.kl_reg_losses(heatmaps, centre, 1.0))
    torch.testing.assert_close(variance_regularizer(logits, 1.0), dsntnn.variance_reg_losses(heatmaps, 1.0))
    cells = soft_argmax_loss(logits, target, metric="euclidean") * 2 / 6
    torch.testing.assert_close(cells, dsntnn.euclidean_losses(mean, centre))


def bad_calls():
    z, t, w = problem()
    points = torch.zeros(2, 30, 2)
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


@pytest.mark.parametrize(("name", "call", "message"), list(bad_calls()))
def test_errors(name, call, message):
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        call()
