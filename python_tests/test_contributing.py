"""CONTRIBUTING's lists name files that exist, and following two of them makes an objective and a task that run."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sampling_argmax_cuda.__main__ import COMMANDS
from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.objectives import OBJECTIVES

ROOT = Path(__file__).parents[1]
TOY = Path(__file__).parent / "toy"
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
OPS = ("sample", "axis_sample", "expected_error", "soft_argmax")
NAMES = {
    "op": [{"op": op} for op in OPS],
    "objective": [{"objective": kind.__module__.rpartition(".")[2], "name": name} for name, kind in OBJECTIVES.items()],
    # Tests of coco are many, one a part; associative and skeleton use the synthetic data of coco and keypointnet.
    "task": [{"task": task} for task in TASKS if task != "coco"],
    "command": [{"command": file} for file in sorted(set(COMMANDS.values()))],
}
# Recipes of sampling have the names of their bases, and those of soft-argmax's regularisers their own.
CONFIGS = {"sampling": "triangular"}


def files(kind: str) -> list[str]:
    """The paths of the list of ``### Adding a(n) <kind>``, with their placeholders, in order."""
    section = re.search(rf"### Adding an? {kind}\n(.*?)\n#", TEXT, re.S)[1]
    items = [line for line in section.splitlines() if re.match(r"\d+\. ", line)]
    return [path for item in items for path in re.findall(r"`([\w<>./]+\.\w+|setup\.py)`", item) if "/" in path or path[0].isupper()
            or path == "setup.py"]  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_every_file_of_the_lists_exists(kind):
    assert len(files(kind)) >= 5
    for names in NAMES[kind]:
        for path in files(kind):
            for placeholder, value in names.items():
                path = path.replace(f"<{placeholder}>", CONFIGS.get(value, value) if placeholder == "name" else value)
            shared = path.endswith(("associative/synthetic.py", "skeleton/synthetic.py"))
            assert (ROOT / path).is_file() != shared, f"{kind}: {path}"


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The package in a folder of its own, as a contributor has it."""
    folder = tmp_path_factory.mktemp("contribution")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sampling_argmax_cuda", folder / "sampling_argmax_cuda", ignore=ignore)
    return folder


def extend(path: Path, line: str, more: str) -> None:
    """Put a line behind one that a file has."""
    text = path.read_text()
    assert text.count(line) == 1, f"{path}: {line!r}"
    path.write_text(text.replace(line, line + more))


def run(folder: Path, *argv: str) -> str:
    """The output of a command of the copied package."""
    found = subprocess.run([sys.executable, "-W", "ignore", "-m", "sampling_argmax_cuda", *argv], cwd=folder, text=True,
                           capture_output=True, env={**os.environ, "PYTHONPATH": str(folder)}, timeout=300)  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.long
def test_a_toy_objective_and_a_toy_task(copy):
    """Added as the lists say and run by the real commands: help, training, validation and prediction."""
    package = copy / "sampling_argmax_cuda"
    shutil.copy(TOY / "log_cosh.py", package / "objectives")
    extend(package / "objectives" / "__init__.py", "from .heatmap import Heatmap\n", "from .log_cosh import LogCosh\n")
    extend(package / "objectives" / "__init__.py", '    "heatmap": Heatmap,\n', '    "log_cosh": LogCosh,\n')
    (package / "configs" / "objectives" / "log_cosh.yaml").write_text(
        "# Toy.\nobjective:\n  name: log_cosh\n  scale: 2.0\n"
    )
    own = ["objectives/log_cosh.py", "objectives/__init__.py", "configs/objectives/log_cosh.yaml"]
    listed = [path.replace("<objective>", "log_cosh").replace("<name>", "log_cosh") for path in files("objective")]
    changed = {f"sampling_argmax_cuda/{path}" for path in own}
    assert changed == {path for path in listed if path.startswith("sampling_argmax_cuda/")}

    shutil.copytree(TOY / "dots", package / "tasks" / "dots", ignore=shutil.ignore_patterns("__pycache__"))
    names = package / "commands" / "tasks.py"
    extend(
        names,
        "from ..tasks.coco.task import CocoData, CocoPose\n",
        "from ..tasks.dots.task import DotData, DotLandmark\n",
    )
    extend(names, '    "coco": (CocoPose, CocoData),\n', '    "dots": (DotLandmark, DotData),\n')
    recipe = {"task": "dots", "objective": {"name": "log_cosh"}, "model": {"depth": 18, "lr": 0.003}}
    (package / "configs" / "dots.yaml").write_text(yaml.safe_dump(recipe))
    parts = [f"tasks/dots/{path.name}" for path in (TOY / "dots").glob("*.py")]
    added = {f"sampling_argmax_cuda/{path}" for path in (*parts, "commands/tasks.py", "configs/dots.yaml")}
    assert added == {
        path for name in files("task") if (path := name.replace("<task>", "dots")).startswith("sampling_argmax_cuda/")
    }

    assert "--objective.scale SCALE" in run(copy, "fit", "--config", "dots", "--help")
    small = ["--data.root=data", "--data.synthetic=true", "--data.synthetic_train=32", "--data.synthetic_val=4",
             "--data.image_size=[64,64]", "--data.batch_size=8", "--data.num_workers=0", "--model.head_channels=16",
             "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=4"]  # fmt: skip
    run(copy, "fit", "--config", "dots", "--config", "log_cosh", *small)
    with (copy / "runs" / "version_0" / "metrics.csv").open() as file:
        losses = [float(row["train/loss_epoch"]) for row in csv.DictReader(file) if row["train/loss_epoch"]]
    assert len(losses) == 4 and losses[-1] < losses[0]
    checkpoint = ["--ckpt_path=runs/checkpoints/best.ckpt"]
    run(copy, "validate", *checkpoint, *small[:-1])
    assert "wrote 36 predictions" in run(
        copy, "predict", *checkpoint, "--data.images=data", "--trainer.accelerator=cpu"
    )
