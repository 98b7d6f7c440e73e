"""Key points of COCO-like files: which points there are, who is in which split, and what an untrained guess is off by."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...trainers.files import read_json
from ...trainers.landmarks import Landmarks
from .annotations import Annotations, annotations_of, images_by_id
from .dialects import check_names, choose_category, points_of, regular, regular_images


@dataclass(frozen=True)
class KeypointFile:
    """An annotation file with the category that is read.

    Args:
        path: of the file.
        content: what is in it.
        category, title: the category's id and name.
        names: of its points.
        bones: its skeleton.
    """

    path: Path
    content: dict
    category: int | str
    title: str
    names: list[str]
    bones: list[tuple[int, int]]

    @property
    def where(self) -> str:
        return f"{self.path}: category {self.title}"

    def points(self, own: Mapping) -> Landmarks:
        """The points, where the user's point file does not say otherwise."""
        return points_of(self.names, self.bones, own, self.where)

    def annotations(self, points: Landmarks, expected: list[str]) -> tuple[Annotations, list[str]]:
        """The annotations of the category, whose points the file calls as ``expected``, and lines that say what there is.

        Raises ValueError that names the file and the record.
        """
        check_names(self.names, expected, self.where)
        content, told = regular(self.content, self.category, len(points), str(self.path))
        truth = annotations_of(content, self.path, points, self.category)
        marked = sum(int((person["keypoints"][:, 2] > 0).sum()) for person in truth.people)
        empty = len(truth.images) - len({person["image_id"] for person in truth.people})
        lines = [f"{self.path}: {len(truth.people)} of {self.title} on {len(truth.images)} images ({empty} without any), "
                 f"{marked} points labelled of {len(truth.people) * len(points)}"]  # fmt: skip
        lines += [f"{self.path}: {count} points are {why}" for why, count in told.items() if count]
        return truth, lines


def read_keypoint_file(path: Path, category: str) -> KeypointFile:
    """A COCO-like file and its category of that name (``auto``: the only one with points)."""
    where = str(path)
    content = regular_images(read_json(path, "annotation"), where)
    images_by_id(content, where)
    return KeypointFile(path, content, *choose_category(content, category, where))


def split_by_image(truth: Annotations, fraction: float, seed: int) -> tuple[Annotations, Annotations]:
    """Training and validation annotations: a share of the images that have any, at least one, drawn from the seed."""
    shown = {person["image_id"] for person in truth.people}
    ids = [key for key in truth.images if key in shown]
    if len(ids) < 2:
        raise ValueError(f"data: val_fraction needs two images or more with key points, got {len(ids)} in {truth.path}")
    count = min(len(ids) - 1, max(1, round(fraction * len(ids))))
    drawn = {ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:count]}
    parts = []
    for own in (False, True):
        images = {key: image for key, image in truth.images.items() if (key in drawn) == own}
        parts.append(replace(truth, images=images, records=[r for r in truth.records if r["image_id"] in images]))
    return parts[0], parts[1]


def one_sided(truth: Annotations, least: int = 20) -> list[str]:
    """Points that a mirror leaves as they are and that nearly always are on the same side of the points' middle.

    Those of a face's jaw are, where names do not tell which is whose mirror: mirrored images would teach them to be anywhere.
    Of points that fewer than ``least`` have nothing is said.
    """
    points = np.stack([person["keypoints"] for person in truth.people])
    seen = np.where(points[..., 2:] > 0, points[..., :2], np.nan)
    low, high = np.nanmin(seen[..., 0], 1, keepdims=True), np.nanmax(seen[..., 0], 1, keepdims=True)
    side = (seen[..., 0] - (low + high) / 2) / np.maximum(high - low, 1e-6)
    known = ~np.isnan(side)
    own = [i == other for i, other in enumerate(truth.points.mirrored())]
    shares = [((side > 0.1) & known).sum(0), ((side < -0.1) & known).sum(0)]
    often = np.maximum(*shares) >= 0.95 * np.maximum(known.sum(0), least)
    return [name for name, alone, is_often in zip(truth.points.names, own, often, strict=True) if alone and is_often]


def mean_shape_errors(train: Annotations, val: Annotations) -> np.ndarray:
    """Errors in pixels of the labelled points of ``val`` if each were where it is, in the mean, in the boxes of ``train``."""

    def placed(truth: Annotations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        points, boxes = (np.stack([person[key] for person in truth.people]) for key in ("keypoints", "box"))
        return points[..., :2], points[..., 2] > 0, boxes

    points, seen, boxes = placed(train)
    inside = (points - boxes[:, None, :2]) / boxes[:, None, 2:]
    mean = np.where(seen[..., None], inside, 0).sum(0) / np.maximum(seen.sum(0), 1)[:, None]
    points, seen, boxes = placed(val)
    guess = boxes[:, None, :2] + np.where(np.isfinite(mean), mean, 0.5) * boxes[:, None, 2:]
    return np.linalg.norm(guess - points, axis=-1)[seen]
