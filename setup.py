"""Builds the C++ operators, with CUDA where an nvcc of torch's CUDA version is at hand (a GPU is not needed)."""

import os
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
# What is built where no GPU can be asked, from A100 to B200, with PTX for what comes.
ARCHITECTURES = "8.0;9.0;10.0+PTX"
CPP_FLAGS += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]


def said_by_nvcc(nvcc: str) -> Path | None:
    """The toolkit that an nvcc, which may be a script or a link, says it belongs to."""
    found = subprocess.run(
        [nvcc, "--dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull], text=True, capture_output=True
    )
    top = re.search(r"^#\$ TOP=(.*)$", found.stdout + found.stderr, re.M)
    return Path(top[1].strip().strip('"')).resolve() if top else None


def lacking(home: Path, cuda: str) -> str | None:
    """What a toolkit lacks to build and link for torch's CUDA version, or None."""
    nvcc = home / "bin" / "nvcc"
    if not nvcc.exists():
        return "no bin/nvcc"
    version = subprocess.run([nvcc, "--version"], text=True, capture_output=True).stdout
    release = re.search(r"release (\d+)\.(\d+)", version)
    if release is None or release[1] != cuda.split(".")[0]:
        return f"nvcc is of CUDA {release[1]}.{release[2] if release else ''}" if release else "nvcc does not run"
    if not (home / "include" / "cuda_runtime.h").exists():
        return "no include/cuda_runtime.h"
    if not any((home / folder / "libcudart.so").exists() for folder in ("lib64", "lib")):
        return "no libcudart.so in lib64 or lib, so that nothing can be linked"
    return None


def toolkit(cuda: str | None) -> Path | None:
    """The CUDA toolkit to build with, or None; a line says which it is, or why each that was found is none."""
    if cuda is None:
        print("sampling_argmax_cuda: torch was built without CUDA, so the CUDA kernels are not built")
        return None
    nvcc = shutil.which("nvcc")
    named = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    guesses = [said_by_nvcc(nvcc), Path(nvcc).resolve().parent.parent] if nvcc else []
    homes = list(dict.fromkeys([*named, *filter(None, guesses), Path("/usr/local/cuda")]))
    reasons = {home: lacking(home, cuda) for home in homes}
    for home, reason in reasons.items():
        if reason is None:
            print(f"sampling_argmax_cuda: the CUDA kernels are built with {home}")
            return home
    told = "; ".join(f"{home}: {reason}" for home, reason in reasons.items())
    print(f"sampling_argmax_cuda: no toolkit of torch's CUDA {cuda}, so the CUDA kernels are not built ({told})")
    return None


def sources(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob(pattern))


def extensions() -> list:
    if shutil.which("c++") is None and shutil.which("g++") is None and shutil.which("clang++") is None:
        print("sampling_argmax_cuda: no C++ compiler found; the PyTorch reference will run instead")
        return []
    import torch
    from torch.utils import cpp_extension
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    cuda_sources, home = sources("cuda/*.cu"), toolkit(torch.version.cuda)
    with_cuda = home is not None
    if with_cuda:
        cpp_extension.CUDA_HOME = str(home)  # torch guesses it from the folder of nvcc, which may be a script's
        if not torch.cuda.is_available():  # torch would ask the GPU for its architecture
            os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
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
        "sampling_argmax_cuda.calibration",
        "sampling_argmax_cuda.commands",
        "sampling_argmax_cuda.compat",
        "sampling_argmax_cuda.objectives",
        "sampling_argmax_cuda.reference",
        "sampling_argmax_cuda.tasks",
        "sampling_argmax_cuda.tasks.associative",
        "sampling_argmax_cuda.tasks.coco",
        "sampling_argmax_cuda.tasks.h36m",
        "sampling_argmax_cuda.tasks.keypointnet",
        "sampling_argmax_cuda.tasks.keypoints",
        "sampling_argmax_cuda.tasks.mpii",
        "sampling_argmax_cuda.tasks.mtfl",
        "sampling_argmax_cuda.tasks.oct",
        "sampling_argmax_cuda.tasks.skeleton",
        "sampling_argmax_cuda.trainers",
    ],
    package_data={"sampling_argmax_cuda": ["configs/*.yaml", "configs/*/*.yaml"]},
)
