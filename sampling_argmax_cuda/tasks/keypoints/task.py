"""The task keypoints: any key points of COCO-like files: its module and its data."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from ...trainers.landmark_module import LandmarkModule
from ...trainers.landmarks import Landmarks, check_points, landmarks_of
from ...trainers.points import read_points
from .annotations import Annotations
from .boxes import read_boxes
from .crops import BOXES, KeypointCrops
from .data import AnnotatedData
from .dialects import described
from .files import AUTO, ImageFinder, annotation_files, given_file, only_file
from .metrics import KeypointEvaluation
from .reader import KeypointFile, mean_shape_errors, one_sided, read_keypoint_file, split_by_image
from .synthetic import write_synthetic_keypoints


class KeypointPose(LandmarkModule):
    """Key points of any kind, scored by their errors in pixels, NME, PCK and OKS-AP.

    Args:
        points: names, pairs, skeleton and sigmas, as a point file has them; the data says them.
        nme_pair: names of the two points whose distance NME counts in; null for the diagonal of the box.
        rescore: instance score: sum (box + mean + max of points) or product (box * mean of points > 0.2).
    """

    task, best, from_data = "keypoints", ("nme", "min"), {"points": "points"}
    free = LandmarkModule.free | {"model.nme_pair", "model.rescore"}

    def __init__(
        self, points: dict | None = None, nme_pair: tuple[str, str] | None = None, rescore: str = "sum", **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.evaluation = KeypointEvaluation(self.landmarks, nme_pair, rescore)

    @cached_property
    def landmarks(self) -> Landmarks:
        return landmarks_of(self.hparams.points or {}, "model: points")


class KeypointData(AnnotatedData):
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

    free = AnnotatedData.free | {"data.train_images", "data.val_images"}
    shared = AnnotatedData.shared | {"boxes", "category", "margin", "points"}
    own_boxes = BOXES

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
        own = points if isinstance(points, Mapping) else {} if points == AUTO else read_points(points)
        check_points(own, "data: points")
        self.own = dict(own)  # what the user says of the points, or all that a checkpoint does

    def write_synthetic(self) -> None:
        h = self.hparams
        write_synthetic_keypoints(self.root, h.synthetic_train, h.synthetic_val, seed=h.seed)

    # ---- files ----

    @cached_property
    def listed(self) -> dict[str, list[Path]]:
        """The annotation files under root by split."""
        return annotation_files(self.root)

    def _file(self, split: str) -> KeypointFile | None:
        """The annotation file of a split; None where there is none for validation."""
        self.prepare_data()  # synthetic ones must be there
        given = self.hparams.train_file if split == "train" else self.hparams.val_file
        path = (
            only_file(self.listed, split, self.root) if given == AUTO else given_file(given, self.root, f"{split}_file")
        )
        return None if path is None else read_keypoint_file(path, self.hparams.category)

    @cached_property
    def train_annotations(self) -> KeypointFile:
        return self._file("train")

    @cached_property
    def val_annotations(self) -> KeypointFile | None:
        return self._file("val")

    @cached_property
    def landmarks(self) -> Landmarks:
        """The points: those of a checkpoint, or of a point file that says all of them, else of the training annotations."""
        if {"names", "pairs", "skeleton", "sigmas"} <= self.own.keys() or (
            "names" in self.own and not self.root.is_dir()
        ):
            return landmarks_of(self.own, "data: points")
        return self.train_annotations.points(self.own)

    @property
    def points(self) -> dict:
        """The points for the model, and from then on for the checkpoint."""
        aliases = {"aliases": self.own["aliases"]} if self.own.get("aliases") else {}
        self.hparams.points = {**self.landmarks.as_mapping(), **aliases}
        return self.hparams.points

    def _annotations(self, file: KeypointFile) -> tuple[Annotations, list[str]]:
        return file.annotations(self.landmarks, self.own.get("aliases") or list(self.landmarks.names))

    @cached_property
    def train_split(self) -> tuple[Annotations, list[str]]:
        """Training annotations, and lines that say what there is."""
        truth, lines = self._annotations(self.train_annotations)
        if not self.hparams.val_fraction:
            return truth, lines
        train, val = split_by_image(truth, self.hparams.val_fraction, self.hparams.seed)
        return train, [*lines, f"training has {len(train.images)} of these images, validation {len(val.images)}"]

    @cached_property
    def val_split(self) -> tuple[Annotations, list[str]] | None:
        """Validation annotations, likewise; None where there are none."""
        h = self.hparams
        if h.val_fraction:
            return split_by_image(self._annotations(self.train_annotations)[0], h.val_fraction, h.seed)[1], []
        return None if self.val_annotations is None else self._annotations(self.val_annotations)

    # ---- samples ----

    def dataset(self, train: bool) -> KeypointCrops | None:
        h, split = self.hparams, self.train_split if train else self.val_split
        if split is None:
            return None
        truth, notes = split
        folder = h.train_images if train else h.val_images
        finder = ImageFinder(self.root if folder == AUTO else Path(folder), truth.path)
        data = self.crops(train, truth, finder, h.boxes)
        for image_id in dict.fromkeys(record["image_id"] for record in data.records):
            data.image_path(image_id)  # what is not there is told before anything is read
        if train:
            notes = [*described(self.landmarks), *notes]
            doubtful = one_sided(truth) if data.augment.flip > 0 else []
            if doubtful:
                notes.append(f"warning: images are mirrored, but {', '.join(doubtful)} are on one side of nearly everybody "
                             "and have no partner; say the pairs in --data.points FILE, or --data.flip 0 and "
                             "--model.flip_test false")  # fmt: skip
        elif "train_split" in vars(self):  # of a training
            errors = mean_shape_errors(self.train_split[0], truth)
            notes = [*notes, f"the mean shape of the training boxes is off by {errors.mean():.2f} px on validation"]
        data.notes = notes
        return data

    @property
    def padding(self) -> float:
        return self.hparams.margin

    def read_boxes(self, path: str, folder: Path) -> list[dict]:
        return read_boxes(path, folder, len(self.landmarks), self.hparams.category)
