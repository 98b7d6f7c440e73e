"""setup.py finds the CUDA toolkit whatever nvcc on PATH is, and says in a line which it took or why there is none.

So it does of the C++ compiler. What cannot be built is left out, or stops the build where it is asked for. The sdist is the tree.
"""

import os
import runpy
import stat
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import setuptools

import sampling_argmax_cuda

SETUP = Path(__file__).parents[1] / "setup.py"
ROOT = SETUP.parent


@pytest.fixture
def functions(monkeypatch) -> SimpleNamespace:
    """What setup.py defines, without a build."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setenv("PATH", "/nowhere")  # no compiler: no extension is prepared
    for name in ("CUDA_HOME", "CUDA_PATH", "CXX", "SAMPLING_ARGMAX_REQUIRE"):
        monkeypatch.delenv(name, raising=False)
    return SimpleNamespace(**runpy.run_path(str(SETUP)))


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def make_toolkit(home: Path, release: str = "13.0", header: bool = True, library: str = "lib64") -> Path:
    """A toolkit whose nvcc says what the real one says; its real name is in what it prints, as nvcc's is."""
    said = f'case "$1" in --version) echo "release {release}, V{release}";; *) echo "#$ TOP={home}/bin/.." >&2;; esac'
    executable(home / "bin" / "nvcc", said)
    for path in ([home / "include" / "cuda_runtime.h"] if header else []) + (
        [home / library / "libcudart.so"] if library else []
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return home


@pytest.mark.parametrize("kind", ["itself", "link", "script", "script of a script"])
def test_the_toolkit_of_nvcc(kind, functions, tmp_path, monkeypatch, capsys):
    """Where nvcc on PATH is the toolkit's own, a link to it, or a script that runs it from another folder."""
    home, folder = make_toolkit(tmp_path / "cuda-13.0"), tmp_path / "local" / "bin"
    folder.mkdir(parents=True)
    if kind == "itself":
        folder = home / "bin"
    elif kind == "link":
        (folder / "nvcc").symlink_to(home / "bin" / "nvcc")
    else:
        inner = home / "bin" / "nvcc"
        if kind != "script":
            inner = executable(tmp_path / "other" / "nvcc", f'exec {inner} "$@"')
        executable(folder / "nvcc", f'exec {inner} "$@"')
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    assert functions.toolkit("13.0") == home
    assert capsys.readouterr().out == f"sampling_argmax_cuda: the CUDA kernels are built with {home}\n"


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(release="12.8"), "nvcc is of CUDA 12.8"),
        (dict(header=False), "no include/cuda_runtime.h"),
        (dict(library=""), "no libcudart.so in lib64 or lib, so that nothing can be linked"),
    ],
)
def test_a_toolkit_that_cannot_build_is_named_with_the_reason(
    options, reason, functions, tmp_path, monkeypatch, capsys
):
    home = make_toolkit(tmp_path / "cuda", **options)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:/bin:/usr/bin")
    real = functions.lacking
    functions.toolkit.__globals__["lacking"] = lambda at, cuda: real(at, cuda) if at == home else "no bin/nvcc"
    assert functions.toolkit("13.0") is None
    (line,) = capsys.readouterr().out.splitlines()
    assert f"no toolkit of torch's CUDA 13.0, so the CUDA kernels are not built ({home}: {reason}" in line


def test_what_the_environment_names_comes_first(functions, tmp_path, monkeypatch):
    first, second = make_toolkit(tmp_path / "first", library="lib"), make_toolkit(tmp_path / "second")
    monkeypatch.setenv("PATH", f"{second / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("CUDA_HOME", str(first))
    assert functions.toolkit("13.0") == first
    os.remove(first / "lib" / "libcudart.so")
    assert functions.toolkit("13.0") == second


def test_torch_without_cuda_says_so(functions, capsys):
    assert functions.toolkit(None) is None
    assert "torch was built without CUDA" in capsys.readouterr().out


@pytest.mark.parametrize(
    "programs, named, expected, said",
    [
        ((), None, None, "no C++ compiler found; the PyTorch reference will run instead"),
        (("g++", "clang++"), None, "g++", ""),  # PyTorch's build would call c++
        (("g++", "mine"), "mine -m64", "mine -m64", ""),
        (("g++",), "mine", None, "CXX is mine, which is no program; the PyTorch reference will run instead"),
    ],
)
def test_the_compiler_is_the_one_that_is_named_or_found(
    programs, named, expected, said, functions, tmp_path, monkeypatch, capsys
):
    for name in programs:
        executable(tmp_path / name, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    if named:
        monkeypatch.setenv("CXX", named)
    assert functions.compiler() == expected
    assert capsys.readouterr().out == (f"sampling_argmax_cuda: {said}\n" if said else "")


def test_what_is_asked_for_stops_the_build_where_it_is_missing(functions, monkeypatch):
    monkeypatch.setenv("SAMPLING_ARGMAX_REQUIRE", "cpu")
    with pytest.raises(SystemExit, match="SAMPLING_ARGMAX_REQUIRE=cpu needs a C.. compiler"):
        functions.extensions()
    monkeypatch.setenv("SAMPLING_ARGMAX_REQUIRE", "gpu")
    with pytest.raises(SystemExit, match="expected cpu or cuda, got gpu"):
        functions.extensions()


def run_setup(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {k: v for k, v in os.environ.items() if k not in ("CXX", "SAMPLING_ARGMAX_REQUIRE")}
    command = [sys.executable, "setup.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**inherited, **environment}, text=True, capture_output=True)


@pytest.mark.parametrize("required", ["", "cpu"])
def test_a_broken_compiler_leaves_the_reference_or_stops(required, tmp_path):
    broken = executable(
        tmp_path / "c++", 'case "$*" in *-c*) echo broken >&2; exit 1;; *) exec /usr/bin/env -i g++ "$@";; esac'
    )
    stale = (
        ROOT / "sampling_argmax_cuda" / "_C.cpython-00-none.so"
    )  # what an earlier version left, for one Python alone
    stale.touch()
    done = run_setup("build_ext", "-b", str(tmp_path / "lib"), "-t", str(tmp_path / "temp"), CXX=str(broken),
                     SAMPLING_ARGMAX_REQUIRE=required)  # fmt: skip
    assert not stale.exists()
    said = [line for line in done.stdout.splitlines() if "_C was not built, so that others run instead" in line]
    assert (done.returncode != 0, len(said)) == ((True, 0) if required else (False, 1))
    assert not list((tmp_path / "lib").rglob("*.so"))


def test_the_sdist_is_the_tree(tmp_path):
    """Headers and CUDA sources among it: a build from the sdist alone needs nothing else."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tree = {name for name in listed.split("\0") if (ROOT / name).is_file()}
    link = Path("sampling_argmax_cuda/reference")  # to a folder, which an archive has as files
    tree |= {str(link / path.name) for path in (ROOT / "reference").glob("*.*")}
    done = run_setup(
        "egg_info", "--egg-base", str(tmp_path), "sdist", "-d", str(tmp_path / "dist"), PATH="/usr/bin:/bin"
    )
    assert done.returncode == 0, done.stderr
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        found = {name.split("/", 1)[1] for name in (m.name for m in packed if m.isfile())}
    made = {name for name in found if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    assert found - made == tree


def test_the_version_is_said_once():
    assert metadata.version("sampling-argmax-cuda") == sampling_argmax_cuda.__version__
    assert f'"{sampling_argmax_cuda.__version__}"' not in (ROOT / "pyproject.toml").read_text()


def test_every_package_is_installed():
    """setup.py lists them; one that it lacks is missing from a wheel alone."""
    packages = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for path in (ROOT / "sampling_argmax_cuda").rglob("__init__.py")
    }
    assert packages | {"sampling_argmax_cuda.reference"} == set(listed_packages())


def listed_packages() -> list[str]:
    seen = {}
    real, setuptools.setup = setuptools.setup, lambda **options: seen.update(options)
    try:
        runpy.run_path(str(SETUP))
    finally:
        setuptools.setup = real
    return seen["packages"]
