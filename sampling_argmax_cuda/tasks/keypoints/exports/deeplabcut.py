"""DeepLabCut's and Lightning Pose's tables of labels: a row an image, a column a coordinate; CSV, or HDF5 as pandas writes it.

sleap-io reads the CSV too, but gives the labels of an image that is missing to the next one, and sorts the points by name.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....trainers.files import read_text, read_yaml
from ..files import ImageFinder, parts_of
from .labelled import Export, Individual, LabelledImage, found_file, points_from

LEVELS = ("scorer", "individuals", "bodyparts", "coords")
ALONE = "single"  # whom DeepLabCut says that the points are of that only the scene has


@dataclass(frozen=True)
class Table:
    """A table of labels.

    Args:
        path: of the file.
        columns: individual ('' where there are none), point and coordinate of each.
        images: a path a row, as the table has it.
        values: ``[rows, columns]``, NaN where nothing is labelled.
    """

    path: Path
    columns: list[tuple[str, str, str]]
    images: list[str]
    values: np.ndarray

    def people(self) -> list[str]:
        """The individuals, without the one that has the scene's points."""
        names = list(dict.fromkeys(individual for individual, _, _ in self.columns))
        return [name for name in names if name != ALONE or len(names) == 1]

    def points(self) -> list[str]:
        """The points of the individuals."""
        people = self.people()
        return list(dict.fromkeys(point for individual, point, _ in self.columns if individual in people))

    def rows(self, names: Sequence[str]) -> Iterator[tuple[str, list[Individual]]]:
        """Of each row its image and the individuals with their points in the order of ``names``."""
        at = {column: i for i, column in enumerate(self.columns)}
        places = {
            person: [[at.get((person, name, axis), -1) for axis in "xy"] for name in names] for person in self.people()
        }
        for image, row in zip(self.images, np.pad(self.values, ((0, 0), (0, 1)), constant_values=np.nan), strict=True):
            yield image, [Individual(points_from(row[own]), person or None) for person, own in places.items()]


def _columns(levels: dict[str, Sequence[str]], path: Path) -> list[tuple[str, str, str]]:
    """The columns by the table's rows of headers."""
    if not {"bodyparts", "coords"} <= levels.keys():
        raise ValueError(f"{path}: expected rows of headers {', '.join(LEVELS)} (individuals where there are several), "
                         f"got {', '.join(levels)}")  # fmt: skip
    coords = set(levels["coords"])
    if "likelihood" in coords:
        raise ValueError(f"{path}: these are predictions (they have a likelihood), expected labels")
    if coords != {"x", "y"}:
        raise ValueError(f"{path}: coords must be x and y, got {', '.join(sorted(coords))}")
    people = levels.get("individuals", [""] * len(levels["coords"]))
    return list(zip(people, levels["bodyparts"], levels["coords"], strict=True))


def read_csv(path: Path) -> Table:
    """A table of CSV. Raises ValueError that names the file and the line."""
    rows = [row for row in csv.reader(io.StringIO(read_text(path, "table"))) if row]
    heads = [row for row in rows[: len(LEVELS)] if row[0] in LEVELS]
    first = (
        1 + next((i for i, cell in enumerate(heads[0][1:]) if cell), 0) if heads else 1
    )  # newer ones have a column a folder
    columns, images, values = _columns({row[0]: row[first:] for row in heads}, path), [], []
    for number, row in enumerate(rows[len(heads) :], len(heads) + 1):
        if len(row) != first + len(columns):
            raise ValueError(f"{path}: line {number} has {len(row)} cells, expected {first + len(columns)}")
        images.append("/".join(row[:first]))
        try:
            values.append([float(cell) if cell.strip() else np.nan for cell in row[first:]])
        except ValueError as error:
            raise ValueError(f"{path}: line {number}: {error}") from None
    return Table(path, columns, images, np.reshape(values, (len(images), len(columns))))


def read_h5(path: Path) -> Table:
    """A table of HDF5 in pandas' fixed format, which keeps an axis as its levels' names and every place's number of name."""
    import h5py

    try:
        file = h5py.File(path)
    except OSError as error:
        raise ValueError(f"{path}: no HDF5 file: {error}") from None
    with file:
        group = next((own for own in file.values() if own.attrs.get("pandas_type") == b"frame"), None)
        if group is None or int(group.attrs["nblocks"]) != 1:
            raise ValueError(f"{path}: no table of labels as DeepLabCut writes it; the CSV beside it may be read")
        columns = _columns(_levels(group, "block0_items"), path)
        images = list(map("/".join, zip(*_levels(group, "axis1").values(), strict=True)))
        return Table(path, columns, images, group["block0_values"][...])


def _levels(group, axis: str) -> dict[str, list[str]]:
    """The names along an axis, of each of its levels."""
    if axis in group:
        return {"": [text.decode() for text in group[axis][...]]}
    found = {}
    for i in range(int(group.attrs[f"{axis}_nlevels"])):
        level = group[f"{axis}_level{i}"]
        names, name = [text.decode() for text in level[...]], level.attrs["name"].decode()
        found[name if name in LEVELS else str(i)] = [names[place] for place in group[f"{axis}_label{i}"][...]]
    return found


def read_table(path: Path) -> Table:
    """A table of either kind."""
    return read_h5(path) if path.suffix.lower() == ".h5" else read_csv(path)


def project_tables(root: Path) -> list[Path]:
    """The tables of a DeepLabCut project: one a folder of labeled-data, the CSV where both kinds are there."""
    found = []
    for folder in sorted(path for path in (root / "labeled-data").iterdir() if path.is_dir()):
        tables = sorted(folder.glob("CollectedData*.csv")) or sorted(folder.glob("CollectedData*.h5"))
        if len(tables) > 1:
            raise ValueError(f"{folder} has the labels of several people: {', '.join(own.name for own in tables)}; "
                             "name one of the files, or take the others away")  # fmt: skip
        found += tables
    if not found:
        raise FileNotFoundError(f"{root}: no labeled-data/*/CollectedData*.csv nor .h5")
    return found


def read_deeplabcut(tables: Sequence[Path], images: Path) -> Export:
    """The labels of tables, whose images are below a folder; bones are those of the project's config.yaml, if it is there."""
    read = [read_table(path) for path in tables]
    names = list(dict.fromkeys(name for table in read for name in table.points()))
    path = next(
        (folder / "config.yaml" for folder in tables[0].resolve().parents[:3] if (folder / "config.yaml").is_file()),
        None,
    )
    config = read_yaml(path, "config", str(path)) if path else {}
    config = config if isinstance(config, dict) else {}
    place = {name: i for i, name in enumerate(names)}
    bones = [(place[a], place[b]) for a, b in config.get("skeleton") or () if a in place and b in place]
    export, finder = Export(names, bones, str(config.get("Task") or "object")), ImageFinder(images, tables[0])
    for table in read:
        for name in sorted({point for _, point, _ in table.columns} - {*names}):
            export.drop("points that no individual has", name)
        for image, people in table.rows(names):
            parts = parts_of(image)
            file = found_file(finder, _own_path(table.path, parts), export)
            if file is not None:
                video = parts[-2] if len(parts) > 1 else table.path.resolve().parent.name
                export.add(LabelledImage(f"{video}/{parts[-1]}", file, people, video))
    return export


def _own_path(table: Path, parts: Sequence[str]) -> str:
    """An image's path as a finder knows it: a table among its images names them alone."""
    return "/".join(parts if len(parts) > 1 else [table.resolve().parent.name, *parts])
