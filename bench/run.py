"""``python -m bench.run``: verify against the reference, then time forward + backward, then append to a CSV.

All providers of an op and shape run in one process, in interleaved rounds; the CSV keeps median, p20 and p80, and of one
forward + backward the bytes allocated (``bytes``, freed or not) and the most held at a time (``peak_bytes``). A naive peer
materialises tensors of samples x cells: where it would need more than half of the free memory, it and ours run on fewer
batch elements (column ``batch``), and ours alone once more on all. Progress goes to stderr.
"""

import argparse
import csv
import datetime
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.shapes import SHAPES, Shape
from sampling_argmax_cuda import available_backends, axis_sample, expected_error, sample, soft_argmax
from sampling_argmax_cuda.backends import build_info, missing_backends
from sampling_argmax_cuda.commands.naive import paper_samples, released_samples

COLUMNS = ("date", "git", "device", "op", "provider", "shape", "batch", "median_ms", "p20_ms", "p80_ms", "bytes",
           "peak_bytes", "threads", "isa", "torch")  # fmt: skip
TOLERANCE = 1e-4  # of the largest value, between float32 and the float64 reference
RESULTS = Path(__file__).parent / "results"


def inputs(shape: Shape, batch: int, device: str) -> dict:
    """Logits and points with fixed values, ``batch`` elements."""
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


def our_providers(call: Callable, device: str) -> dict:
    """Ours under each backend that runs on the device."""
    if device in missing_backends():
        raise SystemExit(f"nothing of ours runs on {device}: {missing_backends()[device]}")
    backends = [b for b in available_backends() if b == device or (device == "cuda" and b == "triton")]
    return {"ours" if b == device else f"ours, {b}": partial(call, backend=b) for b in backends}


def peers(op: str, shape: Shape) -> dict:
    """Other implementations of an op on this shape, in eager mode."""
    if op == "soft_argmax":
        return {} if shape.points else library_peers(len(shape.logits) - 2)
    naive = {"sample": paper_samples, "axis_sample": released_samples}.get(op)
    if naive is None:
        return {}
    basis = "gaussian" if shape.points else "triangular"
    return {"eager": partial(naive, num_samples=shape.samples, tau=1.0, basis=basis)}


def library_peers(axes: int) -> dict:
    """The soft-argmax of kornia (2 axes) and dsntnn (any), where they are installed."""
    out = {}
    if axes == 2:
        try:
            from kornia.geometry.subpix import spatial_soft_argmax2d

            out["kornia"] = lambda logits: spatial_soft_argmax2d(logits, normalized_coordinates=False)
        except ImportError:
            say("kornia is not installed")
    try:
        import dsntnn

        out["dsntnn"] = lambda logits: dsntnn.dsnt(dsntnn.flat_softmax(logits))
    except ImportError:
        say("dsntnn is not installed")
    return out


@cache
def can_compile(device: str) -> bool:
    """Whether torch.compile finds its compiler here; says so where it does not."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except RuntimeError as error:
        say(f"torch.compile does not work here: {str(error).splitlines()[0]}")
        return False
    return True


def with_compiled(others: dict, device: str) -> dict:
    """The peers, and the naive one compiled for exactly the sizes at hand, whatever was compiled before."""
    if "eager" not in others or not can_compile(device):
        return others
    torch.compiler.reset()
    return {**others, "torch.compile": torch.compile(others["eager"], dynamic=False)}


def free_memory(device: str) -> int:
    """Bytes that are free where the tensors lie."""
    if device == "cuda":
        torch.cuda.empty_cache()  # blocks that torch keeps for itself would count as taken
        return torch.cuda.mem_get_info()[0]
    info = Path("/proc/meminfo")
    if not info.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 1024 * next(
        int(line.split()[1]) for line in info.read_text().splitlines() if line.startswith("MemAvailable")
    )


def peer_batch(others: dict, shape: Shape, device: str) -> int:
    """Batch elements with which every peer fits half of the free memory: all, or a power of two, or 0.

    A power of two, so that a little more or less of free memory gives rows of the same batch.
    """
    x, limit = inputs(shape, 1, device), free_memory(device) // 2
    elements = limit // max(allocations(call, x)[1] for call in others.values())
    if elements >= shape.logits[0]:
        return shape.logits[0]
    return 2 ** (elements.bit_length() - 1) if elements else 0


def verify(op: str, provider: Callable, call: Callable, shape: Shape, device: str) -> None:
    """Raise unless values and gradient of some rows agree with the reference in float64."""
    x, cells = inputs(shape, 1, device), torch.Size(shape.logits[2:]).numel()
    rows = max(1, 2**22 // (cells * shape.samples))
    z = x.pop("logits").detach()[:, :rows]
    results = []
    for run, dtype in ((provider, torch.float32), (partial(call, backend="reference"), torch.float64)):
        logits = z.to(dtype).requires_grad_()
        y = run(logits=logits, **{name: value.to(dtype) for name, value in x.items()})
        results.append((y.detach(), torch.autograd.grad(y.sum(), logits)[0]))
    for got, expected in zip(*results, strict=True):
        if not (got - expected).abs().max() <= TOLERANCE * expected.abs().max():
            raise SystemExit(f"{op}: disagrees with the reference, nothing was timed")


def step(call: Callable, x: dict) -> None:
    """One forward and backward."""
    torch.autograd.grad(call(**x).sum(), x["logits"])


def milliseconds(call: Callable, x: dict) -> float:
    """Of one step: by events on a GPU, which starts with nothing to do, else by the clock."""
    if not x["logits"].is_cuda:
        start = time.perf_counter()
        step(call, x)
        return (time.perf_counter() - start) * 1e3
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    step(call, x)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def measure(providers: dict, x: dict, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of forward + backward, in interleaved rounds after two to warm up.

    Each round has an order of its own: who comes after one that fills the caches finds nothing of its own in them.
    """
    times = {name: [] for name in providers}
    for round_ in range(rounds + 2):
        for name in random.Random(round_).sample(list(providers), len(providers)):
            elapsed = milliseconds(providers[name], x)
            if round_ >= 2:
                times[name].append(elapsed)
    return times


def allocations(call: Callable, x: dict) -> tuple[int, int]:
    """Bytes that the allocator handed out during one step, freed or not, and the most that were held at a time."""
    if x["logits"].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        held, total = torch.cuda.memory_allocated(), torch.cuda.memory_stats()["allocated_bytes.all.allocated"]
        step(call, x)
        total = torch.cuda.memory_stats()["allocated_bytes.all.allocated"] - total
        return total, torch.cuda.max_memory_allocated() - held
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step(call, x)
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return sum(n for n in changes if n > 0), max(accumulate(changes), default=0)


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
    header = ",".join(COLUMNS) + "\n"
    old = path.read_text() if path.exists() else header
    if not old.startswith(header):
        raise SystemExit(f"{path} has other columns than {header.strip()}")
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        file.write(old)
        csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(rows)
    os.replace(temporary, path)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_op(name: str, op: str, x: dict, providers: dict, rounds: int) -> list[dict]:
    """Measured rows of an op, one a provider."""
    rows, batch, env = [], len(x["logits"]), environment(x["logits"].device.type)
    for provider, times in measure(providers, x, rounds).items():
        p20, median, p80 = torch.tensor(times).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
        total, peak = allocations(providers[provider], x)
        say(f"{name:<12}{op:<16}{provider:<15}{batch:>4}{median:>10.2f} ms ({p20:.2f} .. {p80:.2f})"
            f"{total:>16,} bytes{peak:>16,} at a time")  # fmt: skip
        rows.append({**env, "op": op, "provider": provider, "shape": name, "batch": batch, "bytes": total,
                     "peak_bytes": peak, "median_ms": round(median, 3), "p20_ms": round(p20, 3),
                     "p80_ms": round(p80, 3)})  # fmt: skip
    return rows


def run_shape(name: str, shape: Shape, rounds: int, device: str) -> Iterator[list[dict]]:
    """Verify, then measure: the rows of one op after the other."""
    for op, call in operators(shape).items():
        ours, others, full = our_providers(call, device), peers(op, shape), shape.logits[0]
        for provider in ours.values():
            verify(op, provider, call, shape, device)
        batch = peer_batch(others, shape, device) if others else 0
        if others and batch < full:
            say(f"{name:<12}{op:<16}peers run on {batch} of {full} batch elements: half of the free memory")
        if batch:
            yield run_op(name, op, inputs(shape, batch, device), {**ours, **with_compiled(others, device)}, rounds)
        if batch < full:
            yield run_op(name, op, inputs(shape, full, device), ours, rounds)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), help=f"of {', '.join(SHAPES)}; spaces or commas")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to run")
    parser.add_argument("--out", type=Path, help="CSV to append to (bench/results/DEVICE.csv)")
    parser.add_argument("--quick", action="store_true", help="one round, one batch element; no CSV without --out")
    args = parser.parse_args(arguments)
    args.shapes = [name for part in args.shapes for name in part.split(",")]
    if unknown := [name for name in args.shapes if name not in SHAPES]:
        parser.error(f"--shapes: no shape is called {', '.join(unknown)}, choose of {', '.join(SHAPES)}")
    if args.out is None and not args.quick:
        args.out = RESULTS / f"{args.device}.csv"
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    for name in args.shapes:
        shape = SHAPES[name]
        if args.quick:
            shape = replace(shape, logits=(1, *shape.logits[1:]))
        for rows in run_shape(name, shape, 1 if args.quick else args.rounds, args.device):
            if args.out:
                append(args.out, rows)


if __name__ == "__main__":
    main()
