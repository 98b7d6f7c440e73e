"""Lines for the user, told once however many processes a run has, and what Lightning says that nobody can act on."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_only

tell = rank_zero_only(print)

# Of Lightning itself and of the options that these commands give it.
_NOISE = (
    r".*isinstance\(treespec, LeafSpec\)",
    r"Experiment logs directory .* exists and is not empty",
    r"The dirpath has changed from",
    r"Checkpoint directory .* exists and is not empty",
    r"The number of training batches .* is smaller than the logging interval",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out Lightning's tips and such of its warnings as no option of a command changes."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for pattern in _NOISE:
            warnings.filterwarnings("ignore", pattern)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
