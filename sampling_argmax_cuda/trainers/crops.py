"""Crops around annotated or detected boxes, with their landmarks: what every task on images trains on."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import Dataset

from .boxes import Box
from .epochs import EpochDataset
from .landmarks import Landmarks
from .sources import ImageFiles, Video
from .transforms import Augment, CropRule, Draw, apply, box_to_center_scale, crop_matrix, invert, mirror, normalize


class LandmarkCrops(EpochDataset):
    """Crops of ``records``, each a dict, in most tasks with ``keypoints [K, 3]``.

    Targets are in cells of the heatmap, cell i at crop pixel ``i * stride`` (the released left-edge convention); weights
    are 0 for points that are unlabelled or outside the crop. ``inverse`` takes crop pixels to the image. Augmentation is
    a function of (seed, epoch, index) alone. A task says how an image and a box are found, and what else a sample holds.
    """

    def __init__(self, landmarks: Landmarks, records: list[dict], image_size: tuple[int, int],
                 heatmap_size: tuple[int, int], augment: Augment | None, seed: int, padding: float) -> None:  # fmt: skip
        super().__init__(seed)
        self.landmarks, self.records, self.padding = landmarks, records, padding
        self.image_size, self.heatmap_size = tuple(image_size), tuple(heatmap_size)
        self.augment = augment

    def read(self, record: dict) -> np.ndarray:
        """The image of a record, ``uint8 [H, W, 3]``."""
        raise NotImplementedError

    def box(self, record: dict, image: np.ndarray) -> np.ndarray:
        """The box x, y, w, h in pixels that the crop shows."""
        raise NotImplementedError

    def points(self, record: dict) -> np.ndarray:
        """The points ``[K, 3]`` of a record: x, y in pixels of its image, visible > 0."""
        return record["keypoints"]

    def image_of(self, index: int) -> object:
        """What samples of one image have in common, and no others."""
        record = self.records[index]
        return record.get("image_id", record.get("name", index))

    def extras(self, record: dict) -> dict:
        """What the task's evaluation needs besides."""
        return {}

    def __len__(self) -> int:
        return len(self.records)

    def _crop(self, box: np.ndarray, keypoints: np.ndarray, draw: Draw) -> np.ndarray:
        aspect = self.image_size[0] / self.image_size[1]
        if draw.half_body:
            box = self._half(box, keypoints, draw.upper)
        center, scale = box_to_center_scale(box, aspect, self.padding)
        matrix = crop_matrix(center, scale * draw.scale, draw.rotation, self.image_size)
        return mirror(matrix, self.image_size[0]) if draw.flip else matrix

    def _half(self, box: np.ndarray, keypoints: np.ndarray, upper: bool) -> np.ndarray:
        """The box of the upper or the lower body, if three points of it are known."""
        inside = np.isin(np.arange(len(self.landmarks)), self.landmarks.upper)
        part = (keypoints[:, 2] > 0) & (inside if upper else ~inside)
        if part.sum() < 3:
            return box
        low, high = keypoints[part, :2].min(0), keypoints[part, :2].max(0)
        return np.concatenate([low, np.maximum(high - low, 1)])

    def sample(self, index: int, epoch: int) -> dict:
        record = self.records[index]
        draw = Draw()
        if self.augment is not None:
            draw = self.augment.draw(self.generator(index, epoch))
        image, points = self.read(record), self.points(record)
        matrix = self._crop(self.box(record, image), points, draw)
        crop = cv2.warpAffine(image, matrix, self.image_size)
        if draw.hole is not None:
            draw.hole.paint(crop)
        if draw.gain != (1.0, 1.0, 1.0):
            crop = np.clip(crop * np.array(draw.gain), 0, 255).astype(np.uint8)
        return {"image": normalize(crop), "inverse": invert(matrix).astype(np.float32), "index": index,
                **self.target(record, points, matrix, draw.flip), **self.extras(record)}  # fmt: skip

    def target(self, record: dict, points: np.ndarray, matrix: np.ndarray, flip: bool) -> dict[str, np.ndarray]:
        """``target`` ``[K, d]`` in cells and ``weight`` ``[K]`` of the points in the crop that ``matrix`` makes."""
        size, stride = np.array(self.image_size), np.array(self.image_size) / np.array(self.heatmap_size)
        pixels = apply(matrix, points[:, :2])
        inside = ((pixels >= 0) & (pixels <= size - 1)).all(1)
        weight = (inside & (points[:, 2] > 0)).astype(np.float32)
        target = np.where(weight[:, None] > 0, pixels / stride, 0).astype(np.float32)
        order = self.landmarks.mirrored() if flip else slice(None)
        return {"target": target[order], "weight": weight[order]}


class InputCrops(Dataset):
    """Boxes of images, or images as a whole, to predict in; those of one image follow one another."""

    def __init__(self, source: ImageFiles | Video, boxes: list[Box], rule: CropRule) -> None:
        self.source, self.rule = source, rule
        self.boxes = sorted(boxes, key=lambda box: box.image)
        firsts: dict[int, int] = {}
        self._instances = [i - firsts.setdefault(box.image, i) for i, box in enumerate(self.boxes)]
        names = [source.name(box.image) for box in self.boxes]
        counts, seen = Counter(names), Counter()
        self._overlays = []
        for name, box in zip(names, self.boxes, strict=True):
            self._overlays.append(name if box.box is None and counts[name] == 1 else f"{name}_{seen[name]}")
            seen[name] += 1

    @property
    def left_out(self) -> list[Path]:
        return self.source.left_out

    @property
    def in_order(self) -> bool:
        """Whether inputs are read one after the other, as frames are: more readers would decode the same."""
        return self.source.moving

    def identity(self) -> list:
        """What says that inputs are the same, besides the files that they come from."""
        return [
            [box.image, None if box.box is None else box.box.tolist(), box.score, box.image_id] for box in self.boxes
        ]

    def overlay(self, index: int) -> str:
        """The name of the overlay's file: no two inputs share a name, also where images of two folders do."""
        return self._overlays[index]

    def about(self, index: int) -> dict[str, object]:
        """What the prediction file says of an input besides what was found in it, and its box."""
        own = self.boxes[index]
        image_id = own.image if own.image_id is None else own.image_id
        score = {} if own.score is None else {"box_score": own.score}
        return {**self.source.about(own.image), "image_id": image_id, "instance": self._instances[index], **score}

    def image(self, index: int) -> np.ndarray:
        """The whole image of an input, RGB ``uint8 [H, W, 3]``."""
        return self.source.read(self.boxes[index].image)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int) -> dict:
        image, own = self.image(index), self.boxes[index]
        box = (0, 0, image.shape[1], image.shape[0]) if own.box is None else own.box
        crop, inverse = self.rule.input(image, box)
        return {"image": crop, "inverse": inverse, "index": index, "box": np.asarray(box, np.float64)}
