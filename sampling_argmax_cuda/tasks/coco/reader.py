"""COCO keypoints: the reader of detections, and crops of people as samples."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from ...trainers.crops import LandmarkCrops
from ...trainers.files import field, finite_numbers, read_image, read_json
from ...trainers.transforms import Augment
from .annotations import Annotations, identity, number, read_annotations


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


class AnnotatedImages(LandmarkCrops):
    """Crops of ``records`` that have an ``image_id`` of COCO's annotation file ``truth``.

    Raises ValueError or FileNotFoundError that name the file and the record.
    """

    def __init__(self, root, truth: Annotations, image_dir, records: list[dict], image_size: tuple[int, int],
                 heatmap_size: tuple[int, int], augment: Augment | None, seed: int, padding: float) -> None:  # fmt: skip
        self.root, self.image_dir, self.truth = Path(root), Path(image_dir), truth
        super().__init__(truth.points, records, image_size, heatmap_size, augment, seed, padding)

    def image_path(self, image_id) -> Path:
        """The image's file: in the image folder, or where the last two parts of ``coco_url`` say."""
        record = self.truth.images[image_id]
        if "file_name" not in record and "coco_url" not in record:
            raise ValueError(f"{self.truth.path}: image {image_id}: fields 'file_name' and 'coco_url' are missing")
        path = self.image_dir / str(record.get("file_name", ""))
        if not path.is_file() and "coco_url" in record:
            other = self.root.joinpath(*str(record["coco_url"]).split("/")[-2:])
            return other if other.is_file() or "file_name" not in record else path
        return path

    def read(self, record: dict) -> np.ndarray:
        """The image, of the size that the annotations were made on."""
        image_id = record["image_id"]
        described, path = self.truth.images[image_id], self.image_path(image_id)
        image = read_image(path, f"image {image_id} of {self.truth.path}")
        size = (image.shape[1], image.shape[0])
        expected = (described.get("width", size[0]), described.get("height", size[1]))
        if size != expected:
            turned = " (a photo that lies on its side is turned as its EXIF says, as browsers show it)" * (
                size == expected[::-1]
            )
            raise ValueError(
                f"image {path} is {size[0]}x{size[1]}, but image {image_id} of {self.truth.path} "
                f"is {expected[0]}x{expected[1]}{turned}"
            )
        return image


class CocoKeypoints(AnnotatedImages):
    """Crops of people with their keypoints (see :class:`LandmarkCrops`).

    Crops of detections have the keypoints of the annotated person that they match, if any. A record's ``area`` is that of the
    annotation or of the detected box, its ``truth_area`` that of the matched annotation, in pixels of the image.
    """

    def __init__(self, root, annotation_file, image_dir, boxes: str = "gt", train: bool = True,
                 image_size: tuple[int, int] = (192, 256), heatmap_size: tuple[int, int] = (48, 64),
                 augment: Augment | None = None, seed: int = 0) -> None:  # fmt: skip
        truth = read_annotations(Path(annotation_file))
        people = [{**person, "truth_area": person["area"], "score": 1.0} for person in truth.people]
        if boxes != "gt" and not train:
            people = match_people(read_detections(Path(boxes), truth), people)
        super().__init__(root, truth, image_dir, people, image_size, heatmap_size, augment, seed, padding=1.25)

    @property
    def people(self) -> list[dict]:
        return self.records

    def box(self, record: dict, image: np.ndarray) -> np.ndarray:
        return record["box"]
