"""The CPU kernels execute as many instructions as the committed counts say, to 2 %."""

import json

import pytest

from bench import instructions

COMMITTED = json.loads(instructions.RESULT.read_text())
COUNTS = COMMITTED["instructions per (sample, cell)"]


def test_weights_and_uniform_noise_stay_below_twenty():
    for basis in ("none", "uniform", "gaussian"):
        assert COUNTS[f"sample {basis} forward, tau 0.7"] < 20
    assert max(n for name, n in COUNTS.items() if name.startswith("axis_sample")) < 20


def test_the_most_common_temperature_takes_neither_logarithm_nor_exponential():
    for basis in ("uniform", "triangular", "gaussian"):
        assert COUNTS[f"sample {basis} forward, tau 1"] < COUNTS[f"sample {basis} forward, tau 0.7"] - 3


def test_committed_flags_are_the_extensions():
    assert COMMITTED["flags"] == " ".join(instructions.compiler_flags())


def test_counts_agree():
    if instructions.missing_tool():
        pytest.skip(instructions.missing_tool())
    here = f"g++ {instructions.compiler_version()}"
    if instructions.major(here) != instructions.major(COMMITTED["compiler"]):
        pytest.skip(f"the counts are of {COMMITTED['compiler']}, this is {here}")
    counts = instructions.count_all()["instructions per (sample, cell)"]
    assert counts.keys() == COUNTS.keys()
    assert instructions.differences(counts, COUNTS) == []


def test_a_difference_is_noticed():
    name = "sample uniform forward, tau 0.7"
    assert instructions.differences({name: COUNTS[name] * 1.03}, COUNTS) != []
    assert instructions.differences({name: COUNTS[name] * 1.01}, COUNTS) == []
