"""The task mtfl: five facial landmarks: its module and its data."""

from ...trainers.data import LandmarkData
from ...trainers.landmark_module import LandmarkModule
from ...trainers.transforms import Augment
from .metrics import MtflEvaluation
from .reader import FACE, MtflFaces
from .synthetic import write_synthetic_mtfl


class MtflLandmarks(LandmarkModule):
    """MTFL's five facial landmarks, scored by their distance in pixels of the image."""

    task, landmarks, best = "mtfl", FACE, ("abs_px", "min")

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.evaluation = MtflEvaluation()


class MtflData(LandmarkData):
    """MTFL's faces: each image whole, with five landmarks.

    Args:
        root: folder of the annotation files and the images that they name; synthetic data is written here.
        train_file: training annotations under root: the original training.txt, or JSON.
        val_file: validation annotations under root: the original testing.txt, or JSON.
    """

    def __init__(
        self, root: str = "data/mtfl", train_file: str = "training.txt", val_file: str = "testing.txt", **kwargs
    ) -> None:
        super().__init__(root=root, **kwargs)

    def augmentation(self) -> Augment:
        h = self.hparams
        return Augment(h.scale, h.rotation, h.flip, color=h.color, normal=True)

    def write_synthetic(self) -> None:
        h = self.hparams
        write_synthetic_mtfl(self.root, h.synthetic_train, h.synthetic_val, seed=h.seed)

    def dataset(self, train: bool) -> MtflFaces:
        h = self.hparams
        synthetic, given = ("training.txt", h.train_file) if train else ("testing.txt", h.val_file)
        path, augment = self.root / (synthetic if h.synthetic else given), self.augment if train else None
        return MtflFaces(self.root, path, tuple(h.image_size), self.heatmap_size, augment, h.seed)
