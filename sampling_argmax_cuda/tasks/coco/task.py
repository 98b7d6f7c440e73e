"""The task coco: 2-D poses of people, each in a box: its module and its data."""

from pathlib import Path

from ...trainers.landmark_module import LandmarkModule
from ..keypoints.crops import KeypointCrops
from ..keypoints.data import AnnotatedData
from ..keypoints.files import ImageFolders
from ..keypoints.oks import CocoEvaluation
from .reader import PERSON, read_annotations
from .synthetic import write_synthetic_coco


class CocoPose(LandmarkModule):
    """2-D poses of people: COCO's 17 keypoints, scored by OKS-AP.

    Args:
        rescore: instance score: sum (box + mean + max of joints) or product (box * mean of joints > 0.2).
    """

    task, landmarks, best, result_fields = "coco", PERSON, ("AP", "max"), {"category_id": 1}
    free = LandmarkModule.free | {"model.rescore"}

    def __init__(self, rescore: str = "sum", **kwargs) -> None:
        super().__init__(**kwargs)
        self.evaluation = CocoEvaluation(rescore)


class CocoFiles(AnnotatedData):
    """What the tasks on COCO's files share. ``root`` has annotations/ and the image folders.

    Args:
        root: folder with annotations/ and the image folders; synthetic data is written here.
        train_split: name of the training image folder; its annotations are person_keypoints_<split>.json.
        val_split: name of the validation image folder; its annotations are person_keypoints_<split>.json.
    """

    landmarks = PERSON

    def __init__(
        self, root: str = "data/coco", train_split: str = "train2017", val_split: str = "val2017", **kwargs
    ) -> None:
        super().__init__(root=root, **kwargs)

    def files(self, train: bool) -> tuple[Path, Path]:
        """The annotation file and the image folder of a split; synthetic ones have COCO's names."""
        h = self.hparams
        split = ("train2017" if train else "val2017") if h.synthetic else h.train_split if train else h.val_split
        return self.root / "annotations" / f"person_keypoints_{split}.json", self.root / split


class CocoData(CocoFiles):
    """COCO's people, each in a box of its own.

    Args:
        boxes: gt, or a JSON of boxes. validate: detections in COCO's result format instead of the annotated boxes. predict and
            visualize: boxes on the images of data.images instead of whole images, as a list of {file_name, bbox, score} (x, y,
            w, h in pixels; score may be missing) or as a file like COCO's, whose people need no keypoints.
        image_size: width and height of the network's input in pixels, multiples of 32.
        half_body: probability of cropping the upper or lower body, in [0, 1].
    """

    padding = 1.25
    shared = CocoFiles.shared | {"boxes"}

    def __init__(
        self,
        boxes: str = "gt",
        image_size: tuple[int, int] = (192, 256),
        half_body: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(image_size=image_size, **kwargs)

    def write_synthetic(self) -> None:
        h = self.hparams
        write_synthetic_coco(self.root, h.synthetic_train, h.synthetic_val, seed=h.seed)

    def dataset(self, train: bool) -> KeypointCrops:
        annotations, images = self.files(train)
        return self.crops(train, read_annotations(annotations), ImageFolders(images, self.root), self.hparams.boxes)
