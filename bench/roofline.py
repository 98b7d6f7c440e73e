"""``python -m bench.roofline``: how much of the bound that the instruction counts give a GPU reaches.

A kernel is timed without Python: several launches in a CUDA graph. Its bound is the longest that one of the GPU's pipes
takes: all instructions at the rate of multiply-adds, integer products, logic and special functions each at their own, by
the counts of bench/results/budget.json and rates measured in the same run (rates.cu). Appends to
bench/results/roofline.csv.
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

from sampling_argmax_cuda.backends import operators

ROOT = Path(__file__).parent
COLUMNS = ("device", "backend", "kernel", "shape", "ms", "bound_ms", "share", "ffma", "imad_wide", "lop3", "lg2")
# The rate at which a class of bench/budget.py's counts is issued.
RATES = {"instructions": "ffma", "multiply": "imad_wide", "logic": "lop3", "special_functions": "lg2"}
TAU, BETA = 0.7, 1.0
SHAPES = {"coco": ((32, 17, 64, 48), 30), "h36m": ((16, 18, 32, 64, 64), 10)}


def rates() -> dict[str, float]:
    """Thread instructions a second."""
    load(name="rates", sources=[str(ROOT / "rates.cu")], is_python_module=False)
    measured = torch.ops.sampling_argmax_bench.rates(torch.zeros(1, device="cuda")).tolist()
    return dict(zip(("ffma", "imad_wide", "lop3", "lg2"), measured, strict=True))


def milliseconds(launch: Callable, launches: int = 5, repeats: int = 20) -> float:
    """Median time of one launch on the device."""
    launch()  # compiles what it needs
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            launch()
    graph.replay()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in events:
        begin.record(), graph.replay(), end.record()
    torch.cuda.synchronize()
    return torch.tensor([begin.elapsed_time(end) for begin, end in events]).median().item() / launches


def bound(counts: dict, elements: int, speed: dict) -> float:
    """Milliseconds below which the counts cannot go."""
    return 1e3 * elements * max(counts[kind] / speed[rate] for kind, rate in RATES.items())


def kernels(ops, shape: tuple[int, ...], samples: int) -> Iterator[tuple[str, Callable]]:
    """Name in the budget, and a function that launches the operator once."""
    logits, seed = torch.randn(shape, device="cuda"), torch.tensor([1], device="cuda")
    axes, target = len(shape) - 2, torch.ones(*shape[:2], len(shape) - 2, device="cuda")
    needs = [True, False, False]
    numbers = [torch.tensor(x, dtype=torch.float64) for x in (TAU, BETA)]
    for basis in ("uniform", "triangular", "gaussian") if axes == 2 else ("uniform", "gaussian"):
        label, sigma = (
            f"{basis} {axes}-D general",
            torch.ones(shape[:2], device="cuda") if basis == "gaussian" else None,
        )
        settings = (*numbers, basis)
        draw = (logits, None, sigma, seed, samples, *settings)
        y, stats = ops.sample(*draw)
        back = (torch.ones_like(y), logits, None, sigma, seed, y, stats, *settings, needs)
        yield f"sample {label}", lambda draw=draw: ops.sample(*draw)
        yield f"sample backward {label}", lambda back=back: ops.sample_backward(*back)
        if axes == 2:
            error = (logits, target, None, None, sigma, seed, samples, *settings, "l1", needs)
            yield f"expected_error {label}", lambda error=error: ops.expected_error(*error)
    if axes == 2:
        settings = (*numbers, "triangular", 0.0, None)
        y, marginals, stats = ops.axis_sample(logits, None, seed, samples, *settings)
        back = (torch.ones_like(y), logits, None, seed, marginals, stats, *settings, needs[:2])
        yield "axis_sample triangular 2-D general", lambda: ops.axis_sample(logits, None, seed, samples, *settings)
        yield "axis_sample backward 2-D general", lambda: ops.axis_sample_backward(*back)


def budget_name(backend: str, kernel: str) -> str:
    """Triton's backward of axis_sample is counted for one basis."""
    if backend == "cuda":
        return kernel
    return f"triton {kernel}".replace("axis_sample backward 2-D", "axis_sample backward triangular 2-D")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("cuda", "triton"), default="cuda", help="whose kernels (default: cuda)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "roofline.csv", help="CSV to append to")
    options = parser.parse_args()
    counts = json.loads((ROOT / "results" / "budget.json").read_text())["kernels"]
    major, _ = torch.cuda.get_device_capability()
    architecture, speed = {8: "sm_80", 9: "sm_90"}.get(major, "sm_100"), rates()
    print({name: f"{rate:.3g}/s" for name, rate in speed.items()})
    is_new = not options.out.exists()
    with options.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for name, (shape, samples) in SHAPES.items():
            elements = samples * torch.Size(shape).numel()
            for kernel, launch in kernels(operators(options.backend), shape, samples):
                counted = counts.get(budget_name(options.backend, kernel))
                if counted is None:  # Triton's are counted in two dimensions
                    continue
                time, least = milliseconds(launch), bound(counted[architecture], elements, speed)
                print(f"{name:6}{kernel:40}{time:9.4f} ms, bound {least:.4f} ms: {least / time:.2f}")
                writer.writerow({"device": torch.cuda.get_device_name(), "backend": options.backend, "kernel": kernel,
                                 "shape": name, "ms": round(time, 5), "bound_ms": round(least, 5),
                                 "share": round(least / time, 3), **speed})  # fmt: skip
                file.flush()  # a cut leaves what was measured


if __name__ == "__main__":
    main()
