"""Axes that are circles, and windows: the reference, closed forms, the seam, and a regression of angles."""

import math

import pytest
import torch
from conftest import assert_close, cuda_machines, machine_device, machine_isas, triton_machines

from sampling_argmax_cuda import (
    LocalizationLoss,
    SamplingArgmax,
    SoftArgmax,
    axis_sample,
    expected_error,
    heatmap_moments,
    reference,
    sample,
    soft_argmax,
)
from sampling_argmax_cuda.checks import BASES, METRICS
from sampling_argmax_cuda.circle import wrap
from sampling_argmax_cuda.objectives import make_objective

SAMPLING = dict(num_samples=5, tau=0.7, beta=1.3, seed=3)
CIRCLES = [((9,), (0,)), ((5, 8), (0,)), ((5, 8), (1,)), ((5, 8), (1, 0)), ((3, 4, 6), (0, 2)), ((3, 4, 6), (0, 1, 2))]
every_circle = pytest.mark.parametrize("grid, periodic", CIRCLES, ids=str)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(answer: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad((answer * noise(*answer.shape, seed=9).to(answer)).sum(), z, retain_graph=True)[0]


def periods(grid, periodic) -> torch.Tensor:
    """The cells of each axis x, y, z that is a circle; of a line what is longer than any difference."""
    return torch.tensor([n if a in periodic else 1e6 for a, n in enumerate(reversed(grid))], dtype=torch.float64)


def assert_close_on(name, found, expected, grid, periodic, tau=1.0) -> None:
    """Equal but for whole turns, and in [0, n)."""
    around = periods(grid, periodic)
    assert all((found[..., a] >= 0).all() and (found[..., a] < around[a]).all() for a in periodic)
    away = found - expected.to(found)
    assert_close(name, away - (around * (away / around).round()).to(found), 0 * expected, tau)


@every_circle
@pytest.mark.parametrize("basis", BASES)
def test_samples_are_the_reference_s(grid, periodic, basis):
    z = noise(2, 3, *grid).requires_grad_()
    form = dict(**SAMPLING, basis=basis, sigma=torch.tensor([0.4, 1.0, 1.6]), periodic=periodic)
    expected = reference.sample_on_circles(z, **{**form, "seed": torch.tensor([3])})
    for backend in ("auto", "reference"):
        found = sample(z, **form, backend=backend)
        assert_close_on("samples", found, expected, grid, periodic)
        assert_close("gradient", gradient(found, z), gradient(expected, z))
    single = sample(z.detach().float(), **form)
    assert single.dtype == torch.float32
    assert_close_on("float32", single, expected.detach(), grid, periodic, tau=0.1)  # its rounding grows as 1/R
    lines = [a for a in range(len(grid)) if a not in periodic]
    assert torch.equal(found[..., lines], sample(z, **{**form, "periodic": ()}, backend="reference")[..., lines])


@every_circle
@pytest.mark.parametrize("window", [None, 1.2])
def test_soft_argmax_is_the_reference_s(grid, periodic, window):
    z = noise(2, 3, *grid).requires_grad_()
    options = dict(beta=1.3, periodic=periodic, window=window)
    expected = reference.soft_argmax_on_circles(z, **options)
    for backend in ("auto", "reference"):
        found = soft_argmax(z, **options, backend=backend)
        assert_close_on("position", found, expected, grid, periodic)
        assert_close("gradient", gradient(found, z), gradient(expected, z))
    assert soft_argmax(z.bfloat16(), **options).dtype == torch.float32


@pytest.mark.parametrize("machine", [machine_isas()[-1], *cuda_machines(), *triton_machines()], indirect=True)
def test_on_every_backend(machine):
    """Float32, whose kernels all of them have."""
    z = noise(2, 3, 5, 8).float().to(machine_device()).requires_grad_()
    exact = z.detach().cpu().double().requires_grad_()
    for basis in BASES:
        form = dict(**SAMPLING, basis=basis, periodic=(0,))
        found, expected = sample(z, **form), sample(exact, **form, backend="reference")
        assert_close_on(basis, found.cpu(), expected, (5, 8), (0,), tau=0.1)  # its rounding grows as 1/R
        assert_close("gradient", gradient(found, z).cpu(), gradient(expected, exact), tau=0.1)
    found = soft_argmax(z, periodic=(0, 1), window=2.0)
    assert_close_on("position", found.cpu(), soft_argmax(exact, periodic=(0, 1), window=2.0), (5, 8), (0, 1))


def test_a_turned_map_is_read_as_far_round():
    """No cell is a seam: position and gradient turn with the map."""
    z = noise(2, 3, 5, 8).requires_grad_()
    first = soft_argmax(z, periodic=(0,))
    slope = torch.autograd.grad(first[..., 0].sum(), z)[0]
    for turn in range(1, 8):
        turned = z.detach().roll(turn, -1).requires_grad_()
        found = soft_argmax(turned, periodic=(0,))
        assert_close_on("position", found, first + torch.tensor([turn, 0]), (5, 8), (0,))
        assert_close("gradient", torch.autograd.grad(found[..., 0].sum(), turned)[0], slope.roll(turn, -1))


def test_closed_forms_of_a_circle():
    """Two cells beside the seam; a von Mises map about any place; its gradient (52); a sample at a low temperature."""
    z = torch.full((1, 1, 8), -math.inf).double()
    z[..., [0, 7]] = 0
    assert_close("seam", soft_argmax(z, periodic=(0,)), torch.tensor([[[7.5]]]))
    assert soft_argmax(z).item() == 3.5
    centre, turn = torch.arange(0, 24, 0.37, dtype=torch.float64), 2 * math.pi / 24
    angle = torch.arange(24).double() * turn
    z = (3.0 * torch.cos(angle - centre[:, None] * turn)).view(1, -1, 24).requires_grad_()
    m = soft_argmax(z, periodic=(0,))
    assert_close_on("von Mises", m, centre.view(1, -1, 1), (24,), (0,))
    p = z.softmax(-1)
    length = (p * torch.exp(1j * angle)).sum(-1, keepdim=True).abs()
    expected = p * torch.sin(angle - m * turn) / (length * turn)
    assert_close("gradient", torch.autograd.grad(m.sum(), z)[0], expected)
    cell = sample(noise(1, 2, 24), num_samples=50, tau=0.01, basis="none", seed=1, periodic=(0,))
    assert ((cell - cell.round()).abs() < 1e-3).double().mean() > 0.9


def test_the_noise_of_a_cell_is_what_it_is_on_a_line():
    """One cell with all the weight: samples are it and its noise, modulo the circle; at cell 0 on both sides of the seam."""
    z = torch.full((1, 1, 16), -math.inf).double()
    z[..., 0] = 0
    for basis in ("uniform", "triangular", "gaussian"):
        form = dict(num_samples=400, tau=1.0, basis=basis, sigma=0.5, seed=1)
        line, circle = sample(z, **form), sample(z, **form, periodic=(0,))
        assert_close("noise", circle, torch.remainder(line, 16))
        assert 100 < (circle > 8).sum() < 300  # about half


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_without_a_direction(dtype):
    """All round the same: position 0, no gradient, no NaN; and with the least of a direction it has one."""
    z = torch.zeros(1, 2, 5, 8, dtype=dtype, requires_grad=True)
    for answer in (soft_argmax(z, periodic=(0, 1)), soft_argmax(z, periodic=(0,))[..., :1]):
        assert answer.eq(0).all()
        assert torch.autograd.grad(answer.sum(), z)[0].eq(0).all()
    with torch.no_grad():
        z[0, :, :, 3] += 1e-3
    assert_close("position", soft_argmax(z.detach(), periodic=(0,))[..., 0], torch.full((1, 2), 3.0), tau=1e-3)


@every_circle
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("coords", ["index", "unit"])
def test_errors_go_the_shorter_way_round(grid, periodic, metric, coords):
    z, size = noise(2, 3, *grid).requires_grad_(), torch.tensor(grid[::-1]).double()
    target = torch.rand(2, 3, len(grid), generator=torch.Generator().manual_seed(1)).double() * size
    weight = torch.tensor([[1.0, 0.0, 0.5], [2.0, 1.0, 1.0]]).double()
    scale = 1 / size if coords == "unit" else torch.ones_like(size)
    y = sample(z, **SAMPLING, periodic=periodic)
    around = periods(grid, periodic)
    away = y - target[:, :, None]
    shorter = torch.stack([(away + k * around).abs() for k in (-1, 0, 1)]).amin(0) * scale  # by trying all ways
    each = {"l1": shorter.sum(-1), "l2": shorter.square().sum(-1), "euclidean": shorter.square().sum(-1).sqrt(),
            "smooth_l1": torch.where(shorter < 1, shorter.square() / 2, shorter - 0.5).sum(-1)}[metric]  # fmt: skip
    bad = target * scale
    bad[0, 1] = math.nan
    found = expected_error(z, bad, weight, metric=metric, periodic=periodic, coords=coords, **SAMPLING)
    assert_close("loss", found, each.mean(-1) * weight)
    assert_close("gradient", torch.autograd.grad(found.sum(), z)[0], gradient_of(each.mean(-1) * weight, z))
    turned = bad + (around * scale * torch.tensor([a in periodic for a in range(len(grid))]))
    again = expected_error(z, turned, weight, metric=metric, periodic=periodic, coords=coords, **SAMPLING)
    assert_close("a turn on", again, found)


def gradient_of(loss: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss.sum(), z)[0]


def test_wrap():
    x = torch.tensor([-13.0, -8.0, -4.1, -0.5, 0.0, 3.9, 4.1, 7.75, 17.0]).double()
    expected = torch.tensor([3.0, 0.0, 3.9, -0.5, 0.0, 3.9, -3.9, -0.25, 1.0]).double()
    assert_close("difference", wrap(x, 8), expected)


def test_objectives_on_circles():
    """Both modules, and the discrete expectation, which is what samples without a basis have in expectation at tau 0."""
    z, target = noise(2, 3, 5, 8), torch.rand(2, 3, 2).double() * 5
    own = dict(coords="unit", periodic=(0,))
    unit = target / torch.tensor([8, 5])
    sampling = SamplingArgmax(num_samples=5, tau=0.7, beta=1.3, **own)
    assert_close("loss", sampling.loss(z, unit, seed=3), expected_error(z, unit, **SAMPLING, **own))
    assert_close("samples", sampling(z, seed=3), sample(z, **SAMPLING, **own))
    assert_close("position", sampling.eval()(z), soft_argmax(z, beta=1.3, **own))
    assert_close("reading", sampling.read(z)[0], soft_argmax(z, beta=1.3, **own))
    soft = SoftArgmax(**own)
    away = (soft_argmax(z, **own) - unit).abs()
    shorter = torch.stack([torch.minimum(away[..., 0], 1 - away[..., 0]), away[..., 1]], -1)
    assert_close("soft", soft.loss(z, unit), shorter.sum(-1))
    discrete = make_objective("discrete")
    discrete.set_coords("index", 1, (0,))
    draws = sample(z, num_samples=4000, tau=0.02, basis="none", seed=1, periodic=(0,))
    mean = wrap(draws[..., 0] - target[:, :, None, 0], 8).abs() + (draws[..., 1] - target[:, :, None, 1]).abs()
    torch.testing.assert_close(discrete.loss(z, target), mean.mean(-1), atol=0.15, rtol=0)


# ---- windows ----


def test_a_window_over_a_gaussian_is_a_product_of_gaussians():
    """The mean of ``N(m, a^2) N(c*, s^2)`` is the mean of m and c* by their precisions."""
    x, m, a = torch.arange(60).double(), 30.3, 4.0
    z = (-((x - m) ** 2) / (2 * a**2)).view(1, 1, 60)
    for s in (2.0, 5.0):
        expected = (m / a**2 + 30 / s**2) / (1 / a**2 + 1 / s**2)
        assert_close("mean", soft_argmax(z, window=s), torch.tensor([[[expected]]], dtype=torch.float64))
        assert_close(
            "factor", soft_argmax(z / 2, window=s, beta=2.0), torch.tensor([[[expected]]], dtype=torch.float64)
        )
    assert_close("wide", soft_argmax(z, window=1e6), soft_argmax(z))
    points = x.view(1, 60, 1) * 0.1
    assert_close("points", soft_argmax(z, points=points, window=0.5), soft_argmax(z, window=5.0) * 0.1)


def test_a_window_leaves_one_of_two_peaks():
    """Of a map with two peaks the mean lies between them; with a window it is that of the higher one, on a circle too."""
    x = torch.arange(64).double()
    z = torch.logaddexp(-((x - 10) ** 2) / 2, -((x - 50) ** 2) / 2 + 0.2).view(1, 1, 64)
    assert 25 < soft_argmax(z) < 35
    assert_close("higher", soft_argmax(z, window=3.0), torch.tensor([[[50.0]]]))
    turned = z.roll(14, -1)
    assert_close_on("seam", soft_argmax(turned, window=3.0, periodic=(0,)), torch.zeros(1, 1, 1), (64,), (0,))
    assert_close("pixels", soft_argmax(z, window=3.0, stride=4), torch.tensor([[[201.5]]]))


# ---- angles ----


def regression(loss: LocalizationLoss) -> tuple[torch.Tensor, float]:
    """The mean error, in radians, of each of 16 sectors of a circle after training; the first is about angle 0."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 24))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for step in range(200):
        angle = torch.rand(128, generator=generator) * 2 * math.pi
        logits = network(torch.stack([angle.cos(), angle.sin()], -1)).unsqueeze(1)
        optimizer.zero_grad()
        loss(logits, (angle / (2 * math.pi)).view(-1, 1, 1), seed=step).backward()
        optimizer.step()
    angle = (torch.arange(16 * 40) + 0.5) / (16 * 40) * 2 * math.pi - math.pi / 16
    with torch.no_grad():
        found = loss.decode(network(torch.stack([angle.cos(), angle.sin()], -1)).unsqueeze(1)).flatten() * 2 * math.pi
    return wrap(found - angle, 2 * math.pi).abs().view(16, 40).mean(1)


@pytest.mark.parametrize("method", ["sampling", "soft", "discrete"])
def test_an_angle_has_no_seam_on_a_circle_and_one_on_a_line(method):
    circle, line = (regression(LocalizationLoss(method, periodic=axes)) for axes in ((0,), ()))
    elsewhere = circle[1:]
    assert circle[0] <= elsewhere.mean() + 3 * elsewhere.std(), circle
    assert circle.max() < 0.2
    assert line[0] > 3 * line[1:].max() and line[0] > 0.3, line


Z, T, OFFSET = torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 2), torch.zeros(2, 3, 2, 5, 8)
CLOUD = dict(logits=torch.zeros(2, 3, 9), points=torch.zeros(2, 9, 2))
ERRORS = [
    (lambda: soft_argmax(Z, periodic=(2,)), r"soft_argmax: periodic must hold axes in \[0, 2\) \(0 is x\), got \(2,\)"),
    (lambda: soft_argmax(Z, periodic=0), r"soft_argmax: periodic must hold axes in \[0, 2\) \(0 is x\), got 0"),
    (lambda: sample(Z, **SAMPLING, periodic=(0, 0)), r"sample: periodic must hold each axis once, got \(0, 0\)"),
    (lambda: sample(**CLOUD, **SAMPLING, basis="none", periodic=(0,)), "sample: periodic needs a grid, got points"),
    (lambda: sample(Z, **SAMPLING, periodic=(0,), offset=OFFSET), "sample: offset and .* need axes that are lines"),
    (lambda: soft_argmax(Z, periodic=(0,), offset=OFFSET), "soft_argmax: offset and .* need axes that are lines"),
    (lambda: sample(Z, **SAMPLING, basis="gaussian", periodic=(0,), sigma=Z + 1), "sample: offset and a sigma of every cell"),
    (lambda: expected_error(Z, T, **SAMPLING, periodic=(0,), spread=0.5), r"expected_error: spread needs axes that are lines"),
    (lambda: soft_argmax(Z, window=0.0), "soft_argmax: window must be > 0, got 0.0"),
    (lambda: SamplingArgmax(estimator="axis", periodic=(0,)), r"SamplingArgmax: its axes are lines, got periodic \(0,\)"),
    (lambda: SamplingArgmax(spread=0.5, periodic=(0,)), "SamplingArgmax: its axes are lines"),
    (lambda: LocalizationLoss("crps", periodic=(0,)), "Discrete: its axes are lines"),
    (lambda: LocalizationLoss("debiased", periodic=(0,)), "Debiased: its axes are lines"),
    (lambda: LocalizationLoss("soft_vr", periodic=(0,)), "VarianceRegularized: its axes are lines"),
    (lambda: SoftArgmax(periodic=(1,))(torch.zeros(1, 2, 9)), r"soft_argmax: periodic must hold axes in \[0, 1\)"),
]  # fmt: skip


@pytest.mark.parametrize("call, message", ERRORS, ids=[message[:50] for _, message in ERRORS])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("function", [axis_sample, heatmap_moments])
@pytest.mark.parametrize("name", ["periodic", "window"])
def test_what_has_no_circle_and_no_window_says_so(function, name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        function(Z, **{name: (0,)})
