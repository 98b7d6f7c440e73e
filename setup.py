"""Builds the C++ operators, with CUDA where an nvcc of torch's CUDA version is at hand (a GPU is not needed)."""

import re
import shutil
import subprocess
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
# OpenMP is used but not linked: its symbols come from the runtime that torch brought, so there is one pool.
# Contraction is off so that float32 code rounds alike everywhere; GCC 12 warns about its own AVX-512 header.
CPP_FLAGS = [
    "-O3",
    "-g0",
    "-fopenmp",
    "-std=c++20",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
]
CPP_FLAGS += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]


def nvcc_matches_torch() -> bool:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if torch.version.cuda is None or CUDA_HOME is None:
        return False
    nvcc = Path(CUDA_HOME, "bin", "nvcc")
    if not nvcc.exists():
        return False
    release = re.search(r"release (\d+)\.", subprocess.check_output([nvcc, "--version"], text=True))
    return release is not None and release[1] == torch.version.cuda.split(".")[0]


def sources(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob(pattern))


def extensions() -> list:
    if shutil.which("c++") is None and shutil.which("g++") is None and shutil.which("clang++") is None:
        print("sampling_argmax_cuda: no C++ compiler found; the PyTorch reference will run instead")
        return []
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    cuda_sources = sources("cuda/*.cu")
    with_cuda = bool(cuda_sources) and nvcc_matches_torch()
    extension = CUDAExtension if with_cuda else CppExtension
    return [
        extension(
            "sampling_argmax_cuda._C",
            sources("*.cpp") + sources("cpu/*.cpp") + (cuda_sources if with_cuda else []),
            include_dirs=[str(ROOT / "csrc")],
            extra_compile_args={"cxx": CPP_FLAGS, "nvcc": ["-O3", "-std=c++20"]},
        )
    ]


def build_commands() -> dict:
    from torch.utils.cpp_extension import BuildExtension

    return {"build_ext": BuildExtension}


setup(
    ext_modules=extensions(),
    cmdclass=build_commands(),
    packages=[
        "sampling_argmax_cuda",
        "sampling_argmax_cuda._triton",
        "sampling_argmax_cuda.commands",
        "sampling_argmax_cuda.objectives",
        "sampling_argmax_cuda.reference",
        "sampling_argmax_cuda.tasks",
        "sampling_argmax_cuda.tasks.associative",
        "sampling_argmax_cuda.tasks.coco",
        "sampling_argmax_cuda.tasks.h36m",
        "sampling_argmax_cuda.tasks.keypointnet",
        "sampling_argmax_cuda.tasks.mpii",
        "sampling_argmax_cuda.tasks.mtfl",
        "sampling_argmax_cuda.tasks.oct",
        "sampling_argmax_cuda.tasks.skeleton",
        "sampling_argmax_cuda.trainers",
    ],
    package_dir={"sampling_argmax_cuda.reference": "reference"},
    package_data={"sampling_argmax_cuda": ["configs/*.yaml", "configs/*/*.yaml"]},
)
