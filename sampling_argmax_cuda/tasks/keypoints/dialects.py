"""Annotations as tools write them, made regular before they are read: what is missing, doubtful or of another type."""

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

from ...trainers.files import finite_numbers, records
from ...trainers.landmarks import Landmarks, landmarks_of
from ...trainers.points import package_points, pairs_of, recognised, same_names
from .annotations import categories_of, category_named, of_category

MARGIN = 0.25  # of a box that is made of points: what is added on each side, of its longer one


def choose_category(content: dict, name: str, where: str) -> tuple[int | str, str, list[str], list]:
    """Id, name, points' names and skeleton (pairs of places from 0) of a category with points: the only one, or by its name.

    Points without names are point_1, point_2, ...
    """
    chosen, (known, sizes) = category_named(content, name, where), categories_of(content, where)
    if not sizes.get(chosen):
        raise ValueError(f"{where}: no annotation has keypoints (of category {chosen})")
    entry = known[chosen]
    names = [str(point) for point in entry.get("keypoints") or ()]
    names = names or [f"point_{i + 1}" for i in range(sizes[chosen])]
    return chosen, str(entry.get("name", chosen)), names, _skeleton(entry.get("skeleton"), len(names), where)


def _skeleton(listed, points: int, where: str) -> list[tuple[int, int]]:
    """COCO's skeleton, whose points are counted from 1; from 0 where one of them is 0."""
    if not listed:
        return []
    bones = finite_numbers(listed, (len(listed), 2), where, "skeleton").astype(int)
    bones = bones - (bones > 0).all()
    if bones.min() < 0 or bones.max() >= points:
        raise ValueError(f"{where}: skeleton must join points 1 to {points}, got {listed}")
    return [(int(a), int(b)) for a, b in bones if a != b]


def check_names(names: list[str], expected: list[str], where: str) -> None:
    """Raise ValueError, with both lists, where a file's points are not those that are expected; they may be without names."""
    unnamed = all(re.fullmatch(r"(point_)?\d+", name) for name in names)
    if len(names) != len(expected) or not (unnamed or same_names(names, expected)):
        raise ValueError(f"{where} has {len(names)} keypoints ({', '.join(names)}), but expected are {len(expected)} "
                         f"({', '.join(expected)}); aliases of a point file are what annotations call its names")  # fmt: skip


def points_of(names: list[str], bones: list[tuple[int, int]], own: Mapping, where: str) -> Landmarks:
    """The points of a file's category, in what the user's point file ``own`` does not say.

    A point set of the package with the same names gives what the file has not: pairs, sigmas, and the skeleton.
    """
    check_names(names, own.get("aliases") or own.get("names") or names, where)
    names = list(own.get("names") or names)
    known, pairs = recognised(names), pairs_of(names)
    found = {"names": names, "pairs": [[names[a], names[b]] for a, b in pairs] if pairs else None,
             "skeleton": [[names[a], names[b]] for a, b in bones]}  # fmt: skip
    if known is not None:
        points = package_points(known)
        shared = Landmarks(tuple(names), points.pairs, tuple(bones) or points.bones, points.upper, points.sigmas)
        found = shared.as_mapping()
    return landmarks_of({**found, **own}, where)


def described(points: Landmarks) -> list[str]:
    """What a training says of its points before it begins."""
    known = recognised(points.names)
    told = "" if known is None else f" (point set {known})"
    lines = [f"{len(points)} points{told}: {', '.join(points.names)}"]
    if points.pairs is None:
        return [
            *lines,
            "mirrored pairs: the names tell none, so images are not mirrored (pairs of --data.points tell them)",
        ]
    pairs, alone = points.pairs, set(range(len(points))) - {i for pair in points.pairs for i in pair}
    lines.append(f"mirrored pairs: {', '.join(f'{points.names[a]} | {points.names[b]}' for a, b in pairs) or 'none'}")
    return [*lines, f"their own mirrors: {', '.join(points.names[i] for i in sorted(alone)) or 'none'}"]


def points_box(points: np.ndarray) -> np.ndarray:
    """The box of points ``[n, 2]``, :data:`MARGIN` of its longer side larger on every side; empty for points in one place."""
    low, high = points.min(0), points.max(0)
    more = MARGIN * (high - low).max()
    return np.concatenate([low - more, high - low + 2 * more])


def _regular_points(record: dict, points: int, where: str, told: Counter) -> np.ndarray:
    """Keypoints ``[K, 3]`` of an annotation, 0 in all that is not labelled."""
    if not record.get("keypoints"):
        return np.zeros((points, 3))
    try:
        found = np.asarray(record["keypoints"], np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: keypoints must be numbers, got {record['keypoints']!r}") from None
    if found.shape != (3 * points,):
        got = found.size if found.ndim == 1 else f"shape {list(found.shape)}"
        raise ValueError(f"{where}: keypoints must be {3 * points} numbers, x, y and visibility by turns, got {got}")
    found = found.reshape(-1, 3)
    told["with coordinates and visibility 0, which are not labelled"] += int(
        ((found[:, 2] == 0) & (np.nan_to_num(found[:, :2]) != 0).any(1)).sum()
    )
    origin = (found[:, :2] == 0).all(1) & (found[:, 2] > 0)
    told["at (0, 0) whatever their visibility, which are not labelled"] += int(origin.sum())
    found[origin | (found[:, 2] == 0)] = 0  # coordinates that nobody labelled may be anything, null too
    return found


def regular(content: dict, category: int | str, points: int, where: str) -> tuple[dict, Counter]:
    """A file's content with the annotations of a category as COCO has them, and what was done to how many points.

    Boxes that are missing or empty are :func:`points_box` of the labelled points, or the whole image where that is empty too.
    """
    own, _ = of_category(content, category, where)
    sizes, told, out = _sizes(content), Counter(), []
    for number, record in enumerate(own):
        place = f"{where}: annotation {record.get('id', number)}"
        found = _regular_points(record, points, place, told)
        seen = found[found[:, 2] > 0, :2]
        size = sizes.get(str(record.get("image_id")))
        if size is not None and len(seen):
            told["outside their images, which count"] += int(((seen < 0) | (seen > size)).any(1).sum())
        box, new = record.get("bbox"), {"id": number, **record, "keypoints": found.ravel().tolist()}
        if box is None or box == [] or (isinstance(box, list) and len(box) == 4 and 0 in box[2:]):
            new["bbox"] = _made_box(seen, size)
        out.append({key: value for key, value in new.items() if value is not None})
    return {**content, "annotations": out}, told


def _made_box(seen: np.ndarray, size: np.ndarray | None) -> list[float]:
    if not len(seen):
        return [0.0, 0.0, 0.0, 0.0]
    box = points_box(seen)
    return box.tolist() if size is None or box[2] > 0 else [0.0, 0.0, *size.tolist()]


def regular_images(content: dict, where: str) -> dict:
    """A file's content whose images lack the sides that are null or 0, as tools write that do not know them."""

    def known(image):
        if not isinstance(image, dict):
            return image
        return {key: value for key, value in image.items() if key not in ("width", "height") or value}

    return {**content, "images": [known(image) for image in records(content, "images", where)]}


def _sizes(content: dict) -> dict[str, np.ndarray]:
    """The sides of the images that have both, by their ids as texts."""
    out = {}
    for image in content["images"]:
        sides = [image.get(side) for side in ("width", "height")] if isinstance(image, dict) else []
        if sides and all(isinstance(side, int | float) and side for side in sides):
            out[str(image.get("id"))] = np.array(sides, float)
    return out
