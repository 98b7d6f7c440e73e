"""COCO's images with all their people as samples, and what of an image must not count."""

from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ..coco.reader import CocoKeypoints
from ..files import field, finite_numbers, read_json, records
from ..transforms import Augment, apply


def read_ignored(path: Path) -> dict[int, list[dict]]:
    """By image the annotations of crowds and of people without keypoints: nobody knows what is there."""
    out: dict[int, list[dict]] = {}
    for record in records(read_json(path, "annotation"), "annotations", str(path)):
        if record.get("iscrowd", 0) or not np.any(np.asarray(record["keypoints"])[2::3]):
            out.setdefault(record["image_id"], []).append(record)
    return out


def ignored_mask(regions: list[dict], size: tuple[int, int], where: str) -> np.ndarray:
    """1 where an image of ``size`` (w, h) counts, 0 on the segmentations (or, without one, the boxes) of ``regions``."""
    mask = np.ones((size[1], size[0]), np.float32)
    for region in regions:
        shape = region.get("segmentation")
        if isinstance(shape, dict):
            if isinstance(shape.get("counts"), list):
                shape = coco_mask.frPyObjects(shape, *field(shape, "size", where))
            outline = coco_mask.decode(shape)
            if outline.shape != mask.shape:
                raise ValueError(f"{where}: a segmentation is of {outline.shape[::-1]}, but the image of {size}")
            mask[outline > 0] = 0
        elif shape:
            polygons = [np.rint(np.asarray(points, float).reshape(-1, 2)).astype(np.int32) for points in shape]
            cv2.fillPoly(mask, polygons, 0.0)
        else:
            x, y, w, h = finite_numbers(field(region, "bbox", where), (4,), where, "bbox").clip(0)
            mask[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))] = 0
    return mask


class CocoImages(CocoKeypoints):
    """Whole images with their people, the largest first.

    ``target`` ``[most, 17, 2]`` in cells, ``weight`` ``[most, 17]``, ``mask`` ``[H/4, W/4]``, 0 where nobody knows. In training
    images without people are left out.
    """

    def __init__(self, root, annotation_file, image_dir, train: bool, image_size: tuple[int, int],
                 heatmap_size: tuple[int, int], augment: Augment | None = None, seed: int = 0, most: int = 30) -> None:  # fmt: skip
        super().__init__(root, annotation_file, image_dir, "gt", train, image_size, heatmap_size, augment, seed)
        self.most, self.ignored, people = most, read_ignored(self.annotation_file), {}
        for person in sorted(self.records, key=lambda person: -person["area"]):
            people.setdefault(person["image_id"], []).append(person["keypoints"])
        chosen = sorted(people if train else self.images)
        self.records = [{"image_id": k, "keypoints": np.array(people.get(k, [])).reshape(-1, 17, 3)} for k in chosen]
        self.padding = 1.0

    def box(self, record: dict, image: np.ndarray) -> np.ndarray:
        return np.array([0, 0, image.shape[1], image.shape[0]])

    def target(self, record: dict, points: np.ndarray, matrix: np.ndarray, flip: bool) -> dict[str, np.ndarray]:
        flat = super().target(record, points.reshape(-1, 3), matrix, flip=False)
        order = self.landmarks.mirrored() if flip else slice(None)
        target, weight = np.zeros((self.most, 17, 2), np.float32), np.zeros((self.most, 17), np.float32)
        count = min(self.most, len(points))
        target[:count] = flat["target"].reshape(-1, 17, 2)[:count, order]
        weight[:count] = flat["weight"].reshape(-1, 17)[:count, order]
        return {"target": target, "weight": weight, "mask": self._mask(record, matrix)}

    def _mask(self, record: dict, matrix: np.ndarray) -> np.ndarray:
        regions, described = self.ignored.get(record["image_id"], []), self.images[record["image_id"]]
        if not regions:
            return np.ones(self.heatmap_size[::-1], np.float32)
        where = f"{self.annotation_file}: image {record['image_id']}"
        size = (int(field(described, "width", where)), int(field(described, "height", where)))
        ratio = np.array(self.heatmap_size) / np.array(self.image_size)
        mask = ignored_mask(regions, size, where)
        return cv2.warpAffine(
            mask, matrix * ratio[:, None], self.heatmap_size, flags=cv2.INTER_NEAREST, borderValue=1.0
        )

    def extras(self, record: dict) -> dict:
        return {"image_id": record["image_id"]}


def to_image(people: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """People ``[n, K, 3]`` from cells of 4 pixels of the crop to pixels of the image."""
    return np.concatenate([apply(inverse, people[..., :2] * 4), people[..., 2:]], -1)
