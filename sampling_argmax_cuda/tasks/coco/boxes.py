"""A person's own boxes on the images of a folder, to predict on."""

from collections import Counter
from pathlib import Path

import numpy as np

from ...trainers.crops import ImageFolder
from ...trainers.files import field, finite_numbers, read_json
from .annotations import identity, images_by_id, number, of_category, person_category


def _box(record: dict, name, folder: Path, where: str) -> dict:
    """A box, checked: ``file``, ``box`` and, if it has one, ``score``."""
    box, file = finite_numbers(field(record, "bbox", where), (4,), where, "bbox"), folder / str(name)
    if not (box[2:] > 0).all():
        raise ValueError(f"{where}: bbox must have a width and a height > 0, got {box.tolist()}")
    if not file.is_file():
        raise FileNotFoundError(f"image {file} does not exist ({where})")
    return {"file": file, "box": box, **({"score": number(record, "score", where)} if "score" in record else {})}


def read_boxes(path: str | Path, folder: str | Path, points: int) -> list[dict]:
    """The boxes of a file: a list of ``{"file_name", "bbox"}`` with or without ``score``, or COCO's structure.

    Of that the boxes of people are taken (see :func:`.annotations.person_category` of ``points``) that are no crowds; they need
    no keypoints. Raises ValueError or FileNotFoundError that name the file and the record.
    """
    content, where, folder = read_json(path, "box"), str(path), Path(folder)
    if isinstance(content, list):
        named = [(record, f"{where}: box {i}") for i, record in enumerate(content)]
        boxes = [_box(record, field(record, "file_name", place), folder, place) for record, place in named]
    else:
        images, boxes = images_by_id(content, where), []
        own, _ = of_category(content, person_category(content, points, where), where)
        for i, record in enumerate(own):
            place = f"{where}: annotation {record.get('id', i)}"
            image = identity(record, "image_id", place)
            if image not in images:
                raise ValueError(f"{place}: no image {image}")
            if not record.get("iscrowd", 0):
                boxes.append(_box(record, field(images[image], "file_name", f"{where}: image {image}"), folder, place))
    if not boxes:
        raise ValueError(f"{where}: no box of a person")
    return boxes


class BoxCrops(ImageFolder):
    """Crops of boxes (see :func:`read_boxes`), one an input."""

    left_out, padding = (), 1.25

    def __init__(self, boxes: list[dict], image_size: tuple[int, int]) -> None:
        self.boxes, self.files, self.image_size = boxes, [box["file"] for box in boxes], tuple(image_size)
        counts = Counter()
        self.overlays = []
        for file in self.files:
            self.overlays.append(f"{file.name}_{counts[file.name]}")
            counts[file.name] += 1

    def box(self, index: int, image: np.ndarray) -> np.ndarray:
        return self.boxes[index]["box"]

    def overlay(self, index: int) -> str:
        return self.overlays[index]

    def about(self, index: int) -> dict[str, object]:
        known = self.boxes[index]
        score = {"box_score": known["score"]} if "score" in known else {}
        return {"box": known["box"].tolist(), **score}
