"""Numbers that nobody can argue with: spreads and laws in closed form, and sampler faults that must be noticed.

Draw counts give a standard error at least four times smaller than the tolerance; seeds are fixed.
"""

import math

import pytest
import torch
from conftest import assert_close
from contract_cases import number
from scipy import stats

from sampling_argmax_cuda import axis_sample, reference, sample
from sampling_argmax_cuda.backends import operators
from sampling_argmax_cuda.reference.axis_sample import axis_coordinate, bin_noise
from sampling_argmax_cuda.reference.philox import GUMBEL, gumbel, words

DRAWS = 200_000


def one_hot(size: int, cell: int) -> torch.Tensor:
    """A row whose weight is all on one cell."""
    logits = torch.full((1, 1, size), -torch.inf)
    logits[0, 0, cell] = 0
    return logits


def spread(draws: torch.Tensor) -> tuple[float, float]:
    return draws.double().mean().item(), draws.double().std().item()


@pytest.mark.parametrize(
    "basis, deviation", [("uniform", 1 / math.sqrt(12)), ("triangular", 1 / math.sqrt(6)), ("gaussian", 1.7)]
)
def test_spread_of_a_one_hot_map(basis, deviation):
    draws = sample(one_hot(9, 4), num_samples=DRAWS, tau=1.0, basis=basis, sigma=1.7, seed=1)
    mean, std = spread(draws)
    assert std == pytest.approx(deviation, rel=0.01) and mean == pytest.approx(4, abs=5 * deviation / DRAWS**0.5)


def test_released_triangular_is_narrower_and_leans_inward():
    mean, std = spread(axis_sample(one_hot(9, 4), num_samples=DRAWS, tau=1.0, seed=1))
    assert std == pytest.approx(0.321, abs=0.002) and mean == pytest.approx(4, abs=0.004)
    mean, _ = spread(axis_sample(one_hot(9, 0), num_samples=DRAWS, tau=1.0, seed=2))
    assert mean == pytest.approx(0.086, abs=0.003)


@pytest.mark.parametrize("reweight, deviation", [(0.0, 0.435), (0.5, 0.350), (2.0, 0.503)])
def test_spread_of_reweighted_gaussians(reweight, deviation):
    """Weights exp(-(i - 4)^2 / (2 1.5^2)) on 9 bins, noise from the operators' own generator."""
    h = torch.exp(-((torch.arange(9.0) - 4) ** 2) / (2 * 1.5**2)).double()
    h = (h / h.sum()).expand(1, 1, DRAWS, 9)
    noise = bin_noise(torch.zeros(1, 1, 9), DRAWS, "gaussian", 3)
    c = axis_coordinate(h, noise, "gaussian", torch.ones(()), reweight, None)
    assert spread(c)[1] == pytest.approx(deviation, abs=0.004)


@pytest.mark.parametrize("beta", [1.0, 0.7])
def test_small_temperature_is_argmax_with_the_softmax_law(beta):
    """Cells win with probability softmax(beta z): chi^2 over 12 cells at 4e5 draws, and each within 4.5 errors."""
    # float64 and 1e-6, because near ties average two cells and land on a third one.
    logits, draws = torch.randn(1, 1, 12, generator=torch.Generator().manual_seed(3)).double(), 400_000
    y, _ = operators("cpu").sample(logits, None, None, torch.tensor([5]), draws, number(1e-6), number(beta), "none")
    winners = y.round().long().flatten()
    p = torch.softmax(beta * logits.double().flatten(), 0)
    counts = torch.bincount(winners, minlength=12).double()
    assert ((counts / draws - p).abs() < 4.5 * (p * (1 - p) / draws).sqrt()).all()
    assert stats.chisquare(counts.numpy(), (p * draws).numpy()).pvalue > 1e-4


def test_released_form_is_beta_equal_to_tau():
    logits, tau = torch.randn(1, 2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 1.6
    cells, samples = torch.arange(7), torch.arange(5)[:, None]
    rows = torch.arange(2).view(1, 2, 1, 1)
    g = gumbel(words(torch.tensor(8), rows, samples, cells, GUMBEL))
    expected = (torch.softmax(logits[:, :, None] + g / tau, -1) * cells).sum(-1, keepdim=True)
    got = sample(logits, num_samples=5, tau=tau, beta=tau, basis="none", seed=8)
    assert_close("released form", got, expected)


def gaussian_draws(per_cell: bool, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and, for the loss (y - 3)^2, the gradient of each of ``draws`` independent rows."""
    z = torch.tensor([0.3, -0.5, 1.1, 0.2, -1.0, 0.6]).double().expand(draws, 1, 6).clone().requires_grad_()
    seed = 11 if per_cell else 12
    y = reference.sample(z, num_samples=1, tau=0.8, basis="gaussian", sigma=1.3, seed=seed, per_cell_noise=per_cell)
    (grad,) = torch.autograd.grad((y - 3).square().sum(), z)
    return y.detach().flatten(), grad[:, 0]


def test_collapsed_gaussian_noise_has_the_same_law_and_a_gradient_of_no_larger_variance():
    draws = 60_000
    (y, g), (cell_y, cell_g) = gaussian_draws(False, draws), gaussian_draws(True, draws)
    assert stats.ks_2samp(y.numpy(), cell_y.numpy()).pvalue > 1e-3
    error = ((g.var(0) + cell_g.var(0)) / draws).sqrt()
    assert ((g.mean(0) - cell_g.mean(0)).abs() < 4.5 * error).all()
    assert g.var(0).sum() < cell_g.var(0).sum()


CELLS = 131_072
HEAVY = torch.arange(CELLS) % 100 == 0  # 1 % of the cells, each ten times as likely
TRUE_SHARE = 10 * HEAVY.sum().item() / (10 * HEAVY.sum().item() + (~HEAVY).sum().item())


def operator_share(draws: int) -> float:
    """How often a heavy cell wins: heavy points lie at 1, the others at 0."""
    logits = torch.where(HEAVY, math.log(10.0), 0.0).view(1, 1, CELLS)
    points = HEAVY.float().view(1, CELLS, 1)
    y, _ = operators("cpu").sample(logits, points, None, torch.tensor([21]), draws, number(1e-3), number(1.0), "none")
    return y.mean().item()


def sixteen_bit_share(draws: int) -> float:
    """The same race with 16-bit uniforms; ties share the win."""
    generator, wins = torch.Generator().manual_seed(1), 0.0
    scale = torch.where(HEAVY, 10.0, 1.0)
    for _ in range(draws):
        u = (torch.randint(0, 2**16, (CELLS,), generator=generator) + 0.5) / 2**16
        race = -torch.log1p(-u) / scale
        best = race == race.min()
        wins += ((best & HEAVY).sum() / best.sum()).item()
    return wins / draws


def test_16_bit_gumbel_noise_is_noticed():
    """The true share is 0.0918 and 16 bits miss it by 0.029: 4.5 standard errors at 2,000 draws."""
    draws = 2_000
    tolerance = 2.25 * math.sqrt(TRUE_SHARE * (1 - TRUE_SHARE) / draws)
    assert abs(operator_share(draws) - TRUE_SHARE) < tolerance
    assert abs(sixteen_bit_share(draws) - TRUE_SHARE) > tolerance


def test_jitters_of_axes_and_samples_are_uncorrelated():
    """Correlations within 5 standard errors (0.002 each); planted faults: test_sampler_faults.py."""
    logits = torch.full((1, 1, 3, 3), -torch.inf)
    logits[0, 0, 1, 1] = 0
    draws = sample(logits, num_samples=DRAWS, tau=1.0, basis="uniform", seed=4)[0, 0].double()

    def correlated(a, b):
        return abs(torch.corrcoef(torch.stack([a, b]))[0, 1].item()) > 5 / DRAWS**0.5

    assert not correlated(draws[:, 0], draws[:, 1])
    assert not correlated(draws[:-1, 0], draws[1:, 0])


def test_a_key_of_seed_plus_sample_is_noticed():
    """Sample s + 1 of a seed must not be sample s of the next seed, nor row r + 1 row r."""

    def repeats(draw) -> bool:
        return torch.equal(draw(seed=5)[:, :, 1:], draw(seed=6)[:, :, :-1])

    logits = torch.zeros(1, 1, 64)
    assert not repeats(lambda seed: sample(logits, num_samples=4, tau=1.0, seed=seed))
    assert repeats(lambda seed: torch.cat([sample(logits, num_samples=1, tau=1.0, seed=seed + s) for s in range(4)], 2))
    rows = sample(torch.zeros(1, 4, 64), num_samples=4, tau=1.0, seed=5)
    assert rows.flatten().unique().numel() == 16
