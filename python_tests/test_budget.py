"""Instructions of the GPU kernels' cell loops: the committed counts keep the budget, and the compilers agree with them."""

import json
import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec

import pytest

from bench import budget

COMMITTED = json.loads(budget.RESULT.read_text())
COUNTS = COMMITTED["kernels"]
LIMITS = {
    "sample uniform 2-D general": 36, "sample triangular 2-D general": 48, "sample gaussian 2-D general": 26,
    "axis_sample triangular 2-D general": 30, "expected_error uniform 2-D general": 52,
    "triton sample uniform 2-D general": 45, "triton sample gaussian 2-D general": 32,
}  # fmt: skip
CUDA, TRITON = ([n for n in COUNTS if n.startswith("triton ") == triton] for triton in (False, True))


@pytest.mark.parametrize("name, limit", LIMITS.items())
def test_limits(name, limit):
    assert COUNTS[name]["sm_90"]["instructions"] <= limit


@pytest.mark.parametrize("name", [n for n in COUNTS if "sample backward" in n and "axis" not in n])
def test_backward_costs_a_tenth_more_at_most(name):
    forward = COUNTS[name.replace(" backward", "")]["sm_90"]["instructions"]
    assert COUNTS[name]["sm_90"]["instructions"] <= 1.1 * forward


@pytest.mark.parametrize("name", CUDA)
def test_hygiene(name):
    """No spills, no barrier, atomic or local memory in the loop; no more special functions than the formula has."""
    weights = 2 if name.endswith((" one", " two")) else 3
    basis = {"triangular": int(name.split(" ")[-2][0])}.get(name.split(" ")[-3], 0)  # a square root an axis
    noise = 0 if name.startswith("axis_sample") else basis
    for architecture, counts in COUNTS[name].items():
        assert counts["spilled_bytes"] == 0 and counts["forbidden"] == 0, architecture
        if not name.endswith("low"):  # which also moves its maximum, once in four cells
            assert counts["special_functions"] == weights + noise


@pytest.mark.parametrize("name", TRITON)
def test_hygiene_of_triton(name):
    """No spills, no atomics; sums over a tile of lines, or of a whole row, may meet at a barrier once a turn."""
    for architecture, counts in COUNTS[name].items():
        assert counts["spilled_bytes"] == 0 and counts["special_functions"] <= 5.5, architecture
        assert counts["forbidden"] == 0 or ("axis_sample" in name or "expected_error" in name), architecture


@pytest.mark.parametrize("name", [n for n in CUDA if n.startswith(("sample uniform 2-D general", "axis_sample"))])
def test_the_compiler_agrees(name):
    try:
        version = budget.compiler_version()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if version != COMMITTED["nvcc"]:
        pytest.skip(f"the counts are of nvcc {COMMITTED['nvcc']}, this is {version}")
    kernel = next(k for k in budget.kernels() if k.name == name)
    assert budget.measure(kernel, "sm_90") == COUNTS[name]["sm_90"]


def test_triton_agrees():
    """In a process of its own: here Triton may interpret."""
    if find_spec("triton") is None or metadata.version("triton") != COMMITTED["triton"]:
        pytest.skip(f"the counts are of Triton {COMMITTED['triton']}")
    command = [sys.executable, "-m", "bench.budget", "--check", "--only", "triton sample uniform"]
    result = subprocess.run(command, cwd=budget.ROOT, env={**os.environ, "TRITON_INTERPRET": "0"}, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()


def test_the_searches_compile_for_turing(tmp_path):
    """Whose warps have no instruction for the least of their numbers; the newest nvcc builds for nothing older."""
    source = tmp_path / "clouds.cu"
    source.write_text(
        '#include "cuda/clouds.cuh"\nusing namespace sampling_argmax::cuda;\n'
        "template __global__ void sampling_argmax::cuda::farthest_points<float>(const float*, const int64_t*, int64_t, "
        "int64_t, uint32_t*, int64_t*);\n"
        "template __global__ void sampling_argmax::cuda::neighbours<float>(const float*, const float*, int64_t, int64_t, "
        "int64_t, uint32_t, int64_t, int64_t*);\n"
    )
    code = {}
    for architecture in ("sm_75", "sm_80"):
        command = [budget.tool("nvcc"), "-std=c++20", f"-arch={architecture}", f"-I{budget.ROOT / 'csrc'}", "-ptx"]
        subprocess.run([*command, "-o", tmp_path / "clouds.ptx", source], check=True, capture_output=True)
        code[architecture] = (tmp_path / "clouds.ptx").read_text()
    assert "redux" not in code["sm_75"] and "shfl.sync" in code["sm_75"] and "redux.sync.min" in code["sm_80"]
