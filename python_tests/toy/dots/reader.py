"""Dots: a JSON list of ``{"image", "x", "y"}``, and whole images as samples."""

from pathlib import Path

import numpy as np

from ...trainers.crops import LandmarkCrops
from ...trainers.files import field, finite_numbers, read_image, read_json
from ...trainers.landmarks import Landmarks
from ...trainers.transforms import Augment

DOT = Landmarks(("dot",), (), ())


def read_dots(path: Path) -> list[dict]:
    """The dots of a file. Raises ValueError or FileNotFoundError that name the file and the record."""
    out = []
    for i, record in enumerate(read_json(path, "annotation")):
        where = f"{path}: record {i}"
        place = [finite_numbers(field(record, key, where), (), where, key) for key in "xy"]
        out.append({"image": str(field(record, "image", where)), "keypoints": np.array([[*place, 2.0]])})
    return out


class Dots(LandmarkCrops):
    """Whole images of one dot each."""

    def __init__(self, root: Path, split: str, image_size: tuple[int, int], heatmap_size: tuple[int, int],
                 augment: Augment | None, seed: int) -> None:  # fmt: skip
        self.root = root
        super().__init__(DOT, read_dots(root / f"{split}.json"), image_size, heatmap_size, augment, seed, padding=1.0)

    def read(self, record: dict) -> np.ndarray:
        return read_image(self.root / record["image"])

    def box(self, record: dict, image: np.ndarray) -> np.ndarray:
        return np.array([0, 0, image.shape[1], image.shape[0]])
