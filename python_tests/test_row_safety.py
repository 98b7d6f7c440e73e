"""What the losses and regularisers of heatmap rows promise: gradients, masks, NaN, empty batches, half."""

import math

import pytest
import torch
from row_problems import SAMPLING, problem

from sampling_argmax_cuda import expected_error
from sampling_argmax_cuda.objectives.discrete import discrete_expectation_loss
from sampling_argmax_cuda.objectives.reduction import reduce_loss
from sampling_argmax_cuda.objectives.regularized import distribution_regularizer, variance_regularizer
from sampling_argmax_cuda.objectives.sampling import axis_sampling_loss
from sampling_argmax_cuda.objectives.soft import soft_argmax_loss

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


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, t, w, points: soft_argmax_loss(z, t, w, points=points),
        lambda z, t, w, points: discrete_expectation_loss(z, t, w, points=points),
        lambda z, t, w, points: variance_regularizer(z, 1.5, w, points=points),
        lambda z, t, w, points: distribution_regularizer(z, t, 1.5, w, points=points),
    ],
)
def test_weight_zero_stops_a_spoilt_cloud(loss):
    """NaN points reach the rows after their logits were masked, so the result has to be masked as well."""
    logits, target, weight = problem((20,))
    points = torch.rand(2, 20, 1, dtype=torch.float64)
    points[0] = math.nan
    weight[0] = 0
    logits.requires_grad_()
    error = loss(logits, target, weight, points)
    assert (error[0] == 0).all() and (error[1] > 0).all()
    error.sum().backward()
    assert (logits.grad[0] == 0).all() and logits.grad.isfinite().all()


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
