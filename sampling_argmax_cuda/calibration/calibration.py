"""What a calibrated checkpoint knows: a temperature of its maps, and the probability that a point is within a radius."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Radius:
    """A distance in pixels of the image, or in percent of the longer side of the crop that the network sees.

    Args:
        value: > 0.
        unit: ``px`` or ``%``.
    """

    value: float
    unit: str

    @classmethod
    def of(cls, text: str) -> "Radius":
        """The radius that ``4``, ``4px`` or ``5%`` stands for."""
        unit = "%" if text.endswith("%") else "px"
        try:
            value = float(text.removesuffix(unit))
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise ValueError(f"calibrate: radius must be pixels of the image > 0, as 4, or a percentage of the crop's longer side, "
                             f"as 5%, got {text!r}")  # fmt: skip
        return cls(value, unit)

    def pixels(self, side: Tensor) -> Tensor:
        """In pixels of the images, ``[B]``, whose crops' longer sides are ``side`` ``[B]`` pixels of them."""
        return side * (self.value / 100) if self.unit == "%" else side * 0 + self.value

    def __str__(self) -> str:
        return f"{self.value:g} {'% of the crop' if self.unit == '%' else 'px'}"


@dataclass(frozen=True)
class Calibration:
    """From a map to the probability that the point read off it is within a radius of the truth.

    Args:
        radius: of the confidence.
        temperature: of the maps, > 0: their law is ``softmax(beta z / T)``. It moves no position.
        spread: rising, the square root of the covariance's trace in radii.
        probability: falling, that the error is below the radius at each of these; between them it is linear, beyond them constant.
        reading: the options of the model that positions were read with.
    """

    radius: Radius
    temperature: float
    spread: tuple[float, ...]
    probability: tuple[float, ...]
    reading: Mapping[str, object] = field(default_factory=dict)

    def confidence(self, spread: Tensor) -> Tensor:
        """The probability that the error is below the radius, from spreads ``s`` ``[...]`` in radii, in float64.

        ``p_0 + sum_i (p_{i+1} - p_i) clamp((s - s_i) / (s_{i+1} - s_i), 0, 1)``, which exported files can say too.
        """
        place, value = (
            torch.tensor(own, dtype=torch.float64, device=spread.device) for own in (self.spread, self.probability)
        )
        step = place.diff().clamp(min=torch.finfo(torch.float64).tiny)
        ramp = ((spread.double().unsqueeze(-1) - place[:-1]) / step).clamp(0, 1)
        return value[0] + (ramp * value.diff()).sum(-1)

    def state(self) -> dict[str, object]:
        """As a checkpoint has it: numbers, texts and lists."""
        return {**asdict(self), "spread": list(self.spread), "probability": list(self.probability)}

    @classmethod
    def of(cls, state: Mapping | None) -> "Calibration | None":
        """What :meth:`state` gave, None for None."""
        if state is None:
            return None
        values = {**state, "radius": Radius(**state["radius"])}
        return cls(**{**values, "spread": tuple(values["spread"]), "probability": tuple(values["probability"])})
