"""What the processes of one test run make once and share."""

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock  # torch depends on it


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, made by the first process that asks; the others wait for it.

    ``make(path)`` fills a folder of another name, which then gets its own: nobody sees a half of it, and a process that
    fails or is killed leaves none. Files that tell their own place tell the one before. Who changes files copies them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
            unfinished.mkdir()
            try:
                make(unfinished)
            except BaseException:
                shutil.rmtree(unfinished)
                raise
            unfinished.rename(folder)
    return folder
