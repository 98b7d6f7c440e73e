"""bench/gpu_check.sh with a Python that only notes what it is asked for: stages, records, resumption, limits."""

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "bench" / "gpu_check.sh"
STAGES = ["build", "doctor", "contract", "timing", "device", "sanitizers", "triton", "triton_timing"]


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the tree without its links, as far as the script looks; ``calls`` has a line for every call of Python."""
    for folder in ("bench", "sampling_argmax_cuda", "reference"):
        (tmp_path / folder).mkdir()
    shutil.copy(SCRIPT, tmp_path / "bench")
    (tmp_path / "setup.py").write_text("")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@" >> "$CALLS"\ncase "$*" in *"$BREAK"*) exit 1;; esac\n')
    python.chmod(0o755)
    sanitizer = tmp_path / "bin" / "compute-sanitizer"
    sanitizer.parent.mkdir()
    sanitizer.write_text("#!/bin/sh\nexit 0\n")
    sanitizer.chmod(0o755)
    return tmp_path


def check(tree: Path, *arguments: str, broken: str = "nothing") -> tuple[int, str]:
    environment = {**os.environ, "PYTHON": str(tree / "python"), "OUT": str(tree / "out"), "CALLS": str(tree / "calls"),
                   "BREAK": broken, "PATH": f"{tree / 'bin'}:{os.environ['PATH']}"}  # fmt: skip
    done = subprocess.run(
        [tree / "bench" / "gpu_check.sh", *arguments], env=environment, text=True, capture_output=True
    )
    return done.returncode, done.stdout


def records(tree: Path) -> list[tuple[str, str]]:
    with (tree / "out" / "gpu_check.csv").open(newline="") as file:
        return [(row["stage"], row["passed"]) for row in csv.DictReader(file)]


def test_a_second_run_repeats_nothing_that_passed(tree):
    status, _ = check(tree, broken="bench.run")
    assert status == 1 and records(tree) == [(stage, str(int(stage != "timing"))) for stage in STAGES]
    assert (tree / "sampling_argmax_cuda" / "reference").resolve() == tree / "reference"  # the package is whole
    (tree / "calls").unlink()
    status, said = check(tree)
    assert status == 0 and records(tree)[len(STAGES) :] == [("timing", "1")]
    assert "bench.run" in (tree / "calls").read_text() and "-m pytest" not in (tree / "calls").read_text()
    (tree / "setup.py").write_text("changed")
    check(tree, "doctor")
    assert records(tree)[-1] == ("doctor", "1") and len(records(tree)) == len(STAGES) + 2


def test_a_failure_stops_nothing(tree):
    check(tree, "contract", "device", broken="pytest")
    assert records(tree) == [("contract", "0"), ("device", "0")]
    assert all(" -x" not in call for call in (tree / "calls").read_text().splitlines())


def test_one_of_several_processes_that_fails_fails_the_stage(tree):
    status, _ = check(tree, "triton", broken="triangular")
    assert status == 1 and records(tree) == [("triton", "0")]
    assert len((tree / "calls").read_text().splitlines()) == 6


def test_a_dry_run_leaves_no_record(tree):
    status, said = check(tree, "--dry-run")
    assert status == 0 and all(f"== {stage}: exit 0" in said for stage in STAGES)
    assert not list((tree / "out").iterdir())
    calls = (tree / "calls").read_text().splitlines()
    assert all("--collect-only" in call for call in calls if "-m pytest" in call)
    assert all("--help" in call for call in calls if "-m bench." in call)


def test_an_unknown_stage_is_named(tree):
    assert check(tree, "constract") == (2, "no stage constract\n")
