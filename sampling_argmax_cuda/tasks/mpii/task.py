"""The task mpii: single-person pose, by stacked hourglasses or by the ResNet of the other tasks."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ...distances import mask_rows
from ...objectives.targets import Target, person_maps
from ...trainers.adversary import make_adversary
from ...trainers.landmark_module import LandmarkModule
from ..keypoints.crops import KeypointCrops
from ..keypoints.data import AnnotatedData
from ..keypoints.files import ImageFolders
from .metrics import PckhEvaluation
from .reader import FIGURE, read_people
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


class MpiiData(AnnotatedData):
    """MPII or LSP. ``root`` has annotations/ and images/.

    Args:
        root: folder with annotations/ and images/; synthetic data is written here.
        train_file: training annotations under root/annotations: COCO's structure, HRNet's list, or LSP's joints.mat.
        val_file: validation annotations; where it is the same file, training has its first half and validation the second.
        boxes: gt, or a JSON of boxes on the images of data.images to predict on, as task coco has it.
        half_body: probability of cropping the upper or lower body, in [0, 1].
    """

    landmarks, padding, extra = FIGURE, 1.25, PckhEvaluation.extra
    inputs = AnnotatedData.inputs | {"boxes"}

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

    def write_synthetic(self) -> None:
        h = self.hparams
        files = (h.train_file, h.val_file)
        write_synthetic_mpii(self.root, h.synthetic_train, h.synthetic_val, files, seed=h.seed)

    def dataset(self, train: bool) -> KeypointCrops:
        h = self.hparams
        truth = read_people(self.root / "annotations" / (h.train_file if train else h.val_file))
        if h.train_file == h.val_file:
            half = len(truth.records) // 2
            truth = replace(truth, records=truth.records[:half] if train else truth.records[half:])
        return self.crops(train, truth, ImageFolders(self.root / "images"))
