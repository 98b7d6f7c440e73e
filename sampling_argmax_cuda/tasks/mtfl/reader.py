"""MTFL's facial landmarks (Zhang et al., ECCV 2014): both annotation formats, and faces as samples."""

from pathlib import Path

import numpy as np

from ...trainers.crops import LandmarkCrops
from ...trainers.files import field, finite_numbers, read_image, read_json, read_text
from ...trainers.points import package_points
from ...trainers.transforms import Augment

FACE = package_points("mtfl")


def _record(name: str, points: np.ndarray, where: str) -> dict:
    name = name.replace("\\", "/")  # the original training file was written on Windows
    return {"name": name, "where": where, "keypoints": np.concatenate([points, np.full((5, 1), 2.0)], 1)}


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


def read_faces(path: str | Path) -> list[dict]:
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
    return faces


class MtflFaces(LandmarkCrops):
    """Whole images of one face each, under ``root`` or, as the released code has them, under ``root``/AFLW."""

    def __init__(self, root, annotation_file, image_size: tuple[int, int], heatmap_size: tuple[int, int],
                 augment: Augment | None = None, seed: int = 0) -> None:  # fmt: skip
        self.root = Path(root)
        super().__init__(FACE, read_faces(annotation_file), image_size, heatmap_size, augment, seed, padding=1.0)

    def read(self, record: dict) -> np.ndarray:
        path = self.root / record["name"]
        if not path.is_file() and (self.root / "AFLW" / record["name"]).is_file():
            path = self.root / "AFLW" / record["name"]
        return read_image(path, record["where"])

    def box(self, record: dict, image: np.ndarray) -> np.ndarray:
        return np.array([0, 0, image.shape[1], image.shape[0]])
