"""``python -m bench.run``: verify against the reference, then time forward + backward, then append to a CSV.

All providers of a line run in one process, in interleaved rounds; the CSV keeps median, p20 and p80. Naive providers
exist for 2-D grids; they are left out where one of their tensors would exceed 1 GiB.
"""

import argparse
import csv
import datetime
import os
import platform
import subprocess
import time
from pathlib import Path

import torch

from bench.shapes import SHAPES, Shape
from sampling_argmax_cuda import axis_sample, expected_error, sample, soft_argmax
from sampling_argmax_cuda.backends import build_info
from sampling_argmax_cuda.tasks.naive import paper_samples, released_samples

COLUMNS = ("date", "git", "op", "provider", "shape", "threads", "isa", "median_ms", "p20_ms", "p80_ms", "torch", "cpu")


def inputs(shape: Shape, rows: int | None = None) -> dict:
    """Logits and points with fixed values; ``rows`` keeps the first batch elements only."""
    generator = torch.Generator().manual_seed(0)
    out = {"logits": torch.randn(shape.logits, generator=generator)[:rows].requires_grad_()}
    if shape.points:
        points = torch.randn(shape.logits[0], shape.logits[2], shape.points, generator=generator)
        out["points"] = points[:rows]
    return out


def operators(shape: Shape) -> dict:
    """Our calls on this shape, by op; each takes the inputs and a backend."""
    settings = dict(num_samples=shape.samples, tau=1.0, seed=1)
    settings["basis"] = "gaussian" if shape.points else "triangular"
    axes = shape.points or len(shape.logits) - 2

    def loss(backend="auto", **x):
        target = torch.ones(*x["logits"].shape[:2], axes)
        return expected_error(target=target, backend=backend, **x, **settings)

    calls = {
        "sample": lambda backend="auto", **x: sample(**x, **settings, backend=backend),
        "sample + l1": lambda backend="auto", **x: (sample(**x, **settings, backend=backend) - 1).abs().sum(-1).mean(-1),
        "expected_error": loss,
        "soft_argmax": lambda backend="auto", **x: soft_argmax(**x, backend=backend),
    }
    if not shape.points:
        calls["axis_sample"] = lambda backend="auto", **x: axis_sample(**x, **settings, backend=backend)
    return calls


def peers(op: str, shape: Shape) -> dict:
    """Other implementations of an op on this shape."""
    size = 4 * shape.samples
    for n in shape.logits:
        size *= n
    if len(shape.logits) != 4 or size > 2**30:
        return {}
    if op == "soft_argmax":
        return library_peers()
    naive = {"sample": paper_samples, "axis_sample": released_samples}.get(op)
    if naive is None:
        return {}
    call = lambda logits: naive(logits, shape.samples, 1.0, "triangular")  # noqa: E731
    return {"eager": call, "torch.compile": torch.compile(call)}


def library_peers() -> dict:
    """The soft-argmax of kornia and dsntnn, where they are installed."""
    out = {}
    try:
        from kornia.geometry.subpix import spatial_soft_argmax2d

        out["kornia"] = lambda logits: spatial_soft_argmax2d(logits, normalized_coordinates=False)
    except ImportError:
        print("kornia is not installed")
    try:
        import dsntnn

        out["dsntnn"] = lambda logits: dsntnn.dsnt(dsntnn.flat_softmax(logits))
    except ImportError:
        print("dsntnn is not installed")
    return out


def verify(op: str, call, shape: Shape) -> None:
    """Raise unless values and gradient agree with the reference on the first batch element."""
    x = inputs(shape, rows=1)
    if x["logits"].numel() * shape.samples > 2**25:
        x["logits"] = x["logits"][:, :1].detach().requires_grad_()
    results = []
    for backend in ("auto", "reference"):
        y = call(backend=backend, **x)
        results.append((y.detach(), torch.autograd.grad(y.sum(), x["logits"])[0]))
    for got, expected in zip(*results, strict=True):
        scale = expected.abs().max().clamp(min=1)
        if not (got - expected).abs().max() <= 1e-3 * scale:
            raise SystemExit(f"{op}: disagrees with the reference, nothing was timed")


def measure(providers: dict, x: dict, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of forward + backward, in interleaved rounds after one to warm up."""
    times = {name: [] for name in providers}
    for round_ in range(rounds + 1):
        for name, call in providers.items():
            start = time.perf_counter()
            torch.autograd.grad(call(**x).sum(), x["logits"])
            if round_:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def environment() -> dict:
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())  # fmt: skip
    return {"date": datetime.date.today().isoformat(), "git": git, "threads": torch.get_num_threads(),
            "isa": build_info().get("isa", ""), "torch": torch.__version__, "cpu": cpu}  # fmt: skip


def append(path: Path, rows: list[dict]) -> None:
    """Append rows to the CSV; the new file replaces the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_text() if path.exists() else ",".join(COLUMNS) + "\n"
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        file.write(old)
        csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(rows)
    os.replace(temporary, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="shapes to run")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--out", type=Path, default=Path("bench/results/cpu.csv"), help="CSV to append to")
    args = parser.parse_args()
    for name in args.shapes:
        shape, x = SHAPES[name], inputs(SHAPES[name])
        for op, call in operators(shape).items():
            verify(op, call, shape)
            rows = []
            for provider, times in measure({"ours": call, **peers(op, shape)}, x, args.rounds).items():
                p20, median, p80 = torch.tensor(times).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
                print(f"{name:<12}{op:<16}{provider:<15}{median:>10.2f} ms  ({p20:.2f} .. {p80:.2f})", flush=True)
                rows.append({**environment(), "op": op, "provider": provider, "shape": name,
                             "median_ms": round(median, 3), "p20_ms": round(p20, 3), "p80_ms": round(p80, 3)})  # fmt: skip
            append(args.out, rows)


if __name__ == "__main__":
    main()
