"""Crops of annotated or detected boxes as samples, whatever format their files have."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from ...trainers.crops import LandmarkCrops
from ...trainers.files import field, finite_numbers, read_image, read_json
from ...trainers.transforms import Augment
from .annotations import Annotations, identity, number
from .dialects import points_box
from .files import ImageFinder, ImageFolders

BOXES = ("annotation", "points", "image")


def read_detections(path: Path, truth: Annotations) -> list[dict]:
    """Detected people, of the annotations' category and on their images; they carry no keypoints, and annotation_id -1."""
    people, categories, content = [], set(), read_json(path, "detection")
    if not isinstance(content, list):
        raise ValueError(f"{path}: detections must be a list, got {type(content).__name__}")
    for i, record in enumerate(content):
        where = f"{path}: detection {i}"
        category, image_id = identity(record, "category_id", where), identity(record, "image_id", where)
        categories.add(category)
        if category != truth.category or image_id not in truth.images:
            continue
        box = finite_numbers(field(record, "bbox", where), (4,), where, "bbox")
        if (box[2:] > 0).all():
            people.append({"image_id": image_id, "annotation_id": -1, "keypoints": np.zeros((len(truth.points), 3)), "box": box,
                           "area": float(box[2:].prod()), "score": number(record, "score", where)})  # fmt: skip
    if not people:
        raise ValueError(f"{path}: no detection of a person on the annotated images, whose category is {truth.category}; "
                         f"the detections' are {sorted(categories, key=str)}")  # fmt: skip
    return people


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union ``[n, m]`` of boxes ``[n, 4]`` and ``[m, 4]``, each x, y, w, h in pixels, w and h > 0."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    common = (high - low).clip(0).prod(-1)
    return common / (boxes[:, 2:].prod(-1)[:, None] + others[:, 2:].prod(-1) - common)


def match_people(detections: list[dict], people: list[dict], threshold: float = 0.5) -> list[dict]:
    """The detections, in their order, with the keypoints, number and ``truth_area`` of the person that each one found.

    On an image, detections choose by falling score: the free person of the largest box IoU, at least ``threshold``.
    A detection that finds nobody stays without keypoints. Boxes decide and not poses, for a match that needs a good
    pose would hide the bad ones from the error and from the calibration.
    """
    free, matched = defaultdict(list), list(detections)
    for person in people:
        free[person["image_id"]].append(person)
    for i in sorted(range(len(detections)), key=lambda i: -detections[i]["score"]):
        candidates = free[detections[i]["image_id"]]
        if not candidates:
            continue
        overlap = box_iou(detections[i]["box"][None], np.array([person["box"] for person in candidates]))[0]
        if overlap.max() >= threshold:
            found = candidates.pop(int(overlap.argmax()))
            known = ("keypoints", "annotation_id", "truth_area", "truth_box")
            matched[i] = detections[i] | {name: found[name] for name in known if name in found}
    return matched


class KeypointCrops(LandmarkCrops):
    """Crops of what is annotated (see :class:`LandmarkCrops`), or of detections, which have the points of whom they match.

    A record's ``area`` is that of the annotation or of the detected box, its ``truth_area`` and ``truth_box`` are those of the
    matched annotation, in pixels of the image. Raises ValueError or FileNotFoundError that name the file and the record.

    Args:
        truth: annotations.
        finder: finds their images.
        boxes: annotation, points (see :func:`.points_box`), image (whole), or a JSON of detections.
        margin: how many times as long as the box's the crop's sides are; a whole image has none.
        extra: what of its record a sample has besides, for the evaluation.
    """

    def __init__(self, truth: Annotations, finder: ImageFinder | ImageFolders, boxes: str = "annotation", margin: float = 1.25,
                 image_size: tuple[int, int] = (192, 256), heatmap_size: tuple[int, int] = (48, 64),
                 augment: Augment | None = None, seed: int = 0, extra: tuple[str, ...] = ()) -> None:  # fmt: skip
        self.truth, self.finder, self.boxes, self.extra = truth, finder, boxes, extra
        people = [{**p, "truth_area": p["area"], "truth_box": p["box"], "score": 1.0} for p in truth.people]
        if boxes not in BOXES:
            people = match_people(read_detections(Path(boxes), truth), people)
        margin = 1.0 if boxes == "image" else margin
        super().__init__(truth.points, people, image_size, heatmap_size, augment, seed, padding=margin)

    def image_path(self, image_id: int | str) -> Path:
        """The image's file."""
        image, where = self.truth.images[image_id], f"{self.truth.path}: image {image_id}"
        if not (image.get("file_name") or image.get("coco_url")):
            raise ValueError(f"{where}: fields 'file_name' and 'coco_url' are missing")
        return self.finder.find(image, where)

    def read(self, record: dict) -> np.ndarray:
        """The image, of the size that the annotations were made on."""
        image_id = record["image_id"]
        described, path = self.truth.images[image_id], self.image_path(image_id)
        image = read_image(path, record.get("where", f"image {image_id} of {self.truth.path}"))
        size = (image.shape[1], image.shape[0])
        expected = (described.get("width", size[0]), described.get("height", size[1]))
        if size != expected:
            turned = size == expected[::-1]
            told = " (a photo that lies on its side is turned as its EXIF says, as browsers show it)" if turned else ""
            raise ValueError(f"image {path} is {size[0]}x{size[1]}, but image {image_id} of {self.truth.path} is "
                             f"{expected[0]}x{expected[1]}{told}")  # fmt: skip
        return image

    def box(self, record: dict, image: np.ndarray) -> np.ndarray:
        if self.boxes == "image":
            return np.array([0, 0, image.shape[1], image.shape[0]])
        seen = record["keypoints"][record["keypoints"][:, 2] > 0, :2]
        if self.boxes == "points" and len(seen) and np.ptp(seen, 0).max() > 0:
            return points_box(seen)
        return record["box"]

    def extras(self, record: dict) -> dict:
        return {name: record[name] for name in self.extra}
