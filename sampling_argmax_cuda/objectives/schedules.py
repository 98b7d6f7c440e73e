"""Temperature schedules: callables ``tau(epoch) -> float``, read before the epoch's first forward pass.

A schedule with an attribute ``relative`` that is true is a function of the part of the run that is done, in [0, 1], instead,
and read before each step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

Schedule = Callable[[float], float]


def _check_tau(name: str, field: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}: {field} must be > 0 and finite, got {value}")


def _check_epoch(name: str, epoch: float) -> None:
    if not epoch >= 0:
        raise ValueError(f"{name}: epoch must be >= 0, got {epoch}")


@dataclass(frozen=True)
class ConstantTau:
    """``tau(e) = value``, in (0, inf)."""

    value: float = 1.0

    def __post_init__(self) -> None:
        _check_tau("ConstantTau", "value", self.value)

    def __call__(self, epoch: float) -> float:
        _check_epoch("ConstantTau", epoch)
        return float(self.value)


@dataclass(frozen=True)
class LinearTau:
    """``tau(e) = max(end, start - slope * e)``: falls by ``slope >= 0`` an epoch, down to ``end``."""

    start: float
    end: float
    slope: float

    def __post_init__(self) -> None:
        _check_tau("LinearTau", "end", self.end)
        _check_tau("LinearTau", "start", self.start)
        if self.start < self.end:
            raise ValueError(f"LinearTau: start must be >= end = {self.end}, got {self.start}")
        if not (self.slope >= 0 and math.isfinite(self.slope)):
            raise ValueError(f"LinearTau: slope must be >= 0 and finite, got {self.slope}")

    def __call__(self, epoch: float) -> float:
        _check_epoch("LinearTau", epoch)
        return float(max(self.end, self.start - self.slope * epoch))


@dataclass(frozen=True)
class ExponentialTau:
    """``tau(e) = max(end, start * decay**e)`` with ``0 < decay <= 1``."""

    start: float
    end: float
    decay: float

    def __post_init__(self) -> None:
        _check_tau("ExponentialTau", "end", self.end)
        _check_tau("ExponentialTau", "start", self.start)
        if self.start < self.end:
            raise ValueError(f"ExponentialTau: start must be >= end = {self.end}, got {self.start}")
        if not 0 < self.decay <= 1:
            raise ValueError(f"ExponentialTau: decay must be in (0, 1], got {self.decay}")

    def __call__(self, epoch: float) -> float:
        _check_epoch("ExponentialTau", epoch)
        return float(max(self.end, self.start * self.decay**epoch))


@dataclass(frozen=True)
class GeometricTau:
    """``tau(p) = start * (end / start)**p`` of the part p of the run that is done: from ``start`` to ``end``, up or down.

    With ``beta="tau"``, the released form ``softmax(z + g / tau)``, a rising temperature lets the noise fade: its width
    is ``1 / tau`` beside the logits, and at a high one samples are soft-argmax with the noise of their basis.
    """

    start: float
    end: float
    relative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_tau("GeometricTau", "start", self.start)
        _check_tau("GeometricTau", "end", self.end)

    def __call__(self, progress: float) -> float:
        if not 0 <= progress <= 1:
            raise ValueError(f"GeometricTau: the part of the run that is done must be in [0, 1], got {progress}")
        return float(self.start * (self.end / self.start) ** progress)


def make_schedule(schedule: str | float | Schedule) -> Schedule:
    """The schedule that ``schedule`` stands for.

    Args:
        schedule: ``"coco"`` = ``max(0.5, 2 - 3e/50)``, the released COCO and MTFL schedule; ``"h36m"`` =
            ``max(0.5, 5 - e/50)``, the released Human3.6M one; ``"fading"``, from 1 to 10 over the run, for noise that
            fades with ``beta="tau"``; a number > 0, a constant; or a callable, returned as it is.

    Raises:
        ValueError: for anything else.
    """
    if schedule == "coco":
        return LinearTau(start=2.0, end=0.5, slope=3 / 50)
    if schedule == "h36m":
        return LinearTau(start=5.0, end=0.5, slope=1 / 50)
    if schedule == "fading":
        return GeometricTau(start=1.0, end=10.0)
    if callable(schedule):
        return schedule
    if isinstance(schedule, int | float) and not isinstance(schedule, bool):
        if not (schedule > 0 and math.isfinite(schedule)):
            raise ValueError(f"make_schedule: tau must be > 0, got {schedule}")
        return ConstantTau(float(schedule))
    raise ValueError(
        f"make_schedule: schedule must be 'coco', 'h36m', 'fading', a number > 0 or a callable, got {schedule!r}"
    )
