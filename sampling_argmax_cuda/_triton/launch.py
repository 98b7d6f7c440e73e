"""From tensors to kernels: what all samplers take of a problem, and sizes that depend on nothing but the problem."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import triton_op, wrap_triton

NAMESPACE = "sampling_argmax_triton"
MOST_CELLS = 2**31 - 2**12  # a cell's number past the row's end fits into 32 bits too
SEGMENT = 65536  # cells of a row that one program adds up; longer rows are split
# csrc/problem.h: the exponents of a temperature lie within 18.8 / tau of 13.7 / tau, and float32 has room for 94.
CENTRE, SPREAD, ROOM = 13.7, 18.8, 94.0


def launch(kernel, grid: tuple[int, ...], num_warps: int, **arguments) -> None:
    """Run a kernel where torch.compile can see it; an interpreted one is no JITFunction and runs as it is."""
    if grid[0] == 0:
        return
    runner = wrap_triton(kernel) if isinstance(kernel, triton.JITFunction) else kernel
    runner[grid](**arguments, num_warps=num_warps)


def define(op: str, function) -> None:
    """Register an operator of csrc/library.cpp as these kernels have it."""
    triton_op(f"{NAMESPACE}::{op}", function, mutates_args=())


def result(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def gradient(x: Tensor | None, logits: Tensor, needed: bool) -> Tensor:
    if x is None or not needed:
        return result(logits, 0)
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def dense(x: Tensor | None, instead: Tensor) -> Tensor:
    """A pointer for the kernel: where there is no ``x`` it reads nothing there."""
    return instead if x is None else x.contiguous()


@dataclass(frozen=True)
class Rows:
    """The rows of a tensor of logits, or of a grid with points."""

    logits: Tensor
    points: Tensor | None
    origins: Tensor | None

    @staticmethod
    def of(op: str, logits: Tensor, points: Tensor | None, origins: Tensor | None) -> "Rows":
        cells = math.prod(logits.shape[2:])
        if cells >= MOST_CELLS:
            raise ValueError(f"{op}: a map may have fewer than {MOST_CELLS} cells in Triton, got {cells}")
        strides = [math.prod(logits.shape[dim + 1 :]) for dim in range(2, logits.dim())]
        return Rows(logits if list(logits.stride()[2:]) == strides else logits.contiguous(), points, origins)

    @property
    def count(self) -> int:
        return self.logits.shape[0] * self.logits.shape[1]

    @property
    def cells(self) -> int:
        return math.prod(self.logits.shape[2:])

    @property
    def axes(self) -> int:
        return self.logits.dim() - 2 if self.points is None else self.points.shape[2]

    def quads(self, most: int = 64) -> int:
        """Quads that a program takes at once: all of a short row, else ``most`` for each warp."""
        return min(most * self.num_warps, triton.next_power_of_2((self.cells + 3) // 4))

    @property
    def num_warps(self) -> int:
        """By the cells of a row alone: the order of sums depends on it."""
        return 1 if self.cells <= 8192 else 4

    @property
    def fast(self) -> bool:
        return self.logits.is_cuda and torch.version.hip is None

    def arguments(self) -> dict[str, Any]:
        shape = self.logits.shape
        return dict(
            logits=self.logits,
            points=dense(self.points, self.logits),
            origins=dense(self.origins, self.logits),
            keypoints=shape[1],
            cells=self.cells,
            batch_stride=self.logits.stride(0),
            keypoint_stride=self.logits.stride(1),
            AXES=self.axes,
            WIDTH=shape[-1] if self.points is None and len(shape) > 3 else 1,
            HEIGHT=shape[-2] if self.points is None and len(shape) > 3 else 1,
            POINTS=self.points is not None,
            ORIGIN=self.origins is not None,
            FAST=self.fast,
        )


@dataclass(frozen=True)
class Sampling:
    """How rows are sampled."""

    seed: Tensor
    num_samples: int
    tau: float
    beta: float
    basis: str

    @property
    def low(self) -> bool:
        """Whether sums need a running maximum, the exponents being too large otherwise."""
        return (2 if self.basis == "gaussian" else 1) * SPREAD / self.tau > ROOM

    @property
    def shift(self) -> float:
        return 0.0 if self.low else CENTRE / self.tau

    @property
    def most_quads(self) -> int:
        """Two for each thread of a warp; of the triangular basis one, since its square roots fill the registers."""
        return 32 if self.basis == "triangular" else 64

    @property
    def together(self) -> int:
        """Samples that a program draws at once: more of them are cheaper, unless most of the last group are none."""
        cost = {1: 54, 2: 45, 4: 39}  # instructions of a cell, bench/results/budget.json
        return min(cost, key=lambda n: -(-self.num_samples // n) * n * cost[n])

    def seed_arguments(self) -> dict[str, Any]:
        return dict(seed=self.seed.contiguous(), SEED_WORDS=self.seed.numel())

    def arguments(self) -> dict[str, Any]:
        return dict(
            num_samples=self.num_samples,
            scale=self.beta / self.tau * math.log2(math.e),
            shift=self.shift,
            neg_inv_tau=-1 / self.tau,
            BASIS=self.basis,
            LOW=self.low,
            **self.seed_arguments(),
        )
