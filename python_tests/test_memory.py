"""Bytes that an operator's forward and backward allocate, as formulas: nothing of size samples x cells."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from sampling_argmax_cuda import axis_sample, expected_error, sample, soft_argmax

BATCH, KEYPOINTS, SAMPLES, HEIGHT, WIDTH = 3, 5, 7, 24, 20
ROWS, CELLS, BINS = BATCH * KEYPOINTS, HEIGHT * WIDTH, HEIGHT + WIDTH
SEED = torch.tensor([1])
NUMBER = 8  # tau or beta, float64 on the host
SETTINGS = dict(num_samples=SAMPLES, tau=0.7, seed=SEED)


def allocated_bytes(function) -> int:
    """What torch's CPU allocator handed out while ``function`` ran, freed or not."""
    function()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        function()
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    return sum(e.nbytes() for e in events if e.nbytes() > 0)


def measure(op, cotangent_shape) -> int:
    logits = torch.randn(BATCH, KEYPOINTS, HEIGHT, WIDTH, requires_grad=True)
    cotangent = torch.ones(cotangent_shape)

    def run():
        torch.autograd.grad(op(logits), logits, cotangent)

    return allocated_bytes(run)


SAMPLE_SHAPE = (BATCH, KEYPOINTS, SAMPLES, 2)


@pytest.mark.parametrize("basis, statistics", [("none", 1), ("uniform", 1), ("triangular", 1)])
def test_sample(basis, statistics):
    """Samples, one log-sum a sample, and the gradient."""
    got = measure(lambda z: sample(z, basis=basis, **SETTINGS), SAMPLE_SHAPE)
    assert got == 4 * ROWS * (SAMPLES * (2 + statistics) + CELLS) + 2 * NUMBER


def test_sample_gaussian():
    """As above with the sum of squared weights, and one number for sigma."""
    got = measure(lambda z: sample(z, basis="gaussian", **SETTINGS), SAMPLE_SHAPE)
    assert got == 4 * ROWS * (SAMPLES * (2 + 2) + CELLS) + 4 + 2 * NUMBER


def test_axis_sample():
    """Samples, log-sums, the marginals of all axes, and the gradient."""
    got = measure(lambda z: axis_sample(z, **SETTINGS), SAMPLE_SHAPE)
    assert got == 4 * ROWS * (SAMPLES * (2 + 1 + BINS) + CELLS) + 2 * NUMBER


def test_expected_error():
    """Losses and both gradients in the forward pass; backward multiplies the saved gradient into a new one."""
    target = torch.ones(BATCH, KEYPOINTS, 2)
    got = measure(lambda z: expected_error(z, target, **SETTINGS), (BATCH, KEYPOINTS))
    assert got == 4 * ROWS * (1 + 2 + CELLS + CELLS) + 2 * NUMBER


def test_expected_error_without_gradient_is_small():
    logits, target = torch.randn(BATCH, KEYPOINTS, HEIGHT, WIDTH), torch.ones(BATCH, KEYPOINTS, 2)
    assert allocated_bytes(lambda: expected_error(logits, target, **SETTINGS)) == 4 * ROWS * (1 + 2) + 2 * NUMBER


def test_soft_argmax():
    """Four moments, the cell of the peak, and the gradient of the logits; nothing for the gradients that nobody asked for."""
    got = measure(soft_argmax, (BATCH, KEYPOINTS, 2))
    assert got == 4 * ROWS * ((2 + 4 + 1 + 1) + CELLS) + 8 * ROWS + NUMBER
