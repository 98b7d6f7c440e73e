"""A folder that several processes ask for is made once and whole, whatever happens to the first of them."""

import subprocess
import sys
from pathlib import Path

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
