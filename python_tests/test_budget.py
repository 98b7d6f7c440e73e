"""Instructions of the CUDA kernels' cell loops: the committed counts keep the budget, and the compiler agrees with them."""

import json

import pytest

from bench import budget

COMMITTED = json.loads(budget.RESULT.read_text())
COUNTS = COMMITTED["kernels"]
LIMITS = {
    "sample uniform 2-D general": 36, "sample triangular 2-D general": 48, "sample gaussian 2-D general": 26,
    "axis_sample triangular 2-D general": 30, "expected_error uniform 2-D general": 52,
}  # fmt: skip


@pytest.mark.parametrize("name, limit", LIMITS.items())
def test_limits(name, limit):
    assert COUNTS[name]["sm_90"]["instructions"] <= limit


@pytest.mark.parametrize("name", [n for n in COUNTS if "backward" in n and n.startswith("sample")])
def test_backward_costs_a_tenth_more_at_most(name):
    forward = COUNTS[name.replace(" backward", "")]["sm_90"]["instructions"]
    assert COUNTS[name]["sm_90"]["instructions"] <= 1.1 * forward


@pytest.mark.parametrize("name", COUNTS)
def test_hygiene(name):
    """No spills, no barrier, atomic or local memory in the loop; no more special functions than the formula has."""
    weights = 2 if name.endswith((" one", " two")) else 3
    basis = {"triangular": int(name.split(" ")[-2][0])}.get(name.split(" ")[-3], 0)  # a square root an axis
    noise = 0 if name.startswith("axis_sample") else basis
    for architecture, counts in COUNTS[name].items():
        assert counts["spilled_bytes"] == 0 and counts["forbidden"] == 0, architecture
        if not name.endswith("low"):  # which also moves its maximum, once in four cells
            assert counts["special_functions"] == weights + noise


@pytest.mark.parametrize("name", [n for n in COUNTS if n.startswith(("sample uniform 2-D general", "axis_sample"))])
def test_the_compiler_agrees(name):
    try:
        version = budget.compiler_version()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if version != COMMITTED["nvcc"]:
        pytest.skip(f"the counts are of nvcc {COMMITTED['nvcc']}, this is {version}")
    kernel = next(k for k in budget.kernels() if k.name == name)
    assert budget.measure(kernel, "sm_90") == COUNTS[name]["sm_90"]
