"""Builds the C++ operators, and the CUDA kernels where an nvcc of torch's CUDA version is at hand (a GPU is not needed).

Both are built against the stable ABIs of PyTorch and Python: one wheel serves every PyTorch from 2.11 and Python from
3.10 on. What cannot be built is left out with a line that says why; SAMPLING_ARGMAX_REQUIRE=cpu or cuda stops instead.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
# The oldest PyTorch that is served. With a target its headers refuse all that is not of the stable ABI.
TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"
# Contraction is off so that float32 code rounds alike everywhere; GCC 12 warns about its own AVX-512 header.
CPP_FLAGS = [
    "-O3",
    "-g0",
    "-std=c++20",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
    TARGET,
]
NVCC_FLAGS = ["-O3", "-std=c++20", "-DUSE_CUDA", TARGET]  # USE_CUDA: the stable functions of CUDA's streams
# What is built where no GPU can be asked, from A100 to B200, with PTX for what comes.
ARCHITECTURES = "8.0;9.0;10.0+PTX"


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


def sources(*patterns: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in (ROOT / "csrc").glob(pattern))


def compiler() -> str | None:
    """The C++ compiler that PyTorch's build will call, or None; a line says why there is none."""
    named = os.environ.get("CXX")
    if named:
        if shutil.which(shlex.split(named)[0]):
            return named
        print(f"sampling_argmax_cuda: CXX is {named}, which is no program; the PyTorch reference will run instead")
        return None
    found = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if found is None:
        print("sampling_argmax_cuda: no C++ compiler found; the PyTorch reference will run instead")
    return found


def required() -> str:
    """What the build stops without: nothing, "cpu" or "cuda" (with the CPU's)."""
    wanted = os.environ.get("SAMPLING_ARGMAX_REQUIRE", "")
    if wanted not in ("", "cpu", "cuda"):
        raise SystemExit(f"SAMPLING_ARGMAX_REQUIRE: expected cpu or cuda, got {wanted}")
    return wanted


def extensions() -> list:
    """The CPU's kernels with the operators, and the CUDA kernels, a module of their own."""
    found, wanted = compiler(), required()
    if found is None:
        if wanted:
            raise SystemExit(f"sampling_argmax_cuda: SAMPLING_ARGMAX_REQUIRE={wanted} needs a C++ compiler")
        return []
    os.environ["CXX"] = found  # PyTorch's build takes c++ otherwise
    import torch
    from torch.utils import cpp_extension
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    options = {
        "include_dirs": [str(ROOT / "csrc")],
        "extra_compile_args": {"cxx": CPP_FLAGS, "nvcc": NVCC_FLAGS},
        "py_limited_api": True,
    }
    built = [CppExtension("sampling_argmax_cuda._C", sources("*.cpp", "cpu/*.cpp"), **options)]
    home = toolkit(torch.version.cuda)
    if home is None:
        if wanted == "cuda":
            raise SystemExit(
                "sampling_argmax_cuda: SAMPLING_ARGMAX_REQUIRE=cuda needs a toolkit of torch's CUDA version"
            )
        return built
    cpp_extension.CUDA_HOME = str(home)  # torch guesses it from the folder of nvcc, which may be a script's
    if not torch.cuda.is_available():  # torch would ask the GPU for its architecture
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
    return [*built, CUDAExtension("sampling_argmax_cuda._C_cuda", sources("cuda/*.cpp", "cuda/*.cu"), **options)]


def build_commands() -> dict:
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        """Builds each module by itself: one that fails is left out, with a line, where nobody asked for it."""

        def build_extensions(self) -> None:
            # Of a build for one Python alone, which that Python would prefer and whose operators have other arguments.
            for stale in (ROOT / "sampling_argmax_cuda").glob("_C.cpython-*.so"):
                stale.unlink()
            wanted, built = list(self.extensions), []
            for extension in wanted:
                self.extensions = [extension]
                try:
                    super().build_extensions()
                    built.append(extension)
                except Exception as error:
                    if required() == "cuda" or (required() == "cpu" and extension is wanted[0]):
                        raise
                    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                    print(f"sampling_argmax_cuda: {extension.name} was not built, so that others run instead: {reason}")
            self.extensions = built

    return {"build_ext": Build}


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
        "sampling_argmax_cuda.tasks.keypoints.exports",
        "sampling_argmax_cuda.tasks.mpii",
        "sampling_argmax_cuda.tasks.mtfl",
        "sampling_argmax_cuda.tasks.oct",
        "sampling_argmax_cuda.tasks.skeleton",
        "sampling_argmax_cuda.trainers",
    ],
    package_data={"sampling_argmax_cuda": ["py.typed", "configs/*.yaml", "configs/*/*.yaml"]},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
