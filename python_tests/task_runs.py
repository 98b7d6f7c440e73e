"""One training of a task that many of its tests read: an epoch, another one after it, and both at once."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from runs import last, same_weights

from sampling_argmax_cuda.trainers import callbacks


class Trained(NamedTuple):
    """The folders of three runs of the same options."""

    first: Path  # one epoch
    parts: Path  # one epoch, from whose checkpoint another run goes on
    whole: Path  # two epochs


def trained(fit: Callable[..., dict], data: Path, folder: Path, *more: str) -> Trained:
    """Train; ``fit`` and its arguments are as of :func:`.runs.fit`."""
    runs = Trained(*(folder / name for name in Trained._fields))
    with patch.object(callbacks, "save_figure"):  # those of the whole run are files
        fit(data, runs.parts, *more, "--trainer.max_epochs=1")
        shutil.copytree(runs.parts, runs.first)  # the run itself has to go on where it was
        fit(data, runs.parts, *more, "--trainer.max_epochs=2", "--ckpt_path=last")
    fit(data, runs.whole, *more, "--trainer.max_epochs=2")
    return runs


def from_last(run: Path, name: str = "last") -> str:
    """The option that starts from a run's checkpoint."""
    return f"--ckpt_path={run / 'checkpoints' / f'{name}.ckpt'}"


def resumed(runs: Trained) -> dict:
    """The last checkpoint of two epochs, which one epoch and then another have come to, bit for bit."""
    whole, parts = last(runs.whole), last(runs.parts)
    assert same_weights(whole, parts) and whole["global_step"] == parts["global_step"]
    return whole


NO_FIGURES = "--trainer.logger=false"  # of a run whose files alone are read


def some_of(folder: Path, place: Path, count: int) -> Path:
    """A folder with the first files of another."""
    place.mkdir()
    for file in sorted(folder.iterdir())[:count]:
        shutil.copy(file, place)
    return place
