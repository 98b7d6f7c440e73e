"""The rooms of the package: imports point one way, no circles, nothing in a room that is not of it."""

import ast
import inspect
import traceback
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest
from runs import small

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.commands.tasks import TASKS

PACKAGE = Path(__file__).parents[1] / "sampling_argmax_cuda"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = (
    "",
    "objectives",
    "calibration",
    "trainers",
    "tasks",
    "commands",
)  # each may import of those before it, and of itself


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def imports_of(file: Path) -> set[str]:
    """The modules of the package that a file imports, relative to the package; the package itself is ''."""
    folder, found = file.relative_to(PACKAGE).parent.parts, set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*folder[: len(folder) - node.level + 1], *filter(None, [node.module])])
            found |= {f"{base}.{alias.name}".removeprefix(".") for alias in node.names} & NAMES or {base}
    return found


NAMES = {name_of(file) for file in FILES}
IMPORTS = {name_of(file): imports_of(file) for file in FILES}


def room(module: str) -> str:
    first = module.partition(".")[0]
    return first if first in ROOMS else ""


@pytest.mark.parametrize("module", sorted(NAMES - {"", "__main__"}))
def test_imports_point_one_way(module):
    """Operators, objectives, calibration, trainers, tasks, commands; the package's own __init__ shows what users import."""
    assert all(ROOMS.index(room(other)) <= ROOMS.index(room(module)) for other in IMPORTS[module]), IMPORTS[module]


def test_no_module_imports_itself_again():
    graph = {name: {o for o in others if o} for name, others in IMPORTS.items() if name}
    while free := {name for name, others in graph.items() if not others & graph.keys() - {name}}:
        graph = {name: others for name, others in graph.items() if name not in free}
    assert not graph, f"a circle among {sorted(graph)}"


def test_a_task_knows_only_its_own_room_and_the_files_it_shares():
    """Of other tasks a task has readers, metrics and synthetic data: never their training."""
    for name, others in IMPORTS.items():
        for other in others:
            own = name.split(".")[:2]
            if (
                own[0] == "tasks"
                and other.startswith("tasks.")
                and other.split(".")[:2] != own
                and other.endswith(".task")
            ):
                assert (name, other) in {("tasks.associative.task", "tasks.coco.task"),
                                         ("tasks.skeleton.task", "tasks.keypointnet.task")}  # fmt: skip


def test_the_room_of_tasks_has_nothing_else():
    assert {path.name for path in (PACKAGE / "tasks").iterdir() if path.is_file()} == {"__init__.py"}
    for folder in (PACKAGE / "tasks").iterdir():
        assert not folder.is_dir() or folder.name == "__pycache__" or (folder / "task.py").is_file(), folder


def test_the_room_of_objectives_is_plain_pytorch():
    for file in (PACKAGE / "objectives").glob("*.py"):
        names = [
            alias.name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        ]
        assert set(names) <= {"torch", "math", "dataclasses"}, file


# ---- the walk of a batch, as docs/architecture.md tells it ----

WALKS = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
OF_ALL = {"trainers/trained_module.py", "objectives/objective.py"}  # bases that the page says need not be opened


def walk(start: str) -> list[str]:
    """The files of a walk, relative to the package."""
    text = WALKS.partition(start)[2]
    steps = [line for line in text.partition("\n1. ")[2].partition("\n\n")[0].splitlines()]
    return [step.partition("`sampling_argmax_cuda/")[2].partition("`")[0] for step in steps]


def passed_through(monkeypatch, place: str, argv: list[str]) -> list[str]:
    """The files of the package on the stack when the real command calls ``place`` for the first time, outermost first."""
    module, _, name = place.partition(":")
    *owners, function = name.split(".")
    owner = reduce(getattr, owners, import_module(f"sampling_argmax_cuda.{module}"))
    real, found = getattr(owner, function), []

    def watched(*args, **kwargs):
        names = [Path(frame.filename) for frame in traceback.extract_stack()[:-1]]
        found.append([name.relative_to(PACKAGE).as_posix() for name in names if PACKAGE in name.parents])
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, function, watched)
    assert main(argv) == 0
    return list(dict.fromkeys(file for file in found[0] if not file.startswith(("commands/", "__main__"))))


@pytest.mark.parametrize(
    "task, start, read, loss",
    [
        ("coco", "COCO, with", "tasks.keypoints.crops:read_image", "objectives.sampling:expected_error"),
        ("oct", "Retinal surfaces.", "tasks.oct.volume:Volume._read", "objectives.sampling:sample"),
    ],
)
@pytest.mark.written_memory
def test_a_batch_takes_the_walk_that_the_page_tells(task, start, read, loss, tmp_path, monkeypatch):
    told = walk(start)
    assert len(told) == 7 and all((PACKAGE / file).is_file() for file in told)
    argv = ["fit", *small(task, tmp_path, tmp_path / "run", "--trainer.max_epochs=1", "--trainer.limit_val_batches=0")]
    reading = passed_through(monkeypatch, read, argv)
    training = passed_through(monkeypatch, loss, argv)
    rows = (
        Path(inspect.getfile(TASKS[task][0].rows)).relative_to(PACKAGE).as_posix()
    )  # returns before the loss is asked
    assert {*reading, *training, rows, "ops.py"} - OF_ALL == set(told)
