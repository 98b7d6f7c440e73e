"""The task keypointnet: semantic keypoints of point clouds, one map of logits over the points a keypoint."""

from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...objectives.targets import Target
from ...trainers.data import TaskData
from ...trainers.figures import cloud_axes, put_points, save_figure
from ...trainers.objective_module import ObjectiveModule
from .metrics import THRESHOLDS, KeypointEvaluation
from .pointnet import PointNet
from .reader import CloudFolder, KeypointClouds
from .synthetic import write_synthetic_keypointnet


def nearest_copy(position: Tensor, copies: Tensor, weight: Tensor) -> Tensor:
    """The rotated copy ``[B, K, 3]`` of ``copies`` ``[B, C, K, 3]`` nearest to positions ``[B, K, 3]`` of weight 1."""
    distance = (copies - position.unsqueeze(1)).norm(dim=-1)
    distance = torch.where(weight.unsqueeze(1) > 0, distance, 0).sum(-1)
    return copies[torch.arange(len(copies), device=copies.device), distance.argmin(1)]


class PointCloudModule(ObjectiveModule):
    """What the tasks on point clouds share: the gaussian basis, as wide as neighbouring points are apart.

    Args:
        centers: centres of PointNet++'s four levels.
        width: factor of the networks' channels, > 0.
        norm: batch, frozen (running statistics only) or group.
        spacing: width, > 0, of the gaussian basis (and of VR's and DR's target) in mean distances of neighbouring points.
    """

    def __init__(
        self,
        centers: tuple[int, ...] = (1024, 256, 64, 16),
        width: float = 1.0,
        norm: str = "batch",
        spacing: float = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        h = self.hparams
        basis, estimator = h.objective.get("basis", "none"), h.objective.get("estimator", "cell")
        if basis not in ("none", "gaussian") or estimator != "cell":
            raise ValueError(
                f"model: point clouds have basis none or gaussian and estimator cell, got {basis} and {estimator}"
            )
        if h.decoder == "local" and h.decoder_radius is None:
            raise ValueError(
                "model: point clouds have no cells, so decoder local needs a decoder_radius in their units"
            )
        if not spacing > 0:
            raise ValueError(f"model: spacing must be > 0, got {spacing}")

    def sigma(self, batch: dict[str, Tensor]) -> Tensor:
        """The width of the gaussian basis ``[B, 1]`` in the units of the files."""
        return self.hparams.spacing * batch["sigma"].unsqueeze(1)


class PointCloudKeypoints(PointCloudModule):
    """Keypoints of point clouds by PointNet++, scored by PCK at 0.01 to 0.10 (geodesic and Euclidean) and mIoU.

    A model with a rotational symmetry is trained towards, and scored against, the copy of its keypoints that fits best.

    Args:
        keypoints: semantic keypoints of the category (chair 21, those synthetic: chair 10, table 8, bottle 3).
        grouping: ssg (single-scale) or msg (multi-scale).
        dropout: share of the last features that training drops, in [0, 1).
    """

    task, best = "keypointnet", ("pck_0.05", "max")
    linked = {"keypoints": "labels"}

    def __init__(self, keypoints: int = 21, grouping: str = "ssg", dropout: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        h = self.hparams
        if not self.objective.point_sets:
            raise ValueError(f"model: objective {h.objective['name']} needs a grid")
        self.model = PointNet(keypoints, grouping, h.centers, h.width, dropout, h.norm)
        self.evaluation = KeypointEvaluation()

    def forward(self, points: Tensor) -> Tensor:
        """Logits ``[B, K, N]`` of point clouds ``[B, N, 3]``."""
        return self.model(points)[0]

    def rows(self, batch: dict[str, Tensor]) -> tuple[Tensor, Target]:
        output, points = self(batch["points"]), batch["points"]
        with torch.no_grad():
            position = self.objective.read_as_trained(output, points)[0]
            position = nearest_copy(position, batch["copies"], batch["weight"])
        return output, Target(position, batch["weight"], (1, 1, 1), points=points, sigma=self.sigma(batch))

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        output = self(batch["points"])
        position, _ = self.objective.read(output, batch["points"])
        self.evaluation.add(batch, position)
        if index == 0 and self.trainer.is_global_zero:
            truth = nearest_copy(position, batch["copies"], batch["weight"])
            self.preview = {"points": batch["points"], "output": output, "position": position, "truth": truth,
                            "weight": batch["weight"], "sigma": batch["sigma"]}  # fmt: skip

    def predict_step(self, batch: dict[str, Tensor], _: int) -> dict[str, object]:
        output = self(batch["points"])
        return {**batch, "output": output, "position": self.objective.read(output, batch["points"])[0]}

    def write_prediction(self, item: dict[str, object], folder: Path, maps: bool) -> dict[str, object]:
        shown = {name: item[name] for name in ("points", "output", "position", "sigma")}
        save_figure(self._figure(shown), folder / f"{item['overlay']}.png")
        return {"file_name": item["file_name"], "keypoints": item["position"][0].tolist()}

    def figures(self) -> Iterator[tuple[str, Figure]]:
        rows = min(4, len(self.preview["points"]))
        yield "point_clouds", self._figure({name: value[:rows] for name, value in self.preview.items()})
        figure = Figure(figsize=(4.5, 3.2), layout="constrained")
        axes = figure.subplots()
        for name, values in self.evaluation.curves.items():
            axes.plot(THRESHOLDS, values, "o-", ms=3, label=name)
        axes.set(xlabel="threshold", ylim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        yield "thresholds", figure

    def _figure(self, shown: dict[str, Tensor]) -> Figure:
        """Point clouds with found (red) and true (green) keypoints and, if the objective has any, 30 samples of each (cyan)."""
        figure = Figure(figsize=(4 * len(shown["points"]), 4), layout="constrained")
        draws = self.objective.samples(
            shown["output"], shown["points"], num_samples=30, sigma=self.sigma(shown), seed=0
        )
        for i, axes in enumerate(cloud_axes(figure, shown["points"].float().cpu())):
            if draws is not None:
                put_points(axes, draws[i].flatten(0, 1).cpu(), ".", color="cyan", ms=2)
            if "truth" in shown:
                put_points(axes, shown["truth"][i][shown["weight"][i] > 0].cpu(), "o", color="green", ms=5)
            put_points(axes, shown["position"][i].float().cpu(), "x", color="red", ms=5)
        return figure


class PointCloudData(TaskData):
    """What the data of the tasks on point clouds share: one category of KeypointNet.

    Args:
        root: folder with annotations/, pcds/ and splits/; synthetic data is written here.
        category: one of KeypointNet's 16; synthetic are chair, table and bottle.
        train_split: name of the training split, a file of splits/.
        val_split: name of the validation split.
        noise: deviation, >= 0, of every point in training, clipped at 2.5 of them.
        shift: largest move, >= 0, of a point cloud on each axis in training.
        points: points of a synthetic cloud, >= 1.
        point_clouds: folder of .pcd files to predict on.
    """

    inputs = frozenset({"point_clouds"})

    def __init__(
        self,
        root: str = "data/keypointnet",
        category: str = "chair",
        train_split: str = "train",
        val_split: str = "val",
        noise: float = 0.004,
        shift: float = 0.02,
        points: int = 2048,
        point_clouds: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(root=root, **kwargs)

    def write_synthetic(self) -> None:
        h = self.hparams
        write_synthetic_keypointnet(self.root, h.category, h.synthetic_train, h.synthetic_val, h.points, h.seed)

    def split(self, train: bool) -> str:
        """The name of the split; synthetic ones have their own."""
        h = self.hparams
        return ("train" if train else "val") if h.synthetic else h.train_split if train else h.val_split

    def to_predict(self) -> CloudFolder:
        if self.hparams.point_clouds is None:
            raise ValueError("predict: --data.point_clouds must name a folder of .pcd files")
        return CloudFolder(self.hparams.point_clouds)


class KeypointNetData(PointCloudData):
    """One category of KeypointNet: ``root`` has annotations/CATEGORY.json, pcds/CLASS/MODEL.pcd and splits/.

    Args:
        labels: semantic keypoints that samples have room for; null for those of the category.
    """

    def __init__(self, labels: int | None = None, **kwargs) -> None:
        super().__init__(**kwargs)

    def dataset(self, train: bool) -> KeypointClouds:
        h = self.hparams
        noise, shift = h.noise * train, h.shift * train
        return KeypointClouds(self.root, h.category, self.split(train), noise, shift, h.seed, h.labels)
