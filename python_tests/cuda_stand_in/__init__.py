"""A machine with two GPUs where there is none: the real CUDA build of PyTorch and of this package on a runtime of ours.

``runtime.cpp`` is preloaded in place of libcudart and libcuda. Memory is the host's; a launch is checked as a device
would check it, and the package's kernels then run as cuda_shim compiles them. PyTorch's own kernels have no such form:
``plugin.py``, for pytest, lets its operators compute on the same memory as tensors of the CPU.
"""

import ctypes
import os
import re
import subprocess
from pathlib import Path

import cuda_shim

HERE = Path(__file__).parent
UNITS = {"axis_sample_backward": "axis_sample_backward", "axis_sample": "axis_sample", "sample_backward": "sample_backward",
         "sample_": "sample", "expected_error": "expected_error", "error_of_samples": "expected_error",
         "clear_masked": "expected_error"}  # fmt: skip
# A kernel's name with its template arguments, among them casts such as (Basis)1, without its parameters.
KERNEL = re.compile(
    r"(?:void )?sampling_argmax::cuda::(?:\(anonymous namespace\)::)?(\w+(?:<(?:[^()]|\([\w:]+\))*>)?)\("
)


def build_runtime(directory: Path, cuda_home: Path) -> Path:
    """Compile the runtime; the library to preload."""
    directory.mkdir(parents=True, exist_ok=True)
    out = directory / "libcuda.so.1"  # what PyTorch opens as the driver
    command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", f"-I{cuda_home / 'include'}", str(HERE / "runtime.cpp")]
    subprocess.run([*command, "-o", str(out), f"-Wl,-soname,{out.name}", "-ldl"], check=True)
    return out


def environment(runtime: Path) -> dict[str, str]:
    """What a process needs in its environment to see the two devices."""
    return {"LD_PRELOAD": str(runtime), "SAMPLING_ARGMAX_STAND_IN": str(runtime)}


def load_runtime() -> ctypes.CDLL:
    """The functions of the preloaded runtime that are for tests."""
    runtime = ctypes.CDLL(os.environ["SAMPLING_ARGMAX_STAND_IN"])
    runtime.stand_in_names.restype = ctypes.c_char_p
    runtime.stand_in_last_stream.restype = ctypes.c_void_p
    runtime.stand_in_launches.restype = ctypes.c_long
    return runtime


def unit_of(kernel: str) -> str:
    """The unit of cuda_shim that has a kernel."""
    return next((unit for start, unit in UNITS.items() if kernel.startswith(start)), "together")


def tables(names: list[str]) -> dict[str, str]:
    """For every unit the C++ text that knows its kernels by their mangled names."""
    said = subprocess.run(["c++filt"], input="\n".join(names), text=True, capture_output=True, check=True).stdout
    rows: dict[str, list[str]] = {}
    for name, text in zip(names, said.splitlines(), strict=True):
        kernel = KERNEL.match(text)
        if kernel is None:
            raise ValueError(f"no kernel's name: {text}")
        rows.setdefault(unit_of(kernel[1]), []).append(f'STAND_IN_KERNEL("{name}", {kernel[1]}),\n')
    head = (HERE / "host_kernels.h").read_text()
    return {unit: f"{head}static const bool known = (stand_in::kernels().insert({{\n{''.join(lines)}}}), true);\n"
            for unit, lines in rows.items()}  # fmt: skip


def run_kernels_on_host(directory: Path, optimize: str = "-O1") -> ctypes.CDLL:
    """Compile the kernels that the loaded extension registered, and hand them to the runtime."""
    runtime = load_runtime()
    names = runtime.stand_in_names().decode().split()
    texts = cuda_shim.units(cuda_shim.CSRC)
    for unit, table in tables(names).items():
        texts[unit] += table
    library = ctypes.CDLL(str(cuda_shim.compiled(directory, optimize=optimize, texts=texts)))
    runtime.stand_in_kernels(library.stand_in_run)
    return runtime
