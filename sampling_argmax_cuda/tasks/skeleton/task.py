"""The task skeleton: keypoints of point clouds (Skeleton Merger) without labels, scored by how they agree between models."""

from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...objectives.regularized import VarianceRegularized
from ...objectives.targets import Target
from ...trainers.figures import cloud_axes, put_points, save_figure
from ...trainers.trained_module import rank_mean
from ..keypointnet.task import PointCloudData, PointCloudModule
from .chamfer import composite_chamfer
from .metrics import AlignmentEvaluation
from .model import Merger
from .reader import PlainClouds

OBJECTIVES = ("soft", "soft_vr", "soft_dr", "sampling")


def normalised(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Point clouds ``[B, N, 3]`` in [-1, 1] by one number each, with middle and scale ``[B, 1, 1]`` of the way back."""
    low, high = (f(points.flatten(1), 1).values.view(-1, 1, 1) for f in (torch.min, torch.max))
    middle, scale = (low + high) / 2, ((high - low) / 2).clamp(min=1e-9)
    return (points - middle) / scale, middle, scale


class SkeletonMerger(PointCloudModule):
    """Unsupervised keypoints: a skeleton of edges between them, with learnt strengths, has to cover the cloud.

    The keypoint layer is soft-argmax, or in training samples of sampling-argmax, of which each makes a skeleton: the loss
    is the expectation of the composite chamfer distance. VR and DR follow the map's own mean, for there is no target.

    Args:
        keypoints: number of keypoints, >= 2.
        grouping: ssg (single-scale) or msg (multi-scale).
        offset_weight: factor, >= 0, of the squared offsets of the edges' points.
        self_pairs: count a model with itself in the alignment scores, as the published script does.
    """

    task, best = "skeleton", ("das", "max")
    free = PointCloudModule.free | {"model.self_pairs"}

    def __init__(
        self,
        keypoints: int = 10,
        grouping: str = "msg",
        offset_weight: float = 0.01,
        self_pairs: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        h = self.hparams
        if h.objective["name"] not in OBJECTIVES:
            raise ValueError(f"model: task skeleton has objectives {', '.join(OBJECTIVES)}, got {h.objective['name']}")
        if h.objective.get("spread", 0) != 0:
            raise ValueError("model: task skeleton compares point clouds and no samples with a target, so spread must be 0, got "
                             f"{h.objective['spread']}")  # fmt: skip
        if not offset_weight >= 0:
            raise ValueError(f"model: offset_weight must be >= 0, got {offset_weight}")
        self.model = Merger(keypoints, grouping, h.centers, h.width, h.norm)
        self.evaluation = AlignmentEvaluation(self_pairs)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.trainer.accumulate_grad_batches > 1:
            raise ValueError("trainer: task skeleton has no accumulate_grad_batches: an edge's points follow from its mean "
                             f"length over the whole batch, got {self.trainer.accumulate_grad_batches}")  # fmt: skip

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B, K, N]`` and strengths of the edges ``[B, E]`` of point clouds ``[B, N, 3]`` in [-1, 1]."""
        return self.model(points)

    def step_loss(self, batch: dict[str, Tensor]) -> Tensor:
        cloud, _, scale = normalised(batch["points"])
        logits, strength = self(cloud)
        sigma, h = self.sigma(batch) / scale.squeeze(-1), self.hparams
        draws = self.objective.samples(logits, cloud, sigma=sigma, seed=self.row_seed(logits))
        if draws is not None:
            # [B, K, S, 3]: every sample is a skeleton of its own.
            count = draws.shape[2]
            keypoints = draws.transpose(1, 2).flatten(0, 1)
            cloud, strength = (x.repeat_interleave(count, 0) for x in (cloud, strength))
        else:
            keypoints = self.objective.read_as_trained(logits, cloud)[0]
        parts, used = self.model.skeleton(keypoints, rank_mean(self.model.lengths(keypoints)))
        loss = composite_chamfer(cloud.to(parts.dtype), parts, used, strength).mean()
        if isinstance(self.objective, VarianceRegularized):
            # There is no target: the map's own mean is the middle of its distribution.
            own = Target(self.objective.read_as_trained(logits, cloud)[0], points=cloud, sigma=sigma)
            loss = loss + self.objective.reg_weight * self.objective.penalty(logits, own).mean()
        return h.loss_scale * (loss + h.offset_weight * self.model.offsets.square().sum())

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        cloud, middle, scale = normalised(batch["points"])
        logits, strength = self(cloud)
        keypoints = self.objective.read(logits, cloud)[0]
        self.evaluation.add(batch, keypoints * scale + middle)
        if index == 0 and self.trainer.is_global_zero:
            self.preview = {"cloud": cloud, "logits": logits, "strength": strength, "keypoints": keypoints,
                            "sigma": self.sigma(batch) / scale.squeeze(-1)}  # fmt: skip

    def predict_step(self, batch: dict[str, Tensor], _: int) -> dict[str, object]:
        cloud, middle, scale = normalised(batch["points"])
        logits, strength = self(cloud)
        keypoints = self.objective.read(logits, cloud)[0]
        return {**batch, "cloud": cloud, "logits": logits, "strength": strength, "keypoints": keypoints,
                "sigma": self.sigma(batch) / scale.squeeze(-1), "position": keypoints * scale + middle}  # fmt: skip

    def write_prediction(self, item: dict[str, object], folder: Path, maps: bool) -> dict[str, object]:
        shown = {name: item[name].float().cpu() for name in ("cloud", "logits", "strength", "keypoints", "sigma")}
        save_figure(self._figure(shown), folder / f"{item['overlay']}.png")
        edges = [[int(a), int(b), float(s)] for (a, b), s in zip(self.model.pairs.T, item["strength"][0], strict=True)]
        return {"file_name": item["file_name"], "keypoints": item["position"][0].tolist(), "edges": edges}

    def figures(self) -> Iterator[tuple[str, Figure]]:
        yield "skeletons", self._figure({name: value[:4].float().cpu() for name, value in self.preview.items()})

    def _figure(self, shown: dict[str, Tensor]) -> Figure:
        """Point clouds (y up), keypoints by colour, 20 samples of each if there are any, and the edges as strong as they are."""
        figure = Figure(figsize=(4 * len(shown["cloud"]), 4), layout="constrained")
        draws = self.objective.samples(shown["logits"], shown["cloud"], num_samples=20, sigma=shown["sigma"], seed=0)
        pairs = self.model.pairs.T.tolist()
        for i, axes in enumerate(cloud_axes(figure, shown["cloud"])):
            keypoints = shown["keypoints"][i]
            for k in range(len(keypoints)):
                if draws is not None:
                    put_points(axes, draws[i, k], ".", color=f"C{k}", ms=2)
                put_points(axes, keypoints[k : k + 1], "o", color=f"C{k}", ms=5)
            for edge, strength in zip(pairs, shown["strength"][i].tolist(), strict=True):
                if strength > 0.1:
                    put_points(axes, keypoints[edge], "-", color="black", alpha=strength, lw=1)
        return figure


class SkeletonData(PointCloudData):
    """Point clouds of one category of KeypointNet: ``root`` has pcds/CLASS/MODEL.pcd and, if only some of them are used, splits/.

    annotations/CATEGORY.json is needed to score a validation, and for nothing else.
    """

    def dataset(self, train: bool) -> PlainClouds:
        h = self.hparams
        noise, shift = h.noise * train, h.shift * train
        return PlainClouds(self.root, h.category, self.split(train), not train, noise, shift, h.seed)
