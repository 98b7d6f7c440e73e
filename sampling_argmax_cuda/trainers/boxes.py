"""The boxes that predict crops: whole images, those of a file, or those that a function of the user's finds."""

import contextlib
import csv
import importlib
import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .files import RecordFile, count_records, field, finite_numbers, read_json, read_text
from .messages import tell
from .sources import ImageFiles, Video

_SIDES = ("x", "y", "w", "h")


@dataclass(frozen=True)
class Box:
    """A box to predict in.

    Args:
        image: the image's number in its source.
        box: x, y, w, h in pixels; None for the whole image.
        score: of whoever found it, if it is known.
        image_id: what the image is called where the box comes from; None for its number.
    """

    image: int
    box: np.ndarray | None = None
    score: float | None = None
    image_id: int | None = None


def whole_images(source: ImageFiles | Video) -> list[Box]:
    """One box an image, all of it."""
    return [Box(i) for i in range(len(source))]


def is_callable_name(boxes: str) -> bool:
    """Whether boxes are named as ``module:function``."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", boxes) is not None and not Path(boxes).exists()


def found_boxes(name: str, source: ImageFiles | Video, notes: Path | None = None) -> list[Box]:
    """The boxes that ``module:function`` finds: RGB ``uint8 [H, W, 3]`` to ``[m, 4]`` x, y, w, h, or ``[m, 5]`` with a score.

    The module may lie in the folder that the command runs in. It is asked about every image, in order, before the first is
    predicted on; about those not that ``notes`` tells of, a file where its answers are kept.
    """
    find, answers = detector(name), [] if notes is None else read_answers(notes)
    file = None if notes is None else RecordFile(notes, len(answers))
    for i in range(len(answers), len(source)):
        answers.append(_answer(find, source.read(i), f"--data.boxes {name}: image {i}"))
        if file is not None:
            file.write(i, answers[-1])
            file.flush()
    if file is not None:
        file.close()
    boxes = [
        Box(i, np.array(row[:4]), row[4] if len(row) > 4 else None) for i, rows in enumerate(answers) for row in rows
    ]
    tell(f"predict: {name} found {len(boxes)} boxes in {len(source)} images")
    return boxes


def _answer(find: Callable, image: np.ndarray, where: str) -> list[list[float]]:
    """A detector's boxes on an image, checked."""
    rows = np.asarray(find(image), np.float64)
    rows = rows.reshape(0, 4) if rows.size == 0 else rows
    if rows.ndim != 2 or rows.shape[1] not in (4, 5):
        raise ValueError(f"{where}: expected boxes [m, 4] or [m, 5], got {list(rows.shape)}")
    return [[*checked(row[:4], where).tolist(), *row[4:].tolist()] for row in rows]


def read_answers(notes: Path) -> list[list[list[float]]]:
    """What a detector has said of the first images: its whole lines in a file of answers, none where there is no file."""
    lines = notes.read_bytes().splitlines(keepends=True)[: count_records(notes)] if notes.is_file() else []
    return [json.loads(line.partition(b" ")[2]) for line in lines]


def detector(name: str) -> Callable:
    """The function that ``module:function`` stands for."""
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"--data.boxes {name}: {error}") from None
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise ValueError(f"--data.boxes {name}: module {module} has no function {function}")
    return found


def checked(box, where: str) -> np.ndarray:
    """Four finite numbers, the last two > 0."""
    box = finite_numbers(box, (4,), where, "bbox")
    if not (box[2:] > 0).all():
        raise ValueError(f"{where}: bbox must have a width and a height > 0, got {box.tolist()}")
    return box


def read_content(path: str | Path):
    """The content of a JSON file of boxes; that of a CSV file is a list of ``{"file_name" or "frame", "bbox", "score"}`` too.

    Its columns are ``file_name`` (or ``frame``), ``x``, ``y``, ``w``, ``h`` and, if scores are known, ``score``.
    """
    if Path(path).suffix.lower() != ".csv":
        return read_json(path, "box")
    rows = csv.DictReader(io.StringIO(read_text(path, "box file")))
    columns = rows.fieldnames or ()
    if not ({*_SIDES} <= {*columns} and {"file_name", "frame"} & {*columns}):
        raise ValueError(f"{path}: expected columns file_name or frame, x, y, w, h, got {', '.join(columns)}")
    return [_of_row(row) for row in rows]


def _of_row(row: dict) -> dict:
    record = {name: row[name] for name in ("file_name", "frame") if row.get(name)}
    with contextlib.suppress(TypeError, ValueError):  # what is no number is told by whoever checks it
        row = {**row, **{name: float(row[name]) for name in (*_SIDES, "score") if row.get(name)}}
    return record | {"bbox": [row[side] for side in _SIDES]} | ({"score": row["score"]} if row.get("score") else {})


def frame_boxes(path: str | Path, video: Video) -> list[Box]:
    """The boxes of a file on the frames of a video, from 0: a list of ``{"frame", "bbox"}`` with or without ``score``, or CSV."""
    content, boxes = read_content(path), []
    if not isinstance(content, list):
        raise ValueError(f"{path}: boxes of a video must be a list of {{frame, bbox}}, got {type(content).__name__}")
    for i, record in enumerate(content):
        where = f"{path}: box {i}"
        frame = str(field(record, "frame", where)).strip()
        if not (frame.isdigit() and int(frame) < len(video)):
            raise ValueError(f"{where}: frame must be in 0 .. {len(video) - 1}, got {frame!r}")
        score = float(finite_numbers(record["score"], (), where, "score")) if "score" in record else None
        boxes.append(Box(int(frame), checked(field(record, "bbox", where), where), score))
    if not boxes:
        raise ValueError(f"{path}: no box")
    return boxes


def file_boxes(found: list[dict], source: ImageFiles) -> tuple[ImageFiles, list[Box]]:
    """The images that boxes with a ``file`` are on, and the boxes."""
    files = list(dict.fromkeys(box["file"] for box in found))
    numbers = {file: i for i, file in enumerate(files)}
    return ImageFiles(source.root, files), [
        Box(numbers[box["file"]], box["box"], box.get("score"), box.get("image_id")) for box in found
    ]
