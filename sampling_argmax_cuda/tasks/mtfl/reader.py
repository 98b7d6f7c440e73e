"""MTFL's facial landmarks (Zhang et al., ECCV 2014): both annotation formats."""

from pathlib import Path

import numpy as np

from ...trainers.files import field, finite_numbers, read_json, read_text
from ...trainers.points import package_points
from ..keypoints.annotations import Annotations, extent, named_images, record_of

FACE = package_points("mtfl")


def _record(name: str, points: np.ndarray, where: str) -> dict:
    name = name.replace("\\", "/")  # the original training file was written on Windows
    keypoints = np.concatenate([points, np.full((5, 1), 2.0)], 1)
    return record_of(name, keypoints, extent(keypoints), where=where)


def read_training_text(path: Path) -> list[dict]:
    """The original ``training.txt``: image, x1 .. x5, y1 .. y5, gender, smile, glasses, pose; other lines are wrong."""
    out = []
    for number, line in enumerate(read_text(path, "annotation file").split("\n"), 1):
        parts, where = line.split(), f"{path}: line {number}"
        if not parts:
            continue
        if len(parts) != 15:
            raise ValueError(f"{where}: expected an image, 10 coordinates and 4 attributes, got {len(parts)} fields")
        try:
            numbers = [float(x) for x in parts[1:11]]
        except ValueError:
            raise ValueError(f"{where}: coordinates must be numbers, got {' '.join(parts[1:11])}") from None
        out.append(_record(parts[0], finite_numbers(np.reshape(numbers, (2, 5)).T, (5, 2), where, "landmarks"), where))
    return out


def read_faces(path: str | Path) -> Annotations:
    """Faces of an annotation file: the original text, or JSON of ``{"image_name", "landmarks": 5 x [x, y]}``."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"annotation file {path} does not exist")
    if path.suffix.lower() == ".json":
        content, faces = read_json(path, "annotation"), []
        if not isinstance(content, list):
            raise ValueError(f"{path}: annotations must be a list, got {type(content).__name__}")
        for i, record in enumerate(content):
            where = f"{path}: record {i}"
            points = finite_numbers(field(record, "landmarks", where), (5, 2), where, "landmarks")
            faces.append(_record(str(field(record, "image_name", where)), points, where))
    else:
        faces = read_training_text(path)
    if not faces:
        raise ValueError(f"{path}: no faces")
    return Annotations(path, FACE, named_images(faces), faces)
