"""Temperature schedules against their tables."""

import math
import pickle

import pytest

from sampling_argmax_cuda.objectives.schedules import (
    ConstantTau,
    ExponentialTau,
    GeometricTau,
    LinearTau,
    make_schedule,
)


def test_released_schedules():
    coco, h36m = make_schedule("coco"), make_schedule("h36m")
    for epoch in range(260):
        assert coco(epoch) == pytest.approx(max(0.5, 2 - 3 * epoch / 50), abs=1e-12)
        assert h36m(epoch) == pytest.approx(max(0.5, 5 - epoch / 50), abs=1e-12)
    assert (coco(0), coco(25), coco(140)) == (2.0, 0.5, 0.5)
    assert h36m(200) == pytest.approx(1.0)


def test_exponential():
    tau = ExponentialTau(start=2.0, end=0.1, decay=0.5)
    assert [tau(e) for e in (0, 1, 2, 3)] == [2.0, 1.0, 0.5, 0.25]
    assert tau(1000) == 0.1
    assert tau(0.5) == pytest.approx(2 * math.sqrt(0.5))


def test_noise_that_fades():
    tau = make_schedule("fading")
    assert tau == GeometricTau(1.0, 10.0) and tau.relative
    assert [tau(p) for p in (0, 0.5, 1)] == pytest.approx([1, math.sqrt(10), 10])
    assert GeometricTau(4.0, 1.0)(0.5) == pytest.approx(2.0)


def test_constant():
    assert make_schedule(2)(0) == make_schedule(2.0)(99) == ConstantTau(2.0)(5) == 2.0
    assert isinstance(make_schedule(2)(0), float)


def test_a_callable_is_returned_as_it_is():
    schedule = LinearTau(1.0, 0.1, 0.01)
    assert make_schedule(schedule) is schedule


def test_schedules_survive_pickling():
    for name in ("coco", "h36m", "fading", 0.7):
        schedule = make_schedule(name)
        assert pickle.loads(pickle.dumps(schedule)) == schedule


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConstantTau(0.0), "ConstantTau: value must be > 0 and finite, got 0.0"),
        (lambda: ConstantTau(math.nan), "ConstantTau: value must be > 0 and finite, got nan"),
        (lambda: LinearTau(1.0, 0.0, 0.1), "LinearTau: end must be > 0 and finite, got 0.0"),
        (lambda: LinearTau(math.inf, 0.5, 0.1), "LinearTau: start must be > 0 and finite, got inf"),
        (lambda: LinearTau(0.4, 0.5, 0.1), "LinearTau: start must be >= end = 0.5, got 0.4"),
        (lambda: LinearTau(1.0, 0.5, -0.1), "LinearTau: slope must be >= 0 and finite, got -0.1"),
        (lambda: ExponentialTau(1.0, 0.5, 1.5), r"ExponentialTau: decay must be in \(0, 1\], got 1.5"),
        (lambda: ExponentialTau(1.0, 0.5, 0.0), r"ExponentialTau: decay must be in \(0, 1\], got 0.0"),
        (lambda: ExponentialTau(0.1, 0.5, 0.9), "ExponentialTau: start must be >= end = 0.5, got 0.1"),
        (lambda: ConstantTau(1.0)(-1), "ConstantTau: epoch must be >= 0, got -1"),
        (lambda: make_schedule("coco")(-1), "LinearTau: epoch must be >= 0, got -1"),
        (lambda: ExponentialTau(1.0, 0.5, 0.9)(math.nan), "ExponentialTau: epoch must be >= 0, got nan"),
        (lambda: GeometricTau(0.0, 1.0), "GeometricTau: start must be > 0 and finite, got 0.0"),
        (lambda: GeometricTau(1.0, math.inf), "GeometricTau: end must be > 0 and finite, got inf"),
        (lambda: GeometricTau(1.0, 2.0)(1.5), r"GeometricTau: the part of the run .* must be in \[0, 1\], got 1.5"),
        (lambda: make_schedule(0.0), "make_schedule: tau must be > 0, got 0.0"),
        (lambda: make_schedule(-1), "make_schedule: tau must be > 0, got -1"),
        (lambda: make_schedule("mpii"), "make_schedule: schedule must be 'coco', 'h36m', .*, got 'mpii'"),
        (lambda: make_schedule(True), "make_schedule: schedule must be .*, got True"),
        (lambda: make_schedule(None), "make_schedule: schedule must be .*, got None"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
