"""Learned sub-distributions: offsets and widths of cells, on every backend against the reference and against their law."""

import math

import pytest
import torch
from conftest import assert_close, cuda_machines, machine_device, machine_isas, triton_machines
from contract_cases import Case, noise

from sampling_argmax_cuda import expected_error, heatmap_moments, reference, sample, soft_argmax

one_of_each = pytest.mark.parametrize("machine", [*machine_isas(), *cuda_machines(), *triton_machines()], indirect=True)
SHAPES = [(2, 1, 9), (1, 2, 4, 5), (1, 1, 3, 2, 4)]


def of_grid(shape: tuple[int, ...], basis: str, per_cell: bool) -> dict[str, torch.Tensor]:
    axes = len(shape) - 2
    tensors = {"logits": noise(*shape), "offset": noise(*shape[:2], axes, *shape[2:], seed=2)}
    if basis == "gaussian":
        tensors["sigma"] = noise(*(shape if per_cell else shape[:2]), seed=3).abs() + 0.3
    return tensors


@one_of_each
@pytest.mark.parametrize("basis, per_cell", [("none", False), ("uniform", False), ("triangular", False), ("gaussian", False),
                                             ("gaussian", True)])  # fmt: skip
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_grids(shape, basis, per_cell, machine):
    """Samples, errors with and without spread and a mask, and moments: values and every gradient."""
    tensors = of_grid(shape, basis, per_cell)
    for settings in (dict(num_samples=3, tau=1.0), dict(num_samples=2, tau=0.4, beta=0.7)):
        settings |= dict(basis=basis, seed=2**40 + 7)
        Case("sample", tensors, settings).check()
        rows = {"target": noise(*shape[:2], len(shape) - 2, seed=4), "weight": noise(*shape[:2], seed=5).abs()}
        for more in ({"metric": "euclidean"}, {"metric": "l1", "spread": 0.5}):
            Case("expected_error", {**tensors, **rows}, settings | more).check()
    Case("heatmap_moments", tensors, {"beta": 0.8}).check()
    tensors.pop("offset")
    if per_cell:
        Case("sample", tensors, settings).check()
        Case("heatmap_moments", tensors, {"beta": 0.8}).check()


@one_of_each
def test_points(machine):
    """Each row moves the points that its image shares; far from 0 too."""
    tensors = {"logits": noise(2, 3, 11), "points": noise(2, 11, 2, seed=1) + 1e3, "offset": noise(2, 3, 11, 2, seed=2)}
    for basis in ("none", "gaussian"):
        width = {"sigma": noise(2, 3, 11, seed=3).abs() + 0.3} if basis == "gaussian" else {}
        Case("sample", {**tensors, **width}, dict(num_samples=3, tau=0.6, basis=basis, seed=5)).check()
    Case("heatmap_moments", {**tensors, "sigma": noise(2, 3, seed=3).abs()}, {"beta": 1.3}).check()


def test_gradcheck():
    x = [noise(1, 2, 2, 3), noise(1, 2, 2, 2, 3, seed=1), noise(1, 2, 2, 3, seed=2).abs() + 0.5]
    x = [t.double().requires_grad_() for t in x]

    def draw(logits, offset, sigma):
        return sample(logits, offset=offset, sigma=sigma, num_samples=2, tau=0.8, basis="gaussian", seed=1)

    def moments(logits, offset, sigma):
        return heatmap_moments(logits, offset=offset, sigma=sigma)[:2]

    assert torch.autograd.gradcheck(draw, x) and torch.autograd.gradcheck(moments, x)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_equal_cells_are_the_plain_operator(backend):
    """Offsets of 0 and a width that all cells share change nothing."""
    logits = noise(2, 2, 6, 5).double()
    plain = dict(num_samples=4, tau=0.7, seed=3, backend=backend)
    zero, wide = torch.zeros(2, 2, 2, 6, 5).double(), torch.full_like(logits, 1.7)
    for basis in ("none", "uniform", "triangular", "gaussian"):
        one = sample(logits, basis=basis, sigma=1.7, **plain)
        assert torch.allclose(one, sample(logits, basis=basis, sigma=1.7, offset=zero, **plain), atol=1e-12)
    assert torch.allclose(one, sample(logits, basis="gaussian", sigma=wide, **plain), atol=1e-12)
    assert torch.allclose(soft_argmax(logits), soft_argmax(logits, offset=zero), atol=1e-12)


def test_one_normal_an_axis_has_the_law_of_all():
    """(46): the same mean and variance as with a normal of every cell, and those of (49) without Gumbel noise."""
    logits = noise(1, 1, 6)
    sigma, offset = noise(1, 1, 6, seed=1).abs() + 0.3, noise(1, 1, 1, 6, seed=2)
    logits, sigma, offset = (torch.cat([x.double()] * 200) for x in (logits, sigma, offset))
    more = dict(num_samples=1000, tau=0.02, basis="gaussian", sigma=sigma, offset=offset, seed=4)
    one, each = sample(logits, **more).flatten(), reference.sample(logits, per_cell_noise=True, **more).flatten()
    law = heatmap_moments(logits[:1], offset=offset[:1], sigma=sigma[:1])
    mean, variance = law.mean.item(), law.variance.item()
    kurtosis = ((one - mean) ** 4).mean().item() / variance**2
    for y in (one, each):  # at tau = 0.02 a sample is nearly one cell's: 4.5 standard errors, and 1 % of the variance
        assert abs(y.mean().item() - mean) < 4.5 * math.sqrt(variance / len(y)) + 1e-3
        assert abs(y.var().item() / variance - 1) < 4.5 * math.sqrt((kurtosis - 1) / len(y)) + 0.01


def test_moments_are_those_of_the_mixture():
    """Two cells, by hand."""
    logits = torch.tensor([[[0.0, math.log(3)]]]).double()
    offset, sigma = torch.tensor([[[[0.5, 1.0]]]]).double(), torch.tensor([[[2.0, 1.0]]]).double()
    found = heatmap_moments(logits, offset=offset, sigma=sigma)
    assert found.mean.item() == pytest.approx(0.25 * 0.5 + 0.75 * 2)
    assert found.variance.item() == pytest.approx(0.25 * 0.75 * 1.5**2 + 0.25 * 4 + 0.75)
    assert heatmap_moments(logits, sigma=2.0).variance.item() == pytest.approx(0.25 * 0.75 + 4)


@one_of_each
def test_what_a_masked_row_holds_goes_nowhere(machine):
    device = machine_device()
    tensors = {name: x.to(device) for name, x in of_grid((1, 2, 4, 3), "gaussian", True).items()}
    for x in tensors.values():
        x[:, 1] = torch.nan
        x.requires_grad_()
    target, weight = torch.ones(1, 2, 2, device=device), torch.tensor([[1.0, 0.0]], device=device)
    error = expected_error(**tensors, target=target, weight=weight, num_samples=3, tau=1.0, basis="gaussian", seed=1)
    error.sum().backward()
    assert error[0, 1] == 0 and error.isfinite().all()
    for x in tensors.values():
        assert x.grad.isfinite().all() and x.grad[:, 1].abs().max() == 0 and x.grad[:, 0].abs().max() > 0


@one_of_each
def test_no_mass_no_offset(machine):
    """A cell of -inf has weight 0, wherever its offset moves it."""
    device = machine_device()
    logits, offset = torch.zeros(1, 1, 4, device=device), torch.zeros(1, 1, 1, 4, device=device)
    logits[..., 2], offset[..., 2] = -torch.inf, 100.0
    y = sample(logits, num_samples=50, tau=1.0, basis="none", offset=offset, seed=1)
    assert y.max() < 3.001 and soft_argmax(logits, offset=offset).item() == pytest.approx(4 / 3, abs=1e-4)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"offset": torch.zeros(2, 2, 3, 4)}, r"offset must be \[B, K, d, \*axes\] = \[2, 2, 2, 3, 4\], got \(2, 2, 3, 4\)"),
        ({"sigma": torch.ones(2, 2, 12)}, r"sample: sigma of every cell must be \[2, 2, 3, 4\], got \(2, 2, 12\)"),
        ({"sigma": torch.ones(2, 2, 3, 4), "basis": "triangular"}, "sigma of every cell needs basis 'gaussian', got 'triangular'"),
        ({"sigma": torch.ones(2, 2, 3, 4), "tau": 0.015}, "tau must be at least 0.02 with a sigma of every cell, got 0.015"),
    ],
)  # fmt: skip
def test_wrong_arguments(more, message):
    with pytest.raises(ValueError, match=message):
        sample(torch.zeros(2, 2, 3, 4), **{"num_samples": 2, "tau": 1.0, "basis": "gaussian"} | more)
    with pytest.raises(ValueError, match=r"sample: offset must be \[B, K, N, d\] = \[1, 2, 5, 3\], got \(1, 2, 3, 5\)"):
        sample(torch.zeros(1, 2, 5), points=torch.zeros(1, 5, 3), offset=torch.zeros(1, 2, 3, 5), num_samples=2, tau=1.0,
               basis="none")  # fmt: skip


@pytest.mark.parametrize("tau", [1.0, torch.tensor(1.0)], ids=["number", "tensor"])
def test_compiled_whole(tau):
    tensors = of_grid((1, 2, 4, 3), "gaussian", True)

    def loss(logits, offset, sigma):
        target = torch.ones(1, 2, 2)
        return expected_error(
            logits, target, offset=offset, sigma=sigma, num_samples=3, tau=tau, basis="gaussian", seed=1
        )

    assert_close(
        "compiled", torch.compile(loss, fullgraph=True, backend="aot_eager")(**tensors), loss(**tensors).double()
    )
