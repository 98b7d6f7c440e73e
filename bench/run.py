"""``python -m bench.run``: verify against the reference, then time forward + backward, then append to a CSV.

All providers of an op and shape run in one process, in interleaved rounds; the CSV keeps median, p20 and p80, and the
bytes that one forward + backward allocates. A naive peer materialises tensors of samples x cells: where one of them would
exceed 512 MB, it and ours run on the first batch elements (column ``batch``), and ours alone once more on all.
"""

import argparse
import csv
import datetime
import os
import platform
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.shapes import SHAPES, Shape
from sampling_argmax_cuda import available_backends, axis_sample, expected_error, sample, soft_argmax
from sampling_argmax_cuda.backends import build_info
from sampling_argmax_cuda.tasks.naive import paper_samples, released_samples

COLUMNS = ("date", "git", "device", "op", "provider", "shape", "batch", "median_ms", "p20_ms", "p80_ms", "bytes",
           "threads", "isa", "torch")  # fmt: skip
LARGEST_TENSOR = 512 * 2**20
RESULTS = Path(__file__).parent / "results"


def inputs(shape: Shape, batch: int, device: str) -> dict:
    """Logits and points with fixed values, the first ``batch`` elements."""
    generator = torch.Generator().manual_seed(0)
    out = {"logits": torch.randn(batch, *shape.logits[1:], generator=generator).to(device).requires_grad_()}
    if shape.points:
        out["points"] = torch.randn(batch, shape.logits[2], shape.points, generator=generator).to(device)
    return out


def operators(shape: Shape) -> dict:
    """Our calls on this shape, by op; each takes the inputs and a backend."""
    basis = "gaussian" if shape.points else "triangular"
    settings = dict(num_samples=shape.samples, tau=1.0, seed=1, basis=basis)

    def target_of(logits):
        return torch.ones(*logits.shape[:2], shape.points or logits.dim() - 2, device=logits.device)

    def error(logits, **x):
        return expected_error(logits, target_of(logits), **x, **settings)

    def error_by_samples(logits, **x):
        return (sample(logits, **x, **settings) - target_of(logits)[:, :, None]).abs().sum(-1).mean(-1)

    calls = {"sample": partial(sample, **settings), "sample + l1": error_by_samples, "expected_error": error,
             "soft_argmax": soft_argmax}  # fmt: skip
    if not shape.points:
        calls["axis_sample"] = partial(axis_sample, **settings)
    return calls


def our_providers(call, device: str) -> dict:
    """Ours under each backend that runs on the device."""
    backends = [b for b in available_backends() if b == device or (device == "cuda" and b == "triton")]
    return {"ours" if b == device else f"ours, {b}": partial(call, backend=b) for b in backends}


def peers(op: str, shape: Shape) -> dict:
    """Other implementations of an op on this shape."""
    if op == "soft_argmax":
        return library_peers() if len(shape.logits) == 4 else {}
    naive = {"sample": paper_samples, "axis_sample": released_samples}.get(op)
    if naive is None:
        return {}
    call = partial(naive, num_samples=shape.samples, tau=1.0, basis="gaussian" if shape.points else "triangular")
    return {"eager": call, "torch.compile": torch.compile(call)}


def library_peers() -> dict:
    """The soft-argmax of kornia and dsntnn, where they are installed."""
    out = {}
    try:
        from kornia.geometry.subpix import spatial_soft_argmax2d

        out["kornia"] = lambda logits: spatial_soft_argmax2d(logits, normalized_coordinates=False)
    except ImportError:
        print("kornia is not installed", file=sys.stderr)
    try:
        import dsntnn

        out["dsntnn"] = lambda logits: dsntnn.dsnt(dsntnn.flat_softmax(logits))
    except ImportError:
        print("dsntnn is not installed", file=sys.stderr)
    return out


def peer_batch(op: str, shape: Shape) -> int:
    """Batch elements whose largest naive tensor stays below the limit."""
    batch, samples = shape.logits[0], 1 if op == "soft_argmax" else shape.samples
    per_element = 4 * samples
    for n in shape.logits[1:]:
        per_element *= n
    return max(1, min(batch, LARGEST_TENSOR // per_element))


def verify(op: str, call, shape: Shape, device: str) -> None:
    """Raise unless values and gradient agree with the reference on the first batch element."""
    x = inputs(shape, 1, device)
    if x["logits"].numel() * shape.samples > 2**25:
        x["logits"] = x["logits"][:, :1].detach().requires_grad_()
    results = []
    for backend in (device, "reference"):
        y = call(backend=backend, **x)
        results.append((y.detach(), torch.autograd.grad(y.sum(), x["logits"])[0]))
    for got, expected in zip(*results, strict=True):
        scale = expected.abs().max().clamp(min=1)
        if not (got - expected).abs().max() <= 1e-3 * scale:
            raise SystemExit(f"{op}: disagrees with the reference, nothing was timed")


def step(call, x: dict) -> None:
    """One forward and backward, waited for."""
    torch.autograd.grad(call(**x).sum(), x["logits"])
    if x["logits"].is_cuda:
        torch.cuda.synchronize()


def measure(providers: dict, x: dict, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of forward + backward, in interleaved rounds after two to warm up."""
    times = {name: [] for name in providers}
    for round_ in range(rounds + 2):
        for name, call in providers.items():
            start = time.perf_counter()
            step(call, x)
            if round_ >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def allocated_bytes(call, x: dict) -> int:
    """All that the allocator handed out during one forward + backward, freed or not."""
    if x["logits"].is_cuda:
        before = torch.cuda.memory_stats()["allocated_bytes.all.allocated"]
        step(call, x)
        return torch.cuda.memory_stats()["allocated_bytes.all.allocated"] - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step(call, x)
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    return sum(e.nbytes() for e in events if e.nbytes() > 0)


def environment(device: str) -> dict:
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"date": datetime.date.today().isoformat(), "git": git, "device": device_name(device),
            "threads": torch.get_num_threads(), "isa": build_info().get("isa", ""), "torch": torch.__version__}  # fmt: skip


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def append(path: Path, rows: list[dict]) -> None:
    """Append rows to the CSV; the new file replaces the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_text() if path.exists() else ",".join(COLUMNS) + "\n"
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        file.write(old)
        csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(rows)
    os.replace(temporary, path)


def run_op(name: str, shape: Shape, op: str, call, batch: int, providers: dict, rounds: int, device: str) -> list[dict]:
    x, rows = inputs(shape, batch, device), []
    for provider, times in measure(providers, x, rounds).items():
        p20, median, p80 = torch.tensor(times).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
        size = allocated_bytes(providers[provider], x)
        print(f"{name:<12}{op:<16}{provider:<15}{batch:>4}{median:>10.2f} ms ({p20:.2f} .. {p80:.2f}){size:>16,} bytes",
              flush=True)  # fmt: skip
        rows.append({**environment(device), "op": op, "provider": provider, "shape": name, "batch": batch, "bytes": size,
                     "median_ms": round(median, 3), "p20_ms": round(p20, 3), "p80_ms": round(p80, 3)})  # fmt: skip
    return rows


def run_shape(name: str, shape: Shape, rounds: int, device: str, out: Path) -> None:
    for op, call in operators(shape).items():
        verify(op, call, shape, device)
        ours, others = our_providers(call, device), peers(op, shape)
        batch = peer_batch(op, shape) if others else shape.logits[0]
        append(out, run_op(name, shape, op, call, batch, {**ours, **others}, rounds, device))
        if batch < shape.logits[0]:
            append(out, run_op(name, shape, op, call, shape.logits[0], ours, rounds, device))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="shapes to run")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to run")
    parser.add_argument("--out", type=Path, help="CSV to append to (bench/results/DEVICE.csv)")
    args = parser.parse_args(arguments)
    for name in args.shapes:
        run_shape(name, SHAPES[name], args.rounds, args.device, args.out or RESULTS / f"{args.device}.csv")


if __name__ == "__main__":
    main()
