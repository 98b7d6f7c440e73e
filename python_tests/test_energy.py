"""The energy score: its loop over pairs, its law in closed form, what it trains, masks and errors."""

import math

import pytest
import torch

from sampling_argmax_cuda import SamplingArgmax, energy_score, sample
from sampling_argmax_cuda.objectives.targets import Target


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
