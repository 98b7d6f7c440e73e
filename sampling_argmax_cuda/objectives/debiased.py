"""Debiased soft-argmax (Gu et al., ICCV 2021): soft-argmax without the pull of the background to the middle."""

import math

from torch import Tensor

from ..checks import arithmetic_dtype
from .answers import Answer, output_of
from .soft import SoftArgmax


class Debiased(SoftArgmax):
    """The error of the debiased expectation.

    A background of zeros holds the share ``r = 1 / C`` of the probability, ``C`` the mean of ``exp(beta z)`` over the cells,
    and has its mean in the middle: ``(mean - r * middle) / (1 - r)``. There is a pole at r = 1, a map without a peak: a
    share above one half counts as one half. Averaged maps have no such background.

    Args:
        beta, backend, metric, units: as :class:`.SoftArgmax`.
    """

    point_sets, circles, averages = False, False, ("coords",)
    sub_distributions = ()  # the background's mean is in the middle of cells that stay where they are

    def locate(self, output: Answer, points: Tensor | None) -> tuple[Tensor, Tensor]:
        output = output_of(output)
        mean, peak = super().locate(output, points)
        flat = output.to(arithmetic_dtype(output)).flatten(2) * self.beta
        share = (math.log(flat.shape[-1]) - flat.logsumexp(-1)).exp().clamp(max=0.5).unsqueeze(-1)
        middle = mean.new_tensor([(n - 1) / 2 for n in reversed(output.shape[2:])])
        return (mean - share * middle) / (1 - share), peak
