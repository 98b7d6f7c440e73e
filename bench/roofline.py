"""``python -m bench.roofline``: how much of the bound that the instruction counts give a GPU reaches.

The bound of a kernel is the larger of instructions / issue rate and special functions / their rate, by the counts of
bench/results/budget.json and rates measured in the same run (rates.cu). Appends to bench/results/roofline.csv.
"""

import argparse
import csv
import json
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

from sampling_argmax_cuda import axis_sample, expected_error, sample

ROOT = Path(__file__).parent
COLUMNS = ("device", "kernel", "shape", "ms", "bound_ms", "share", "ffma", "imad_wide", "lop3", "lg2")
SHAPES = {"coco": ((32, 17, 64, 48), 30), "h36m": ((16, 18, 32, 64, 64), 10)}


def rates() -> dict[str, float]:
    """Thread instructions a second."""
    load(name="rates", sources=[str(ROOT / "rates.cu")], is_python_module=False)
    measured = torch.ops.sampling_argmax_bench.rates(torch.zeros(1, device="cuda")).tolist()
    return dict(zip(("ffma", "imad_wide", "lop3", "lg2"), measured, strict=True))


def milliseconds(function, repeats: int = 20) -> float:
    """Median time on the device."""
    function(), function()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in events:
        begin.record(), function(), end.record()
    torch.cuda.synchronize()
    return torch.tensor([begin.elapsed_time(end) for begin, end in events]).median().item()


def bound(counts: dict, elements: int, speed: dict) -> float:
    """Milliseconds below which the counts cannot go."""
    issue, special = counts["instructions"] / speed["ffma"], counts["special_functions"] / speed["lg2"]
    return 1e3 * elements * max(issue, special)


def kernels(shape: tuple[int, ...], samples: int):
    """Name in the budget, and a function that launches the kernel once."""
    logits = torch.randn(shape, device="cuda", requires_grad=True)
    settings = dict(num_samples=samples, tau=0.7, seed=torch.tensor([1], device="cuda"))
    axes, target = len(shape) - 2, torch.ones(*shape[:2], len(shape) - 2, device="cuda")
    bases = ("uniform", "triangular", "gaussian") if axes == 2 else ("uniform", "gaussian")
    for basis in bases:
        y = sample(logits, basis=basis, **settings)
        grad = torch.ones_like(y)
        yield f"sample {basis} {axes}-D general", lambda basis=basis: sample(logits.detach(), basis=basis, **settings)
        yield (f"sample backward {basis} {axes}-D general",
               lambda y=y, grad=grad: torch.autograd.grad(y, logits, grad, retain_graph=True))  # fmt: skip
        if axes == 2:
            yield (f"expected_error {basis} 2-D general",
                   lambda basis=basis: expected_error(logits, target, basis=basis, **settings))  # fmt: skip
    if axes == 2:
        y = axis_sample(logits, **settings)
        yield "axis_sample triangular 2-D general", lambda: axis_sample(logits.detach(), **settings)
        yield ("axis_sample backward 2-D general",
               lambda: torch.autograd.grad(y, logits, torch.ones_like(y), retain_graph=True))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "roofline.csv", help="CSV to append to")
    out = parser.parse_args().out
    counts = json.loads((ROOT / "results" / "budget.json").read_text())["kernels"]
    major, _ = torch.cuda.get_device_capability()
    architecture, speed = {8: "sm_80", 9: "sm_90"}.get(major, "sm_100"), rates()
    print({name: f"{rate:.3g}/s" for name, rate in speed.items()})
    is_new = not out.exists()
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for name, (shape, samples) in SHAPES.items():
            elements = samples * torch.Size(shape).numel()
            for kernel, launch in kernels(shape, samples):
                time, least = milliseconds(launch), bound(counts[kernel][architecture], elements, speed)
                print(f"{name:6}{kernel:40}{time:9.4f} ms, bound {least:.4f} ms: {least / time:.2f}")
                writer.writerow({"device": torch.cuda.get_device_name(), "kernel": kernel, "shape": name, "ms": round(time, 5),
                                 "bound_ms": round(least, 5), "share": round(least / time, 3), **speed})  # fmt: skip


if __name__ == "__main__":
    main()
