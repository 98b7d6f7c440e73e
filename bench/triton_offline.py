"""``python -m bench.triton_offline``: compiles all Triton kernels for a GPU that is not there.

What the launchers would run is recorded, not run: every operator, forward and backward, on maps of one to three axes and
on points, with every basis, metric, way of making weights and dtype, each different kernel once. Only where Triton is not
told to interpret (TRITON_INTERPRET).
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any
from unittest.mock import PropertyMock, patch

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sampling_argmax_cuda._triton import axis_sample, expected_error, sample, soft_argmax
from sampling_argmax_cuda._triton.launch import Rows

MODULES = (axis_sample, expected_error, sample, soft_argmax)
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}


@dataclass(frozen=True)
class Launch:
    kernel: triton.JITFunction
    grid: tuple[int, ...]
    num_warps: int
    arguments: dict[str, Any]

    @property
    def constants(self) -> dict[str, Any]:
        """What is compiled in: constexprs, and integers of value 1, as Triton does."""
        constexprs = {p.name for p in self.kernel.params if p.is_constexpr}
        return {name: x for name, x in self.arguments.items() if name in constexprs or (type(x) is int and x == 1)}

    @property
    def key(self) -> tuple:
        """What makes it another kernel than another launch's."""
        kinds = tuple(
            (name, type_name(self.arguments[name])) for name in self.kernel.arg_names if name not in self.constants
        )
        return self.kernel.fn.__name__, self.num_warps, tuple(sorted(map(str, self.constants.items()))), kinds

    @property
    def variables(self) -> list[Any]:
        return [self.arguments[name] for name in self.kernel.arg_names if name not in self.constants]

    def compile(self, architecture: int):
        """Compiled as a launch on a GPU would be, knowing which pointers and integers are multiples of 16."""
        signature, hints = {}, {}
        for i, name in enumerate(self.kernel.arg_names):
            x = self.arguments[name]
            signature[name] = "constexpr" if name in self.constants else type_name(x)
            if name not in self.constants and (isinstance(x, torch.Tensor) or (type(x) is int and x % 16 == 0)):
                hints[(i,)] = [["tt.divisibility", 16]]
        source = ASTSource(self.kernel, signature, self.constants, hints)
        options = {"num_warps": self.num_warps}
        return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def type_name(x: Any) -> str:
    if isinstance(x, torch.Tensor):
        return POINTERS[x.dtype]
    return "fp32" if isinstance(x, float) else "i32" if abs(x) < 2**31 else "i64"


@contextmanager
def launching(instead: Callable) -> Iterator[None]:
    """Give every launch to ``instead(kernel, grid, num_warps, **arguments)``, as on an NVIDIA GPU."""
    patches = [patch.object(module, "launch", instead) for module in MODULES]
    patches.append(patch.object(Rows, "fast", PropertyMock(return_value=True)))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def record(function: Callable, *args) -> list[Launch]:
    """The launches of one operator's call, in order."""
    launches = []
    with launching(lambda kernel, grid, num_warps, **rest: launches.append(Launch(kernel, grid, num_warps, rest))):
        function(*args)
    return launches


def coco_launches(operator: str, basis: str) -> list[Launch]:
    """What an operator launches for one 64 x 48 map of float32 and 30 samples, backward for the logits alone."""
    z, seed, target = torch.empty(1, 1, 64, 48), torch.empty(2, dtype=torch.int64), torch.empty(1, 1, 2)
    y, stats, marginals = torch.empty(1, 1, 30, 2), torch.empty(1, 1, 30, 2), torch.empty(1, 1, 30, 112)
    sigma = torch.empty(1, 1) if basis == "gaussian" else None
    settings = (0.7, 1.0, basis)
    arguments = {
        "sample": (z, None, sigma, seed, 30, *settings),
        "sample_backward": (y, z, None, sigma, seed, y, stats, *settings, [True, False, False]),
        "expected_error": (z, target, None, None, sigma, seed, 30, *settings, "l1", [True, False, False]),
        "axis_sample": (z, sigma, seed, 30, *settings, 0.0, None),
        "axis_sample_backward": (y, z, sigma, seed, marginals, stats[..., 0], *settings, 0.0, None, [True, False]),
    }[operator]
    module = next(m for m in MODULES if hasattr(m, operator))
    return record(getattr(module, operator), *arguments)


MAPS = [(1, 1, 96), (1, 1, 64, 48), (1, 1, 7, 9), (1, 1, 4, 16, 12)]
TEMPERATURES = (0.7, 1.0, 2.0, 0.1)
BASES = ("none", "uniform", "triangular", "gaussian")
METRICS = ("l1", "l2", "euclidean", "smooth_l1")
SAMPLES = 6


def sampling_launches(
    z: torch.Tensor, points: torch.Tensor | None, tau: float, basis: str, metric: str
) -> Iterator[Launch]:
    """All that the operators launch on one problem, with every gradient."""
    axes = z.dim() - 2 if points is None else points.shape[2]
    seed, rows = torch.empty(2, dtype=torch.int64), z.shape[:2]
    sigma = torch.empty(rows) if basis == "gaussian" else None
    y, stats, target = torch.empty(*rows, SAMPLES, axes), torch.empty(*rows, SAMPLES, 2), torch.empty(*rows, axes)
    settings, needs = (tau, 1.0, basis), [True, points is not None, sigma is not None]
    yield from record(sample.sample, z, points, sigma, seed, SAMPLES, *settings)
    yield from record(sample.sample_backward, y, z, points, sigma, seed, y, stats, *settings, needs)
    yield from record(expected_error.expected_error, z, target, torch.empty(rows), points, sigma, seed, SAMPLES, *settings,
                      metric, needs)  # fmt: skip
    if points is None:
        released, marginals = (*settings, 0.5, 2.0), torch.empty(*rows, SAMPLES, sum(z.shape[2:]))
        yield from record(axis_sample.axis_sample, z, sigma, seed, SAMPLES, *released)
        yield from record(
            axis_sample.axis_sample_backward, y, z, sigma, seed, marginals, stats[..., 0], *released, needs[::2]
        )


def moment_launches(z: torch.Tensor, points: torch.Tensor | None) -> Iterator[Launch]:
    axes = z.dim() - 2 if points is None else points.shape[2]
    mean, peak = torch.empty(*z.shape[:2], axes), torch.empty(z.shape[:2])
    grads, needs = (mean, torch.empty(*mean.shape, axes), peak, peak), [True, points is not None]
    values = (*grads, torch.empty(z.shape[:2], dtype=torch.int64))
    yield from record(soft_argmax.soft_argmax, z, points, 1.0)
    for given in (grads, (mean, None, None, None)):
        yield from record(soft_argmax.soft_argmax_backward, *given, z, points, *values, 1.0, needs)


def all_launches() -> dict[tuple, Launch]:
    """One launch of every different kernel."""
    clouds = [(torch.empty(1, 2, 300), torch.empty(1, 300, axes)) for axes in (1, 2, 3)]
    launches = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        problems = [(torch.empty(shape, dtype=dtype), None, BASES) for shape in MAPS]
        problems += [(z.to(dtype), points, ("none", "gaussian")) for z, points in clouds]
        for z, points, bases in problems:
            launches += moment_launches(z, points)
            for (k, basis), tau in product(enumerate(bases), TEMPERATURES if dtype == torch.float32 else (0.7,)):
                metric = METRICS[(k + TEMPERATURES.index(tau)) % len(METRICS)]
                launches += sampling_launches(z, points, tau, basis, metric)
    return {launch.key: launch for launch in launches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", type=int, default=90, help="compute capability, e.g. 80 or 90 (default: 90)")
    options = parser.parse_args()
    launches, begin = list(all_launches().values()), time.monotonic()
    for done, launch in enumerate(launches, 1):
        launch.compile(options.architecture)
        if done % 50 == 0 or done == len(launches):
            print(f"{done} of {len(launches)} kernels, {time.monotonic() - begin:.0f} s", flush=True)
    print(f"Triton {triton.__version__}: {len(launches)} kernels compiled for sm_{options.architecture}")


if __name__ == "__main__":
    main()
