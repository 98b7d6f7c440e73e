"""The command line outside the trainers: doctor, help and its refusals."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sampling_argmax_cuda import __version__, available_backends, missing_backends
from sampling_argmax_cuda.__main__ import main


@pytest.mark.parametrize("argv", [[], ["doctor"]])
def test_doctor_names_every_backend_and_version(argv, capsys):
    assert main(argv) == 0
    text = capsys.readouterr().out
    for part in (__version__, torch.__version__, "isa", "compiler", "threads"):
        assert part in text
    for name in available_backends():
        assert f"backend {name} " in text
    for name, reason in missing_backends().items():
        assert f"backend {name} " in text and reason in text


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "usage: sampling-argmax" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train"], "sampling-argmax: unknown command 'train'"),
        (["doctor", "--fix"], "sampling-argmax doctor: there are no options, got '--fix'"),
    ],
)
def test_wrong_commands(argv, message, capsys):
    assert main(argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, package, extra",
    [
        (["fit"], "lightning", "train"),
        (["convert", "a.slp", "out"], "sleap_io", "formats"),
        (["convert", "a.h5", "out"], "h5py", "formats"),
    ],
)
def test_missing_extra_is_one_line_with_the_pip_command(argv, package, extra, tmp_path):
    argv = [argv[0], *(str(tmp_path / name) for name in argv[1:])]
    for name in argv[1:2]:
        Path(name).touch()
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from sampling_argmax_cuda.__main__ import main\n"
        f"sys.exit(main({argv}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert run.stderr.strip().splitlines() == [
        f"sampling-argmax {argv[0]}: package {package!r} is not installed; run: pip install 'sampling-argmax-cuda[{extra}]'"
    ]


def test_the_core_imports_torch_only():
    code = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import sampling_argmax_cuda, sampling_argmax_cuda.commands.doctor, sampling_argmax_cuda.objectives\n"
        "extra = {'lightning', 'scipy', 'cv2', 'matplotlib', 'jsonargparse', 'pycocotools', 'dsntnn'}\n"
        "print(sorted(extra & {name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "[]", run.stderr
