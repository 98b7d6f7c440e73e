"""What is trained and how a position is read: one file an objective, plain PyTorch.

A new objective is a class in a file of its own and a line in :data:`OBJECTIVES`; no trainer and no task knows of it.
"""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from .cross_entropy import CrossEntropy
from .debiased import Debiased
from .direct import Direct
from .discrete import Discrete
from .heatmap import Heatmap
from .objective import Objective
from .regularized import DistributionRegularized, VarianceRegularized
from .rle import LikelihoodOf, Rle, SamplingRle, SoftRle
from .sampling import SamplingArgmax
from .soft import SoftArgmax

FROM_TRAINER = ("axes", "coords", "stride", "periodic")  # arguments that are no options: the trainer knows them
OBJECTIVES: dict[str, type[Objective]] = {
    "soft": SoftArgmax,
    "soft_vr": VarianceRegularized,
    "soft_dr": DistributionRegularized,
    "debiased": Debiased,
    "discrete": Discrete,
    "sampling": SamplingArgmax,
    "heatmap": Heatmap,
    "cross_entropy": CrossEntropy,
    "direct": Direct,
    "rle": Rle,
    "soft_rle": SoftRle,
    "sampling_rle": SamplingRle,
}


def options_of(name: str) -> dict[str, object]:
    """The options of an objective with their defaults: the arguments of its class but for what its trainer says."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective: name must be one of {', '.join(OBJECTIVES)}, got {name!r}")
    arguments = signature(OBJECTIVES[name]).parameters
    return {key: argument.default for key, argument in arguments.items() if key not in FROM_TRAINER}


def complete(options: str | Mapping) -> dict[str, Any]:
    """The name and every option of what a name, or ``{"name": name, option: value, ...}``, stands for."""
    own: dict[str, Any] = {"name": options} if isinstance(options, str) else dict(options)
    name = own.pop("name", None)
    known = options_of(name)
    wrong = next((key for key in own if key not in known), None)
    if wrong is not None:
        raise ValueError(f"objective: {name} has no option {wrong!r} (it has {', '.join(known)})")
    return {"name": name, **known, **own}


def make_objective(options: str | Mapping, axes: int = 2) -> Objective:
    """The objective of a name, or of ``{"name": name, option: value, ...}``.

    Args:
        options: the name and, where they are not its defaults, the options of its class.
        axes: coordinates of a point, for the objectives that have to know.

    Raises:
        ValueError: for an unknown name or option, and for a value that the class refuses.
    """
    own = complete(options)
    kind = OBJECTIVES[own.pop("name")]
    return kind(**own, axes=axes) if issubclass(kind, LikelihoodOf) else kind(**own)
