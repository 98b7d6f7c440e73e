"""The energy score of samples and the CRPS of maps: loops and closed forms, what they train, masks and errors."""

import math

import pytest
import torch

from sampling_argmax_cuda import SamplingArgmax, energy_score, expected_error, heatmap_moments, sample
from sampling_argmax_cuda.objectives.discrete import Discrete
from sampling_argmax_cuda.objectives.marginals import marginal_scores
from sampling_argmax_cuda.objectives.targets import Target
from sampling_argmax_cuda.trainers.evaluation import MapEvaluation


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop(samples: torch.Tensor, target: torch.Tensor, metric: str) -> torch.Tensor:
    """By its definition, one row after the other."""
    order = 1 if metric == "l1" else 2
    rows = []
    for y, t in zip(samples.flatten(0, 1), target.flatten(0, 1), strict=True):
        pairs = [torch.linalg.vector_norm(a - b, order) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
        rows.append(
            torch.stack([torch.linalg.vector_norm(a - t, order) for a in y]).mean() - torch.stack(pairs).mean() / 2
        )
    return torch.stack(rows).view(samples.shape[:2])


@pytest.mark.parametrize("metric", ["l1", "euclidean"])
@pytest.mark.parametrize("count, axes", [(2, 1), (5, 2), (6, 3)])
def test_is_its_loop_over_pairs(metric, count, axes):
    y, t = noise(2, 3, count, axes).requires_grad_(), noise(2, 3, axes, seed=1)
    score, expected = energy_score(y, t, metric=metric), loop(y, t, metric)
    assert torch.allclose(score, expected, atol=1e-13)
    grads = [torch.autograd.grad(x.square().sum(), y)[0] for x in (score, expected)]
    assert torch.allclose(*grads, atol=1e-12)


@pytest.mark.parametrize("metric", ["l1", "euclidean"])
def test_gradcheck(metric):
    y, t = noise(1, 2, 4, 2).requires_grad_(), noise(1, 2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda y, t: energy_score(y, t, metric=metric), (y, t))


@pytest.mark.parametrize("count", [2, 3, 30])
def test_unbiased_for_any_number_of_samples(count):
    """Of a uniform law the CRPS at t is (t^2 + (1 - t)^2) / 2 - 1/6."""
    draws, t = 100_000, 0.3
    y = torch.rand(draws, 1, count, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    score = energy_score(y, torch.full((draws, 1, 1), t, dtype=torch.float64))
    expected, error = (t**2 + (1 - t) ** 2) / 2 - 1 / 6, score.std().item() / math.sqrt(draws)
    assert abs(score.mean().item() - expected) < 4.5 * error and error < 1e-3


def trained_map(spread: float, truth: torch.Tensor) -> torch.Tensor:
    """softmax of one map of cells, trained on targets that are drawn from a law of them."""
    generator = torch.Generator().manual_seed(0)
    objective = SamplingArgmax(num_samples=20, tau=0.1, basis="none", spread=spread)
    z = torch.zeros(1, 1, len(truth), requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.05)
    for step in range(600):
        cells = torch.multinomial(truth, 64, replacement=True, generator=generator)
        loss = objective.loss(z.expand(64, 1, -1), cells.float().view(64, 1, 1), seed=step).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return z.detach().softmax(-1).flatten()


@pytest.mark.parametrize(
    "truth", [(0, 0, 0.3, 0, 0, 0, 0.7, 0), (0, 0.1, 0.2, 0.4, 0.2, 0.1, 0, 0)], ids=["two", "wide"]
)
def test_trains_the_law_where_the_papers_loss_trains_its_median(truth):
    truth = torch.tensor(truth)
    median = int((truth.cumsum(0) >= 0.5).nonzero()[0])
    assert (trained_map(0.5, truth) - truth).abs().max() < 0.08
    assert trained_map(0.0, truth)[median] > 0.9


@pytest.mark.parametrize("estimator", ["cell", "axis"])
@pytest.mark.parametrize("metric, units", [("l1", "index"), ("euclidean", "centered")])
def test_the_objective_is_the_score_of_its_samples(estimator, metric, units):
    z, t, w = noise(2, 3, 6, 5), noise(2, 3, 2, seed=1) + 2, torch.tensor([[1.0, 0, 2], [1, 1, 0.5]]).double()
    objective = SamplingArgmax(num_samples=7, tau=0.7, estimator=estimator, metric=metric, units=units, spread=0.5)
    scale = torch.tensor([1.0, 1.0] if units == "index" else [1 / 5, 1 / 6], dtype=torch.float64)
    expected = energy_score(objective.samples(z, seed=3) * scale, t * scale, w, metric=metric)
    assert torch.allclose(objective.loss(z, t, w, seed=3), expected, atol=1e-12)


def test_what_is_not_known_reaches_nothing():
    z, t = noise(1, 2, 6, 5).requires_grad_(), torch.tensor([[[2.0, math.nan], [1.0, 2.0]]]).double()
    axes = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    objective = SamplingArgmax(num_samples=7, tau=0.7, spread=0.5)
    loss = objective.loss(z, Target(t, None, (5, 6), axes=axes), seed=3)
    x = objective.samples(z, seed=3)[:, :1, :, :1]
    assert torch.allclose(loss[:, :1], energy_score(x, t[:, :1, :1])) and loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("metric", ["l1", "euclidean"])  # whose slope of NaN is 0, and NaN
def test_weight_zero(metric):
    y, t = noise(1, 2, 4, 2), noise(1, 2, 2, seed=1)
    y[0, 0], t[0, 0] = math.nan, math.inf
    score = energy_score(y.requires_grad_(), t.requires_grad_(), torch.tensor([[0.0, 1.0]]), metric=metric)
    assert score[0, 0] == 0 and score[0, 1] != 0
    for grad in torch.autograd.grad(score.sum(), (y, t)):
        assert (grad[0, 0] == 0).all() and grad.isfinite().all()


@pytest.mark.parametrize("call, message", [
    (lambda: energy_score(noise(1, 2, 1, 2), noise(1, 2, 2)), "with S >= 2, got 1 samples"),
    (lambda: energy_score(noise(1, 2, 3, 2), noise(1, 2, 2), metric="l2"), "needs metric l1 or euclidean, got 'l2'"),
    (lambda: energy_score(noise(1, 2, 3, 2), noise(1, 2, 3)), r"target must be \[B, K, d\] = \[1, 2, 2\], got \(1, 2, 3\)"),
    (lambda: energy_score(noise(1, 2, 3, 2), noise(1, 2, 2), noise(2, 1)), r"weight must be \[B, K\]"),
    (lambda: SamplingArgmax(spread=-1.0), "spread must be >= 0, got -1.0"),
    (lambda: SamplingArgmax(spread=0.5, metric="smooth_l1"), "needs metric l1 or euclidean"),
    (lambda: SamplingArgmax(spread=0.5, num_samples=1), "with S >= 2"),
])  # fmt: skip
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_of_samples_of_the_operator():
    z = noise(2, 3, 6, 5).float().requires_grad_()
    energy_score(sample(z, num_samples=5, tau=0.7, seed=1), torch.ones(2, 3, 2)).sum().backward()
    assert z.grad.isfinite().all() and (z.grad != 0).any()


# ---- without samples: the CRPS of the marginals ----


def law(*shape: int, seed: int = 0) -> torch.Tensor:
    return noise(*shape, seed=seed).flatten(2).softmax(-1).view(shape)


@pytest.mark.parametrize("metric", ["l1", "euclidean"])
def test_equals_scoringrules(metric):
    """Another package, in NumPy: its fair energy score, and its fair CRPS summed over the axes."""
    rules = pytest.importorskip("scoringrules")
    y, t = noise(4, 3, 9, 2), noise(4, 3, 2, seed=1)
    if metric == "l1":
        expected = rules.crps_ensemble(t.numpy(), y.numpy(), m_axis=2, estimator="fair").sum(-1)
    else:
        expected = rules.es_ensemble(t.numpy(), y.numpy(), estimator="fair")
    assert torch.allclose(energy_score(y, t, metric=metric), torch.from_numpy(expected), atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 2, 5, 6), (1, 2, 3, 4, 5)], ids=str)
def test_crps_is_its_integral(shape):
    """The CRPS of each axis is the integral of (F(x) - [x >= t])^2, F a step function of the cells."""
    p, rows = law(*shape), shape[:2]
    t = torch.rand(*rows, len(shape) - 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 6 - 1
    expected = torch.zeros(rows, dtype=torch.float64)
    x = (torch.arange(-3_000, 12_000, dtype=torch.float64) + 0.5) / 1_000
    for axis in range(t.shape[-1]):
        others = [dim for dim in range(2, p.dim()) if dim != p.dim() - 1 - axis]
        below = torch.nn.functional.pad((p.sum(others) if others else p).cumsum(-1), (1, 0))
        cell = x.floor().long().clamp(-1, below.shape[-1] - 2) + 1
        step = (x >= t[..., axis, None]).double()
        expected += (below[..., cell] - step).square().sum(-1) / 1_000
    objective = Discrete(spread=0.5)
    assert torch.allclose(objective.loss(p.log(), t), expected, atol=1e-3)
    crps, below, spread = marginal_scores(p, t)
    assert torch.allclose(crps.sum(-1), objective.loss(p.log(), t), atol=1e-12)


def test_crps_of_points_is_that_of_the_grid_they_are():
    z, t, points = (
        noise(2, 3, 11),
        noise(2, 3, 1, seed=1) + 5,
        torch.randperm(11, generator=torch.Generator().manual_seed(0)),
    )
    own = points.double().view(1, 11, 1).expand(2, -1, -1)
    objective = Discrete(spread=0.5)
    assert torch.allclose(objective.loss(z[..., points], t, points=own), objective.loss(z, t), atol=1e-12)


def test_crps_gradients_units_and_what_is_not_known():
    z, t = noise(2, 2, 4, 5).requires_grad_(), noise(2, 2, 2, seed=1) + 2
    assert torch.autograd.gradcheck(lambda z: Discrete(spread=0.5).loss(z, t), (z,))
    x, y = (Discrete(spread=0.5).loss(z, Target(t, None, (5, 4), axes=torch.tensor(known).expand(2, 2, 2)))
            for known in ([1.0, 0.0], [0.0, 1.0]))  # fmt: skip
    assert torch.allclose(x + y, Discrete(spread=0.5).loss(z, t)) and (x != 0).all()
    scaled = Discrete(spread=0.5, units="centered").loss(z, Target(t, None, (5, 4)))
    assert torch.allclose(scaled, x / 5 + y / 4)


def test_samples_of_a_map_have_its_crps():
    """At a temperature near 0 and without a basis samples are cells, so that their score is unbiased for that of the map."""
    z, t, draws = noise(1, 1, 6, 5).float(), torch.tensor([[[1.3, 4.1]]]), 40_000
    y = sample(z, num_samples=draws, tau=0.01, basis="none", seed=1)
    score = energy_score(y.view(draws // 8, 1, 8, 2), t.expand(draws // 8, 1, 2))
    error = score.std().item() / math.sqrt(len(score))
    assert abs(score.mean().item() - Discrete(spread=0.5).loss(z, t).item()) < 4 * error and error < 0.02


@pytest.mark.parametrize(
    "truth", [(0, 0, 0.3, 0, 0, 0, 0.7, 0), (0, 0.1, 0.2, 0.4, 0.2, 0.1, 0, 0), (0.4, 0.3, 0.2, 0.1)]
)
def test_crps_trains_the_law_exactly(truth):
    """Its expectation over targets is least at their law; without the spread at their median."""
    truth = torch.tensor(truth, dtype=torch.float64)
    targets = torch.arange(len(truth), dtype=torch.float64).view(-1, 1, 1)
    for spread, expected in ((0.5, truth), (0.0, torch.eye(len(truth)).double()[int((truth.cumsum(0) < 0.5).sum())])):
        z = torch.zeros(1, 1, len(truth), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([z], lr=0.1)
        for _ in range(1_000):
            optimizer.zero_grad()
            (Discrete(spread=spread).loss(z.expand(len(truth), 1, -1), targets)[:, 0] * truth).sum().backward()
            optimizer.step()
        assert torch.allclose(z.detach().softmax(-1).flatten(), expected, atol=0.01)


def test_marginal_scores_of_a_map():
    """The probability below the target is uniform for targets of the law; the spread is that of the moments."""
    p = law(1, 1, 6, 9)
    t = torch.tensor([[[3.5, -1.0]]], dtype=torch.float64)
    crps, below, spread = marginal_scores(p, t)
    assert torch.allclose(below, torch.stack([p[..., :4].sum((-1, -2)), torch.zeros(1, 1)], -1))
    assert torch.allclose(spread.square(), heatmap_moments(p.log()).variance)
    cells = torch.multinomial(p.flatten(), 20_000, replacement=True, generator=torch.Generator().manual_seed(0))
    jitter = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    targets = torch.stack([cells % 9, cells // 9], -1) + jitter
    below = marginal_scores(p.expand(20_000, -1, -1, -1), targets.double().unsqueeze(1)).below.flatten()
    counts = torch.histc(below, 10, 0, 1)
    assert ((counts - 4_000) / math.sqrt(3_600)).abs().max() < 4


def test_what_a_validation_says_of_maps():
    """Means over the coordinates that are known, of samples in any order; a target is held where at most 5 % lie beyond it."""
    p, t = law(40, 2, 6, 5), noise(40, 2, 2, seed=1) * 2 + 2.5
    known = torch.ones(40, 2, 2)
    known[0, 1], known[2, 0, 1], t[0, 1], t[2, 0, 1] = 0, 0, math.nan, 100.0
    evaluation = MapEvaluation()
    for rows in (list(range(20, 40)), list(range(20))):
        evaluation.add(torch.tensor(rows), p[rows], t[rows], known[rows])
    found = evaluation.compute(list)
    crps, below, spread = (x[known > 0] for x in marginal_scores(p, t))
    beyond = torch.minimum(below, 1 - below)
    expected = {"crps": crps.mean(), "spread": spread.mean(), "cover_50": (beyond >= 0.25).double().mean(),
                "cover_90": (beyond >= 0.05).double().mean()}  # fmt: skip
    assert found == pytest.approx({name: float(x) for name, x in expected.items()}, abs=1e-12)
    assert 0 < found["cover_50"] < found["cover_90"] < 1
    assert evaluation.compute(list) == {}


@pytest.mark.parametrize("call, message", [
    (lambda: Discrete(spread=-0.1), "Discrete: spread must be >= 0, got -0.1"),
    (lambda: Discrete(spread=0.5, metric="euclidean"), "Discrete: the score of marginals needs metric l1, got 'euclidean'"),
    (lambda: expected_error(noise(1, 2, 5), noise(1, 2, 1), num_samples=1, tau=1.0, spread=0.5), "expected_error: a proper"),
    (lambda: expected_error(noise(1, 2, 5), noise(1, 2, 1), num_samples=2, tau=1.0, spread=0.5, metric="l2"),
     "expected_error: a proper score needs metric l1 or euclidean, got 'l2'"),
    (lambda: expected_error(noise(1, 2, 5), noise(1, 2, 1), num_samples=2, tau=1.0, spread=math.nan), "spread must be >= 0"),
])  # fmt: skip
def test_errors_without_samples(call, message):
    with pytest.raises(ValueError, match=message):
        call()
