"""What a resumed run takes from its checkpoint: the options that made it, and an epoch where it was left."""

from collections.abc import Collection, Iterable, Mapping


def _plain(value):
    """A value as the command line, a YAML file and a checkpoint alike have it."""
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def changed_options(saved: Mapping, own: Mapping, part: str) -> dict[str, tuple]:
    """Options with another value than the checkpoint's: ``(the checkpoint's, the run's)`` by their names in the command line.

    ``part`` is that of the options themselves, ``model`` or ``data``; an option that is a mapping is a part of its own. Names
    that only one side has are not compared.
    """
    changes = {}
    for name in own.keys() & saved.keys():
        before, now = saved[name], own[name]
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            changes |= changed_options(before, now, name)
        elif not name.startswith("_") and _plain(before) != _plain(now):
            whole = isinstance(before, Mapping) or isinstance(now, Mapping)
            changes[name if whole else f"{part}.{name}"] = before, now
    return dict(sorted(changes.items(), key=lambda item: (not item[0].endswith(".name"), item[0])))


def check_options(changes: Mapping[str, tuple], free: Collection[str]) -> Iterable[str]:
    """A line for each changed option that a resumed run may change; ValueError for any other."""
    for name, (before, now) in changes.items():
        if name not in free:
            part, _, option = name.partition(".")
            raise ValueError(
                f"{part}: {option or part} of the resumed run was {before!r}, got {now!r}; a resumed run may change "
                f"{', '.join(sorted(free))} (a new run starts from its weights with --model.weights)"
            )
        yield f"resumed with --{name} {now!r} instead of {before!r}"


def reopen_epoch(loops: dict, before: int, now: int) -> None:
    """Let the loops of a checkpoint go on with the batch after their last step.

    Lightning writes down an epoch that max_steps, max_time or a signal ended as one that is over, and a whole one as begun.
    What is over is said by its batches here; those of a step that was not taken are taken again. A step had ``before`` batches
    and has ``now``.
    """
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    whole, given = batches["is_last_batch"], batches["current"]["processed"]
    done = 0 if whole else given // before * now
    over = max(0, epochs["current"]["ready"] - (0 if whole else 1))
    for count in (epochs["current"], epochs["total"]):
        count |= {"ready": over + (done > 0), "started": over + (done > 0), "processed": over, "completed": over}
    total = batches["total"]["processed"] - (0 if whole else given - done)
    for count, number in ((batches["current"], done), (batches["total"], total)):
        count |= dict.fromkeys(("ready", "started", "processed", "completed"), number)
    for state in loops["state_dict"].get("combined_loader", []):
        state["given"] = done
