"""Faults planted in the sampler itself, each with a statistic that accepts the real sampler and rejects the faulty one.

A statistic is a number of standard errors from what independent noise gives. The limit is 4.5 (a false alarm once in
150,000 seeds). The faults move it by 141 (correlation 1 at 20,000 draws), 35 (the correlation .246 of
``r cos(2 pi u)`` and ``r sin(2 pi u)`` when u is also the word of r) or more, so missing one is out of the question.
"""

import pytest
import torch
from scipy import stats

import sampling_argmax_cuda
from sampling_argmax_cuda.reference import philox
from sampling_argmax_cuda.reference import sample as reference_sample

DRAWS, LIMIT, FAULTY = 20_000, 4.5, 25
SAMPLERS = {"operator": sampling_argmax_cuda.sample, "reference": reference_sample}
real_words = philox.words


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Correlation of two columns of draws, in standard errors of 0."""
    return abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1].item()) * a.numel() ** 0.5


def jitter_of(sampler, basis: str) -> torch.Tensor:
    """Jitter of the only cell of a 3-axis map: ``[draws, 3]``."""
    return sampler(torch.zeros(1, 1, 1, 1, 1), num_samples=DRAWS, tau=1.0, basis=basis, seed=4)[0, 0]


def axes_apart(sampler, basis: str) -> float:
    jitter = jitter_of(sampler, basis)
    return max(correlation(jitter[:, a], jitter[:, b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def weights_apart_from_jitter(sampler) -> float:
    """The mean of ``sum w n`` is 0 unless the weights know n; 64 cells, so that the winner's word is small."""
    y = sampler(torch.zeros(1, 1, 1, 64), num_samples=DRAWS, tau=0.5, basis="uniform", seed=4)[0, 0, :, 1]
    return (y.mean().abs() / y.std() * DRAWS**0.5).item()


def draws(sampler, seed, rows: int = 1) -> torch.Tensor:
    return sampler(torch.zeros(1, rows, 8), num_samples=DRAWS, tau=1.0, basis="none", seed=seed)[0]


def seeds_apart(sampler) -> float:
    """Sample s + 1 of a seed against sample s of the next seed."""
    return correlation(draws(sampler, 5)[0, 1:], draws(sampler, 6)[0, :-1])


def rows_apart(sampler) -> float:
    """Neighbouring rows, and rows 2^32 apart."""
    near = draws(sampler, 5, rows=2)
    far = draws(sampler, torch.tensor([5, 2**32]))
    return max(correlation(near[0], near[1]), correlation(near[0], far[0]))


def one_half_for_both_axes(key, rows, samples, index, stream):
    word = real_words(key, rows, samples, index, stream)
    low = word & 0xFFFF
    return low << 16 | low if stream == philox.PAIR else word


def one_stream_for_all(key, rows, samples, index, stream):
    return real_words(key, rows, samples, index, philox.GUMBEL)


def key_of_seed_plus_sample(key, rows, samples, index, stream):
    return real_words(key + samples, rows, torch.zeros_like(samples), index, stream)


def rows_of_32_bits(key, rows, samples, index, stream):
    return real_words(key, rows & 0xFFFFFFFF, samples, index, stream)


def rows_left_out(key, rows, samples, index, stream):
    return real_words(key, torch.zeros_like(rows), samples, index, stream)


def one_normal_for_a_pair(key, rows, samples, index, stream):
    """Axes 0 and 1 read words 0 and 1; here axis 1 reads the radius twice, so |n_0| and |n_1| follow one word."""
    return real_words(key, rows, samples, index & ~1 if stream == philox.NORMAL else index, stream)


FAULTS = {
    "one half for x and y": (one_half_for_both_axes, lambda s: axes_apart(s, "uniform")),
    "one half for x and y, triangular": (one_half_for_both_axes, lambda s: axes_apart(s, "triangular")),
    "one word for a pair of normals": (one_normal_for_a_pair, lambda s: axes_apart(s, "gaussian")),
    "weights and jitter share a stream": (one_stream_for_all, weights_apart_from_jitter),
    "key = seed + sample": (key_of_seed_plus_sample, seeds_apart),
    "rows modulo 2^32": (rows_of_32_bits, rows_apart),
    "no row in the counter": (rows_left_out, rows_apart),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_real_sampler_is_accepted(fault, sampler):
    assert FAULTS[fault][1](SAMPLERS[sampler]) < LIMIT


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_rejected(fault, monkeypatch):
    words, statistic = FAULTS[fault]
    monkeypatch.setattr(philox, "words", words)
    assert statistic(reference_sample) > FAULTY


def test_wrong_width_of_collapsed_noise_is_rejected(monkeypatch):
    """Against noise per cell: standard deviation sigma sqrt(sum w^2), not sigma sum w^2 or sigma."""
    logits, form = torch.zeros(1, 1, 6), dict(num_samples=DRAWS, tau=0.8, basis="gaussian", sigma=3.0)
    per_cell = reference_sample(logits, per_cell_noise=True, seed=1, **form).flatten().numpy()

    def distance_p(sampler) -> float:
        return stats.ks_2samp(sampler(logits, seed=2, **form).flatten().numpy(), per_cell).pvalue

    assert all(distance_p(sampler) > 1e-3 for sampler in SAMPLERS.values())
    real_normal = philox.normal
    for factor in (0.7, 1.5):
        monkeypatch.setattr(philox, "normal", lambda *a, f=factor: f * real_normal(*a))
        assert distance_p(reference_sample) < 1e-12


def selection_error(bits: int, cells: int) -> float:
    """Exact error of the probability that one of the heavy cells wins, with ``bits`` bits of the word.

    1 % of the cells are ten times as likely. No coins: the smallest level among m words is at least j with
    probability ``(1 - j / 2^bits)^m``, and a heavy cell at level j beats every light level with a larger E.
    """
    levels, heavy = torch.arange(2**bits, dtype=torch.float64), -(-cells // 100)
    e = torch.exp(-philox.gumbel(levels * 2 ** (32 - bits) + 2 ** (31 - bits) - 0.5))
    at_least = torch.exp(heavy * torch.log1p(-levels / 2**bits))
    smallest = at_least - torch.nn.functional.pad(at_least[1:], (0, 1))
    beaten = torch.searchsorted(e, e / 10, right=True)
    all_later = torch.exp((cells - heavy) * torch.log1p(-beaten / 2**bits))
    return abs((smallest * all_later).sum().item() - 10 * heavy / (9 * heavy + cells))


@pytest.mark.parametrize("cells, error_16", [(3072, 4.25e-5), (12288, 3.26e-4), (131072, 2.896e-2)])
def test_bits_of_the_gumbel_word(cells, error_16):
    """16 bits are wrong by as much as 0.029 of a true 0.092; each further bit at least halves the error."""
    assert selection_error(16, cells) == pytest.approx(error_16, rel=0.01)
    assert selection_error(20, cells) < error_16 / 16
    assert selection_error(22, cells) < error_16 / 64
