"""What networks answer with: maps or positions, and what some say besides."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

# What a network may say of every cell, and the objectives that know of it: a position has to be a mean of cells, or a width seen.
SUB_DISTRIBUTIONS = {
    "offset": "soft, discrete or sampling with estimator cell",
    "offset_sigma": "sampling with estimator cell, basis gaussian and sigma > 0",
}


class OutputWithSigma(NamedTuple):
    """What a network with widths answers: maps or positions ``[B, K, ...]``, and sigma ``[B, K, d]`` in the objective's units."""

    output: Tensor
    sigma: Tensor


class SubDistributions(NamedTuple):
    """What a network with learned sub-distributions answers: maps, and where and how wide the basis of every cell is.

    ``output`` ``[B, K, *axes]``, ``offset`` ``[B, K, d, *axes]`` in cells (x, y, z), and ``sigma`` ``[B, K, *axes]`` > 0 in
    cells, or None for the objective's own (Li et al., NeurIPS 2021, Appendix C).
    """

    output: Tensor
    offset: Tensor
    sigma: Tensor | None = None


Answer = Tensor | OutputWithSigma | SubDistributions


def output_of(answer: Answer) -> Tensor:
    """The maps or positions of a network's answer."""
    return answer if isinstance(answer, Tensor) else answer.output


def cells_of(answer: Answer) -> dict[str, Tensor]:
    """What an operator has to know of the cells besides their logits: ``offset`` and ``sigma``, where the network says them."""
    if not isinstance(answer, SubDistributions):
        return {}
    return {name: own for name, own in (("offset", answer.offset), ("sigma", answer.sigma)) if own is not None}


def parts_of(answer: Answer) -> dict[str, Tensor]:
    """The maps or positions ``output`` and, of learned sub-distributions, ``offset`` and ``cell_sigma``: rows of a batch each."""
    cells = cells_of(answer)
    named = {"offset": cells.get("offset"), "cell_sigma": cells.get("sigma")}
    return {"output": output_of(answer), **{name: own for name, own in named.items() if own is not None}}


def answer_in(parts: Mapping[str, Tensor]) -> Tensor | SubDistributions:
    """The maps or positions, or the sub-distributions, that parts of :func:`parts_of` are of."""
    if "offset" not in parts:
        return parts["output"]
    return SubDistributions(parts["output"], parts["offset"], parts.get("cell_sigma"))
