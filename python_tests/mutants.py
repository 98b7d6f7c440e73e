"""Mutants of the CUDA kernels: ``python python_tests/mutants.py`` says which of them the tests on the host kill.

Each mutant is one change of one source. It is built into a folder of its own and has to survive a short list of tests:
the CUDA part of test_contract.py and test_cuda_shim.py with random schedules. At least 95 % must die.
"""

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "mutants.csv"
TESTS = [f"python_tests/test_{name}.py" for name in ("cuda_shim", "contract", "clouds", "moments", "long_axes")]


@dataclass(frozen=True)
class Mutant:
    """The ``number``-th occurrence of ``old`` in csrc/``file`` becomes ``new``."""

    file: str
    old: str
    new: str
    number: int = 0

    def apply(self, csrc: Path) -> None:
        path = csrc / self.file
        parts = path.read_text().split(self.old)
        if len(parts) < self.number + 2:
            raise ValueError(f"{self.file} has no occurrence {self.number} of {self.old!r}")
        path.write_text(self.old.join(parts[: self.number + 1]) + self.new + self.old.join(parts[self.number + 1 :]))


BARRIER = "__syncthreads();"
MUTANTS = [
    # barriers
    Mutant("cuda/row.cuh", BARRIER, ";", 0), Mutant("cuda/row.cuh", BARRIER, ";", 1), Mutant("cuda/row.cuh", BARRIER, ";", 2),
    Mutant("cuda/sample.cuh", BARRIER, ";", 0), Mutant("cuda/sample.cuh", BARRIER, ";", 1),
    Mutant("cuda/sample_backward.cuh", BARRIER, ";", 0), Mutant("cuda/sample_backward.cuh", BARRIER, ";", 1),
    Mutant("cuda/expected_error.cuh", BARRIER, ";", 0), Mutant("cuda/expected_error.cuh", BARRIER, ";", 1),
    Mutant("cuda/expected_error.cuh", BARRIER, ";", 2),
    *(Mutant("cuda/axis_sample.cuh", BARRIER, ";", k) for k in range(4)),
    Mutant("cuda/axis_sample.cuh", "stats[place_of(s)] = high;", "stats[place_of(s)] = T(0);"),
    Mutant("cuda/axis_sample.cuh", "(last - first) * bins.total", "bins.total"),
    *(Mutant("cuda/axis_sample_backward.cuh", BARRIER, ";", k) for k in range(2)),
    # masks and bounds
    Mutant("cuda/row.cuh", "out[k] = i < d.p.cells ?", "out[k] = i <= d.p.cells ?"),
    Mutant("cuda/soft_argmax.cuh", "none ? T(0) : part.top", "part.top"),
    Mutant("cuda/sample.cuh", "(d.p.cells - begin + 3) / 4 * 4", "(d.p.cells - begin) / 4 * 4"),
    Mutant("cuda/sample.cuh", "s + samples_together <= last", "s + samples_together < last + 2"),
    Mutant("cuda/sample_backward.cuh", "if (4 * quad + j < d.p.cells) write", "if (4 * quad + j + 1 < d.p.cells) write"),
    Mutant("cuda/axis_bins.cuh", "other < 0 || other >= size ? T(0)", "other < 0 || other > size ? T(0)"),
    Mutant("cuda/axis_bins.cuh", "if (lean >= 0) own", "if (lean < 0) own"),
    Mutant("cuda/axis_bins.cuh", "j + 1 < axis.size && beyond < 0", "j + 2 < axis.size && beyond < 0"),
    Mutant("cuda/expected_error.cuh", "weights[row] == T(0)", "weights[row] < T(0)"),
    # indices and offsets
    Mutant("cuda/quads.cuh", "g & 1 ? words.v[2] : words.v[0]", "g & 1 ? words.v[0] : words.v[2]"),
    Mutant("cuda/quads.cuh", "single[j >> 1]", "single[j & 1]"),
    Mutant("philox.h", "stream | row_hi << 8", "stream | row_hi << 7"),
    Mutant("philox.h", "uint32_t(row >> 32)}", "0u}"),
    Mutant("cuda/row.cuh", "first + uint64_t(row), sample", "uint32_t(first + uint64_t(row)), sample"),
    Mutant("cuda/sample.cuh", "uint32_t(begin / 4), cells / 4", "0u, cells / 4"),
    Mutant("cuda/sample.cuh", "(segment * tiles_per_segment + t) * tile", "(segment + t) * tile"),
    Mutant("cuda/sample_backward.cuh", "first_quad + k * blockDim.x, key", "first_quad + k, key"),
    Mutant("cuda/axis_sample.cuh", "line % height) % height; k < count", "line % height) % height + 1; k < count"),
    # noise
    Mutant("cuda/quads.cuh", "quad_words(g, key, start..., kPair)", "quad_words(g, key, start..., kGumbel)"),
    Mutant("cuda/quads.cuh", "of_pair ? axis == 1", "of_pair ? axis == 0"),
    Mutant("cuda/axis_bins.cuh", "uint64_t(f >> 3), key, kSingle", "uint64_t(f >> 2), key, kSingle"),
    Mutant("cuda/sample.cuh", "key, starts[k], a", "key, starts[0], a"),
    Mutant("noise.h", "angle_word = uint32_t(f & 2 ? state.d : state.b)", "angle_word = uint32_t(f & 2 ? state.c : state.b)"),
    # arithmetic
    Mutant("cuda/primitives.cuh", "is_double<V> ? 0 : 0x1p-17", "is_double<V> ? 0 : -0.01"),
    Mutant("cuda/row.cuh", "return a * rsqrt(e)", "return a * reciprocal(e)"),
    Mutant("cuda/sample.cuh", "factor * factor", "factor"),
    Mutant("cuda/sample.cuh", "square ? old * old : old", "old"),
    Mutant("cuda/sample_backward.cuh", "exp2(d.shift - double(stat[0]))", "exp2(-double(stat[0]))"),
    Mutant("gradient.h", "/ root * chain * inverse", "/ root * chain"),
    Mutant("cuda/expected_error.cuh", "step->top = top", "step->top = 0"),
    Mutant("cuda/axis_bins.cuh", "own *= 1 - abs(noise)", "own *= 1"),
    Mutant("cuda/axis_bins.cuh", "u >= c ? clip : -clip", "u >= c ? clip : T(0)"),
    Mutant("cuda/axis_sample_backward.cuh", "at_once == d.p.samples, sigma", "true, sigma"),
    Mutant("cuda/axis_sample_backward.cuh", "sigma += sigmas[s - first]", "sigma = sigmas[s - first]"),
    Mutant("cuda/axis_sample_backward.cu", "fit > 0 ? parts_wanted(problem.p.rows(), ranges) : 1",
           "parts_wanted(problem.p.rows(), ranges)"),
    Mutant("cuda/soft_argmax.cuh", "first = max(first, -T(k))", "first = -T(k)"),
    # launches
    Mutant("cuda/launch.h", "if (shared > 48 * 1024)", "if (shared > 1024 * 1024)"),
    Mutant("cuda/launch.h", "int(shared_limit())", "int(shared)"),
    Mutant("cuda/launch.h", "size_t(shared), current_stream()", "size_t(shared), nullptr"),
    Mutant("cuda/launch.h", "std::min(most, most_blocks)", "most"),
    *(Mutant(f"cuda/{stem}.cu", "const DeviceGuard guard(", "(void)(", k) for stem, k in
      [("axis_sample", 0), ("axis_sample_backward", 0), ("clouds", 0), ("clouds", 1), ("expected_error", 0), ("random", 0),
       ("random", 1), ("sample", 0), ("sample_backward", 0), ("soft_argmax", 0), ("soft_argmax", 1)]),
    # the error of the special functions
    Mutant("cuda/primitives.cuh", "-0x1p-32f, 1 + 0x1p-22f", "-0x1p-32f, 1 + 0x1p-23f"),
    # long rows and lines by quads
    Mutant("cuda/row.cuh", BARRIER, ";", 3),
    Mutant("cuda/row.cuh", "i += at_once * blockDim.x", "i += (at_once + 1) * blockDim.x", 0),
    Mutant("cuda/axis_sample.cuh", "(four[0] + four[1]) + (four[2] + four[3])", "(four[0] + four[1]) + four[2]"),
    Mutant("cuda/axis_sample.cuh", "lines + tile / 4 + q", "lines + q"),
    # parts of rows
    Mutant("cuda/soft_argmax.cuh", "fma(mass, finite(shift), factor * part.logs)", "factor * part.logs"),
    Mutant("cuda/soft_argmax.cuh", "for (int j = 3; j >= 0; --j)", "for (int j = 0; j < 4; ++j)"),
    Mutant("cuda/soft_argmax.cuh", "int64_t(parts[largest].first)", "int64_t(parts[0].first)"),
    Mutant("cuda/soft_argmax_backward.cuh", "first_row ? add : out + add", "add"),
    Mutant("cuda/soft_argmax_backward.cuh", "slope.mode - i < 4", "slope.mode - i < 3"),
    Mutant("cuda/soft_argmax_backward.cuh", "if (i + j < p.cells) write_gradient", "if (i + j + 1 < p.cells) write_gradient"),
    # what rows count from
    Mutant("cuda/row.cuh", "grid_place(d, i, axis) - start.at[axis]", "grid_place(d, i, axis)"),
    Mutant("cuda/row.cuh", "uint32_t(d.p.origin(row)), axis", "uint32_t(d.p.origin(0)), axis"),
    Mutant("cuda/axis_bins.cuh", "T(j - start)", "T(j)"),
    Mutant("tensors.h", "p.origin_stride[1] = origins.stride(1)", "p.origin_stride[1] = 1"),
    Mutant("tensors.h", "if (origins) add_origins(p, *origins);", ""),
    # a sample's start, fields under an exponent, the step of the gradient
    Mutant("cuda/sample.cuh", BARRIER, ";", 2),
    Mutant("cuda/sample.cuh", "row_key(d, row, s + threadIdx.x)", "row_key(d, row, s)"),
    Mutant("cuda/quads.cuh", "uint32_t(high(p)) ^ key.seed.hi(1)", "uint32_t(high(p))"),
    Mutant("cuda/quads.cuh", "high(p) ^ key.tag(stream) ^ key.seed.hi(0)", "high(p) ^ stream ^ key.seed.hi(0)"),
    Mutant("cuda/quads.cuh", "exponents[basis == Basis::triangular]", "exponents[0]"),
    Mutant("cuda/primitives.cuh", "V(0x1p-15 - 257)", "V(-257)"),
    Mutant("gradient.h", "offset *= chain;", ""),
    Mutant("gradient.h", "sigma = noise * root", "sigma = noise"),
]  # fmt: skip


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether all tests pass with the mutant built in; the folder keeps what the last mutant did not touch."""
    csrc = folder / "csrc"
    source = csrc / mutant.file
    original = source.read_text()
    mutant.apply(csrc)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", "-k", "cuda_shim",
               "--shim-optimize=-O0", "--shim-sources", str(csrc), "--shim-build", str(folder / "build"), *TESTS]  # fmt: skip
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=1200).returncode == 0
    finally:
        source.write_text(original)


def record(row: dict[str, str]) -> None:
    """Write a mutant's row in place of an earlier one of its number."""
    rows = {row["number"]: row}
    if RESULT.exists():
        with RESULT.open(newline="") as file:
            rows = {old["number"]: old for old in csv.DictReader(file)} | rows
    with RESULT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows.values(), key=lambda one: int(one["number"])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0, help="number of the mutant to begin with")
    parser.add_argument("--last", type=int, default=len(MUTANTS), help="number of the mutant to stop before")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "csrc", folder / "csrc")
        for number in range(options.first, min(options.last, len(MUTANTS))):
            mutant, start = MUTANTS[number], time.monotonic()
            alive = survives(mutant, folder)
            record({"number": str(number), "file": mutant.file, "old": mutant.old, "new": mutant.new,
                    "killed": str(int(not alive))})  # fmt: skip
            print(number, "SURVIVED" if alive else "killed", mutant, f"{time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
