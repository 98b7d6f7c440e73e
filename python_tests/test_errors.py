"""What each public function says to bad input: the operation, what was expected, what came."""

import pytest
import torch

from sampling_argmax_cuda import axis_sample, expected_error, heatmap_moments, sample, soft_argmax

LOGITS, POINTS = torch.zeros(2, 3, 5, 7), torch.zeros(2, 35, 3)
TARGET = torch.zeros(2, 3, 2)
GOOD = dict(num_samples=2, tau=1.0)


def calls(logits=LOGITS, **changes):
    """The sampling functions, by name, with one thing changed."""
    settings = {**GOOD, **changes}
    return {
        "sample": lambda: sample(logits, **settings),
        "axis_sample": lambda: axis_sample(logits, **settings),
        "expected_error": lambda: expected_error(logits, TARGET, **settings),
    }


BAD_SETTINGS = [
    (dict(tau=0.0), "tau must be > 0, got 0.0"),
    (dict(tau=-1.0), "tau must be > 0, got -1.0"),
    (dict(tau=float("nan")), "tau must be > 0, got nan"),
    (dict(tau=0.001), "tau must be at least 0.01, below which float32 has no exact gradients, got 0.001"),
    (dict(beta=0.0), "beta must be > 0, got 0.0"),
    (dict(num_samples=0), "num_samples must be an integer >= 1, got 0"),
    (dict(num_samples=1.5), "num_samples must be an integer >= 1, got 1.5"),
    (dict(basis="tri"), "basis must be one of none, uniform, triangular, gaussian, got 'tri'"),
    (dict(basis="gaussian", sigma=-1.0), "sigma must be >= 0, got -1.0"),
    (dict(basis="gaussian", sigma=torch.ones(3, 2)), r"sigma must broadcast to \[B, K\] = \[2, 3\], got \(3, 2\)"),
    (dict(seed=1.5), "seed must be an integer or an int64 tensor, got 1.5"),
    (dict(seed=torch.zeros(3, dtype=torch.int64)), "seed must be an int64 tensor of 1 or 2 elements"),
    (dict(seed=torch.zeros(1)), "seed must be an int64 tensor of 1 or 2 elements, got torch.float32"),
    (dict(seed=1, generator=torch.Generator()), "give seed or generator, not both"),
    (dict(backend="gpu"), "backend must be one of auto, cuda, triton, cpu, reference, got 'gpu'"),
    (dict(seed=torch.zeros(1, dtype=torch.int64, device="meta")), "seed must be on the logits' device cpu, got meta"),
    (dict(backend="triton"), "backend 'triton' is not available"),
]  # fmt: skip


@pytest.mark.parametrize("op", ["sample", "axis_sample", "expected_error"])
@pytest.mark.parametrize("changes, message", BAD_SETTINGS, ids=[m[:40] for _, m in BAD_SETTINGS])
def test_settings(op, changes, message):
    with pytest.raises(ValueError, match=f"^{op}: {message}"):
        calls(**changes)[op]()


BAD_LOGITS = [
    (torch.zeros(2, 3), r"logits must be \[B, K, \*axes\] with 1 to 3 axes, got \(2, 3\)"),
    (torch.zeros(1, 2, 3, 4, 5, 6), r"logits must be \[B, K, \*axes\] with 1 to 3 axes"),
    (torch.zeros(2, 3, 5, 7, dtype=torch.int32), "logits must be float32, bfloat16, float16 or float64, got torch.int32"),
    (torch.zeros(2, 3, 0, 7), "a map needs at least one cell"),
    ([[1.0]], "logits must be a tensor, got list"),
]  # fmt: skip


@pytest.mark.parametrize("logits, message", BAD_LOGITS, ids=[m[:30] for _, m in BAD_LOGITS])
def test_logits(logits, message):
    for op, call in calls(logits).items():
        with pytest.raises(ValueError, match=f"^{op}: {message}"):
            call()
    for function in (soft_argmax, heatmap_moments):
        with pytest.raises(ValueError, match=f"^soft_argmax: {message}"):
            function(logits)


def test_moments_settings():
    with pytest.raises(ValueError, match="^soft_argmax: beta must be > 0, got -1.0"):
        soft_argmax(LOGITS, beta=-1.0)
    with pytest.raises(ValueError, match="^soft_argmax: points need logits"):
        soft_argmax(LOGITS, points=POINTS)


@pytest.mark.parametrize("op", [sample, lambda z, **k: expected_error(z, torch.zeros(2, 3, 3), **k)])
def test_points(op):
    cloud = LOGITS.flatten(2)
    with pytest.raises(ValueError, match=r"points need logits \[B, K, N\], not a grid"):
        op(LOGITS, points=POINTS, basis="none", **GOOD)
    with pytest.raises(ValueError, match="points have no spacing, so basis must be 'none' or 'gaussian'"):
        op(cloud, points=POINTS, basis="uniform", **GOOD)
    with pytest.raises(ValueError, match=r"points must be \[B, N, d\] = \[2, 35, 1..3\], got \(2, 34, 3\)"):
        op(cloud, points=POINTS[:, 1:], basis="none", **GOOD)
    with pytest.raises(ValueError, match="points must be on the logits' device cpu, got meta"):
        op(cloud, points=POINTS.to("meta"), basis="none", **GOOD)


def test_axis_sample_options():
    with pytest.raises(ValueError, match="^axis_sample: reweight must be >= 0, got -1"):
        axis_sample(LOGITS, reweight=-1, **GOOD)
    with pytest.raises(ValueError, match="^axis_sample: clip_grad must be > 0, got 0"):
        axis_sample(LOGITS, clip_grad=0, **GOOD)


def test_expected_error_tensors():
    with pytest.raises(ValueError, match=r"^expected_error: target must be \[B, K, d\] = \[2, 3, 2\], got \(2, 3, 3\)"):
        expected_error(LOGITS, torch.zeros(2, 3, 3), **GOOD)
    with pytest.raises(ValueError, match=r"^expected_error: weight must be \[B, K\] = \[2, 3\], got \(2, 3, 2\)"):
        expected_error(LOGITS, TARGET, torch.ones(2, 3, 2), **GOOD)
    with pytest.raises(
        ValueError, match="^expected_error: metric must be one of l1, l2, euclidean, smooth_l1, got 'l3'"
    ):
        expected_error(LOGITS, TARGET, metric="l3", **GOOD)
    with pytest.raises(ValueError, match="^expected_error: target must be on the logits' device cpu, got meta"):
        expected_error(LOGITS, TARGET.to("meta"), **GOOD)


def test_a_backend_on_another_device():
    with pytest.raises(ValueError, match="^sample: backend 'cpu' needs tensors on cpu, got meta"):
        sample(LOGITS.to("meta"), backend="cpu", seed=1, **GOOD)
