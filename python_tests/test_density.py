"""The density of a map: integrals, scipy's mixtures, gradients and edges."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from sampling_argmax_cuda import log_density, sample

BASES = ("uniform", "triangular", "gaussian")


def noise(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def midpoints(sizes: tuple[int, ...], parts: int, margin: int) -> tuple[torch.Tensor, float]:
    """Positions ``[n, d]`` (x, y, z) in the middle of parts of cells, a margin of cells beyond a map's; the volume of each.

    No part has a border of a cell or a kink of the triangular basis inside, where the rule of midpoints would be off.
    """
    axes = [torch.arange(-margin * parts, (n - 1 + margin) * parts, dtype=torch.float64) for n in sizes]
    places = [(axis + 0.5) / parts for axis in axes]
    return torch.stack(torch.meshgrid(*places, indexing="ij"), -1).reshape(-1, len(sizes)), parts ** -len(sizes)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("sizes, parts", [((7,), 40), ((5, 4), 10), ((3, 2, 4), 4)])
def test_integrates_to_one_over_the_map(basis, sizes, parts):
    """The rule of midpoints: exact for uniform and, up to the products of slopes, for triangular; a cell's wide gaussian."""
    z = noise(1, 1, *reversed(sizes))
    places, volume = midpoints(sizes, parts, margin=7 if basis == "gaussian" else 1)
    density = log_density(z.expand(len(places), *z.shape[1:]), places.unsqueeze(1), basis=basis).exp()
    assert density.sum().item() * volume == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("sizes", [(7,), (5, 4), (3, 2, 4)])
@pytest.mark.parametrize("sigma", [0.6, torch.tensor([[0.5], [2.0]], dtype=torch.float64)])
def test_gaussian_is_scipys_mixture(sizes, sigma):
    z, t = noise(2, 3, *reversed(sizes)), noise(2, 3, len(sizes), seed=1) + 2
    found = log_density(z, t, basis="gaussian", sigma=sigma, beta=1.5)
    cells = np.stack(np.meshgrid(*(np.arange(n) for n in sizes), indexing="ij"), -1).reshape(-1, len(sizes))
    stored = z.permute(0, 1, *reversed(range(2, z.dim()))).flatten(2).numpy()  # x first, as the cells here
    for b in range(2):
        for k in range(3):
            width = sigma if isinstance(sigma, float) else sigma[b, 0].item()
            log_p = 1.5 * stored[b, k] - logsumexp(1.5 * stored[b, k])
            parts = [stats.multivariate_normal(cell, width**2).logpdf(t[b, k].numpy()) for cell in cells]
            assert found[b, k].item() == pytest.approx(logsumexp(log_p + np.array(parts)), abs=1e-10)


def test_points_have_gaussians():
    z, t, points = noise(2, 3, 6), noise(2, 3, 3, seed=1), noise(2, 6, 3, seed=2) + 100
    found = log_density(z, t + 100, basis="gaussian", sigma=0.7, points=points)
    for b in range(2):
        parts = np.stack([stats.multivariate_normal(c, 0.49).logpdf(t[b].numpy() + 100) for c in points[b].numpy()], -1)
        expected = logsumexp(z[b].log_softmax(-1).numpy() + parts, -1)
        assert np.allclose(found[b].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("basis", ["uniform", "triangular"])
@pytest.mark.parametrize("sizes", [(7,), (5, 4), (3, 2, 4)])
def test_is_the_sum_over_all_cells(basis, sizes):
    """By its definition, with every cell, inside of the map and beyond it."""
    z = noise(1, 1, *reversed(sizes)).expand(200, 1, *reversed(sizes))
    t = torch.rand(200, 1, len(sizes), generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 9 - 2
    p = z[0, 0].flatten().softmax(0).view(tuple(reversed(sizes)))
    axes = torch.meshgrid(*(torch.arange(n) for n in reversed(sizes)), indexing="ij")[::-1]
    for found, place in zip(log_density(z, t, basis=basis)[:, 0], t[:, 0], strict=True):
        kernel = torch.ones_like(p)
        for axis, x in zip(axes, place, strict=True):
            kernel = kernel * ((x - axis).abs() < 0.5 if basis == "uniform" else (1 - (x - axis).abs()).clamp(min=0))
        expected = (p * kernel).sum().log().item()
        assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("basis", BASES)
def test_samples_have_this_density(basis):
    """The shares of samples near temperature 0 in halves of cells."""
    z = noise(1, 1, 4)
    y = sample(z, num_samples=200_000, tau=0.01, basis=basis, seed=0, sigma=0.6).flatten()
    places, volume = midpoints((4,), 40, margin=4)
    density = log_density(z.expand(len(places), 1, 4), places.unsqueeze(1), basis=basis, sigma=0.6).exp().flatten()
    for low in np.arange(-4, 7, 0.5):
        expected = density[(places[:, 0] > low) & (places[:, 0] < low + 0.5)].sum().item() * volume
        share = ((y >= low) & (y < low + 0.5)).double().mean().item()
        assert share == pytest.approx(
            expected, abs=5 * math.sqrt(expected / len(y)) + 3e-3
        )  # two cells of nearly one weight


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2)])
def test_gradcheck(basis, shape):
    z = noise(2, 2, *shape).requires_grad_()
    t = (torch.rand(2, 2, len(shape), generator=torch.Generator().manual_seed(1)).double() * 0.8 + 0.1).requires_grad_()
    sigma = torch.tensor([[0.7, 1.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, t, s: log_density(z, t, basis=basis, sigma=s, beta=0.7), (z, t, sigma))


def test_gradcheck_of_points():
    inputs = [noise(1, 2, 4), noise(1, 2, 2, seed=1), noise(1, 4, 2, seed=2)]
    call = lambda z, t, x: log_density(z, t, basis="gaussian", points=x)  # noqa: E731
    assert torch.autograd.gradcheck(call, [x.requires_grad_() for x in inputs])


def test_a_position_on_a_cell_has_the_slope_of_the_next_one():
    """The factor of the next cell is 0 there, and its slope is 1."""
    z, t = torch.tensor([[[0.0, 1.0, 3.0]]]).double(), torch.tensor([[[1.0]]]).double().requires_grad_()
    value = log_density(z, t, basis="triangular")
    assert value.item() == pytest.approx(z.log_softmax(-1)[0, 0, 1].item())
    (slope,) = torch.autograd.grad(value.sum(), t)
    assert slope.item() == pytest.approx(math.exp(2) - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("basis", BASES)
def test_cells_of_minus_infinity_and_far_peaks(basis, dtype):
    """Weight 0 and gradient 0 exactly; beside a peak that is far above, the rest of the map keeps its digits."""
    z = torch.tensor([[[-math.inf, 0.0, -math.inf, 300.0, -math.inf]]], dtype=dtype).requires_grad_()
    for place, expected in (
        (1.25, math.log({"uniform": 1, "triangular": 0.75, "gaussian": 1}[basis]) - 300),
        (2.0, None),
    ):
        t = torch.tensor([[[place]]], dtype=dtype, requires_grad=True)
        value = log_density(z, t, basis=basis, sigma=0.02)
        if basis != "gaussian":
            expected = -math.inf if expected is None else expected
            assert value.item() == pytest.approx(expected, rel=1e-6)
        for grad in torch.autograd.grad(value.sum(), (z, t)):
            assert grad.isfinite().all()
            assert grad.numel() == 1 or (grad[..., [0, 2, 4]] == 0).all()


def test_a_position_on_a_cell_beside_a_peak_out_of_range():
    """Of which the weight here is 0 and the slope beyond all float32 numbers: it is cut, and no NaN."""
    z, t = torch.tensor([[[0.0, 300.0]]]).requires_grad_(), torch.tensor([[[0.0]]], requires_grad=True)
    value = log_density(z, t, basis="triangular")
    assert value.item() == -300
    grads = torch.autograd.grad(value.sum(), (z, t))
    assert grads[0].flatten().tolist() == [1, -1] and 1e30 < grads[1].item() < math.inf


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("place", [-1.5, 5.5, 1e6, math.inf, -math.inf])
def test_beyond_the_map(basis, place):
    """The density is 0 there, of the bases that end; no gradient is NaN."""
    z, t = noise(1, 1, 4, 5).requires_grad_(), torch.tensor([[[2.0, place]]]).double().requires_grad_()
    value = log_density(z, t, basis=basis)
    assert (value == -math.inf).all() if basis != "gaussian" or math.isinf(place) else value.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(value.sum(), (z, t)))


def test_the_border_of_a_uniform_cell_is_its_own():
    z = noise(1, 1, 3).expand(4, 1, 3)
    t = torch.tensor([-0.5, 0.5, 2.4999, 2.5]).double().view(4, 1, 1)
    p = z[0, 0].log_softmax(-1).tolist()
    assert log_density(z, t, basis="uniform").flatten().tolist() == pytest.approx([p[0], p[1], p[2], -math.inf])


@pytest.mark.parametrize("basis", BASES)
def test_nan_spoils_its_own_row(basis):
    z, t = noise(1, 3, 4, 5), torch.full((1, 3, 2), 1.3).double()
    expected = log_density(z, t, basis=basis)
    z, t = z.clone(), t.clone()
    z[0, 0, 0, 0], t[0, 1, 0] = math.nan, math.nan
    found = log_density(z, t, basis=basis)
    assert found[0, :2].isnan().all() and found[0, 2] == expected[0, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_types(dtype):
    z, t = noise(2, 2, 4, 5).to(dtype), torch.full((2, 2, 2), 1.3)
    found = log_density(z, t, basis="triangular")
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), log_density(z.double(), t.double(), basis="triangular"), atol=1e-5)
    assert log_density(z[:0], t[:0], basis="triangular").shape == (0, 2)


@pytest.mark.parametrize("change, message", [
    (dict(basis="none"), "basis must be one of uniform, triangular, gaussian, got 'none'"),
    (dict(basis="uniform", points=noise(1, 6, 2)), "points have no spacing, so basis must be 'gaussian', got 'uniform'"),
    (dict(sigma=0.0), "sigma must be > 0, got 0"),
    (dict(sigma=-1.0), "sigma must be >= 0, got -1.0"),
    (dict(beta=0.0), "beta must be > 0, got 0.0"),
    (dict(target=noise(1, 2, 3)), r"target must be \[B, K, d\] = \[1, 2, 2\], got \(1, 2, 3\)"),
])  # fmt: skip
def test_errors(change, message):
    arguments = dict(logits=noise(1, 2, 6), target=noise(1, 2, 2), basis="gaussian", points=noise(1, 6, 2)) | change
    with pytest.raises(ValueError, match="log_density: " + message):
        log_density(**arguments)
