"""The PTX that nvcc and Triton make of the kernels, run by a simulator that checks memory and races; skipped without.

The simulator (``ptxsim`` on PYTHONPATH) is no part of this project. Results are compared with the CPU operators'.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from contract_cases import number

from bench.budget import ROOT, tool
from sampling_argmax_cuda.backends import operators

ptxsim = pytest.importorskip("ptxsim", reason="the PTX simulator is not installed")

from perturbation import SIGNS, perturbed  # noqa: E402

Ptr, Struct, Uninit = ptxsim.Ptr, ptxsim.Struct, ptxsim.Uninit

OPS = operators("cpu")
SAMPLES, TAU, SCHEDULE_BYTES, STARTS_BYTES, THREADS = 6, 0.7, 96, 80, 64
NUMBERS = number(TAU), number(1.0)
SHAPES = [(1, 2, 9, 7), (1, 1, 24, 20), (1, 1, 12, 32)]
BASES = {"none": 0, "uniform": 1, "triangular": 2, "gaussian": 3}
SEED = torch.tensor([5, 2**32 + 3])


@pytest.fixture(params=SIGNS, autouse=True)
def perturbation(request) -> int:
    """Every test with exact special functions, and with ones that are off by what their manual allows."""
    with perturbed(request.param):
        yield request.param


def module(header: str, instantiation: str, tmp_path):
    try:
        tool("nvcc")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    source = tmp_path / "kernel.cu"
    source.write_text(
        f'#include "cuda/{header}.cuh"\nusing namespace sampling_argmax;\nusing namespace sampling_argmax::cuda;\n'
        f"template __global__ void sampling_argmax::cuda::{instantiation};\n"
    )
    return ptxsim.compile_cuda(str(source), arch="sm_90", include_dirs=[str(ROOT / "csrc")], options=["-std=c++20"])


def division(d: int) -> tuple[int, int, int]:
    bits = (d - 1).bit_length()
    return d, ((2**bits - d << 32) // d + 1) % 2**32, bits


def problem(logits, basis: str):
    """A DeviceProblem of a contiguous two-dimensional grid; Weight::general."""
    batch, keypoints, height, width = logits.shape
    cells = height * width
    values = [Ptr(logits), 0, 2, 1, height, width, cells, width, 1, keypoints * cells, cells, batch, keypoints, cells,
              *(0,) * 10, SAMPLES, TAU, 1.0, BASES[basis], Ptr(SEED), 2, 0, *division(width), *division(height), 1,
              1.4426950408889634 / TAU, 13.7 / TAU, -1 / TAU, -1 / TAU]  # fmt: skip
    return Struct("<Qii6q5q3Q2qQ2q2Qqddi4xQi4xQIIIIII?7xdddf4x", *values)


def inputs(shape):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2
    return logits, torch.randn(*shape[:2], SAMPLES, 2, generator=torch.Generator().manual_seed(1))


def empty(*shape):
    return torch.full(shape, float("nan"))


def check(*pairs):
    for got, expected in pairs:
        assert (got - expected).abs().max() <= 3e-5 * expected.abs().max().clamp(min=1)


def launch(mod, grid, args, shared, threads=THREADS):
    stats = mod[mod.kernels[0]](grid=grid, block=(threads, 1, 1), args=args, dynamic_shared=shared, check=True)
    assert not any(stats.unwritten.values() if isinstance(stats.unwritten, dict) else stats.unwritten)
    return stats


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("basis", ["uniform", "triangular"])
def test_sample(shape, basis, tmp_path):
    logits, grad = inputs(shape)
    rows, cells = shape[0] * shape[1], shape[2] * shape[3]
    padded = (cells + 3) // 4 * 4
    expected, expected_stats = OPS.sample(logits, None, None, SEED, SAMPLES, *NUMBERS, basis)
    samples, stats = empty(*expected.shape), empty(*expected_stats.shape)
    kernel = f"sample_forward<float, Basis::{basis}, 2, Weight::general>(DeviceProblem, int, Partials<float>, float*, float*)"
    shared = SCHEDULE_BYTES + STARTS_BYTES + 4 * (3 * padded + 5 * 4 * (1 + THREADS // 32))
    launch(module("sample", kernel, tmp_path), (rows, 2, 1),
           [problem(logits, basis), 5, Struct("<Qq", 0, 1), Uninit(samples), Uninit(stats)], shared)  # fmt: skip
    check((samples, expected), (stats, expected_stats))

    wanted = OPS.sample_backward(
        grad, logits, None, None, SEED, expected, expected_stats, *NUMBERS, basis, [True] + [False] * 2
    )[0]
    out = empty(*shape)
    kernel = (f"sample_backward<float, Basis::{basis}, 2, Weight::general, false>(DeviceProblem, const float*, "
              "const float*, const float*, SampleGradients<float>)")  # fmt: skip
    launch(module("sample_backward", kernel, tmp_path), (rows, 1, 1),
           [problem(logits, basis), grad, expected, expected_stats, Struct("<QQQ", Ptr(out), 0, 0)],
           SCHEDULE_BYTES + 32 * 64 + 4 * (1 + THREADS // 32))  # fmt: skip
    check((out, wanted))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_expected_error(shape, tmp_path):
    logits, _ = inputs(shape)
    rows, padded = shape[0] * shape[1], (shape[2] * shape[3] + 3) // 4 * 4
    target, weight = torch.full((*shape[:2], 2), 3.3), torch.ones(shape[:2])
    needs = [True, False, False]
    wanted = OPS.expected_error(logits, target, weight, None, None, SEED, SAMPLES, *NUMBERS, "uniform", "l1", needs)
    error, grad_target, grad = empty(*shape[:2]), empty(*target.shape), empty(*shape)
    kernel = ("expected_error<float, Basis::uniform, 2, Weight::general, false>(DeviceProblem, Metric, const float*, "
              "const float*, ErrorResults<float>)")  # fmt: skip
    shared = SCHEDULE_BYTES + 4 * (8 + 7 * padded + 3 * (1 + THREADS // 32))
    launch(module("expected_error", kernel, tmp_path), (rows, 1, 1),
           [problem(logits, "uniform"), 0, target, weight, Struct("<5Q", Ptr(error), Ptr(grad_target), Ptr(grad), 0, 0)],
           shared)  # fmt: skip
    check((error, wanted[0]), (grad, wanted[1]), (grad_target, wanted[2]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_axis_sample(shape, tmp_path):
    logits, grad = inputs(shape)
    rows, cells, bins = shape[0] * shape[1], shape[2] * shape[3], shape[2] + shape[3]
    tile = (cells + 3) // 4 * 4
    wanted = OPS.axis_sample(logits, None, SEED, SAMPLES, *NUMBERS, "triangular", 0.0, None)
    results = [empty(*x.shape) for x in wanted]
    kernel = ("axis_sample_forward<float, Basis::triangular, 2, Weight::general>(DeviceProblem, double, int, int, float*, "
              "float*, float*)")  # fmt: skip
    shared = SCHEDULE_BYTES + 4 * (2 * (tile + 8) + tile + 2 * (1 + THREADS // 32))
    launch(module("axis_sample", kernel, tmp_path), (rows, 2, 1),
           [problem(logits, "triangular"), 0.0, tile, 3, *results], shared)  # fmt: skip
    check(*zip(results, wanted, strict=True))

    _, marginals, stats = wanted
    at_once, stride = 4, (bins + 3) // 4 * 4
    whole, out = str(shape[3] % 4 == 0).lower(), empty(*shape)
    kernel = (f"axis_sample_backward<float, 2, Weight::general, {whole}>(DeviceProblem, double, double, "
              "AxisGradients<float>, int, int)")  # fmt: skip
    launch(module("axis_sample_backward", kernel, tmp_path), (rows, 1, 1),
           [problem(logits, "triangular"), 0.0, 0.0,
            Struct("<6Q", *map(Ptr, (grad, marginals, stats, out)), 0, 0), at_once, stride],
           SCHEDULE_BYTES + 4 * (8 + at_once + at_once * stride))  # fmt: skip
    check((out, OPS.axis_sample_backward(grad, logits, None, SEED, marginals, stats, *NUMBERS, "triangular", 0.0, None,
                                         [True, False])[0]))  # fmt: skip


@pytest.mark.parametrize("width", [48, 64])
def test_axis_sample_has_few_bank_conflicts(width, tmp_path):
    """Lines of 16 n cells begin in two or in one of the 32 banks: added up cell by cell they would cost 16 turns and more."""
    logits, tile = inputs((1, 1, 32, width))[0], 32 * width
    results = [empty(*x.shape) for x in OPS.axis_sample(logits, None, SEED, SAMPLES, *NUMBERS, "uniform", 0.0, None)]
    kernel = ("axis_sample_forward<float, Basis::uniform, 2, Weight::general>(DeviceProblem, double, int, int, float*, "
              "float*, float*)")  # fmt: skip
    shared = SCHEDULE_BYTES + 4 * (2 * (tile + 8) + tile + 2 * (1 + THREADS // 32))
    stats = launch(module("axis_sample", kernel, tmp_path), (1, 1, 1),
                   [problem(logits, "uniform"), 0.0, tile, SAMPLES, *results], shared)  # fmt: skip
    assert stats.bank_conflicts <= 0.4 * stats.shared_accesses


@pytest.mark.parametrize(
    "shape, threads", [(SHAPES[0], 32), (SHAPES[1], 32), (SHAPES[2], 32), (SHAPES[1], 64)], ids=str
)
def test_soft_argmax(shape, threads, tmp_path):
    """Rows of one part, of two and of fewer cells than a part has; lines of whole quads and others."""
    logits, _ = inputs(shape)
    rows, part = shape[0] * shape[1], 32 * threads
    parts = -(-shape[2] * shape[3] // part)
    quads, cut = shape[3] % 4 == 0, Struct("<I?3x", parts, shape[3] % 4 == 0)
    *wanted, mode = OPS.soft_argmax(logits, None, number(1.0))
    results, found = [empty(*x.shape) for x in wanted], torch.full(mode.shape, -1)
    pointers = Struct("<5Q", *map(Ptr, (*results, found)))
    of_parts = torch.zeros(rows * parts, 9)
    template = f"float, 2, {str(quads).lower()}"
    kernel = f"soft_argmax_forward<{template}>(DeviceProblem, MomentParts, MomentPart<float, 2>*, MomentResults<float>)"
    launch(module("soft_argmax", kernel, tmp_path), (rows * parts, 1, 1),
           [problem(logits, "none"), cut, of_parts, pointers], 4 * 4 * (1 + threads // 32), threads)  # fmt: skip
    if parts > 1:
        kernel = ("soft_argmax_combine<float, 2>(DeviceProblem, uint32_t, uint32_t, const MomentPart<float, 2>*, "
                  "MomentResults<float>)")  # fmt: skip
        launch(module("soft_argmax", kernel, tmp_path), (rows, 1, 1),
               [problem(logits, "none"), parts, part, of_parts, pointers], 0, 32)  # fmt: skip
    check(*zip(results, wanted, strict=True))
    assert torch.equal(found, mode)

    grads = [torch.randn(x.shape, generator=torch.Generator().manual_seed(i)) for i, x in enumerate(wanted)]
    kernel = (f"soft_argmax_backward<{template}>(DeviceProblem, MomentParts, MomentRow<float>, MomentRow<float>, "
              "const int64_t*, void*, float*)")  # fmt: skip
    backward = module("soft_argmax_backward", kernel, tmp_path)
    for given in (grads, [grads[0], None, None, None]):
        out = empty(*shape)
        incoming = Struct("<4Q", *(0 if x is None else Ptr(x) for x in given))
        launch(backward, (rows * parts, 1, 1),
               [problem(logits, "none"), cut, incoming, Struct("<4Q", *map(Ptr, wanted)), mode, out, None],
               0, threads)  # fmt: skip
        check((out, OPS.soft_argmax_backward(*given, logits, None, *wanted, mode, number(1.0), [True, False])[0]))


@pytest.mark.parametrize("count", [40, 150])
def test_clouds(count, tmp_path):
    points = torch.rand(2, count, 3, generator=torch.Generator().manual_seed(0))
    first, chosen = torch.tensor([3, count - 1]), torch.full((2, 9), -1)
    nearest = torch.full((2, count), -1, dtype=torch.int32)
    kernel = "farthest_points<float>(const float*, const int64_t*, int64_t, int64_t, uint32_t*, int64_t*)"
    launch(module("clouds", kernel, tmp_path), (2, 1, 1),
           [points, first, count, 9, Uninit(nearest), Uninit(chosen)], 2 * 32 * 8)  # fmt: skip
    assert torch.equal(chosen, OPS.farthest_points(points, first, 9))

    centers, found = points[:, :5].contiguous(), torch.full((2, 5, 6), -1)
    kernel = "neighbours<float>(const float*, const float*, int64_t, int64_t, int64_t, uint32_t, int64_t, int64_t*)"
    for radius in (0.25, 10.0):
        limit = torch.tensor(radius).square().view(torch.int32).item()
        launch(
            module("clouds", kernel, tmp_path), (5, 1, 1), [points, centers, count, 5, 10, limit, 6, Uninit(found)], 0
        )
        assert torch.equal(found, OPS.neighbours(points, centers, radius, 6))


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize("operator", ["sample", "axis_sample", "expected_error", "soft_argmax", "variants"])
def test_triton(operator, architecture, perturbation):
    """In a process of its own: here Triton may interpret."""
    path = os.pathsep.join([str(Path(ptxsim.__file__).parents[1]), str(ROOT)])
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": path}
    command = [sys.executable, "python_tests/triton_simulated.py", operator, str(architecture), str(perturbation)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
