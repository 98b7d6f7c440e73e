"""Counts the CPU kernels' instructions: ``python -m bench.instructions`` (``--check`` compares with the committed counts).

Builds ``instructions.cpp`` around the kernels, without torch, and runs one row of 64 x 48 cells under valgrind's callgrind
with 5 and with 25 samples; the difference over 20 x 3072 is exact, the same in every run, and free of what a row costs
once. Valgrind knows AVX2 and not AVX-512, so the AVX2 kernels are counted.
"""

import argparse
import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "cpu_instructions.json"
CELLS, FEW, MANY = 64 * 48, 5, 25
# Op, basis, direction and temperature: of one that takes a logarithm and an exponential a weight, and of 1, which takes neither.
KERNELS = [("sample", basis, direction, "0.7") for basis in ("none", "uniform", "triangular", "gaussian")
           for direction in ("forward", "backward")]  # fmt: skip
KERNELS += [
    ("axis_sample", basis, direction, "0.7")
    for basis in ("uniform", "triangular")
    for direction in ("forward", "backward")
]
KERNELS += [("sample", basis, "forward", "1") for basis in ("uniform", "triangular", "gaussian")]
KERNELS += [("axis_sample", "triangular", "forward", "1")]
SLACK = 0.02


def compiler_flags() -> list[str]:
    """The extension's own flags, read from setup.py, which cannot be imported."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    for node in tree.body:
        if (
            isinstance(node, ast.Assign) and node.targets[0].id == "CPP_FLAGS"
        ):  # a name in it is no flag of the compiler's own
            return [flag.value for flag in node.value.elts if isinstance(flag, ast.Constant)]
    raise RuntimeError("setup.py has no CPP_FLAGS")


def missing_tool() -> str | None:
    """Why instructions cannot be counted here, or None."""
    absent = [name for name in ("g++", "valgrind") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not found" if absent else None


def compiler_version() -> str:
    return subprocess.check_output(["g++", "-dumpfullversion"], text=True).strip()


def major(compiler: str) -> str:
    return compiler.split(".")[0]


def build(folder: Path) -> Path:
    import torch

    program = folder / "instructions"
    includes = [f"-I{ROOT / 'csrc'}", f"-I{Path(torch.__file__).parent / 'include'}"]
    subprocess.run(
        ["g++", *compiler_flags(), *includes, ROOT / "bench" / "instructions.cpp", "-o", program], check=True
    )
    return program


def run(program: Path, kernel: tuple[str, ...], samples: int) -> int:
    command = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        program,
        *kernel,
        str(samples),
    ]
    log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return int(re.search(r"Collected : (\d+)", log)[1])


def count(program: Path, kernel: tuple[str, ...]) -> float:
    """Instructions per (sample, cell)."""
    few, many = (run(program, kernel, samples) for samples in (FEW, MANY))
    return round((many - few) / ((MANY - FEW) * CELLS), 3)


def count_all() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        counts = {" ".join(kernel[:3]) + f", tau {kernel[3]}": count(program, kernel) for kernel in KERNELS}
    return {"compiler": f"g++ {compiler_version()}", "flags": " ".join(compiler_flags()), "isa": "avx2",
            "instructions per (sample, cell)": counts}  # fmt: skip


def differences(counts: dict, committed: dict) -> list[str]:
    return [f"{name}: {n} instructions per (sample, cell), committed {committed[name]}"
            for name, n in counts.items() if abs(n - committed[name]) > SLACK * committed[name]]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed counts, write nothing")
    options = parser.parse_args()
    if missing_tool():
        sys.exit(missing_tool())
    result = count_all()
    for name, n in result["instructions per (sample, cell)"].items():
        print(f"{name:32}{n:8.2f}")
    if options.check:
        committed = json.loads(RESULT.read_text())["instructions per (sample, cell)"]
        # None where all agree: an empty text would exit with 1.
        sys.exit("\n".join(differences(result["instructions per (sample, cell)"], committed)) or None)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
