"""The task mtfl: five facial landmarks: its module and its data."""

from ...trainers.landmark_module import LandmarkModule
from ..keypoints.crops import KeypointCrops
from ..keypoints.data import AnnotatedData
from ..keypoints.files import ImageFolders
from .metrics import MtflEvaluation
from .reader import FACE, read_faces
from .synthetic import write_synthetic_mtfl


class MtflLandmarks(LandmarkModule):
    """MTFL's five facial landmarks, scored by their distance in pixels of the image."""

    task, landmarks, best = "mtfl", FACE, ("abs_px", "min")

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.evaluation = MtflEvaluation()


class MtflData(AnnotatedData):
    """MTFL's faces: each image whole, with five landmarks.

    Args:
        root: folder of the annotation files and the images that they name; synthetic data is written here.
        train_file: training annotations under root: the original training.txt, or JSON.
        val_file: validation annotations under root: the original testing.txt, or JSON.
    """

    landmarks, normal = FACE, True

    def __init__(
        self, root: str = "data/mtfl", train_file: str = "training.txt", val_file: str = "testing.txt", **kwargs
    ) -> None:
        super().__init__(root=root, **kwargs)

    def write_synthetic(self) -> None:
        h = self.hparams
        write_synthetic_mtfl(self.root, h.synthetic_train, h.synthetic_val, seed=h.seed)

    def dataset(self, train: bool) -> KeypointCrops:
        """Whole images, under root or, as the released code has them, under root/AFLW."""
        h = self.hparams
        synthetic, given = ("training.txt", h.train_file) if train else ("testing.txt", h.val_file)
        faces = read_faces(self.root / (synthetic if h.synthetic else given))
        return self.crops(train, faces, ImageFolders(self.root, self.root / "AFLW"), "image")
