"""What an export holds, whatever tool wrote it: images, and who is on them with which points."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..files import ImageFinder

HIDDEN, SEEN = 1, 2  # COCO's visibilities of what is labelled


@dataclass(frozen=True)
class Individual:
    """One object of an image.

    Args:
        points: ``[K, 3]``: x, y in pixels, visibility; 0 in all three of a point that is not labelled.
        name: of the same individual on other images, if the tool knows it.
        box: x, y, w, h in pixels, if the tool has one.
    """

    points: np.ndarray
    name: str | None = None
    box: np.ndarray | None = None


@dataclass(frozen=True)
class LabelledImage:
    """An image.

    Args:
        name: what it is called from now on, with folders.
        source: its file, or what decodes it to RGB ``uint8 [H, W, 3]``.
        people: who is on it.
        video: the name of the video that it is a frame of.
        split: train, val or test, if the tool says so.
    """

    name: str
    source: Path | Callable[[], np.ndarray]
    people: list[Individual]
    video: str | None = None
    split: str | None = None


@dataclass
class Export:
    """A whole export; readers fill it with :meth:`add`.

    Args:
        names: of the points.
        bones: pairs of points, by places, that figures join.
        title: what the individuals are.
        pairs: names of points that a mirror swaps; None where the tool does not say.
        images: those with a labelled point.
        dropped: what is not among them, by the reason: the first names, and how many.
    """

    names: Sequence[str]
    bones: Sequence[tuple[int, int]] = ()
    title: str = "object"
    pairs: list[list[str]] | None = None
    images: list[LabelledImage] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _taken: set[str] = field(default_factory=set)

    def add(self, image: LabelledImage) -> None:
        """Take an image with those of whom a point is labelled, or note why it is left out."""
        people = [own for own in image.people if (own.points[:, 2] > 0).any()]
        if image.name in self._taken:
            self.drop("images that were there before", image.name)
        elif not people:
            self.drop("images without a labelled point", image.name)
        else:
            self._taken.add(image.name)
            self.images.append(replace(image, people=people))

    def drop(self, reason: str, what: str) -> None:
        """Note what is left out."""
        self.dropped[reason].append(what)

    def told(self) -> list[str]:
        """Lines that say what is left out."""
        return [f"left out: {len(own)} {reason} ({', '.join(own[:3])}{', ...' * (len(own) > 3)})"
                for reason, own in self.dropped.items()]  # fmt: skip


def found_file(finder: ImageFinder, name: str, export: Export, kind: str = "images") -> Path | None:
    """The file that an export names; None, with a note, where it is not there."""
    try:
        return finder.find({"file_name": name}, "convert")
    except FileNotFoundError:
        export.drop(f"{kind} that are not below {finder.root}", name)
        return None


def name_below(root: Path, file: Path) -> str:
    """A file's path from a folder on, or its name alone where it is not below it."""
    root, file = root.resolve(), file.resolve()
    return file.relative_to(root).as_posix() if root in file.parents else file.name


def points_from(coordinates: np.ndarray, visibility: int | np.ndarray = SEEN) -> np.ndarray:
    """Points ``[K, 3]`` of coordinates ``[K, 2]``, of which those are labelled that are finite."""
    known = np.isfinite(coordinates).all(1)
    out = np.concatenate([coordinates, np.broadcast_to(visibility, known.shape)[:, None]], 1).astype(float)
    out[~known] = 0
    return out
