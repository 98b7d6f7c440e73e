"""MTFL's facial landmarks (Zhang et al., ECCV 2014): both annotation formats, and the errors reported on them."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from .crops import LandmarkCrops
from .files import field, read_image, read_json
from .landmarks import Landmarks
from .transforms import Augment

FACE = Landmarks(("left_eye", "right_eye", "nose", "mouth_left", "mouth_right"), ((0, 1), (3, 4)),
                 ((0, 1), (0, 2), (1, 2), (2, 3), (2, 4), (3, 4)))  # fmt: skip


def _points(values, where: str) -> np.ndarray:
    try:
        points = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: landmarks must be numbers, got {values!r}") from None
    if points.shape != (5, 2):
        raise ValueError(f"{where}: landmarks must be 5 points of 2 numbers, got shape {list(points.shape)}")
    if not np.isfinite(points).all():
        raise ValueError(f"{where}: landmarks hold a number that is not finite")
    return points


def _record(name: str, points: np.ndarray, where: str) -> dict:
    name = name.replace("\\", "/")  # the original training file was written on Windows
    return {"name": name, "where": where, "keypoints": np.concatenate([points, np.full((5, 1), 2.0)], 1)}


def read_text(path: Path) -> list[dict]:
    """The original ``training.txt``: image, x1 .. x5, y1 .. y5, gender, smile, glasses, pose; other lines are wrong."""
    out = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        parts, where = line.split(), f"{path}: line {number}"
        if not parts:
            continue
        if len(parts) != 15:
            raise ValueError(f"{where}: expected an image, 10 coordinates and 4 attributes, got {len(parts)} fields")
        try:
            numbers = [float(x) for x in parts[1:11]]
        except ValueError:
            raise ValueError(f"{where}: coordinates must be numbers, got {' '.join(parts[1:11])}") from None
        out.append(_record(parts[0], _points(np.reshape(numbers, (2, 5)).T, where), where))
    return out


def read_faces(path: str | Path) -> list[dict]:
    """Faces of an annotation file: the original text, or JSON of ``{"image_name", "landmarks": 5 x [x, y]}``."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"annotation file {path} does not exist")
    if path.suffix == ".json":
        content, faces = read_json(path, "annotation"), []
        if not isinstance(content, list):
            raise ValueError(f"{path}: annotations must be a list, got {type(content).__name__}")
        for i, record in enumerate(content):
            where = f"{path}: record {i}"
            points = _points(field(record, "landmarks", where), where)
            faces.append(_record(str(field(record, "image_name", where)), points, where))
    else:
        faces = read_text(path)
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
        try:
            return read_image(path)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{error} ({record['where']})") from None

    def box(self, record: dict, image: np.ndarray) -> np.ndarray:
        return np.array([0, 0, image.shape[1], image.shape[0]])


def landmark_errors(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Errors of faces ``[n, 5, 2]`` in pixels of their images.

    ``abs_px``: mean over faces of the mean distance. ``rel_percent``: the same over the distance of the true eyes, in
    percent, without faces whose eyes are less than 0.001 apart; it is left out where no face is left.
    """
    distance = np.linalg.norm(prediction - truth, axis=-1).mean(-1)
    eyes = np.linalg.norm(truth[:, 0] - truth[:, 1], axis=-1)
    out = {"abs_px": float(distance.mean())}
    if (eyes >= 1e-3).any():
        out["rel_percent"] = float(100 * (distance / np.maximum(eyes, 1e-3))[eyes >= 1e-3].mean())
    return out


class MtflEvaluation:
    """Collects predictions and truths in pixels of the images; ``compute`` merges the ranks' and empties itself."""

    def __init__(self) -> None:
        self.records: list[tuple] = []

    def add(self, batch: dict[str, Tensor], position: Tensor, peak: Tensor, pixels: Tensor, truth: Tensor) -> None:
        """Record a batch: positions in cells, peaks, and prediction and truth (x, y, weight) in pixels of the image."""
        cells = (position - batch["target"]).norm(dim=-1)
        columns = [x.detach().double().cpu().numpy() for x in (batch["index"], pixels, truth, cells)]
        self.records += list(zip(*columns, strict=True))

    def compute(self, annotation_file: Path, gather: Callable[[list], list]) -> dict[str, float]:
        """Errors of the faces with all points in their crop, and the mean error in cells of the points that are."""
        records = sorted(gather(self.records), key=lambda record: record[0])
        self.records = []
        visible = np.stack([truth[:, 2] > 0 for _, _, truth, _ in records])
        pixels, truths, cells = (np.stack([record[k] for record in records]) for k in (1, 2, 3))
        whole, out = visible.all(1), {}
        if visible.any():
            out["error"] = float(cells[visible].mean())
        if whole.any():
            out |= landmark_errors(pixels[whole], truths[whole, :, :2])
        return {"abs_px": math.inf, **out}
