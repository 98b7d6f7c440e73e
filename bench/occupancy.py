"""``python -m bench.occupancy``: where an H100's time would go, for every launch at the named shapes. Needs no GPU.

Grids, threads and shared memory are what the launchers ask for (recorded by python_tests/cuda_shim, as on 132
multiprocessors); registers are the compiler's; instructions per (sample, cell) come from bench/results/budget.json.
From these, in milliseconds:

- ``bound``: the longest that one pipe takes for the counted instructions, or memory for what has to be read and written;
- ``expected``: the instructions of the passes that fill tables too, on the multiprocessor that has the most blocks, with
  as many warps as fit (12 hide the latency of these loops), and not less than memory takes for what is really read.

``reason`` is what costs most beyond the bound. A model on paper: no GPU has timed these kernels. Writes
bench/results/occupancy.csv.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

import torch

from bench.budget import ROOT, Kernel, compile_kernel
from bench.shapes import SHAPES

RESULT = ROOT / "bench" / "results" / "occupancy.csv"
# An H100 SXM at its sustained clock: multiprocessors, clock, bytes a second, and of a multiprocessor registers, bytes of
# shared memory, threads; thread instructions of a kind that it issues a clock.
MULTIPROCESSORS, CLOCK, MEMORY = 132, 1.755e9, 3.35e12
REGISTERS, SHARED, THREADS, BLOCKS = 65536, 228 * 1024, 2048, 32
ISSUE = {"instructions": 128, "multiply": 64, "logic": 64, "special_functions": 16}
WARPS_THAT_HIDE_LATENCY = 12
LONG_ROW = 16384  # csrc/cuda/launch.h
INSTRUCTIONS_OF_A_LOGIT = 12  # read, made an exponent and stored with its coordinates
# Of soft_argmax, which has no loop that bench.budget could count: the PTX that a warp executes for 32 cells of a COCO row
# (python_tests/test_ptx.py), moves and parameters aside, and for the third axis its own.
INSTRUCTIONS_OF_A_MOMENT = {"soft_argmax_forward": (22, 29, 37), "soft_argmax_backward": (20, 25, 31)}
COLUMNS = ("shape", "kernel", "grid", "threads", "shared_bytes", "registers", "blocks_a_multiprocessor", "resident", "bound_ms",
           "expected_ms", "ratio", "reason")  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """A recorded launch, and what it works on."""

    shape: str
    name: str
    parameters: str
    grid: tuple[int, int, int]
    threads: int
    shared: int

    @property
    def stem(self) -> str:
        return self.name.split("<")[0]

    @property
    def short(self) -> str:
        return self.name.replace("sampling_argmax::", "").replace("cuda::", "")

    @property
    def text(self) -> str:
        return " x ".join(map(str, self.grid))

    @property
    def blocks(self) -> int:
        return prod(self.grid)


def shim_operators():
    """The launchers, compiled for the host, as if for an H100."""
    sys.path.insert(0, str(ROOT / "python_tests"))
    import cuda_shim

    from sampling_argmax_cuda import library

    cuda_shim.build(ROOT / "build" / "cuda_shim")
    library.register(cuda_shim.NAMESPACE)
    return cuda_shim.operators()


def run_all(ops, shape) -> None:
    """Every operator on one shape, forward and backward, in its first basis."""
    z, seed = torch.empty(shape.logits), torch.tensor([1])
    points = torch.empty(shape.logits[0], shape.logits[2], shape.points) if shape.points else None
    axes, rows = shape.points or z.dim() - 2, shape.logits[:2]
    basis, sigma = ("gaussian", torch.empty(rows)) if shape.points else ("uniform", None)
    tau, beta = (torch.tensor(x, dtype=torch.float64) for x in (0.7, 1.0))
    settings, needs = (tau, beta, basis), [True, False, False]
    y, stats = ops.sample(z, points, sigma, seed, shape.samples, *settings)
    ops.sample_backward(y, z, points, sigma, seed, y, stats, *settings, needs)
    ops.expected_error(z, torch.empty(*rows, axes), None, points, sigma, seed, shape.samples, *settings, "l1", needs)
    moments = ops.soft_argmax(z, points, beta)
    ops.soft_argmax_backward(*moments[:4], z, points, *moments, beta, needs[:2])
    if points is None:
        released = (tau, beta, "triangular", 0.0, None)
        y, marginals, stats = ops.axis_sample(z, None, seed, shape.samples, *released)
        ops.axis_sample_backward(y, z, None, seed, marginals, stats, *released, needs[:2])


def launches(ops, names: list[str]) -> Iterator[Launch]:
    """What the launchers ask for, each launch once."""
    ops.settings(MULTIPROCESSORS, 227 * 1024, 0)
    for name in names:
        ops.record_launches(True)
        run_all(ops, SHAPES[name])
        lines = [line.split() for line in ops.record_launches(False).splitlines()]
        mangled = "\n".join(line[0] for line in lines)
        said = subprocess.run(["c++filt"], input=mangled, text=True, capture_output=True, check=True).stdout
        found = {}
        for line, text in zip(lines, said.splitlines(), strict=True):
            kernel = re.match(r"void sampling_argmax::cuda::(\w+<.*>)\((.*)\)$", text)
            if kernel:  # not those of expected_error's long rows, which work on samples alone
                x, y, z, threads, shared = map(int, line[1:])
                found[Launch(name, kernel[1], kernel[2], (x, y, z), threads, shared)] = None
        yield from found


HEADERS = {"row_tops": "row", "sample_combine": "sample", "sample_forward": "sample", "axis_sample_forward": "axis_sample",
           **dict.fromkeys(("soft_argmax_forward", "soft_argmax_combine"), "soft_argmax")}  # fmt: skip


def registers(launch: Launch) -> int:
    kernel = Kernel(launch.name, HEADERS.get(launch.stem, launch.stem), f"{launch.name}({launch.parameters})", ())
    with tempfile.TemporaryDirectory() as folder:
        return compile_kernel(kernel, "sm_90", Path(folder))[1]


def counted(launch: Launch, counts: dict) -> dict | None:
    """The instructions of a (sample, cell) in the kernel's loop; None where it has none."""
    axes = int(re.search(r", (\d),", launch.name)[1]) if launch.stem.startswith(("sample", "axis", "expected")) else 0
    basis = "gaussian" if "Basis)3" in launch.name else "uniform"
    name = {
        "sample_forward": f"sample {basis} {axes}-D general",
        "sample_backward": f"sample backward {basis} {axes}-D general",
        "expected_error": f"expected_error {basis} 2-D general",
        "axis_sample_forward": "axis_sample triangular 2-D general",
        "axis_sample_backward": "axis_sample backward 2-D general",
    }.get(launch.stem)
    return counts[name]["sm_90"] if name in counts else None


def traffic(launch: Launch) -> tuple[float, float]:
    """Bytes that have to pass the memory, and those that the blocks ask for, which may be in a cache.

    The largest logits of long rows are found by row_tops.
    """
    shape = SHAPES[launch.shape]
    tops = 1 if prod(shape.logits[2:]) <= LONG_ROW else 0
    logits, samples = 4 * prod(shape.logits), 4 * prod(shape.logits[:2]) * shape.samples * (len(shape.logits) - 2)
    passes = {"row_tops": (1, 1), "sample_combine": (0, 0), "sample_forward": (1, 1 + tops), "sample_backward": (2, 2 + tops),
              "expected_error": (2, 3), "axis_sample_forward": (1, 1 + tops), "axis_sample_backward": (2, 2 + tops),
              "soft_argmax_forward": (1, 1), "soft_argmax_combine": (0, 0),
              "soft_argmax_backward": (2, 2)}[launch.stem]  # fmt: skip
    repeated = launch.grid[1] if launch.stem in ("sample_forward", "axis_sample_forward") else 1
    return passes[0] * logits + samples, passes[1] * logits * repeated + samples


def cells_passed(launch: Launch, asked: float) -> float:
    """Instructions of the passes that the budget does not count."""
    if launch.stem in INSTRUCTIONS_OF_A_MOMENT:
        shape = SHAPES[launch.shape]
        axes = shape.points or len(shape.logits) - 2
        return prod(shape.logits) * INSTRUCTIONS_OF_A_MOMENT[launch.stem][axes - 1]
    return asked / 4 * INSTRUCTIONS_OF_A_LOGIT


def resident_blocks(launch: Launch, used: int) -> int:
    """Blocks that fit a multiprocessor at a time."""
    by_registers = REGISTERS // (ceil(used / 8) * 8 * launch.threads)
    by_shared = SHARED // (launch.shared + 1024)
    return min(by_registers, by_shared, THREADS // launch.threads, BLOCKS)


def row(launch: Launch, counts: dict) -> dict:
    shape, used = SHAPES[launch.shape], registers(launch)
    resident, share = resident_blocks(launch, used), launch.blocks / MULTIPROCESSORS
    needed, asked = traffic(launch)
    kinds = counted(launch, counts)
    elements = prod(shape.logits) * shape.samples if kinds else 0
    pipe = max((elements * kinds[kind] / rate for kind, rate in ISSUE.items()), default=0) if kinds else 0
    per_second = MULTIPROCESSORS * CLOCK
    bound = max(pipe / per_second, needed / MEMORY)
    tables = cells_passed(launch, asked) / ISSUE["instructions"]
    costs = {
        "tables": (pipe + tables) / max(pipe, 1) if kinds else 1,
        "the last blocks": ceil(share) / share,
        "few warps": max(1, WARPS_THAT_HIDE_LATENCY / (min(resident, ceil(share)) * launch.threads / 32)),
    }
    work = (pipe + tables) / per_second * costs["the last blocks"] * costs["few warps"]
    expected = max(work, asked / MEMORY)
    if expected > work:
        costs["memory"] = asked / needed
    reason, cost = max(costs.items(), key=lambda item: item[1])
    return {"shape": launch.shape, "kernel": launch.short,
            "grid": launch.text, "threads": launch.threads, "shared_bytes": launch.shared,
            "registers": used, "blocks_a_multiprocessor": round(share, 2), "resident": resident,
            "bound_ms": round(1e3 * bound, 4), "expected_ms": round(1e3 * expected, 4),
            "ratio": round(expected / bound, 2), "reason": f"{reason} x {cost:.2f}" if cost > 1.005 else ""}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shapes", nargs="+", choices=SHAPES, default=["coco", "h36m", "keypointnet"], help="named shapes"
    )
    counts = json.loads((ROOT / "bench" / "results" / "budget.json").read_text())["kernels"]
    rows = []
    for launch in launches(shim_operators(), parser.parse_args().shapes):
        rows.append(row(launch, counts))
        print("{shape:12}{kernel:58}{grid:>14}{resident:4}  bound {bound_ms:.4f}  expected {expected_ms:.4f}  {ratio:.2f}  "
              "{reason}".format(**rows[-1]))  # fmt: skip
    with RESULT.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
