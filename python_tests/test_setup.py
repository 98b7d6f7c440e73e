"""setup.py finds the CUDA toolkit whatever nvcc on PATH is, and says in a line which it took or why there is none."""

import os
import runpy
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import setuptools

SETUP = Path(__file__).parents[1] / "setup.py"


@pytest.fixture
def functions(monkeypatch) -> SimpleNamespace:
    """What setup.py defines, without a build."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setenv("PATH", "/nowhere")  # no compiler: no extension is prepared
    for name in ("CUDA_HOME", "CUDA_PATH"):
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
