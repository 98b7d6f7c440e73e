"""COCO keypoints: names, the reader of annotations and detections, and crops of people as samples."""

import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from ..crops import LandmarkCrops
from ..files import field, finite_numbers, read_image, read_json, records
from ..landmarks import Landmarks
from ..transforms import Augment

KEYPOINT_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
FLIP_PAIRS = [(i, i + 1) for i in range(1, 17, 2)]
SKELETON = [(15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
            (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)]  # fmt: skip
OKS_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
PERSON = Landmarks(KEYPOINT_NAMES, tuple(FLIP_PAIRS), tuple(SKELETON), upper=tuple(range(11)))


def _integer(record: dict, key: str, where: str) -> int:
    value = field(record, key, where)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where}: {key} must be an integer, got {value!r}")
    return value


def _number(value, where: str, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: {key} must be a finite number, got {value!r}")
    return float(value)


def _person(record: dict, where: str) -> dict:
    """One annotated person, checked."""
    number = _integer(record, "id", where)
    where = f"{where}: annotation {number}"
    keypoints = finite_numbers(field(record, "keypoints", where), (51,), where, "keypoints").reshape(17, 3)
    if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
        raise ValueError(f"{where}: visibility must be 0, 1 or 2, got {keypoints[:, 2].tolist()}")
    box = finite_numbers(field(record, "bbox", where), (4,), where, "bbox")
    area = _number(record.get("area", box[2] * box[3]), where, "area")
    return {"image_id": _integer(record, "image_id", where), "annotation_id": number, "keypoints": keypoints,
            "box": box, "area": area, "truth_area": area, "score": 1.0,
            "crowd": bool(record.get("iscrowd", 0))}  # fmt: skip


def read_people(path: Path) -> tuple[dict, list[dict]]:
    """Images by number, and the people with at least one labelled keypoint that are no crowd."""
    content, where = read_json(path, "annotation"), str(path)
    images = {_integer(image, "id", f"{where}: an image"): image for image in records(content, "images", where)}
    people = [_person(record, where) for record in records(content, "annotations", where)]
    people = [p for p in people if not p["crowd"] and (p["keypoints"][:, 2] > 0).any() and (p["box"][2:] > 0).all()]
    for person in people:
        if person["image_id"] not in images:
            raise ValueError(f"{where}: annotation {person['annotation_id']}: no image {person['image_id']}")
    if not people:
        raise ValueError(f"{where}: no annotation has keypoints")
    return images, people


def read_detections(path: Path, images: dict) -> list[dict]:
    """Detected people (category 1) on known images; they carry no keypoints, and annotation_id -1."""
    people, content = [], read_json(path, "detection")
    if not isinstance(content, list):
        raise ValueError(f"{path}: detections must be a list, got {type(content).__name__}")
    for i, record in enumerate(content):
        where = f"{path}: detection {i}"
        if _integer(record, "category_id", where) != 1 or _integer(record, "image_id", where) not in images:
            continue
        box = finite_numbers(field(record, "bbox", where), (4,), where, "bbox")
        if (box[2:] > 0).all():
            score = _number(field(record, "score", where), where, "score")
            person = {"image_id": record["image_id"], "annotation_id": -1, "keypoints": np.zeros((17, 3))}
            area = float(box[2] * box[3])
            people.append({**person, "box": box, "area": area, "truth_area": area, "score": score})
    if not people:
        raise ValueError(f"{path}: no detection of a person on the annotated images")
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
            matched[i] = detections[i] | {name: found[name] for name in ("keypoints", "annotation_id", "truth_area")}
    return matched


class CocoKeypoints(LandmarkCrops):
    """Crops of people with their keypoints (see :class:`LandmarkCrops`).

    Crops of detections have the keypoints of the annotated person that they match, if any. ``area`` is that of the
    annotation or of the detected box, ``truth_area`` that of the matched annotation, in pixels of the image. Raises
    ValueError or FileNotFoundError that name the file and the record.
    """

    def __init__(self, root, annotation_file, image_dir, boxes: str = "gt", train: bool = True,
                 image_size: tuple[int, int] = (192, 256), heatmap_size: tuple[int, int] = (48, 64),
                 augment: Augment | None = None, seed: int = 0) -> None:  # fmt: skip
        self.root, self.image_dir, self.annotation_file = Path(root), Path(image_dir), Path(annotation_file)
        self.images, people = read_people(self.annotation_file)
        if boxes != "gt" and not train:
            people = match_people(read_detections(Path(boxes), self.images), people)
        super().__init__(PERSON, people, image_size, heatmap_size, augment, seed, padding=1.25)

    @property
    def people(self) -> list[dict]:
        return self.records

    def image_path(self, image_id) -> Path:
        """The image's file: in the image folder, or where the last two parts of ``coco_url`` say."""
        record = self.images[image_id]
        if "file_name" not in record and "coco_url" not in record:
            raise ValueError(f"{self.annotation_file}: image {image_id}: fields 'file_name' and 'coco_url' are missing")
        path = self.image_dir / str(record.get("file_name", ""))
        if not path.is_file() and "coco_url" in record:
            other = self.root.joinpath(*str(record["coco_url"]).split("/")[-2:])
            return other if other.is_file() or "file_name" not in record else path
        return path

    def read(self, record: dict) -> np.ndarray:
        """The image, of the size that the annotations were made on."""
        image_id = record["image_id"]
        described, path = self.images[image_id], self.image_path(image_id)
        try:
            image = read_image(path)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{error} (image {image_id} of {self.annotation_file})") from None
        size = (image.shape[1], image.shape[0])
        expected = (described.get("width", size[0]), described.get("height", size[1]))
        if size != expected:
            raise ValueError(
                f"image {path} is {size[0]}x{size[1]}, but image {image_id} of {self.annotation_file} "
                f"is {expected[0]}x{expected[1]}"
            )
        return image

    def box(self, record: dict, image: np.ndarray) -> np.ndarray:
        return record["box"]

    def extras(self, record: dict) -> dict:
        numbers = {name: np.float32(record[name]) for name in ("area", "truth_area", "score")}
        return {**numbers, "image_id": record["image_id"], "annotation_id": record["annotation_id"]}
