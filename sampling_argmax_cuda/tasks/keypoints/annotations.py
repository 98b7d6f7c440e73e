"""Annotations, checked once: what is cropped and what is scored are the same people. COCO's files are read here."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...trainers.files import field, finite_numbers, records
from ...trainers.landmarks import Landmarks
from ...trainers.points import same_names

OTHERS = "--config keypoints trains any key points"


@dataclass(frozen=True)
class Annotations:
    """A checked annotation file of any format.

    Args:
        path: of the file.
        points: K points that everybody has.
        images: the file's images by id: each a ``file_name`` or ``coco_url`` and, if known, ``width`` and ``height``.
        records: the annotations that count, in the file's order (see :func:`record_of`).
        category: the file's id of the category that is read.
    """

    path: Path
    points: Landmarks
    images: dict[int | str, dict]
    records: list[dict]
    category: int | str = 1

    @property
    def people(self) -> list[dict]:
        """Those with a labelled point that are no crowd; their boxes and areas are > 0."""
        return [record for record in self.records if not record["ignored"]]

    @property
    def ignored(self) -> list[dict]:
        """Crowds and people without points: nobody knows what is there."""
        return [record for record in self.records if record["ignored"]]


def record_of(
    image_id: int | str, keypoints: np.ndarray, box: np.ndarray, area: float = 0.0, crowd: bool = False, **more
) -> dict:
    """An annotation of :class:`Annotations`.

    Args:
        image_id: of the file's images.
        keypoints: ``[K, 3]``: x, y in pixels of the image, visible (1 or 2) or not labelled (0).
        box: x, y, w, h in pixels.
        area: in pixels; that of the box if it is not > 0.
        crowd: several people in one; nobody knows what is there, and it is ``ignored``, as one without a labelled point is.
        more: what else a format has. ``where``, the record's place in its file, is said of an image that cannot be read.
    """
    area = area if area > 0 else float(box[2:].clip(0).prod())
    ignored = crowd or not (keypoints[:, 2] > 0).any()
    return {"image_id": image_id, "keypoints": keypoints, "box": box, "area": area, "crowd": crowd, "ignored": ignored,
            **more}  # fmt: skip


def extent(keypoints: np.ndarray) -> np.ndarray:
    """The box of the labelled points of ``[K, 3]``; an empty one without any."""
    seen = keypoints[keypoints[:, 2] > 0, :2]
    return np.concatenate([seen.min(0), np.ptp(seen, 0)]) if len(seen) else np.zeros(4)


def named_images(people: list[dict]) -> dict[str, dict]:
    """The images of a format whose records name them."""
    return {person["image_id"]: {"file_name": person["image_id"]} for person in people}


def integer(record: dict, key: str, where: str) -> int:
    """An integer of a JSON object, exactly; a number like 7.0 is one where floats have room for all integers."""
    value = field(record, key, where)
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where}: {key} must be an integer, got {value!r}")
    return value


def identity(record: dict, key: str, where: str) -> int | str:
    """An id of a JSON object: an integer, exactly, also where a tool wrote it as 7.0 or "7", or any other text."""
    value = field(record, key, where)
    if not isinstance(value, str) or not value.strip():
        return integer(record, key, where)
    return int(value) if value.isdecimal() and str(int(value)) == value else value


def number(record: dict, key: str, where: str) -> float:
    """A finite number of a JSON object."""
    value = field(record, key, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: {key} must be a finite number, got {value!r}")
    return float(value)


def images_by_id(content: dict, where: str) -> dict[int | str, dict]:
    """The images of a file. One may be listed again, but two must not share an id."""
    images: dict[int | str, dict] = {}
    for image in records(content, "images", where):
        key = identity(image, "id", f"{where}: an image")
        for side in {"width", "height"} & image.keys():
            integer(image, side, f"{where}: image {key}")
        first = images.setdefault(key, image)
        for name in ("file_name", "coco_url", "width", "height"):
            if first.get(name) != image.get(name):
                told = f"{name} {first.get(name)!r} and {image.get(name)!r}"
                raise ValueError(f"{where}: two images have the id {key}: {told}")
    return images


def categories_of(content: dict, where: str) -> tuple[dict[int | str, dict], dict[int | str, int]]:
    """The categories of a file by id, and how many points those have that have any.

    Where a file lists no categories, its annotations say which there are; category 1 if they do not either.
    """
    listed, sizes = records(content, "annotations", where), {}
    for annotation in listed:
        if isinstance(annotation, dict) and "category_id" in annotation:
            key, found = identity(annotation, "category_id", f"{where}: an annotation"), annotation.get("keypoints")
            sizes[key] = max(sizes.get(key, 0), len(found) // 3 if isinstance(found, list) else 0)
    known: dict[int | str, dict] = {}
    for entry in records(content, "categories", where) if content.get("categories") else ():
        key = identity(entry, "id", f"{where}: a category")
        if known.setdefault(key, entry).get("name") != entry.get("name"):
            raise ValueError(
                f"{where}: two categories have the id {key}: {known[key].get('name')!r} and {entry.get('name')!r}"
            )
    known = known or {key: {} for key in sizes} or {1: {}}
    sizes |= {key: len(c["keypoints"]) for key, c in known.items() if isinstance(c.get("keypoints"), list)}
    return known, sizes


def listed_categories(known: dict[int | str, dict], sizes: dict[int | str, int]) -> str:
    """Categories in words."""
    return ", ".join(f"{key} ({c.get('name', 'no name')}, {sizes.get(key, 0)} keypoints)" for key, c in known.items())


def person_category(content: dict, points: int, where: str) -> int | str:
    """The id of the category of people: the only one, the one named person, or else the only one with so many points."""
    known, sizes = categories_of(content, where)
    people = [key for key, c in known.items() if str(c.get("name", "")).strip().lower() == "person"]
    fitting = [key for key in known if sizes.get(key) == points]
    for chosen in (list(known), people, fitting):
        if len(chosen) == 1:
            return chosen[0]
    told = listed_categories(known, sizes)
    raise ValueError(
        f"{where}: one category must be named person, or have {points} keypoints alone, got {told}; {OTHERS}"
    )


def category_named(content: dict, name: str, where: str) -> int | str:
    """The id of the category of that name or id, with key points if any has them; ``auto`` stands for the only one."""
    known, sizes = categories_of(content, where)
    able = [key for key in known if sizes.get(key)] or list(known)
    chosen = [k for k in able if name in ("auto", str(k)) or str(known[k].get("name", "")).lower() == name.lower()]
    if len(chosen) != 1:
        wanted = "one category must have keypoints" if name == "auto" else f"one category must be named {name}"
        raise ValueError(f"{where}: {wanted}, got {listed_categories(known, sizes)}; --data.category names it")
    return chosen[0]


def check_same_points(content: dict, category: int | str, points: Landmarks, where: str) -> None:
    """Raise ValueError where a category has names of points that are others, and show both lists.

    Names may be written with other capitals or signs between words; a file may have none, or numbers.
    """
    known, sizes = categories_of(content, where)
    names = [str(name) for name in known.get(category, {}).get("keypoints") or ()]
    told, place = f"{len(points)} ({', '.join(points.names)})", f"{where}: category {category}"
    if same_names(sorted(names), sorted(points.names)) and not same_names(names, points.names):
        raise ValueError(f"{place}: keypoints must be in this order: {told}, got {', '.join(names)}")
    if len(names) == len(points) and (same_names(names, points.names) or all(name.isdecimal() for name in names)):
        return
    if names:
        raise ValueError(f"{place} has {len(names)} keypoints ({', '.join(names)}), but this task has {told}; {OTHERS}")
    if sizes.get(category, 0) not in (0, len(points)) and _whole(content, len(points)):
        raise ValueError(f"{place} has {sizes[category]} keypoints without names, but this task has {told}; {OTHERS}")


def _whole(content: dict, points: int) -> bool:
    """Whether every annotation has three numbers a point, and none so many as ``points`` need."""
    found = [len(r["keypoints"]) for r in content["annotations"] if isinstance(r.get("keypoints"), list)]
    return all(count % 3 == 0 and count != 3 * points for count in found)


def _annotation(record: dict, points: int, where: str) -> dict:
    """One annotation, checked; an empty box becomes that of the labelled points."""
    key = identity(record, "id", where)
    where = f"{where}: annotation {key}"
    keypoints = finite_numbers(field(record, "keypoints", where), (3 * points,), where, "keypoints").reshape(-1, 3)
    if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
        raise ValueError(f"{where}: visibility must be 0, 1 or 2, got {keypoints[:, 2].tolist()}")
    crowd = record.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"{where}: iscrowd must be 0 or 1, got {crowd!r}")
    box = finite_numbers(record["bbox"], (4,), where, "bbox") if "bbox" in record else np.zeros(4)
    if not (box[2:] > 0).all() and (keypoints[:, 2] > 0).any():
        box = extent(keypoints)
    area = number(record, "area", where) if "area" in record else 0.0
    out = record_of(identity(record, "image_id", where), keypoints, box, area, bool(crowd), annotation_id=key)
    return {**out, "segmentation": record.get("segmentation")} if out["ignored"] else out


def of_category(content: dict, category: int | str, where: str) -> tuple[list[dict], Counter]:
    """The annotations of a category, each once, and how many others there are and why."""
    own, others, earlier = [], Counter(), {}
    alone = len(content.get("categories") or ()) <= 1
    for record in records(content, "annotations", where):
        if not isinstance(record, dict):
            raise ValueError(f"{where}: an annotation must be an object, got {record!r}")
        if not (alone and "category_id" not in record):
            if identity(record, "category_id", f"{where}: an annotation") != category:
                others["of other categories"] += 1
                continue
        same = earlier.setdefault(str(record.get("id")), [])
        if record in same:
            others["listed again"] += 1
            continue
        same.append(record)
        own.append(record)
    return own, others


def people_in(content: dict, points: Landmarks, where: str) -> tuple[dict[int | str, dict], int | str]:
    """The images of a file by id, and its category of people, which has these points."""
    images, category = images_by_id(content, where), person_category(content, len(points), where)
    check_same_points(content, category, points, where)
    return images, category


def annotations_of(content: dict, path: Path, points: Landmarks, category: int | str) -> Annotations:
    """The annotations of a category, and what else there is; one line says what is left out.

    Ids may be any integers or texts; annotations may share theirs. ``num_keypoints`` is not read: the points' visibility counts.
    A missing ``iscrowd`` is 0; an empty or missing box is that of the labelled points; an area that is missing or 0 is that of
    the box. A person with points of which neither makes a box cannot be cropped, and is left out.

    Raises ValueError that names the file and the record.
    """
    where = str(path)
    images = images_by_id(content, where)
    own, others = of_category(content, category, where)
    kept = []
    for raw in own:
        record = _annotation(raw, len(points), where)
        if record["image_id"] not in images:
            raise ValueError(f"{where}: annotation {record['annotation_id']}: no image {record['image_id']}")
        if (record["box"][2:] > 0).all() or (record["ignored"] and "bbox" in raw):
            kept.append(record)
        else:
            others["without a box"] += 1
    if others:
        told = ", ".join(f"{count} {why}" for why, count in sorted(others.items()))
        print(f"{where}: {len(kept)} annotations of category {category} are read; left out are {told}")
    found = Annotations(Path(path), points, images, kept, category)
    if not found.people:
        raise ValueError(f"{where}: no annotation has keypoints (of category {category}; left out: {dict(others)})")
    return found
