"""The task keypoints: any key points of COCO-like files: its module and its data."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from ...trainers.crops import ImageFolder
from ...trainers.data import LandmarkData
from ...trainers.landmark_module import LandmarkModule
from ...trainers.landmarks import Landmarks, landmarks_of
from ...trainers.messages import tell
from ...trainers.points import read_points
from ..coco.annotations import Annotations
from ..coco.boxes import BoxCrops, read_boxes
from .files import AUTO, find_annotations, given_file
from .metrics import KeypointEvaluation
from .reader import BOXES, KeypointCrops, KeypointFile, mean_shape_errors, read_keypoint_file, split_by_image
from .synthetic import write_synthetic_keypoints


class KeypointPose(LandmarkModule):
    """Key points of any kind, scored by their errors in pixels, NME, PCK and OKS-AP.

    Args:
        points: names, pairs, skeleton and sigmas, as a point file has them.
        nme_pair: names of the two points whose distance NME counts in; null for the diagonal of the box.
        rescore: instance score: sum (box + mean + max of points) or product (box * mean of points > 0.2).
    """

    task, best, from_data = "keypoints", ("nme", "min"), {"points": "points"}
    free = LandmarkModule.free | {"model.nme_pair", "model.rescore"}

    def __init__(
        self, points: Mapping, nme_pair: tuple[str, str] | None = None, rescore: str = "sum", **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.evaluation = KeypointEvaluation(self.landmarks, nme_pair, rescore)

    @cached_property
    def landmarks(self) -> Landmarks:
        return landmarks_of(self.hparams.points, "model: points")


class KeypointData(LandmarkData):
    """Key points of COCO-like files, each annotated object in a box of its own.

    Args:
        root: folder with the annotations and, at any depth, the images; synthetic data is written here.
        train_file: training annotations; auto for the only ones under root.
        val_file: validation annotations; auto for the only ones of val or else test under root, if there are any.
        val_fraction: share of the training images that validation has instead of a file, in [0, 1).
        train_images: folder that training images are below; auto for root.
        val_images: folder that validation images are below; auto for root.
        category: name of the category; auto for the only one with key points.
        points: point file, or coco, mpii, mtfl or face_68: names, pairs, skeleton, upper, sigmas, each instead of what the
            annotations or the points' names say; auto for neither.
        boxes: annotation, points (of the labelled points), image (whole), or a JSON of boxes. validate: detections in COCO's
            result format. predict and visualize: boxes on the images of data.images, as a list of {file_name, bbox, score}.
        margin: how many times as long as the box's the crop's sides are, >= 1; a whole image has none.
        image_size: width and height of the network's input in pixels, multiples of 32.
    """

    free = LandmarkData.free | {"data.train_images", "data.val_images"}

    def __init__(
        self,
        root: str = "data",
        train_file: str = AUTO,
        val_file: str = AUTO,
        val_fraction: float = 0.0,
        train_images: str = AUTO,
        val_images: str = AUTO,
        category: str = AUTO,
        points: str | dict = AUTO,
        boxes: str = "annotation",
        margin: float = 1.25,
        image_size: tuple[int, int] = (128, 128),
        **kwargs,
    ) -> None:
        super().__init__(root=root, image_size=image_size, **kwargs)
        if not 0 <= val_fraction < 1:
            raise ValueError(f"data: val_fraction must be in [0, 1), got {val_fraction}")
        if val_fraction and val_file != AUTO:
            raise ValueError(
                f"data: val_fraction and val_file are two ways to the same, got {val_fraction} and {val_file}"
            )
        if not 1 <= margin < float("inf"):
            raise ValueError(f"data: margin must be >= 1, got {margin}")
        # What the user says of the points, or a checkpoint's points, which are whole.
        self.own = dict(points) if isinstance(points, Mapping) else {} if points == AUTO else read_points(points)
        self.renamed = "names" in self.own
        self._read: dict[Path, KeypointFile] = {}

    def write_synthetic(self) -> None:
        h = self.hparams
        write_synthetic_keypoints(self.root, h.synthetic_train, h.synthetic_val, seed=h.seed)

    # ---- files ----

    @cached_property
    def files(self) -> dict[str, Path]:
        """The annotation files by split, train and perhaps val."""
        h = self.hparams
        self.prepare_data()  # synthetic ones must be there
        given = {"train": h.train_file, "val": AUTO if h.val_fraction else h.val_file}
        found = {name: given_file(file, self.root, f"{name}_file") for name, file in given.items() if file != AUTO}
        if "train" not in found or ("val" not in found and not h.val_fraction):
            looked = find_annotations(self.root) if "train" not in found else {}
            found = {**looked, **found}
        if h.val_fraction:
            found.pop("val", None)
        return found

    def _file(self, split: str) -> KeypointFile:
        path = self.files[split]
        if path not in self._read:
            self._read[path] = read_keypoint_file(path, self.hparams.category)
        return self._read[path]

    @cached_property
    def landmarks(self) -> Landmarks:
        """The points, of which lines are printed."""
        if self.own.get("names") and self.own.get("pairs") is not None:
            return landmarks_of(self.own, "data: points")
        points, source = self._file("train").points(self.own)
        pairs = ", ".join(f"{points.names[a]} | {points.names[b]}" for a, b in points.pairs or ())
        tell(f"{len(points)} points: {', '.join(points.names)}")
        tell(f"mirrored pairs ({source}): {pairs or 'none'}" if points.pairs is not None else
             "mirrored pairs: the names tell none, so images are not mirrored (pairs of --data.points tell them)")  # fmt: skip
        return points

    @property
    def points(self) -> dict:
        """The points for the model, and from then on for the checkpoint."""
        self.hparams.points = self.landmarks.as_mapping()
        return self.hparams.points

    @cached_property
    def splits(self) -> dict[str, tuple[Annotations, list[str]]]:
        """Annotations of training and, if there are any, of validation, with lines that say what there is."""
        h, found = self.hparams, {}
        for split in self.files:
            found[split] = self._file(split).annotations(self.landmarks, self.renamed)
        if h.val_fraction:
            train, lines = found["train"]
            parts = split_by_image(train, h.val_fraction, h.seed)
            counts = " and ".join(str(len(part.images)) for part in parts)
            lines = [*lines, f"training and validation have {counts} of these images"]
            found = {"train": (parts[0], lines), "val": (parts[1], [])}
        return found

    # ---- samples ----

    def dataset(self, train: bool) -> KeypointCrops | None:
        h, split = self.hparams, "train" if train else "val"
        if not train and split not in self.files and not h.val_fraction:
            return None
        truth, lines = self.splits[split]
        folder = h.train_images if train else h.val_images
        augment = replace(self.augment, flip=0.0) if self.landmarks.pairs is None else self.augment
        boxes = "annotation" if train and h.boxes not in BOXES else h.boxes
        data = KeypointCrops(self.root if folder == AUTO else Path(folder), truth, boxes, h.margin, tuple(h.image_size),
                             self.heatmap_size, augment if train else None, h.seed)  # fmt: skip
        data.notes = lines
        if not train and "train" in self.splits:
            errors = mean_shape_errors(self.splits["train"][0], truth)
            data.notes = [
                *lines,
                f"the mean shape of the training boxes is off by {errors.mean():.2f} px on validation",
            ]
        return data

    def to_predict(self) -> ImageFolder:
        h = self.hparams
        if h.boxes in BOXES or h.images is None:
            return super().to_predict()
        crops = BoxCrops(read_boxes(h.boxes, h.images, len(self.landmarks)), h.image_size)
        crops.padding = h.margin
        return crops
