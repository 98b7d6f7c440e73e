"""The task oct: nine retinal surfaces of flat B-scans, one map a column and surface."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...distances import mask_rows, weigh_rows
from ...objectives.cross_entropy import cell_entropy
from ...objectives.targets import Target
from ...trainers.data import TaskData
from ...trainers.figures import save_figure
from ...trainers.files import files_of
from ...trainers.objective_module import ObjectiveModule
from .delineation import SURFACES
from .metrics import SurfaceEvaluation
from .model import SurfaceNet
from .reader import FlatScans, find_volumes, is_volume
from .synthetic import write_synthetic_oct

# The published split of MSHC: healthy controls and patients.
TRAIN = ("hc10", "hc11", "hc12", "hc13", "hc14", *(f"ms{i:02d}" for i in range(15, 22)))
VAL = ("hc09", "ms13", "ms14")
TEST = (*(f"hc{i:02d}" for i in range(1, 9)), *(f"ms{i:02d}" for i in range(1, 13)))


def rows_of(maps: Tensor) -> Tensor:
    """Maps ``[B, C, H, W]`` as one row a surface and column, ``[B, C W, H]``."""
    return maps.transpose(2, 3).flatten(1, 2)


class RetinalSurfaces(ObjectiveModule):
    """Retinal surfaces: a map down every column, ordered surfaces, scored in pixels and micrometres.

    Args:
        width: channels of the U-Net, >= 1.
        norm: batch, frozen (running statistics only) or group.
        ordered: let no surface lie above the one before it, by a running maximum, in training and in evaluation.
        ce_weight: factor, >= 0, of the cross-entropy of the true row, added to the loss.
    """

    task, best = "oct", ("mad_px", "min")

    def __init__(
        self, width: int = 64, norm: str = "batch", ordered: bool = True, ce_weight: float = 0.0, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        if not ce_weight >= 0:
            raise ValueError(f"model: ce_weight must be >= 0, got {ce_weight}")
        name = self.hparams.objective["name"]
        if self.objective.regresses or self.objective.predicts_sigma:
            raise ValueError(f"model: task oct needs an objective with maps alone, got {name}")
        if ce_weight > 0 and not self.objective.logits:
            raise ValueError(f"model: ce_weight needs an objective whose maps are logits, got {name}")
        if ordered:
            self.objective.constraint = self.in_order
        self.model = SurfaceNet(len(SURFACES), width, norm)
        self.evaluation = SurfaceEvaluation()

    @staticmethod
    def in_order(position: Tensor) -> Tensor:
        """Positions ``[B, 9 W, ...]`` with every surface at or below the one before it."""
        return position.unflatten(1, (len(SURFACES), -1)).cummax(1).values.flatten(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, 9 W, H]`` of B-scans ``[B, 1, H, W]``."""
        return rows_of(self.model(images))

    def rows(self, batch: dict[str, Tensor]) -> tuple[Tensor, Target]:
        target = Target(
            batch["target"].flatten(1).unsqueeze(-1), batch["weight"].flatten(1), (batch["image"].shape[2],)
        )
        return self(batch["image"]), target

    def extra_loss(self, output: Tensor, target: Target) -> Tensor | float:
        if self.hparams.ce_weight == 0:
            return 0.0
        entropy = cell_entropy(mask_rows(output, target.weight), target.known(), self.objective.beta)
        return self.hparams.ce_weight * weigh_rows(entropy, target.weight)

    def surfaces(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and surfaces ``[B, 9, W]`` in rows."""
        output = self(images)
        return output, self.objective.read(output)[0].squeeze(-1).unflatten(1, (len(SURFACES), -1))

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        output, found = self.surfaces(batch["image"])
        self.evaluation.add(batch, found)
        if index == 0 and self.trainer.is_global_zero:
            truth = torch.where(batch["weight"] > 0, batch["target"], torch.nan)
            self.preview = {"image": batch["image"][0, 0], "output": output[:1], "found": found[0], "truth": truth[0]}

    def figures(self) -> Iterator[tuple[str, Figure]]:
        yield "surfaces", self._figure(**self.preview)

    def _figure(self, image: Tensor, output: Tensor, found: Tensor, truth: Tensor | None = None) -> Figure:
        """A B-scan; on it predictions (red) and truths (green), and the spread of 50 samples of every surface, if it has any."""
        height, width = image.shape
        figure = Figure(figsize=(15, 5 * min(1.5, height / width) + 0.5), layout="constrained")
        plain, lines, spread = figure.subplots(1, 3)
        for axes in (plain, lines, spread):
            axes.imshow(image.cpu(), cmap="gray", aspect="auto")
            axes.set_axis_off()
        lines.plot(found.float().cpu().T, "-", color="red", lw=0.8)
        if truth is not None:
            lines.plot(truth.cpu().T, "-", color="lime", lw=0.8)
        lines.set_title("prediction (red), truth (green)" if truth is not None else "prediction", fontsize=9)
        draws, title = (
            self.objective.samples(output, num_samples=50, seed=0),
            f"{self.hparams.objective['name']} has no samples",
        )
        if draws is not None:
            draws, title = draws[0, ..., 0].unflatten(0, (len(SURFACES), -1)), "samples: mean ± one deviation"
            middle, deviation = draws.mean(-1).cpu(), draws.std(-1).cpu()
            for k in range(len(SURFACES)):
                low, high = (middle - deviation)[k], (middle + deviation)[k]
                spread.fill_between(np.arange(width), low, high, color=f"C{k}", alpha=0.6)
        spread.set_title(title, fontsize=9)
        return figure

    def predict_step(self, batch: dict[str, Tensor], _: int) -> dict[str, object]:
        output, found = self.surfaces(batch["image"])
        return {**batch, "output": output, "found": found}

    def write_prediction(self, item: dict[str, object], folder: Path, maps: bool) -> dict[str, object]:
        if maps:
            figure = self._figure(item["image"][0, 0], item["output"], item["found"][0])
            save_figure(figure, folder / f"{item['overlay']}_maps.png")
        surfaces = (item["found"][0].float() + item["offset"][0]).cpu()[:, : int(item["columns"])]
        return {"file_name": item["file_name"], "scan": int(item["scan"]), "surfaces": surfaces.tolist()}


class OctData(TaskData):
    """OCT volumes: ``root`` has volumes/NAME.vol and delineations/NAME.mat.

    Args:
        root: folder with volumes/ and delineations/; synthetic data is written here.
        train_subjects: how the names of the training volumes begin; those of the published split.
        val_subjects: how the names of the validation volumes begin.
        volumes: folder of .vol files to predict on.
        rows: rows of the flat image, a multiple of 16.
    """

    inputs = frozenset({"volumes"})
    shared = TaskData.shared | {"rows"}

    def __init__(
        self,
        root: str = "data/oct",
        train_subjects: tuple[str, ...] = TRAIN,
        val_subjects: tuple[str, ...] = VAL,
        volumes: str | None = None,
        rows: int = 128,
        **kwargs,
    ) -> None:
        super().__init__(root=root, **kwargs)

    def subjects(self, train: bool) -> list[str]:
        """The volumes of a split; of synthetic ones there are as many as were asked for."""
        h = self.hparams
        names = list(h.train_subjects if train else h.val_subjects)
        if not h.synthetic:
            return names
        count = h.synthetic_train if train else h.synthetic_val
        return (names + [f"drawn{'train' if train else 'val'}{i:03d}" for i in range(count)])[:count]

    def write_synthetic(self) -> None:
        write_synthetic_oct(self.root, self.subjects(True), self.subjects(False), seed=self.hparams.seed)

    def dataset(self, train: bool) -> FlatScans:
        h, flip = self.hparams, self.hparams.flip if train else 0.0
        volumes = find_volumes(self.root / "volumes", self.subjects(train))
        return FlatScans(volumes, h.rows, self.root / "delineations", flip, h.seed)

    def to_predict(self) -> FlatScans:
        folder = self.hparams.volumes
        if folder is None:
            raise ValueError("predict: --data.volumes must name a folder of .vol files")
        found, left_out = files_of(folder, is_volume, ".vol file")
        data = FlatScans(found, self.hparams.rows)
        data.left_out = left_out
        return data
