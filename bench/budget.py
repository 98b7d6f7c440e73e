"""Counts the instructions of the GPU kernels' cell loops: ``python -m bench.budget`` (``--check`` only compares).

Compiles one kernel at a time, with nvcc or Triton, for sm_80, sm_90 and sm_100, disassembles it and finds its loops
over cells: innermost loops that hold the logarithm or, where weights are kept, the multiply-adds of the gradient.
Reports per (sample, cell): instructions, and of these special functions, integer multiplications, logic and float
arithmetic; per kernel: registers, spilled bytes, and barriers, atomics or local memory inside the loop. Needs no GPU.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "budget.json"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
CLASSES = {
    "special": ("MUFU", "I2F", "F2F", "F2I"),
    "multiply": ("IMAD", "UIMAD"),
    "logic": ("LOP3", "PRMT", "SHF", "SEL", "ISETP", "IADD3", "VIADD", "LEA", "I2FP", "FMNMX", "FSEL", "FSETP"),
    "float": ("FFMA", "FADD", "FMUL"),
    "shared": ("LDS", "STS"),
}
FORBIDDEN = ("BAR", "ATOM", "ATOMS", "ATOMG", "RED", "LDL", "STL", "CALL")


@dataclass(frozen=True)
class Kernel:
    """A kernel's instantiation and how many (sample, cell) pairs one turn of each of its loops handles, in their order."""

    name: str
    header: str
    instantiation: str
    per_turn: tuple[int, ...]


@dataclass(frozen=True)
class TritonKernel:
    """The kernel ``function`` of what an operator launches at the COCO shape."""

    name: str
    function: str
    operator: str
    basis: str

    def launch(self):
        from . import triton_offline

        return next(
            x for x in triton_offline.coco_launches(self.operator, self.basis) if x.kernel.fn.__name__ == self.function
        )

    @staticmethod
    def per_turn(arguments: dict, num_warps: int) -> float:
        """(sample, cell) pairs of a thread in a turn of the loop."""
        if "LINES" in arguments:
            cells = arguments["LINES"] * arguments["COLUMNS"] * arguments["CHUNKS"] * arguments["PER"]
        else:
            cells = 4 * arguments["QUADS"] * arguments.get("CHUNKS", 1)
        return cells * arguments.get("TOGETHER", 1) / (32 * num_warps)


def triton_kernels() -> list[TritonKernel]:
    out = []
    for basis in ("uniform", "triangular", "gaussian"):
        label = f"{basis} 2-D general"
        out.append(TritonKernel(f"triton sample {label}", "sample_forward", "sample", basis))
        out.append(TritonKernel(f"triton sample backward {label}", "sample_backward_cells", "sample_backward", basis))
        out.append(TritonKernel(f"triton expected_error {label}", "expected_error_rows", "expected_error", basis))
    label = "triangular 2-D general"
    out.append(TritonKernel(f"triton axis_sample {label}", "axis_forward", "axis_sample", "triangular"))
    out.append(
        TritonKernel(
            f"triton axis_sample backward {label}", "axis_backward_cells", "axis_sample_backward", "triangular"
        )
    )
    return out


def measure_triton(kernel: TritonKernel, architecture: str) -> dict:
    launch = kernel.launch()
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(launch.compile(int(architecture.removeprefix("sm_"))).asm["cubin"])
        loop = max(innermost_loops(disassemble(cubin)), key=len)
        usage = subprocess.check_output([tool("cuobjdump"), "--dump-resource-usage", cubin], text=True)
    counts = describe(loop, kernel.per_turn(launch.arguments, launch.num_warps))
    registers, stack, local = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL"))
    return {**{k: round(v, 3) for k, v in counts.items()}, "registers": registers, "spilled_bytes": stack + local}


def kernels() -> list[Kernel]:
    forward, backward = (
        "DeviceProblem, int, Partials<float>, float*, float*",
        ("DeviceProblem, const float*, const float*, const float*, SampleGradients<float>"),
    )
    out = []
    for basis, axes, weight in [
        *((b, 2, "general") for b in ("uniform", "triangular", "gaussian")),
        ("uniform", 2, "one"), ("uniform", 2, "two"), ("gaussian", 2, "one"), ("uniform", 2, "low"),
        ("uniform", 3, "general"), ("uniform", 1, "general"), ("gaussian", 3, "general"),
    ]:  # fmt: skip
        arguments = f"float, Basis::{basis}, {axes}, Weight::{weight}"
        label = f"{basis} {axes}-D {weight}"
        out.append(Kernel(f"sample {label}", "sample", f"sample_forward<{arguments}>({forward})", (20, 4)))
        out.append(Kernel(f"sample backward {label}", "sample_backward",
                          f"sample_backward<{arguments}, false>({backward})", (8,)))  # fmt: skip
    for basis in ("uniform", "triangular", "gaussian"):
        arguments = f"float, Basis::{basis}, 2, Weight::general, false"
        out.append(Kernel(f"expected_error {basis} 2-D general", "expected_error", f"expected_error<{arguments}>("
                          "DeviceProblem, Metric, const float*, const float*, ErrorResults<float>)", (4, 4)))  # fmt: skip
    out.append(Kernel("axis_sample triangular 2-D general", "axis_sample",
                      "axis_sample_forward<float, Basis::triangular, 2, Weight::general>"
                      "(DeviceProblem, double, int, int, float*, float*, float*)", (4,)))  # fmt: skip
    out.append(Kernel("axis_sample backward 2-D general", "axis_sample_backward",
                      "axis_sample_backward<float, 2, Weight::general, true>"
                      "(DeviceProblem, double, double, AxisGradients<float>, int, int)", (8,)))  # fmt: skip
    return out


def compile_kernel(kernel: Kernel, architecture: str, folder: Path) -> tuple[Path, int, int]:
    """The cubin, its registers and its spilled bytes."""
    source, cubin = folder / "kernel.cu", folder / "kernel.cubin"
    source.write_text(
        f'#include "cuda/{kernel.header}.cuh"\nusing namespace sampling_argmax;\nusing namespace sampling_argmax::cuda;\n'
        f"template __global__ void sampling_argmax::cuda::{kernel.instantiation};\n"
    )
    command = [tool("nvcc"), "-std=c++20", "-O3", f"-arch={architecture}", f"-I{ROOT / 'csrc'}", "-Xptxas=-v", "-cubin"]
    log = subprocess.run([*command, "-o", cubin, source], check=True, capture_output=True, text=True).stderr
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", log))
    return cubin, max(int(n) for n in re.findall(r"Used (\d+) registers", log)), spills


def disassemble(cubin: Path) -> list[tuple[int, str]]:
    """Addresses and instructions, predicates taken off. For sm_80 a predicated CALL is how ptxas leaves a loop."""
    text = subprocess.check_output([tool("cuobjdump"), "-sass", cubin], text=True)
    text = re.sub(r"(@!?P\w+\s+)CALL", r"\1BRA", text)
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(.*?);", text)
    return [(int(address, 16), instruction.strip()) for address, instruction in lines]


def tool(name: str) -> str:
    """Path of nvcc or cuobjdump: PyPI's, whose versions the extra [dev] pins, before those of a toolkit."""
    for folder in sys.path:
        for path in Path(folder or ".").glob(f"nvidia/*/bin/{name}"):
            return str(path)
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} not found: install the extra [dev], or a CUDA toolkit")
    return found


def innermost_loops(code: list[tuple[int, str]]) -> list[list[str]]:
    position = {address: i for i, (address, _) in enumerate(code)}
    spans = []
    for i, (address, instruction) in enumerate(code):
        target = re.match(r"BRA\S*.*?(0x[0-9a-f]+)", instruction)
        if target and int(target[1], 16) <= address and int(target[1], 16) in position:
            spans.append((position[int(target[1], 16)], i))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [[instruction for _, instruction in code[first : last + 1]] for first, last in inner]


def operation(instruction: str) -> str:
    return instruction.split()[0].split(".")[0]


def is_cell_loop(loop: list[str], kernel: Kernel) -> bool:
    """Loops that make weights, and the second loop of expected_error, which has four multiply-adds a quad."""
    counts = Counter(map(operation, loop))
    makes_weights = sum("MUFU.LG2" in i for i in loop) >= 4 and counts["DFMA"] + counts["DMUL"] == 0
    keeps_weights = (
        kernel.header == "expected_error" and counts["FFMA"] >= 12 and counts["STS"] > 0 and counts["MUFU"] == 0
    )
    return makes_weights or keeps_weights


def measure(kernel: Kernel, architecture: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        cubin, registers, spills = compile_kernel(kernel, architecture, Path(folder))
        all_loops = innermost_loops(disassemble(cubin))
    loops = [loop for loop in all_loops if is_cell_loop(loop, kernel)]
    weights = loops[-1]
    loops = sorted(loops, key=len, reverse=True)[: len(kernel.per_turn)]
    if len(loops) < len(kernel.per_turn):
        raise RuntimeError(
            f"{kernel.name}, {architecture}: {len(loops)} loops over cells, expected {len(kernel.per_turn)}"
        )
    parts = [describe(loop, cells) for loop, cells in zip(loops, kernel.per_turn, strict=True)]
    # expected_error passes through both of its loops; sample's second loop is for the samples left over.
    main = parts[0] if kernel.header != "expected_error" else {k: sum(p[k] for p in parts) for k in parts[0]}
    if kernel.name.startswith("axis_sample triangular"):
        marginals = marginal_loops(all_loops, weights)
        main = {k: v + marginals[k] for k, v in main.items()}
    return {**{k: round(v, 3) for k, v in main.items()}, "registers": registers, "spilled_bytes": spills}


def describe(loop: list[str], cells: int) -> dict:
    counts = Counter(map(operation, loop))
    out = {"instructions": len(loop) / cells}
    out["special_functions"] = sum("MUFU" in i for i in loop) / cells
    out |= {name: sum(counts[op] for op in ops) / cells for name, ops in CLASSES.items()}
    return out | {"forbidden": sum(counts[op] for op in FORBIDDEN)}


def marginal_loops(loops: list[list[str]], weights: list[str]) -> dict:
    """axis_sample's sums that follow the weights': of columns, of lines cell by cell, and of lines by quads, as at COCO."""
    sums = []
    for loop in loops[loops.index(weights) + 1 :]:
        counts = Counter(map(operation, loop))
        if counts["LDS"] >= 8 and counts["FADD"] == counts["LDS"]:
            sums.append(describe(loop, counts["FADD"]))
    columns, _, quads, *_ = sums
    return {k: columns[k] + quads[k] / 4 for k in columns}


def compiler_version() -> str:
    return re.search(r"release [\d.]+, V([\d.]+)", subprocess.check_output([tool("nvcc"), "--version"], text=True))[1]


def triton_version() -> str | None:
    """None where Triton is missing, or told to interpret."""
    if find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return metadata.version("triton")


def measure_all(names: str = "") -> dict:
    result = {"nvcc": compiler_version(), "triton": triton_version(), "kernels": {}}
    measured = [(kernel, measure) for kernel in kernels()]
    if result["triton"]:
        measured += [(kernel, measure_triton) for kernel in triton_kernels()]
    for kernel, count in measured:
        if names in kernel.name:
            result["kernels"][kernel.name] = {a: count(kernel, a) for a in ARCHITECTURES}
            figures = (f"{v['instructions']:.2f}" for v in result["kernels"][kernel.name].values())
            print(kernel.name, *figures, file=sys.stderr)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed counts and fail if one is higher"
    )
    parser.add_argument("--only", default="", help="count only kernels whose name holds this")
    options = parser.parse_args()
    result = measure_all(options.only)
    if options.check:
        committed = json.loads(RESULT.read_text())["kernels"]
        worse = [f"{name} {a}: {v['instructions']} > {committed[name][a]['instructions']}"
                 for name, counts in result["kernels"].items() for a, v in counts.items()
                 if v["instructions"] > committed[name][a]["instructions"] * 1.01]  # fmt: skip
        sys.exit("\n".join(worse) or 0)
    if options.only:
        result["kernels"] = json.loads(RESULT.read_text())["kernels"] | result["kernels"]
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
