"""What a resumed run takes from its checkpoint: the options that made it, and an epoch where it was left."""

from collections.abc import Collection, Iterable, Mapping


def _plain(value):
    """A value as the command line, a YAML file and a checkpoint alike have it."""
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def changed_options(saved: Mapping, own: Mapping) -> dict[str, tuple]:
    """Options with another value than the checkpoint's: ``(the checkpoint's, the run's)`` by name."""
    names = [name for name in own if name in saved and not name.startswith("_")]
    return {name: (saved[name], own[name]) for name in names if _plain(saved[name]) != _plain(own[name])}


def check_options(part: str, changes: Mapping[str, tuple], free: Collection[str]) -> Iterable[str]:
    """A line for each changed option of ``model`` or ``data`` that a resumed run may change; ValueError for any other."""
    for name, (before, now) in changes.items():
        if name not in free:
            raise ValueError(
                f"{part}: {name} of the resumed run was {before!r}, got {now!r}; a resumed run may change "
                f"{', '.join(sorted(free))} (a new run starts from its weights with --model.weights)"
            )
        yield f"resumed with --{part}.{name} {now!r} instead of {before!r}"


def reopen_epoch(loops: dict, accumulate: int) -> None:
    """Let the loops of a checkpoint go on with the batch after their last step.

    Lightning writes down an epoch that max_steps, max_time or a signal ended as one that is over, and a whole one as begun.
    What is over is said by its batches here; those of a step that was not taken are taken again.
    """
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    last = batches["is_last_batch"]
    begun = epochs["current"]["ready"]
    done = 0 if last else batches["current"]["processed"] // accumulate * accumulate
    offset = epochs["total"]["ready"] - begun
    over = begun if last or begun == 0 else begun - 1
    started = over + (done > 0)
    for name, shift in (("current", 0), ("total", offset)):
        epochs[name] |= {"ready": started + shift, "started": started + shift,
                         "processed": over + shift, "completed": over + shift}  # fmt: skip
    total = batches["total"]["processed"] - batches["current"]["processed"] + (done or batches["current"]["processed"])
    for name, count in (("current", done), ("total", total)):
        batches[name] |= dict.fromkeys(("ready", "started", "processed", "completed"), count)
    batches["is_last_batch"] = False
    for state in loops["state_dict"].get("combined_loader", []):
        state["given"] = done
