"""Builds the CUDA kernels for the host: the same sources, compiled by g++ against ``shim.h``."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from filelock import FileLock  # torch depends on it
from torch.utils.cpp_extension import load

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
NAMESPACE = "sampling_argmax_shim"
# Torch's release is among them, since ninja does not look at the headers of the system.
FLAGS = ["-std=c++20", "-g0", "-fno-math-errno", f"-DSA_LIBRARY={NAMESPACE}", "-DSA_DEVICE=CPU", "-Wno-unknown-pragmas",
         f"-DSA_TORCH={torch.__version__}"]  # fmt: skip
SHORT = ("clouds", "random", "soft_argmax")  # compiled as one: torch's headers cost more than these
TARGET = "#define TORCH_TARGET_VERSION 0x020b000000000000\n"  # as setup.py: no other header of PyTorch's is allowed


def units(csrc: Path) -> dict[str, str]:
    """The texts of what is compiled, by name; a compiler takes a .cu for CUDA, so it gets a .cpp that includes it."""
    kernels = sorted(path.stem for path in (csrc / "cuda").glob("*.cu"))
    files = {name: [f"cuda/{name}.cu"] for name in kernels if name not in SHORT}
    files["together"] = ["library.cpp", *(f"cuda/{name}.cu" for name in kernels if name in SHORT)]
    texts = {name: TARGET + "".join(f'#include "{file}"\n' for file in parts) for name, parts in files.items()}
    return {**texts, "runtime": '#include "shim.cpp"\n'}


def content(csrc: Path, optimize: str, texts: dict[str, str]) -> str:
    """A digest of all that the library is made of. A file's time, which a checkout changes, is no part of it."""
    digest = hashlib.sha256(repr((FLAGS, optimize, str(csrc), texts)).encode())
    for path in sorted(
        p for folder in (csrc, HERE) for p in folder.rglob("*") if p.suffix in (".h", ".cuh", ".cu", ".cpp")
    ):
        digest.update(f"{path.name} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()


def compiled(directory: Path, csrc: Path = CSRC, optimize: str = "-O1", texts: dict[str, str] | None = None) -> Path:
    """The library in ``directory``, compiled where the last one was of other content; one process at a time."""
    texts = units(csrc) if texts is None else texts
    directory.mkdir(parents=True, exist_ok=True)
    mark, wanted = directory / "content", content(csrc, optimize, texts)
    with FileLock(directory / "build.lock"):
        if not mark.exists() or mark.read_text() != wanted:
            mark.unlink(missing_ok=True)
            (directory / "lock").unlink(missing_ok=True)  # torch's own, which a killed build leaves behind for ever
            compile_units(directory, csrc, optimize, texts)
            mark.write_text(wanted)
    return directory / "cuda_shim.so"


def compile_units(directory: Path, csrc: Path, optimize: str, texts: dict[str, str]) -> None:
    sources = []
    for name, text in texts.items():
        sources.append(directory / f"{name}.cpp")
        if not sources[-1].exists() or sources[-1].read_text() != text:
            sources[-1].write_text(text)
    load(
        name="cuda_shim",
        sources=[str(path) for path in sources],
        extra_include_paths=[str(csrc), str(HERE)],
        extra_cflags=[*FLAGS, optimize],
        build_directory=str(directory),
        is_python_module=False,
    )


def build(directory: Path, csrc: Path = CSRC, optimize: str = "-O1") -> None:
    """Compile into ``directory`` and load the operators of ``sampling_argmax_shim``."""
    torch.ops.load_library(str(compiled(directory, csrc, optimize)))


class BackgroundBuild:
    """Compiles in a process of its own, beside the tests that need no kernels; ``build`` then waits or finds it done.

    What goes wrong here is left to ``build``, which tries again and says it.
    """

    def __init__(self, directory: Path, csrc: Path, optimize: str) -> None:
        code = "import sys, cuda_shim as c; c.compiled(c.Path(sys.argv[1]), c.Path(sys.argv[2]), sys.argv[3])"
        command = [sys.executable, "-c", code, str(directory.absolute()), str(csrc.absolute()), optimize]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, cwd=HERE.parent, stdout=quiet, stderr=quiet, start_new_session=True)

    def stop(self) -> None:
        """With its compilers, where the tests ended without them."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)


def operators():
    return getattr(torch.ops, NAMESPACE)
