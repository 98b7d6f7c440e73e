"""Point sets from files: YAML of one's own or of the package, and the mirrored pairs that names tell."""

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from .files import read_yaml
from .landmarks import Landmarks, check_points, landmarks_of

_OPPOSITE = {"left": "right", "right": "left", "l": "r", "r": "l"}
# Words of a name: leftEye, LEye and left_eye alike, and letters that have no case.
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
# A side that is written together with the rest: leftear, earleft.
_JOINED = re.compile(r"(left|right)(?=.)|(?<=.)(left|right)$")


def _parts(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of a name with ``*`` in place of each side, and the sides."""
    words, sides = [], []
    for word in _WORDS.findall(name):
        for part in filter(None, _JOINED.sub(r" \1\2 ", word.lower(), count=1).split(" ")):
            words.append("*" if part in _OPPOSITE else part)
            sides += [part] * (part in _OPPOSITE)
    return tuple(words), tuple(sides)


def pairs_of(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The points that a mirror swaps, by their names: those that differ in the side alone.

    A side is one of the words left, right, l and r, in any case, before, after or within the name. Words end at anything that
    is no letter, at digits and where a capital begins: left_eye, eye.L, LEye, leftEye. left and right may also be joined to
    the name's begin or end: leftear.
    """
    found: dict[tuple, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault(_parts(name), []).append(i)
    pairs = []
    for (words, sides), own in found.items():
        other = found.get((words, tuple(_OPPOSITE[side] for side in sides)), []) if sides else []
        if len(own) == len(other) == 1 and own < other:
            pairs.append((own[0], other[0]))
    return tuple(pairs)


def same_names(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether names are the same but for case and what stands between words: ``Left Eye`` is ``left_eye``."""
    return [re.sub(r"[\W_]+", "", x).lower() for x in a] == [re.sub(r"[\W_]+", "", x).lower() for x in b]


def package_files() -> dict[str, Path]:
    """The point files of the package by their names."""
    folder = resources.files("sampling_argmax_cuda") / "configs" / "points"
    return {item.name.removesuffix(".yaml"): item for item in folder.iterdir() if item.name.endswith(".yaml")}


def read_points(name: str | Path) -> dict:
    """The content of a point file, or of the package's by its name, checked. Raises ValueError that names the file."""
    known, where = package_files(), f"--data.points {name}"
    if not Path(name).is_file() and str(name) not in known:
        raise FileNotFoundError(f"{where}: no file, and no point set of the package ({', '.join(sorted(known))})")
    content = read_yaml(name if Path(name).is_file() else known[str(name)], "--data.points", where)
    if not isinstance(content, dict):
        raise ValueError(f"{where}: expected names, pairs, skeleton, sigmas or upper, got {type(content).__name__}")
    check_points(content, where)
    return content


@cache
def package_points(name: str) -> Landmarks:
    """A point set of the package."""
    return landmarks_of(read_points(name), name)


def recognised(names: Sequence[str]) -> str | None:
    """The point set of the package that has these names."""
    return next((name for name in sorted(package_files()) if same_names(package_points(name).names, names)), None)
