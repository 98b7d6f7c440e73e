"""COCO's annotation files, checked once: what is cropped and what is scored are the same people."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...trainers.files import field, finite_numbers, read_json, records
from ...trainers.landmarks import Landmarks

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


@dataclass(frozen=True)
class Annotations:
    """A checked annotation file.

    Args:
        path: of the file.
        category: the file's id of the category that is read.
        images: the file's images by id.
        records: the annotations that count, in the file's order: ``image_id`` and ``annotation_id`` of the file,
            ``keypoints`` ``[17, 3]`` (x, y in pixels, visibility 0, 1 or 2), ``box`` (x, y, w, h in pixels), ``area`` in
            pixels, ``crowd``, ``ignored`` (a crowd, or without a labelled point) and then its ``segmentation``.
    """

    path: Path
    category: int
    images: dict[int, dict]
    records: list[dict]

    @property
    def people(self) -> list[dict]:
        """Those with a labelled point that are no crowd; their boxes and areas are > 0."""
        return [record for record in self.records if not record["ignored"]]

    @property
    def ignored(self) -> list[dict]:
        """Crowds and people without points: nobody knows what is there."""
        return [record for record in self.records if record["ignored"]]


def integer(record: dict, key: str, where: str) -> int:
    """An integer of a JSON object, exactly; a number like 7.0 is one where floats have room for all integers."""
    value = field(record, key, where)
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where}: {key} must be an integer, got {value!r}")
    return value


def number(record: dict, key: str, where: str) -> float:
    """A finite number of a JSON object."""
    value = field(record, key, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: {key} must be a finite number, got {value!r}")
    return float(value)


def images_by_id(content: dict, where: str) -> dict[int, dict]:
    """The images of a file. One may be listed again, but two must not share an id."""
    images: dict[int, dict] = {}
    for image in records(content, "images", where):
        key = integer(image, "id", f"{where}: an image")
        for side in {"width", "height"} & image.keys():
            integer(image, side, f"{where}: image {key}")
        first = images.setdefault(key, image)
        for name in ("file_name", "coco_url", "width", "height"):
            if first.get(name) != image.get(name):
                told = f"{name} {first.get(name)!r} and {image.get(name)!r}"
                raise ValueError(f"{where}: two images have the id {key}: {told}")
    return images


def person_category(content: dict, points: int, where: str) -> int:
    """The id of the category of people: the only one, the one named person, or else the only one with so many points.

    Where a file lists no categories, its annotations say which there are; category 1 if they do not either.
    """
    listed, sizes = records(content, "annotations", where), {}
    for annotation in listed:
        if isinstance(annotation, dict) and "category_id" in annotation:
            key, found = integer(annotation, "category_id", f"{where}: an annotation"), annotation.get("keypoints")
            sizes[key] = max(sizes.get(key, 0), len(found) // 3 if isinstance(found, list) else 0)
    known: dict[int, dict] = {}
    for entry in records(content, "categories", where) if content.get("categories") else ():
        key = integer(entry, "id", f"{where}: a category")
        if known.setdefault(key, entry).get("name") != entry.get("name"):
            raise ValueError(
                f"{where}: two categories have the id {key}: {known[key].get('name')!r} and {entry.get('name')!r}"
            )
    known = known or {key: {} for key in sizes} or {1: {}}
    sizes |= {key: len(c["keypoints"]) for key, c in known.items() if isinstance(c.get("keypoints"), list)}
    people = [key for key, c in known.items() if str(c.get("name", "")).strip().lower() == "person"]
    fitting = [key for key in known if sizes.get(key) == points]
    for chosen in (list(known), people, fitting):
        if len(chosen) == 1:
            return chosen[0]
    told = ", ".join(f"{key} ({c.get('name', 'no name')}, {sizes.get(key, 0)} keypoints)" for key, c in known.items())
    raise ValueError(f"{where}: one category must be named person, or have {points} keypoints alone, got {told}")


def _check_order(content: dict, category: int, where: str) -> None:
    """A file may name its points as it likes, but COCO's own names must be in COCO's order."""
    for entry in content.get("categories") or ():
        names = entry.get("keypoints")
        if entry["id"] == category and isinstance(names, list) and names != list(KEYPOINT_NAMES):
            if sorted(map(str, names)) == sorted(KEYPOINT_NAMES):
                raise ValueError(f"{where}: category {category}: keypoints must be in COCO's order (nose, left_eye, "
                                 f"right_eye, ...), got {', '.join(names)}")  # fmt: skip


def _extent(record: dict, seen: np.ndarray, where: str) -> tuple[np.ndarray, float]:
    """Box and area of an annotation: an empty box becomes that of the points ``seen``, an area of 0 that of the box."""
    box = finite_numbers(record["bbox"], (4,), where, "bbox") if "bbox" in record else np.zeros(4)
    if not (box[2:] > 0).all() and len(seen):
        box = np.concatenate([seen.min(0), np.ptp(seen, 0)])
    area = number(record, "area", where) if "area" in record else 0.0
    return box, area if area > 0 else float(box[2:].clip(0).prod())


def _annotation(record: dict, where: str) -> dict:
    """One annotation, checked."""
    key = integer(record, "id", where)
    where = f"{where}: annotation {key}"
    keypoints = finite_numbers(field(record, "keypoints", where), (51,), where, "keypoints").reshape(17, 3)
    if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
        raise ValueError(f"{where}: visibility must be 0, 1 or 2, got {keypoints[:, 2].tolist()}")
    crowd = record.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"{where}: iscrowd must be 0 or 1, got {crowd!r}")
    seen = keypoints[keypoints[:, 2] > 0, :2]
    box, area = _extent(record, seen, where)
    out = {"image_id": integer(record, "image_id", where), "annotation_id": key, "keypoints": keypoints, "box": box,
           "area": area, "crowd": bool(crowd), "ignored": bool(crowd) or not len(seen)}  # fmt: skip
    return {**out, "segmentation": record.get("segmentation")} if out["ignored"] else out


def of_category(content: dict, category: int, where: str) -> tuple[list[dict], Counter]:
    """The annotations of a category, each once, and how many others there are and why."""
    own, others, earlier = [], Counter(), {}
    alone = len(content.get("categories") or ()) <= 1
    for record in records(content, "annotations", where):
        if not isinstance(record, dict):
            raise ValueError(f"{where}: an annotation must be an object, got {record!r}")
        if not (alone and "category_id" not in record):
            if integer(record, "category_id", f"{where}: an annotation") != category:
                others["of other categories"] += 1
                continue
        same = earlier.setdefault(str(record.get("id")), [])
        if record in same:
            others["listed again"] += 1
            continue
        same.append(record)
        own.append(record)
    return own, others


def read_annotations(path: Path) -> Annotations:
    """The people, and what else there is, of an annotation file of COCO's 17 keypoints; one line says what is left out.

    Ids may be any integers; annotations may share theirs. ``num_keypoints`` is not read: the points' visibility counts.
    A missing ``iscrowd`` is 0; an empty or missing box is that of the labelled points; an area that is missing or 0 is that of
    the box. A person with points of which neither makes a box cannot be cropped, and is left out.

    Raises ValueError or FileNotFoundError that name the file and the record.
    """
    content, where = read_json(path, "annotation"), str(path)
    images, category = images_by_id(content, where), person_category(content, len(PERSON), where)
    _check_order(content, category, where)
    own, others = of_category(content, category, where)
    kept = []
    for raw in own:
        record = _annotation(raw, where)
        if record["image_id"] not in images:
            raise ValueError(f"{where}: annotation {record['annotation_id']}: no image {record['image_id']}")
        if (record["box"][2:] > 0).all() or (record["ignored"] and "bbox" in raw):
            kept.append(record)
        else:
            others["without a box"] += 1
    if others:
        told = ", ".join(f"{count} {why}" for why, count in sorted(others.items()))
        print(f"{where}: {len(kept)} annotations of category {category} are read; left out are {told}")
    found = Annotations(Path(path), category, images, kept)
    if not found.people:
        raise ValueError(f"{where}: no annotation has keypoints (of category {category}; left out: {dict(others)})")
    return found
