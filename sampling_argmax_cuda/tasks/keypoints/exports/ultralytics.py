"""Ultralytics' pose files: a text file an image, with boxes and points in shares of its sides, and one YAML for all.

sleap-io reads them too, but knows neither folders images/train and labels/train, nor which points are hidden, and reads on
behind a line that it cannot understand.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....trainers.files import finite_numbers, is_image, read_image, read_text, read_yaml
from .labelled import SEEN, Export, Individual, LabelledImage, name_below, points_from

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Layout:
    """What the YAML says: the folder that its paths begin at, the number of points, and of numbers a point has."""

    path: Path
    content: Mapping
    points: int
    numbers: int

    @property
    def root(self) -> Path:
        """``path`` of the YAML, or its own folder where that is not there."""
        own = self.path.parent / str(self.content.get("path") or ".")
        return own if own.is_dir() else self.path.parent

    def names(self) -> list[str]:
        """The points' names: those of the first class, or of sleap-io's own key, or else numbers."""
        named = self.content.get("kpt_names") or self.content.get("node_names")
        named = next(iter(named.values())) if isinstance(named, Mapping) else named
        if named is None:
            return [f"point_{i + 1}" for i in range(self.points)]
        if not isinstance(named, list) or len(named) != self.points:
            raise ValueError(f"{self.path}: kpt_names must be {self.points} names, got {named!r}")
        return [str(name) for name in named]

    def pairs(self) -> list[list[str]] | None:
        """The names of the points that ``flip_idx`` swaps."""
        flip, names = self.content.get("flip_idx"), self.names()
        if flip is None:
            return None
        if not isinstance(flip, list) or sorted(map(str, flip)) != sorted(map(str, range(self.points))):
            raise ValueError(
                f"{self.path}: flip_idx must be 0 to {self.points - 1} in the mirror's order, got {flip!r}"
            )
        return [[names[i], names[j]] for i, j in enumerate(flip) if i < j]

    def images(self, split: str) -> Iterator[Path]:
        """The images of a split: those of folders, and of text files that list them."""
        listed = self.content.get(split) or []
        for name in listed if isinstance(listed, list) else [listed]:
            path = self.root / str(name)
            if not path.exists():  # Roboflow's begin a folder too high
                path = self.root / str(name).removeprefix("../")
            if path.is_dir():
                yield from sorted(own for own in path.rglob("*") if own.is_file() and is_image(own))
            elif path.suffix.lower() == ".txt":
                yield from (
                    path.parent / line.strip() for line in read_text(path, "list of images").split("\n") if line.strip()
                )
            else:
                raise FileNotFoundError(f"{self.path}: {split}: no folder and no list of images {path}")


def read_layout(path: Path) -> Layout:
    """The YAML of a data set. Raises ValueError for one that is not of points."""
    content = read_yaml(path, "data set", str(path))
    shape = content.get("kpt_shape") if isinstance(content, dict) else None
    if shape is None:
        raise ValueError(f"{path}: kpt_shape is missing, so that this is no data set of points")
    points, numbers = finite_numbers(shape, (2,), str(path), "kpt_shape").astype(int).tolist()
    if points < 1 or numbers not in (2, 3):
        raise ValueError(f"{path}: kpt_shape must be the number of points and 2 or 3, got {shape}")
    return Layout(path, content, points, numbers)


def label_file(image: Path) -> Path:
    """The text file of an image: under labels instead of the last folder images."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _individual(line: str, layout: Layout, size: np.ndarray, where: str) -> Individual:
    """One line: class, x and y of the box's centre, its sides, and x, y and maybe visibility of every point."""
    expected = 5 + layout.points * layout.numbers
    try:
        numbers = finite_numbers([float(word) for word in line.split()], (expected,), where, "a line")
    except ValueError as error:
        raise ValueError(f"{error} (class, box, and {layout.points} points of {layout.numbers} numbers)") from None
    points = numbers[5:].reshape(layout.points, layout.numbers)
    shares = np.concatenate([numbers[1:5], points[:, :2].ravel()])
    if shares.min() < -1 or shares.max() > 2:
        raise ValueError(
            f"{where}: coordinates must be shares of the image's sides, got {shares.min():g} to {shares.max():g}"
        )
    seen = points[:, 2] if layout.numbers == 3 else SEEN * (points != 0).any(1)
    if not np.isin(seen, (0, 1, 2)).all():
        raise ValueError(f"{where}: visibility must be 0, 1 or 2, got {seen.tolist()}")
    box = numbers[1:5] * np.tile(size, 2)
    box[:2] -= box[2:] / 2
    coordinates = np.where((seen > 0)[:, None], points[:, :2] * size, np.nan)
    return Individual(points_from(coordinates, seen), box=box)


def read_ultralytics(path: Path) -> Export:
    """The labels of a data set by its YAML, with the splits that it has."""
    layout = read_layout(path)
    place = range(layout.points)
    bones = [(a, b) for a, b in layout.content.get("skeleton") or () if a in place and b in place]
    classes = layout.content.get("names") or {}
    classes = [str(name) for name in (classes.values() if isinstance(classes, Mapping) else classes)]
    title = classes[0] if len(classes) == 1 else "object"
    export = Export(layout.names(), bones, title, layout.pairs())
    for split in SPLITS:
        for image in layout.images(split):
            _add(export, layout, image, split)
    return export


def _add(export: Export, layout: Layout, image: Path, split: str) -> None:
    name, labels = name_below(layout.root, image), label_file(image)
    if not image.is_file():
        export.drop("images that are not there", name)
    elif not labels.is_file():
        export.drop("images without a file of labels", name)
    else:
        lines = [(i, line) for i, line in enumerate(read_text(labels, "labels").split("\n"), 1) if line.strip()]
        plain = [i for i, line in lines if len(line.split()) == 5]
        for i in plain:
            export.drop("boxes without points", f"{labels}, line {i}")
        height, width = read_image(image).shape[:2]
        people = [_individual(line, layout, np.array([width, height], float), f"{labels}: line {i}")
                  for i, line in lines if i not in plain]  # fmt: skip
        export.add(LabelledImage(name, image, people, split=split))
