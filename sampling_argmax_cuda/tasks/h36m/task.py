"""The task h36m: 3-D poses of people: its module and its data."""

from collections.abc import Iterator

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...trainers.data import LandmarkData, check_count
from ...trainers.figures import draw_in_space
from ...trainers.landmark_module import LandmarkModule
from .metrics import PoseEvaluation
from .reader import LIFTS, SIDE_MM, H36mPoses, HalfAndHalf, MpiiPeople
from .skeletons import BODY, PELVIS
from .synthetic import write_synthetic_h36m


class H36mPose(LandmarkModule):
    """3-D poses of people: Human3.6M's joints in a volume, scored by MPJPE in mm.

    Args:
        volume: cells of the maps' depth axis, >= 1 (released 32, Integral Pose 64).
        lift: from the volume to mm: camera (intrinsics and true depth of the pelvis) or bones (their total length).
        bones_mm: total length of the bones, > 0, that lift bones gives every pose (4502.881 in the challenge's data).
    """

    task, landmarks, best = "h36m", BODY, ("mpjpe_mm", "min")
    linked, axes = {**LandmarkModule.linked, "volume": "volume", "lift": "lift"}, 3

    def __init__(self, volume: int = 64, lift: str = "camera", bones_mm: float = 4502.881, **kwargs) -> None:
        super().__init__(**kwargs)
        if lift not in LIFTS:
            raise ValueError(f"model: lift must be one of {', '.join(LIFTS)}, got {lift!r}")
        if not bones_mm > 0:
            raise ValueError(f"model: bones_mm must be > 0, got {bones_mm}")
        self.evaluation = PoseEvaluation(lift, bones_mm)

    @property
    def volume(self) -> int:
        return self.hparams.volume

    def to_image(self, position: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Positions in cells to pixels of the images and depth behind the pelvis, in mm or (lift bones) in pixels."""
        pixels = super().to_image(position[..., :2], batch)
        side = pixels.new_full((len(pixels), 1), SIDE_MM)
        if self.hparams.lift == "bones":
            side = batch["image"].shape[-1] * batch["inverse"][:, :, 0].norm(dim=-1, keepdim=True)
        depth = (position[..., 2] / self.hparams.volume - 0.5) * side
        return torch.cat([pixels, depth.unsqueeze(-1)], -1)

    def prediction(self, pixels, peak) -> dict[str, object]:
        depth = (pixels[:, 2] - pixels[PELVIS, 2]).tolist()
        return {**super().prediction(pixels, peak), "depth": depth}

    def figures(self) -> Iterator[tuple[str, Figure]]:
        yield from super().figures()
        yield "in_space", self._in_space(self.preview)

    def _in_space(self, preview: dict[str, Tensor]) -> Figure:
        """Predictions (red) and truths (green) of a validation, in mm of a volume seen from the camera."""
        rows = min(4, len(preview["position"]))
        figure = Figure(figsize=(3.2 * rows, 3.2), layout="constrained")
        cells = preview["image"].shape[-1] / self.hparams.stride
        scale = torch.tensor([SIDE_MM / cells, SIDE_MM / cells, SIDE_MM / self.hparams.volume])
        for i in range(rows):
            axes = figure.add_subplot(1, rows, i + 1, projection="3d")
            poses = {color: (preview[name][i].float().cpu() * scale).numpy()
                     for color, name in (("green", "target"), ("red", "position"))}  # fmt: skip
            draw_in_space(axes, {color: pose - pose[PELVIS] for color, pose in poses.items()}, BODY.bones)
        return figure


class H36mData(LandmarkData):
    """Human3.6M, and MPII as its flat half. ``root`` has annotations/, images/, and mpii/ with the same two.

    Args:
        root: folder with annotations/, images/ and mpii/; synthetic data is written here.
        train_file: training annotations under root/annotations.
        val_file: validation annotations under root/annotations.
        mpii_file: annotations under root/mpii/annotations of the flat half of every epoch; null to train without.
        epoch_size: samples, >= 1, of each half an epoch, drawn anew; null for all of Human3.6M.
        volume: cells of the depth axis, as the model's.
        lift: what the volume's depth is, as the model's.
        occlusion: probability, in [0, 1], of a rectangle of noise over 0 to 70 % of the crop.
    """

    normal = True

    def __init__(
        self,
        root: str = "data/h36m",
        train_file: str = "Sample_trainmin_train_Human36M_protocol_2.json",
        val_file: str = "Sample_64_test_Human36M_protocol_2.json",
        mpii_file: str | None = "annot_mpii.json",
        epoch_size: int | None = None,
        volume: int = 64,
        lift: str = "camera",
        occlusion: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(root=root, **kwargs)
        check_count("volume", volume, 1)
        if epoch_size is not None:
            check_count("epoch_size", epoch_size, 1)

    def write_synthetic(self) -> None:
        h = self.hparams
        files = (h.train_file, h.val_file, h.mpii_file or "annot_mpii.json")
        write_synthetic_h36m(self.root, h.synthetic_train, h.synthetic_val, files, seed=h.seed)

    def dataset(self, train: bool):
        h = self.hparams
        sizes = dict(image_size=tuple(h.image_size), heatmap_size=self.heatmap_size, volume=h.volume, seed=h.seed,
                     augment=self.augment if train else None)  # fmt: skip
        path = self.root / "annotations" / (h.train_file if train else h.val_file)
        poses = H36mPoses(self.root, path, lift=h.lift, train=train, **sizes)
        if not train or h.mpii_file is None:
            return poses
        flat = self.root / "mpii"
        return HalfAndHalf(poses, MpiiPeople(flat, flat / "annotations" / h.mpii_file, **sizes), h.seed, h.epoch_size)
