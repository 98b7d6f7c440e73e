"""What the processes of the tests share is made once and whole, whatever happens to the first of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cuda_shim
import pytest
from sharing import made_once

MAKER = """
import os, sys, time
from pathlib import Path
from sharing import made_once
def make(path):
    (path / "first").write_text(sys.argv[2])
    if sys.argv[2] == "killed":
        os._exit(7)
    time.sleep(0.3)
    (path / "second").write_text(sys.argv[2])
folder = made_once(Path(sys.argv[1]), make)
print(*(path.read_text() for path in sorted(folder.iterdir())))
"""


def start(folder: Path, name: str) -> subprocess.Popen:
    command = [sys.executable, "-c", MAKER, str(folder), name]
    return subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_one_run(tmp_path):
    makers = [start(tmp_path / "run", name) for name in "ab"]
    seen = {maker.communicate(timeout=60)[0].strip() for maker in makers}
    assert seen in ({"a a"}, {"b b"}) and [maker.returncode for maker in makers] == [0, 0]


def test_a_killed_process_leaves_nothing(tmp_path):
    killed = start(tmp_path / "run", "killed")
    assert killed.wait(timeout=60) == 7 and not (tmp_path / "run").exists()
    assert start(tmp_path / "run", "next").communicate(timeout=60)[0].strip() == "next next"
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "run.lock"}


def test_a_failure_leaves_nothing(tmp_path):
    def fail(path):
        (path / "half").touch()
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        made_once(tmp_path / "run", fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert made_once(tmp_path / "run", lambda path: (path / "whole").touch()) == tmp_path / "run"
    assert made_once(tmp_path / "run", fail) == tmp_path / "run"


def test_the_fixture_gives_one_folder_a_name(shared_run):
    made = []

    def make(path):
        made.append(path)
        (path / "number").write_text("5")

    folders = [shared_run("test_sharing", make) for _ in range(2)]
    assert folders[0] == folders[1] and (folders[0] / "number").read_text() == "5" and len(made) <= 1


def test_the_shim_is_kept_by_content(tmp_path):
    csrc = tmp_path / "csrc"
    shutil.copytree(cuda_shim.CSRC, csrc)
    before = cuda_shim.content(csrc, "-O1")
    os.utime(csrc / "philox.h", (1, 1))  # as a checkout does
    assert cuda_shim.content(csrc, "-O1") == before != cuda_shim.content(csrc, "-O0")
    header = csrc / "cuda" / "row.cuh"
    header.write_text(header.read_text().replace("<", ">", 1))
    assert cuda_shim.content(csrc, "-O1") != before


def test_pieces_share_what_is_made_for_them(tmp_path):
    distribution = pytest.importorskip("distribution", reason="pytest-xdist is not installed")
    (tmp_path / "test_whole.py").write_text('@pytest.fixture(scope="module")')
    (tmp_path / "test_parts.py").touch()
    scheduling = object.__new__(distribution.PieceScheduling)
    scheduling.config = SimpleNamespace(rootpath=tmp_path)
    pieces = {"test_whole.py::test_a[1]": "test_whole.py", "test_whole.py::Group::test_b": "test_whole.py",
              "test_parts.py::test_a": "test_parts.py::test_a", "test_parts.py::test_a[x]": "test_parts.py::test_a[x]",
              "test_parts.py::test_a[x-avx2]": "test_parts.py::test_a[x",
              "test_parts.py::test_a[x-cuda_shim]": "test_parts.py::test_a[x"}  # fmt: skip
    assert {test: scheduling._split_scope(test) for test in pieces} == pieces
