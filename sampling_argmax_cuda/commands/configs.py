"""Config files and what is read of them, and of the command line, before the options are: the task and the objective.

Both decide which options there are. A file may be the user's or, by a bare name, one of the package's, which are recipes.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from inspect import signature
from pathlib import Path

from ..objectives import OBJECTIVES, options_of
from ..trainers.files import read_yaml
from ..trainers.objective_module import ObjectiveModule
from ..trainers.upgrade import ADVERSARY, DATA, OLD_OPTIONS
from ..trainers.weights import read_checkpoint
from .tasks import TASKS

# What had another name in version 0.1.0: it stops with the new one.
RENAMED_CONFIGS = {"drawn": "synthetic", "drawn_joints": "synthetic_mpii", "drawn_people": "synthetic_associative",
                   "drawn_scans": "synthetic_oct", "drawn_clouds": "synthetic_keypointnet",
                   "drawn_skeletons": "synthetic_skeleton"}  # fmt: skip
RENAMED_OPTIONS = {"model.method": "objective", **{f"model.{old}": f"objective.{new}" for old, new in OLD_OPTIONS.items()},
                   **{f"model.{old}": f"adversary.{new}" for new, old in ADVERSARY.items()},
                   **{f"data.{old}": f"data.{new}" for old, new in DATA.items()}}  # fmt: skip
# What a command reads of a checkpoint before the weights are loaded.
SAVED = ("task", "hyper_parameters", "datamodule_hyper_parameters")


def config_path(name: str) -> str:
    """A file as it is; a bare name stands for a config that the package brings."""
    if Path(name).is_file():
        return name
    folder = resources.files("sampling_argmax_cuda") / "configs"
    known = {item.name.removesuffix(".yaml"): item
             for place in (folder, folder / "objectives") for item in place.iterdir() if item.name.endswith(".yaml")}  # fmt: skip
    if name in RENAMED_CONFIGS:
        raise ValueError(f"--config {name}: this config is now called {RENAMED_CONFIGS[name]}")
    if name not in known:
        names = ", ".join(sorted(known))
        raise FileNotFoundError(f"--config: no file {name}, and no config of that name (known: {names})")
    return str(known[name])


def read_config(name: str) -> dict:
    """The content of a config, its objective with a name of its own. Raises ValueError that names the file and the line."""
    content = read_yaml(config_path(name), "--config", f"--config {name}") or {}
    if not isinstance(content, dict):
        raise ValueError(f"--config {name}: expected options by name, got {type(content).__name__}")
    if isinstance(content.get("objective"), str):
        content["objective"] = {"name": content["objective"]}
    return content


def spelled_out(argv: list[str]) -> list[str]:
    """The command line with ``--objective.name`` in place of the short ``--objective``."""
    out = []
    for item in argv:
        head, sign, value = item.partition("=")
        out.append(f"--objective.name{sign}{value}" if head == "--objective" else item)
    return out


def _flat(options: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@dataclass(frozen=True)
class Choice:
    """What decides which options a command has.

    Args:
        task: its name in :data:`.TASKS`.
        objective: its name in :data:`.OBJECTIVES`, or None for a task that has none.
        checkpoint: the file of the checkpoint that was named, None for a run that begins.
        saved: its content without tensors.
        recipe: the objective that the package's configs name last, chosen or not; None if they name none.
    """

    task: str
    objective: str | None
    checkpoint: Path | None = None
    saved: Mapping = field(default_factory=dict)
    recipe: str | None = None

    def read(self, name: str) -> dict:
        """A config without the options of other objectives than the chosen one.

        A config may have those of the objective that it names, or of any where it names none: they hold if that is chosen.
        """
        content = read_config(name)
        own = content.pop("objective", None)
        if own is None or self.objective is None:
            return content
        if not isinstance(own, dict):
            raise ValueError(f"--config {name}: objective must be a name or options by name, got {own!r}")
        named = (
            options_of(own["name"]) if "name" in own else {key: None for kind in OBJECTIVES for key in options_of(kind)}
        )
        wrong = next((key for key in own if key != "name" and key not in named), None)
        if wrong is not None:
            raise ValueError(f"--config {name}: objective {own.get('name', '')} has no option {wrong!r}")
        chosen = options_of(self.objective)
        content["objective"] = {key: value for key, value in own.items() if key in chosen}
        if "name" in own:
            content["objective"]["name"] = self.objective
        return content


def _named(argv: list[str]) -> Iterator[tuple[str, object, bool]]:
    """Options as the command line and its configs name them, in their order, and whether the user wrote them."""
    parser = argparse.ArgumentParser(prog="sampling-argmax", add_help=False, allow_abbrev=False)
    for flags in (
        ("--task",),
        ("--ckpt_path",),
        ("--objective.name",),
        ("--trainer.default_root_dir",),
        ("-c", "--config"),
    ):
        name = flags[-1].removeprefix("--")
        parser.add_argument(
            *flags, dest="named", action="append", default=[], type=lambda value, name=name: (name, value)
        )
    for name, value in parser.parse_known_args(argv)[0].named:
        if name != "config":
            yield name, value, True
            continue
        for key, own in _flat(read_config(value)):
            yield key, own, Path(value).is_file()


def checkpoint_path(given: str | None, folder: Path, command: str) -> Path | None:
    """The file that ``--ckpt_path`` stands for, which may be last or best of the run; None for a run that begins."""
    if given is None:
        return None
    path = folder / "checkpoints" / f"{given}.ckpt" if given in ("last", "best") else Path(given)
    if command == "fit" and given == "last" and not path.is_file():
        return None
    return path


def choose(argv: list[str]) -> Choice:
    """The task and the objective of a command line: the last one named wins.

    A checkpoint's objective, and its task where none is named, win over those of the package's configs and the defaults.
    """
    named = list(_named(argv))
    root = {name: value for name, value, _ in named}.get("trainer.default_root_dir", "runs")
    folder = Path("." if root in (None, "null") else str(root)).expanduser()
    named = [(name, value, own) for name, value, own in named if value is not None]
    said = {name: value for name, value, _ in named}
    path = checkpoint_path(said.get("ckpt_path"), folder, argv[0] if argv else "")
    saved = {} if path is None else {name: value for name, value in read_checkpoint(path).items() if name in SAVED}
    task = said.get("task", saved.get("task", "coco"))
    if task not in TASKS:
        raise ValueError(f"--task must be one of {', '.join(TASKS)}, got {task!r}")
    module = TASKS[task][0]
    _refuse_renamed(argv, named, module)
    if not issubclass(module, ObjectiveModule):
        return Choice(task, None, path, saved)
    last = {own: value for name, value, own in named if name == "objective.name"}  # by whether the user wrote it
    trained = saved.get("hyper_parameters", {}).get("objective", {}).get("name")
    if trained is None:
        objective = said.get("objective.name", module.default_objective["name"])
    else:
        objective = last.get(True, trained)
    options_of(objective)
    return Choice(task, objective, path, saved, last.get(False))


def _refuse_renamed(argv: list[str], named: list[tuple[str, object, bool]], module: type) -> None:
    """Raise ValueError for an option that has another name now."""
    own = {
        f"model.{name}" for kind in module.__mro__ if "__init__" in vars(kind) for name in signature(kind).parameters
    }
    said = [item.partition("=")[0].removeprefix("--") for item in argv if item.startswith("--")]
    for name in (*said, *(name for name, _, _ in named)):
        if name in RENAMED_OPTIONS and name not in own - {"model.adversary"}:
            raise ValueError(f"--{name}: this option is now called --{RENAMED_OPTIONS[name]}")
