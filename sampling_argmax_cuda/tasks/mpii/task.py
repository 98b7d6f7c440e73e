"""The task mpii: single-person pose, by stacked hourglasses or by the ResNet of the other tasks."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ...distances import mask_rows
from ...objectives.targets import Target, person_maps
from ...trainers.adversary import make_adversary
from ...trainers.data import LandmarkData
from ...trainers.landmark_module import LandmarkModule
from ...trainers.transforms import Augment
from ..coco.boxes import read_boxes
from .metrics import PckhEvaluation
from .reader import FIGURE, MpiiCrops, read_people
from .synthetic import write_synthetic_mpii


class MpiiPose(LandmarkModule):
    """Single-person 2-D pose: MPII's 16 joints, scored by PCKh. Every hourglass is trained by the same objective.

    Args:
        stacks: hourglasses of the network, >= 1; null for the ResNet with a head.
        channels: channels of the hourglasses, a multiple of 8.
        adversary: options of the discriminator of self-adversarial training, or null to train without one.
    """

    task, landmarks, best = "mpii", FIGURE, ("pck", "max")
    free = LandmarkModule.free | {"adversary.lr"}

    def __init__(self, stacks: int | None = 8, channels: int = 256, adversary: Mapping | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        if adversary is not None and self.hparams.objective["name"] != "heatmap":
            raise ValueError(f"model: an adversary needs objective heatmap, got {self.hparams.objective['name']}")
        self.adversary = make_adversary(adversary, maps=len(self.landmarks), norm=self.hparams.norm)
        self.evaluation = PckhEvaluation()

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.adversary is not None and self._adds_up_counts():
            raise ValueError(f"trainer: an adversary with accumulate_grad_batches {self.trainer.accumulate_grad_batches} needs "
                             f"reduction mean or batch, got {self.hparams.reduction}")  # fmt: skip

    def stage_loss(self, outputs: list[Tensor], target: Target, batch: dict[str, Tensor]) -> Tensor:
        loss = super().stage_loss(outputs, target, batch)
        if self.adversary is None:
            return loss
        place, seen = target.position.unsqueeze(1), target.weight.unsqueeze(1)
        truth = person_maps(place, seen, target.size, self.objective.target_sigma)
        # Nobody knows the map of a joint that does not count: the discriminator has none of it on either side.
        return loss + self.adversary.step(self, batch["image"], mask_rows(outputs[-1], target.weight), truth)


class MpiiData(LandmarkData):
    """MPII or LSP. ``root`` has annotations/ and images/.

    Args:
        root: folder with annotations/ and images/; synthetic data is written here.
        train_file: training annotations under root/annotations: COCO's structure, HRNet's list, or LSP's joints.mat.
        val_file: validation annotations; where it is the same file, training has its first half and validation the second.
        boxes: gt, or a JSON of boxes on the images of data.images to predict on, as task coco has it.
        half_body: probability of cropping the upper or lower body, in [0, 1].
    """

    padding = 1.25
    inputs = LandmarkData.inputs | {"boxes"}

    def __init__(
        self,
        root: str = "data/mpii",
        train_file: str = "train.json",
        val_file: str = "valid.json",
        boxes: str = "gt",
        half_body: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(root=root, **kwargs)

    def augmentation(self) -> Augment:
        h = self.hparams
        return Augment(h.scale, h.rotation, h.flip, h.half_body, h.color)

    def write_synthetic(self) -> None:
        h = self.hparams
        files = (h.train_file, h.val_file)
        write_synthetic_mpii(self.root, h.synthetic_train, h.synthetic_val, files, seed=h.seed)

    def read_boxes(self, path: str, folder: Path) -> list[dict]:
        return read_boxes(path, folder, len(FIGURE))

    def dataset(self, train: bool) -> MpiiCrops:
        h = self.hparams
        people = read_people(self.root / "annotations" / (h.train_file if train else h.val_file))
        if h.train_file == h.val_file:
            half = len(people) // 2
            people = people[:half] if train else people[half:]
        augment = self.augment if train else None
        return MpiiCrops(self.root / "images", people, tuple(h.image_size), self.heatmap_size, augment, h.seed)
