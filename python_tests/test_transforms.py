"""Derivatives that are not asked for by backward: forward mode, torch.func, and vmap; and arguments of other number types."""

import pickle

import numpy as np
import pytest
import torch
from conftest import cuda_machines, machine_device, machine_isas
from torch.autograd import forward_ad

from sampling_argmax_cuda import (
    SamplingArgmax,
    axis_sample,
    backends,
    expected_error,
    heatmap_moments,
    sample,
    soft_argmax,
)
from sampling_argmax_cuda.clouds import farthest_points

TARGET = torch.tensor([[[1.3, 2.1], [3.0, 0.4]]], dtype=torch.float64)
OPTIONS = dict(num_samples=3, tau=0.8, seed=5)
OPS = {
    "sample": lambda z, **more: sample(z, **OPTIONS, **more),
    "gaussian": lambda z, **more: sample(z, basis="gaussian", **OPTIONS, **more),
    "axis_sample": lambda z, **more: axis_sample(z, **OPTIONS, **more),
    "expected_error": lambda z, **more: expected_error(z, TARGET.to(z.dtype), metric="l2", **OPTIONS, **more),
    "soft_argmax": soft_argmax,
    "variance": lambda z, **more: heatmap_moments(z, **more).variance,
    "covariance": lambda z, **more: heatmap_moments(z, **more).covariance,
}
FAST = ("auto", "cpu")


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jacobian(op) -> torch.Tensor:
    """By autograd's backward of the fused operator."""
    return torch.autograd.functional.jacobian(op, logits(1, 2, 4, 5))


@pytest.mark.parametrize("name", OPS)
def test_forward_mode_is_that_of_backward(name):
    z, direction, op = logits(1, 2, 4, 5), logits(1, 2, 4, 5, seed=1), OPS[name]
    expected = (jacobian(op) * direction).flatten(-4).sum(-1)
    value, tangent = torch.func.jvp(op, (z,), (direction,))
    torch.testing.assert_close(tangent, expected)
    torch.testing.assert_close(value, op(z))
    with forward_ad.dual_level():
        torch.testing.assert_close(forward_ad.unpack_dual(op(forward_ad.make_dual(z, direction))).tangent, expected)
    assert expected.abs().max() > 0.01


@pytest.mark.parametrize("name", OPS)
def test_transforms_of_torch_func_are_those_of_backward(name):
    z, op = logits(1, 2, 4, 5), OPS[name]
    expected = jacobian(op)
    torch.testing.assert_close(torch.func.jacrev(op)(z), expected)
    torch.testing.assert_close(torch.func.jacfwd(op)(z), expected)
    gradient = torch.func.grad(lambda z: op(z).sum())
    torch.testing.assert_close(gradient(z), expected.flatten(0, -5).sum(0))
    many = logits(3, 1, 2, 4, 5, seed=2)
    torch.testing.assert_close(torch.func.vmap(gradient)(many), torch.stack([gradient(x) for x in many]))


@pytest.mark.parametrize("name", OPS)
def test_vmap_is_the_loop(name):
    """Of the fused operators themselves, whatever their arguments are; gradients go through it."""
    many, op = logits(3, 1, 2, 4, 5, seed=2).requires_grad_(), OPS[name]
    found, expected = torch.func.vmap(op)(many), torch.stack([op(x) for x in many])
    torch.testing.assert_close(found, expected)
    a, b = (torch.autograd.grad(x.square().sum(), many)[0] for x in (found, expected))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", OPS)
def test_a_backend_without_them_says_so(name):
    for call in (lambda f: torch.func.jvp(f, (logits(1, 2, 4, 5),), (logits(1, 2, 4, 5),)),
                 lambda f: torch.func.grad(lambda z: f(z).sum())(logits(1, 2, 4, 5))):  # fmt: skip
        with pytest.raises(ValueError, match="backend 'cpu' has gradients for backward alone"):
            call(lambda z: OPS[name](z, backend="cpu"))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_integers_of_numpy_are_integers(kind):
    z = logits(1, 2, 4, 5)
    found = sample(z, num_samples=kind(3), tau=1.0, seed=kind(7))
    assert torch.equal(found, sample(z, num_samples=3, tau=1.0, seed=7))
    assert torch.equal(SamplingArgmax(kind(3))(z, seed=7), SamplingArgmax(3)(z, seed=7))
    points = torch.rand(1, 9, 3)
    assert torch.equal(farthest_points(points, kind(4)), farthest_points(points, 4))
    for wrong in (True, 2.0, np.float64(2), np.bool_(True)):
        with pytest.raises(ValueError, match="sample: num_samples must be an integer >= 1"):
            sample(z, num_samples=wrong, tau=1.0)
        with pytest.raises(ValueError, match="sample: seed must be an integer or an int64 tensor"):
            sample(z, num_samples=2, tau=1.0, seed=wrong)


@pytest.mark.parametrize("name", ["sample", "axis_sample", "expected_error"])
def test_a_seed_is_its_words_whatever_its_strides(name):
    """A column of a table, and one word that stands for both."""
    calls = {
        "sample": sample,
        "axis_sample": axis_sample,
        "expected_error": lambda z, **o: expected_error(z, TARGET, **o),
    }
    z, options = logits(1, 2, 4, 5), dict(num_samples=3, tau=1.0)
    table = torch.tensor([[3, 100], [8, 200]])
    for seed in (table[:, 0], table.T[0], torch.tensor([4]).expand(2), torch.tensor(9)):
        words = torch.tensor(seed.tolist() if seed.dim() else [seed.item()])
        assert torch.equal(calls[name](z, seed=seed, **options), calls[name](z, seed=words, **options))


def test_modules_can_be_saved_whole(tmp_path):
    module = SamplingArgmax(tau="coco", num_samples=5)
    module.set_epoch(10)
    again = pickle.loads(pickle.dumps(module))
    assert again.tau == module.tau and torch.equal(
        again(logits(1, 2, 4, 5), seed=1), module(logits(1, 2, 4, 5), seed=1)
    )
    torch.save(module, tmp_path / "module.pt")
    assert torch.load(tmp_path / "module.pt", weights_only=False).tau == module.tau


@pytest.mark.parametrize("machine", [*machine_isas()[:1], *cuda_machines()], indirect=True)
def test_an_operator_refuses_a_seed_that_it_would_read_wrongly(machine):
    """Called below the public functions, which make it contiguous."""
    z, namespace = logits(1, 2, 4, 5).to(machine_device()), backends.NAMESPACES[machine_device()]
    op, one = getattr(torch.ops, namespace).sample, torch.ones((), dtype=torch.float64)
    for seed in (
        torch.tensor([[3, 100], [8, 200]])[:, 0],
        torch.tensor([4]).expand(2),
        torch.zeros(0, dtype=torch.int64),
    ):
        with pytest.raises(ValueError, match="seed must be contiguous, of 1 or 2 words, got"):
            op(z, None, None, seed.to(z.device), 2, one, one, "none")
