"""COCO's images with all their people as samples, and what of an image must not count."""

from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ...trainers.files import field, finite_numbers
from ...trainers.transforms import Augment, apply
from ..coco.reader import read_annotations
from ..keypoints.annotations import integer
from ..keypoints.crops import KeypointCrops
from ..keypoints.files import ImageFolders


def _check_segmentation(shape, size: tuple[int, int], where: str) -> None:
    """Raise ValueError unless a segmentation is polygons, or run lengths of an image of ``size`` (w, h)."""
    if isinstance(shape, dict):
        own = finite_numbers(field(shape, "size", where), (2,), where, "segmentation: size")[::-1]
        if tuple(own) != size:
            raise ValueError(f"{where}: a segmentation is of {tuple(int(n) for n in own)}, but the image of {size}")
        if not isinstance(field(shape, "counts", where), list | str):
            raise ValueError(f"{where}: counts must be a list or a string, got {type(shape['counts']).__name__}")
    elif not isinstance(shape, list | None):
        raise ValueError(f"{where}: segmentation must be polygons or run lengths, got {type(shape).__name__}")
    for polygon in shape if isinstance(shape, list) else ():
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise ValueError(f"{where}: a polygon must be a list of x and y in turns, got {polygon!r}")
        finite_numbers(polygon, (len(polygon),), where, "a polygon")


def ignored_mask(regions: list[dict], size: tuple[int, int]) -> np.ndarray:
    """1 where an image of ``size`` (w, h) counts, 0 on the segmentations (or, without one, the boxes) of ``regions``."""
    mask = np.ones((size[1], size[0]), np.float32)
    for region in regions:
        shape = region.get("segmentation")
        if isinstance(shape, dict):
            if isinstance(shape.get("counts"), list):
                shape = coco_mask.frPyObjects(shape, *shape["size"])
            mask[coco_mask.decode(shape) > 0] = 0
        elif shape:
            polygons = [np.rint(np.asarray(points, float).reshape(-1, 2)).astype(np.int32) for points in shape]
            cv2.fillPoly(mask, polygons, 0.0)
        else:
            x, y, w, h = region["box"]
            right, bottom = max(0, int(np.ceil(x + w))), max(0, int(np.ceil(y + h)))
            mask[max(0, int(y)) : bottom, max(0, int(x)) : right] = 0
    return mask


class CocoImages(KeypointCrops):
    """Whole images with their people, the largest first.

    ``target`` ``[most, 17, 2]`` in cells, ``weight`` ``[most, 17]``, ``mask`` ``[H/4, W/4]``, 0 where nobody knows. In training
    images without people are left out.
    """

    def __init__(self, root, annotation_file, image_dir, train: bool, image_size: tuple[int, int],
                 heatmap_size: tuple[int, int], augment: Augment | None = None, seed: int = 0, most: int = 30) -> None:  # fmt: skip
        truth, people = read_annotations(Path(annotation_file)), {}
        for person in sorted(truth.people, key=lambda person: -person["area"]):
            people.setdefault(person["image_id"], []).append(person["keypoints"])
        chosen = sorted(people if train else truth.images)
        finder = ImageFolders(Path(image_dir), Path(root))
        super().__init__(truth, finder, "image", 1.0, image_size, heatmap_size, augment, seed)
        self.records = [{"image_id": k, "keypoints": np.array(people.get(k, [])).reshape(-1, 17, 3)} for k in chosen]
        self.most, self.ignored = most, self._regions()

    def _regions(self) -> dict[int, list[dict]]:
        """What of each image nobody knows, checked."""
        out: dict[int, list[dict]] = {}
        for record in self.truth.ignored:
            where = f"{self.truth.path}: annotation {record['annotation_id']}"
            _check_segmentation(record["segmentation"], self._size(record["image_id"]), where)
            out.setdefault(record["image_id"], []).append(record)
        return out

    def _size(self, image_id: int) -> tuple[int, int]:
        described, where = self.truth.images[image_id], f"{self.truth.path}: image {image_id}"
        return integer(described, "width", where), integer(described, "height", where)

    def target(self, record: dict, points: np.ndarray, matrix: np.ndarray, flip: bool) -> dict[str, np.ndarray]:
        flat = super().target(record, points.reshape(-1, 3), matrix, flip=False)
        order = self.landmarks.mirrored() if flip else slice(None)
        target, weight = np.zeros((self.most, 17, 2), np.float32), np.zeros((self.most, 17), np.float32)
        count = min(self.most, len(points))
        target[:count] = flat["target"].reshape(-1, 17, 2)[:count, order]
        weight[:count] = flat["weight"].reshape(-1, 17)[:count, order]
        return {"target": target, "weight": weight, "mask": self._mask(record, matrix)}

    def _mask(self, record: dict, matrix: np.ndarray) -> np.ndarray:
        regions = self.ignored.get(record["image_id"], [])
        if not regions:
            return np.ones(self.heatmap_size[::-1], np.float32)
        ratio = np.array(self.heatmap_size) / np.array(self.image_size)
        mask = ignored_mask(regions, self._size(record["image_id"]))
        return cv2.warpAffine(
            mask, matrix * ratio[:, None], self.heatmap_size, flags=cv2.INTER_NEAREST, borderValue=1.0
        )


def to_image(people: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """People ``[n, K, 3]`` from cells of 4 pixels of the crop to pixels of the image."""
    return np.concatenate([apply(inverse, people[..., :2] * 4), people[..., 2:]], -1)
