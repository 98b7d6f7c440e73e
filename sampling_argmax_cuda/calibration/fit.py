"""What is fitted: one temperature by a proper score, and a monotone probability by isotonic regression."""

import numpy as np
from scipy.optimize import isotonic_regression

TEMPERATURES = 2.0 ** np.arange(-4, 4.5, 0.5)  # those that the score is measured at


def fit_temperature(scores: np.ndarray) -> float:
    """The temperature of the least mean score, from scores ``[n, temperatures]`` at :data:`TEMPERATURES`.

    Between them it is that of the parabola through the least one and its neighbours, in the logarithm of the temperature.
    """
    mean, steps = scores.mean(0), np.log(TEMPERATURES)
    best = int(mean.argmin())
    if best in (0, len(mean) - 1):
        return float(TEMPERATURES[best])
    below, at, above = mean[best - 1 : best + 2]
    bend = below - 2 * at + above
    shift = 0.5 * (below - above) / bend if bend > 0 else 0.0
    return float(np.exp(steps[best] + shift * (steps[1] - steps[0])))


def fit_probability(spread: np.ndarray, within: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The falling probability that a point of this spread is within the radius: spreads that rise, and their probabilities.

    Isotonic regression makes blocks of points of one share; a block of n points of which k are within has ``(k + 1) / (n + 2)``
    (Laplace's rule of succession), so that few points give neither 0 nor 1, and blocks that are out of order then are joined.
    A block stands at its mean spread.
    """
    order = np.argsort(spread, kind="stable")
    spread, within = spread[order], within[order].astype(float)
    starts = isotonic_regression(within, increasing=False).blocks
    count = np.diff(starts)
    share = (np.add.reduceat(within, starts[:-1]) + 1) / (count + 2)
    joined = isotonic_regression(share, weights=count, increasing=False)
    parts = starts[joined.blocks]
    place = np.add.reduceat(spread, parts[:-1]) / np.diff(parts)
    return tuple(map(float, place)), tuple(map(float, joined.x[joined.blocks[:-1]]))


def halves(groups: np.ndarray, seed: int) -> np.ndarray:
    """Whether each row, of the image that its group names, is one to fit on: half of the images, drawn by ``seed``."""
    images, image = np.unique(groups, return_inverse=True)
    chosen = np.random.default_rng(seed).permutation(len(images)) < len(images) // 2
    return chosen[image]
