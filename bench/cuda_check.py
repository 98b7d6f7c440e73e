"""``python -m bench.cuda_check``: all of the CUDA build that can be shown without a GPU, with a CUDA build of PyTorch.

``make cuda-check`` runs it in an environment of its own, on a copy of the tree in build/cuda_check, where it

- builds and links the extension with nvcc, by setup.py;
- finds the CUDA kernels of every operator registered, and doctor telling the truth (test_cuda_build.py);
- goes through bench/gpu_check.sh up to its first calls of a device;
- runs the launches of the real build on a runtime that stands in for CUDA's (python_tests/cuda_stand_in): streams,
  devices, grids, shared memory, and the contract of every operator, forward and backward; and traces a training step of
  each with torch.compile;
- compiles all Triton kernels with Triton 3.6 and with the newest.

Writes bench/results/cuda_check.json: versions, and of each stage the result and seconds.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "cuda_check.json"
COPY = ROOT / "build" / "cuda_check"
TRITONS = ("3.6.*", "")  # what the oldest supported PyTorch brings, and the newest
# What needs a device: graphs, compiled code, millions of launches.
NOT_ON_THE_STAND_IN = "graphs or compile or opcheck or every_word or large_rows or repeats"


def copy_tree() -> None:
    """The files of the working tree, their times kept, so that a second build compiles only what has changed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    names = (name for name in listed.stdout.decode().split("\0") if name)
    wanted = {name for name in names if (ROOT / name).is_file() or (ROOT / name).is_symlink()}
    COPY.mkdir(parents=True, exist_ok=True)
    for folder in ("bench", "csrc", "python_tests", "reference", "sampling_argmax_cuda"):
        for path in (COPY / folder).rglob("*"):
            name = path.relative_to(COPY).as_posix()
            if path.is_file() and path.suffix in (".py", ".h", ".cuh", ".cu", ".cpp") and name not in wanted:
                path.unlink()
    names = "\0".join(sorted(wanted)).encode()
    packed = subprocess.run(["tar", "c", "--null", "-T", "-"], cwd=ROOT, input=names, capture_output=True, check=True)
    subprocess.run(["tar", "x"], cwd=COPY, input=packed.stdout, check=True)


def slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


def tests(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-W", "ignore", *arguments]


class Check:
    """Runs stages, each a command in the copy; remembers what came of them."""

    def __init__(self) -> None:
        self.stages: dict[str, dict] = {}

    def run(self, name: str, command: list[str], **environment: str) -> str:
        begin = time.monotonic()
        print(f"== {name}", flush=True)
        done = subprocess.run(command, cwd=COPY, env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)  # fmt: skip
        (COPY / f"{slug(name)}.log").write_text(done.stdout)
        seconds = round(time.monotonic() - begin)
        last = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "")
        said = re.sub(r" in [\d.]+s.*", "", last.strip(" =")).replace(f"{COPY}/", "")
        self.stages[name] = {"passed": done.returncode == 0, "seconds": seconds, "said": said}
        print("\n".join(done.stdout.splitlines()[-3 if done.returncode == 0 else -40 :]))
        print(f"== {name}: {'passed' if done.returncode == 0 else 'FAILED'}, {seconds} s", flush=True)
        return done.stdout

    def record(self, toolkit: Path) -> None:
        nvcc = subprocess.run([toolkit / "bin" / "nvcc", "--version"], text=True, capture_output=True).stdout
        versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
                    "nvcc": re.search(r"V([\d.]+)", nvcc)[1], "cores": os.cpu_count()}  # fmt: skip
        RESULT.write_text(json.dumps({**versions, "stages": self.stages}, indent=1) + "\n")


def stand_in_stages(check: Check, toolkit: Path) -> None:
    """On the runtime that stands in for CUDA's, preloaded into a process of its own."""
    sys.path.insert(0, str(COPY / "python_tests"))
    from cuda_stand_in import build_runtime, environment

    extra = environment(build_runtime(COPY / "build" / "cuda_stand_in", toolkit))
    extra["PYTHONPATH"] = f"{COPY / 'python_tests'}{os.pathsep}{COPY}"
    plugin = ("-p", "cuda_stand_in.plugin")
    check.run("launches", tests(*plugin, "python_tests/test_cuda_build.py"), **extra)
    selection = f"(test_cuda or cuda) and not cuda_shim and not ({NOT_ON_THE_STAND_IN})"
    files = [f"python_tests/test_{name}.py" for name in ("contract", "clouds", "cuda")]
    check.run("contract", tests(*plugin, *files, "-k", selection), **extra)
    check.run("sanitize", [sys.executable, "-m", "cuda_stand_in", "bench.sanitize"], **extra)


def triton_stages(check: Check, architecture: str) -> None:
    for release in TRITONS:
        name = f"triton {release.removesuffix('.*') or 'newest'}"
        folder = COPY / "build" / slug(name)
        if not (folder / "triton").exists():
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
            subprocess.run([*command, f"triton=={release}" if release else "triton"], check=True)
        check.run(name, [sys.executable, "-m", "bench.triton_offline", "--architecture", architecture],
                  PYTHONPATH=str(folder), TRITON_CACHE_DIR=str(folder / "cache"))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", default="9.0", help="TORCH_CUDA_ARCH_LIST of the build (default: 9.0)")
    options = parser.parse_args()
    if torch.version.cuda is None:
        sys.exit(f"cuda_check needs a CUDA build of PyTorch, this is {torch.__version__}")
    copy_tree()
    check = Check()
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    said = check.run("build", command, TORCH_CUDA_ARCH_LIST=options.architectures, SAMPLING_ARGMAX_REQUIRE="cuda")
    found = re.search(r"CUDA kernels are built with (.*)", said)
    if found is None:
        sys.exit("no toolkit, so nothing more can be checked")
    toolkit = Path(found[1])
    check.run("gpu_check", ["bench/gpu_check.sh", "--dry-run"], PYTHON=sys.executable, OUT=str(COPY / "build" / "out"))
    stand_in_stages(check, toolkit)
    triton_stages(check, options.architectures.split(";")[0].removesuffix("+PTX").replace(".", ""))
    check.record(toolkit)
    failed = [name for name, stage in check.stages.items() if not stage["passed"]]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
