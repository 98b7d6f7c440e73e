"""Predictions as tables and as a video with its points: made of the records of a prediction file, one by one."""

import csv
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np

from .landmarks import Landmarks
from .sources import ImageFiles, Video

SCORER = "sampling_argmax"  # whom DeepLabCut's layout says that the points are of
_COLORS = ((0, 0, 255), (255, 160, 0), (0, 200, 0), (0, 200, 255), (255, 0, 255), (200, 200, 0))  # BGR, one an instance
Instances = list[dict]


def read_records(path: Path) -> Iterator[dict]:
    """The records of a prediction file, of which each has a line."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("{"):
                yield json.loads(line.rstrip().removesuffix(","))


def by_image(path: Path, source: ImageFiles | Video) -> Iterator[tuple[int | str, Instances]]:
    """Of every image its frame number or file name, and the records of what was found in it, maybe none."""
    groups = itertools.groupby(read_records(path), key=_key)
    key, found = next(groups, (None, ()))
    for i in range(len(source)):
        own = _key(source.about(i))
        if own == key:
            instances = [instance for record in found for instance in record.get("people", [record])]
            yield own, instances
            key, found = next(groups, (None, ()))
        else:
            yield own, []


def _key(record: dict) -> int | str:
    return record.get("frame", record["file_name"])


@contextmanager
def _table(path: Path) -> Iterator[TextIO]:
    """A text file that is there once it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        yield file
    os.replace(temporary, path)


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.6f}"


def write_table(images, path: Path, names: Sequence[str], moving: bool) -> None:
    """A row an instance: its image, number and box, and of every point x, y, confidence and spread; in pixels.

    An image in which nothing was found has a row without numbers.
    """
    header = ["frame" if moving else "file_name", "instance", "box_x", "box_y", "box_w", "box_h"]
    with _table(path) as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*header, *(f"{name}_{part}" for name in names for part in ("x", "y", "confidence", "spread"))])
        for key, instances in images:
            for number, instance in enumerate(instances):
                out.writerow([key, number, *map(_number, instance.get("box", [None] * 4)), *_points(instance, True)])
            if not instances:
                out.writerow([key, *[""] * (len(header) - 1 + 4 * len(names))])


def _points(instance: dict, spread: bool) -> list[str]:
    """x, y, confidence and, if asked for, spread of every point."""
    points = np.reshape(instance["keypoints"], (-1, 3)).tolist()
    spreads = instance.get("spread", [None] * len(points))
    rows = [[*point, own] if spread else point for point, own in zip(points, spreads, strict=True)]
    return [_number(x) for row in rows for x in row]


def write_deeplabcut(images, path: Path, names: Sequence[str], most: int) -> None:
    """DeepLabCut's layout: rows of headers scorer, (individuals,) bodyparts, coords, then x, y and likelihood an image.

    ``most`` is the largest number of instances on an image; with more than one there is the row of individuals.
    """
    columns = [
        (f"individual{i + 1}", name, part) for i in range(most) for name in names for part in ("x", "y", "likelihood")
    ]
    levels = (("individuals", 0), ("bodyparts", 1), ("coords", 2))[0 if most > 1 else 1 :]
    with _table(path) as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["scorer", *[SCORER] * len(columns)])
        for level, i in levels:
            out.writerow([level, *(column[i] for column in columns)])
        for key, instances in images:
            own = [x for instance in instances for x in _points(instance, False)]
            out.writerow([key, *own, *[""] * (len(columns) - len(own))])


def write_overlay(images, path: Path, video: Video, bones: Sequence[tuple[int, int]]) -> None:
    """The video with the points of every instance in a colour of its own, and the bones between them, as MPEG-4."""
    temporary, writer = path.with_name(f".{os.getpid()}.{path.name}"), None
    for frame, (_, instances) in zip(video.frames(), images, strict=True):
        if writer is None:
            size = (frame.shape[1], frame.shape[0])
            writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter_fourcc(*"mp4v"), video.rate, size)
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        for n, instance in enumerate(instances):
            draw_points(frame, np.reshape(instance["keypoints"], (-1, 3))[:, :2], bones, _COLORS[n % len(_COLORS)])
        writer.write(frame)
    writer.release()
    os.replace(temporary, path)


def draw_points(
    image: np.ndarray, points: np.ndarray, bones: Sequence[tuple[int, int]], color: tuple[int, int, int]
) -> None:
    """Points ``[K, 2]`` in pixels and the bones between them, into an image."""
    places = [tuple(int(round(x)) for x in point) for point in np.nan_to_num(points)]
    width = max(1, min(image.shape[:2]) // 200)
    for a, b in bones:
        cv2.line(image, places[a], places[b], color, width, cv2.LINE_AA)
    for place in places:
        cv2.circle(image, place, width + 1, color, -1, cv2.LINE_AA)


def write_tables(predictions: Path, source: ImageFiles | Video, landmarks: Landmarks) -> list[Path]:
    """Everything that goes beside a prediction file; the files that were written."""
    most = max((len(found) for _, found in by_image(predictions, source)), default=0)
    table, deeplabcut = (predictions.with_name(f"predictions{end}.csv") for end in ("", "_deeplabcut"))
    write_table(by_image(predictions, source), table, landmarks.names, source.moving)
    write_deeplabcut(by_image(predictions, source), deeplabcut, landmarks.names, max(1, most))
    if not source.moving:
        return [table, deeplabcut]
    overlay = predictions.with_name(f"{source.path.stem}_points.mp4")
    write_overlay(by_image(predictions, source), overlay, source, landmarks.bones)
    return [table, deeplabcut, overlay]
