"""The wheel: built from the sdist alone, it runs where there is no compiler, under every PyTorch that is supported.

SAMPLING_ARGMAX_TORCH is a folder with another release of PyTorch than the tests' own (``pip install --target``).
"""

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from sampling_argmax_cuda import library

ROOT = Path(__file__).parents[1]
OTHER = os.environ.get("SAMPLING_ARGMAX_TORCH", "")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(library.LOAD_ERROR is not None, reason="needs a C++ compiler, as the extension does"),
]


def run(*command, **options) -> str:
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "setup.py", "-q", "egg_info", "--egg-base", folder, "sdist", "-d", folder, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    pip = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        sdist,
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "-w",
        folder,
    )
    run(*pip, cwd=folder, env={**os.environ, "SAMPLING_ARGMAX_REQUIRE": "cpu"})
    (built,) = folder.glob("*.whl")
    return built


def environment(folder: Path, wheel: Path, *paths: str) -> Path:
    """The Python of a virtual environment that has the wheel, and finds the rest in other folders."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(packages)
    (packages / "others.pth").write_text("\n".join(paths) + "\n")
    return folder / "bin" / "python"


def test_it_is_for_every_python_from_the_oldest_on(wheel):
    assert "-cp310-abi3-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (about,) = (packed.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert "sampling_argmax_cuda/_C.abi3.so" in names and "sampling_argmax_cuda/py.typed" in names
    assert "sampling_argmax_cuda/configs/coco.yaml" in names and "sampling_argmax_cuda/reference/sample.py" in names
    assert "Project-URL: Paper" in about and "Typing :: Typed" in about and "Requires-Python: >=3.10" in about
    assert not [name for name in names if name.startswith(("csrc", "python_tests", "bench"))]


@pytest.mark.parametrize("other", [pytest.param("", id="own"), pytest.param(OTHER, id="other")])
def test_its_operators_keep_their_contract(other, wheel, tmp_path):
    """Values and gradients of every operator against the reference, with no compiler on PATH."""
    if not (other or "own" in os.environ["PYTEST_CURRENT_TEST"]):
        pytest.skip("SAMPLING_ARGMAX_TORCH names no other PyTorch")
    python = environment(tmp_path / "venv", wheel, *filter(None, [other]), *site.getsitepackages())
    programs = {**os.environ, "PATH": str(python.parent)}
    about = "import torch, sampling_argmax_cuda as s; print(torch.__version__, s.__file__, *s.available_backends())"
    version, where, *backends = run(python, "-c", about, cwd=tmp_path, env=programs).split()
    assert (version != torch.__version__) == bool(other)
    assert Path(where).is_relative_to(tmp_path) and "cpu" in backends
    tests = ROOT / "python_tests"
    selection = "(portable or avx2 or avx512) and not shim"
    said = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", tests / "test_contract.py", "-k",
               selection, cwd=tmp_path, env=programs)  # fmt: skip
    assert " passed" in said and "failed" not in said
    assert shutil.which("c++", path=programs["PATH"]) is None
