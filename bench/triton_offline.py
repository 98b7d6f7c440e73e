"""Compiles the Triton kernels for a GPU that is not there: what the launchers would run is recorded, not run.

Only where Triton is not told to interpret (TRITON_INTERPRET).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
