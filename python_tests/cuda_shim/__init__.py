"""Builds the CUDA kernels for the host: the same sources, compiled by g++ against ``shim.h``."""

import os
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
NAMESPACE = "sampling_argmax_shim"
FLAGS = ["-std=c++20", "-g0", "-fno-math-errno", f"-DSA_LIBRARY={NAMESPACE}", "-Wno-unknown-pragmas"]


def build(directory: Path, csrc: Path = CSRC, optimize: str = "-O2") -> None:
    """Compile into ``directory`` and load the operators of ``sampling_argmax_shim``."""
    directory.mkdir(parents=True, exist_ok=True)
    sources = [HERE / "shim.cpp", csrc / "library.cpp"]
    for kernel in sorted((csrc / "cuda").glob("*.cu")):
        wrapper = directory / f"{kernel.stem}.cpp"  # a compiler takes a .cu for CUDA
        text = f'#include "cuda/{kernel.name}"\n'
        if not wrapper.exists() or wrapper.read_text() != text:
            temporary = wrapper.with_suffix(f".{os.getpid()}")  # other processes of the tests may be compiling it
            temporary.write_text(text)
            os.replace(temporary, wrapper)
        sources.append(wrapper)
    load(
        name="cuda_shim",
        sources=[str(path) for path in sources],
        extra_include_paths=[str(csrc), str(HERE)],
        extra_cflags=[*FLAGS, optimize],
        build_directory=str(directory),
        is_python_module=False,
    )


def operators():
    return getattr(torch.ops, NAMESPACE)
