"""What the data of the tasks share whose samples are crops of annotations."""

from dataclasses import replace
from pathlib import Path

from ...trainers.data import LandmarkData
from ...trainers.landmarks import Landmarks
from .annotations import Annotations
from .boxes import read_boxes
from .crops import BOXES, KeypointCrops
from .files import ImageFinder, ImageFolders


class AnnotatedData(LandmarkData):
    """Crops of annotated ``landmarks``. A task says how its files are read, and what an evaluation needs of a record."""

    landmarks: Landmarks
    extra: tuple[str, ...] = ()

    def crops(
        self, train: bool, truth: Annotations, finder: ImageFinder | ImageFolders, boxes: str = "annotation"
    ) -> KeypointCrops:
        """The samples of a split. ``boxes`` are those of :class:`.KeypointCrops`; gt is annotation, as detections are in training.

        Where nobody knows whose points change sides, nothing is mirrored.
        """
        h, augment = self.hparams, self.augment
        if boxes == "gt" or (train and boxes not in BOXES):
            boxes = "annotation"
        if self.landmarks.pairs is None:
            augment = replace(augment, flip=0.0)
        return KeypointCrops(truth, finder, boxes, self.padding, tuple(h.image_size), self.heatmap_size,
                             augment if train else None, h.seed, self.extra)  # fmt: skip

    def read_boxes(self, path: str, folder: Path) -> list[dict]:
        return read_boxes(path, folder, len(self.landmarks))
