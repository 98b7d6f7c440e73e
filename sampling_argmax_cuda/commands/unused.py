"""Options that a command does not use: it refuses them, and its help does not show them."""

from collections.abc import Iterable
from inspect import signature

from ..trainers.trained_module import TrainedModule

_OF_LOSSES = ("loss_scale", "reduction")


def options_in(kind: type) -> set[str]:
    """The names of the options of a class and of those that it extends."""
    return {name for base in kind.__mro__ if "__init__" in vars(base) for name in signature(base).parameters} - {
        "kwargs"
    }


def unused_options(command: str, module: type, data: type) -> set[str]:
    """The options of a task, by their full names, that a command does not read.

    Training and validation read no inputs of predict; whoever evaluates optimises nothing; and predict knows of no annotations.
    """
    own = options_in(data)
    unread = {"fit": data.inputs, "validate": data.inputs, "calibrate": data.inputs}.get(
        command, own - data.inputs - data.shared
    )
    found = {f"data.{name}" for name in unread}
    if command != "fit":
        found |= {f"model.{name}" for name in (*signature(TrainedModule).parameters, *_OF_LOSSES)}
    return found


def refuse_unused(argv: Iterable[str], command: str, module: type, data: type) -> None:
    """Raise ValueError for an option of the command line that the command does not use; configs may have those of all."""
    unread = unused_options(command, module, data)
    for item in argv:
        name = item.partition("=")[0].removeprefix("--").removesuffix("+")
        if item.startswith("--") and name in unread:
            raise ValueError(f"--{name} is not used by {command}")
