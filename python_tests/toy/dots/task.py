"""The task dots: its module and its data."""

from ...trainers.data import LandmarkData
from ...trainers.landmark_module import LandmarkModule
from .metrics import DotEvaluation
from .reader import DOT, Dots
from .synthetic import write_synthetic_dots


class DotLandmark(LandmarkModule):
    """A dot an image, scored by its distance in pixels."""

    task, landmarks, best = "dots", DOT, ("error", "min")

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.evaluation = DotEvaluation()


class DotData(LandmarkData):
    """Images of dots. ``root`` has train.json, val.json and the images that they name."""

    def write_synthetic(self) -> None:
        h = self.hparams
        write_synthetic_dots(self.root, h.synthetic_train, h.synthetic_val, seed=h.seed)

    def dataset(self, train: bool) -> Dots:
        h = self.hparams
        split, augment = ("train", self.augment) if train else ("val", None)
        return Dots(self.root, split, tuple(h.image_size), self.heatmap_size, augment, h.seed)
