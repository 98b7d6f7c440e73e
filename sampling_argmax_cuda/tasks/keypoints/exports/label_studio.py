"""Label Studio's JSON: a task an image, with points in percent of its sides and, maybe, boxes of the objects they are of.

sleap-io knows a task by the frame of a video that it wrote there itself, and not by an image, as Label Studio does.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....trainers.files import IMAGES, field, finite_numbers, read_json
from ..files import ImageFinder, parts_of
from .labelled import SEEN, Export, Individual, LabelledImage, found_file, name_below

POINT, BOX = "keypointlabels", "rectanglelabels"


@dataclass(frozen=True)
class Region:
    """A point ``[x, y]`` or a box ``[x, y, w, h]`` in pixels, its label, and the ids of what it is joined with."""

    values: np.ndarray
    label: str
    joined: frozenset[str]


def _image_name(task: dict, where: str) -> str:
    data = field(task, "data", where)
    texts = [text for text in data.values() if isinstance(text, str)] if isinstance(data, dict) else []
    named = [text for text in texts if Path((parts_of(text) or [""])[-1]).suffix.lower() in IMAGES]
    if len(named) != 1:
        raise ValueError(f"{where}: data must name one image, got {data!r}")
    return named[0]


def _annotation(task: dict, where: str, export: Export) -> list[dict]:
    """The regions of one annotator: the first whose work counts as the truth, or else was not cancelled."""
    found = field(task, "annotations", where)
    if not isinstance(found, list) or not all(isinstance(own, dict) for own in found):
        raise ValueError(f"{where}: annotations must be a list of objects, got {found!r}")
    kept = sorted((own for own in found if not own.get("was_cancelled")), key=lambda own: not own.get("ground_truth"))
    for own in kept[1:]:
        export.drop("annotations of images that have another one", f"{where}, annotation {own.get('id')}")
    return field(kept[0], "result", where) if kept else []


def _regions(result: list[dict], where: str, export: Export) -> tuple[list[Region], dict[str, Region]]:
    """The points, and the boxes by their ids."""
    joined, points, boxes = defaultdict(set), [], {}
    for own in result:
        if own.get("type") == "relation":
            joined[own.get("from_id")].add(own.get("to_id"))
            joined[own.get("to_id")].add(own.get("from_id"))
    for own in result:
        kind = own.get("type")
        if kind not in (POINT, BOX):
            if kind != "relation":
                export.drop("regions that are neither points nor boxes", f"{where}: {kind}")
            continue
        place, value = f"{where}: region {own.get('id')}", field(own, "value", where)
        if own.get("image_rotation"):
            raise ValueError(
                f"{place}: the image was turned by {own['image_rotation']} degrees; turn its file, and label it again"
            )
        sides = [field(own, f"original_{side}", place) for side in ("width", "height")]
        keys = ("x", "y") if kind == POINT else ("x", "y", "width", "height")
        shares = finite_numbers([field(value, key, place) for key in keys], (len(keys),), place, ", ".join(keys))
        pixels = shares / 100 * np.resize(finite_numbers(sides, (2,), place, "original sides"), len(keys))
        label = (field(value, kind, place) or [""])[0]
        found = Region(pixels, str(label), frozenset({own.get("parentID")} | joined[own.get("id")]))
        if kind == POINT:
            points.append(found)
        elif not value.get("rotation"):  # one that is turned is no box of COCO's, and the points make one
            boxes[own.get("id")] = found
    return points, boxes


def _owner(point: Region, boxes: dict[str, Region]) -> str | None:
    """The box that a point is of: the one it is joined with, or else the only one that it lies in."""
    named = [key for key in boxes if key in point.joined]
    around = [key for key, box in boxes.items()
              if (box.values[:2] <= point.values).all() and (point.values <= box.values[:2] + box.values[2:]).all()]  # fmt: skip
    return next((own[0] for own in (named, around) if len(own) == 1), None)


def _people(points: list[Region], boxes: dict[str, Region], export: Export, where: str) -> list[Individual]:
    """Who is on an image: one a box that has points, and one of all points that are of no box."""
    place, groups, people = {name: i for i, name in enumerate(export.names)}, defaultdict(list), []
    for point in points:
        groups[_owner(point, boxes)].append(point)
    for key, own in groups.items():
        labels = [point.label for point in own]
        twice = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
        if twice is not None:
            export.drop("objects on which a point is marked twice", f"{where}: {twice}")
            continue
        found = np.zeros((len(place), 3))
        for point in own:
            found[place[point.label]] = [*point.values, SEEN]
        people.append(Individual(found, box=None if key is None else boxes[key].values))
    return people


def read_label_studio(path: Path, images: Path) -> Export:
    """The labels of a JSON export, whose images are found below a folder by their names."""
    tasks = read_json(path, "Label Studio")
    if (
        not isinstance(tasks, list)
        or not tasks
        or not all(isinstance(own, dict) and "annotations" in own for own in tasks)
    ):
        raise ValueError(
            f"{path}: expected a list of tasks with annotations, as Label Studio exports as JSON (not JSON-MIN)"
        )
    export, read, finder = Export([]), [], ImageFinder(images, path)
    for i, task in enumerate(tasks):
        where = f"{path}: task {task.get('id', i)}"
        read.append((where, _image_name(task, where), *_regions(_annotation(task, where, export), where, export)))
    export.names = list(dict.fromkeys(point.label for _, _, points, _ in read for point in points))
    titles = {box.label for *_, boxes in read for box in boxes.values()}
    export.title = titles.pop() if len(titles) == 1 else export.title
    for where, name, points, boxes in read:
        file = _file(finder, name, export)
        if file is not None:
            export.add(LabelledImage(name_below(images, file), file, _people(points, boxes, export, where)))
    return export


def _file(finder: ImageFinder, name: str, export: Export) -> Path | None:
    """An image by its name, or without the eight digits that Label Studio puts before that of an upload."""
    plain = re.sub(r"^[0-9a-f]{8}-", "", parts_of(name)[-1])
    try:
        return finder.find({"file_name": name}, "convert")
    except FileNotFoundError:
        return found_file(finder, plain, export)
