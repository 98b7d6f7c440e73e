"""The tasks that train a method of localization, and those on images: a network of maps and test-time averaging."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..objectives.losses import reduce_loss
from ..objectives.methods import make_method
from ..objectives.objective import Located, place_of
from ..objectives.targets import Target
from .figures import maps_figure, overlay_figure, prediction_figure, save_figure
from .files import read_image
from .landmarks import Landmarks
from .resnet import PoseNet, RegressionNet
from .test_time import Member, Views
from .training import TrainedModule, rank_mean, step_seed
from .weights import read_checkpoint, start_from

REDUCTIONS = ("mean", "batch", "visible", "axes")


class TaskModule(TrainedModule):
    """Trains one of the methods that the paper compares. A task says what the network is and what it is scored by.

    Args:
        method: soft, soft_vr, soft_dr, debiased, discrete, sampling, heatmap, cross_entropy, direct, rle, soft_rle or
            sampling_rle (README: methods).
        estimator: sampling's noise: cell (the paper's) or axis (the released code's).
        basis: none, uniform, triangular or gaussian.
        num_samples: samples a map, S.
        tau: temperature: a number, or the released schedule "coco" or "h36m".
        beta: factor of the logits, of samples as of the maps that are read; or "tau" for the released form of samples
            softmax(z + g / tau), whose maps are softmax(z). heatmap, direct and rle have no softmax.
        sigma: width of the gaussian basis in cells.
        reweight: exponent of the released reweighting of the gaussian basis, 2 in 2-D, 0 in 3-D (axis estimator).
        clip_grad: A of the released clipped gradient (axis estimator only); null for the true one.
        metric: distance to the target: l1, l2, euclidean or smooth_l1.
        units: coordinates that the distance is in: index (cells), centered, unit, cell (DSNT's) or corners.
        loss_scale: factor of the loss; the released 3-D code has 64, with units centered and reduction axes.
        reduction: mean, batch (sum / B, as released), visible (sum / visible points) or axes (sum / known coordinates).
        reg_weight: factor of the regulariser of soft_vr and soft_dr.
        target_sigma: width in cells that the regulariser wants, and that of heatmap's Gaussian maps.
        rle_form: corrected or released: whether RLE counts the width once, as its paper, or twice, as its code.
        rle_density: what RLE's flow is a residual of: laplace, gaussian, or the released code's mixture of both.
        rle_flow_lr: the flow's learning rate as a factor of the network's.
    """

    def __init__(
        self,
        method: str = "sampling",
        estimator: str = "cell",
        basis: str = "triangular",
        num_samples: int = 30,
        tau: float | str = "coco",
        beta: float | str = 1.0,
        sigma: float = 1.0,
        reweight: float = 0.0,
        clip_grad: float | None = None,
        metric: str = "l1",
        units: str = "index",
        loss_scale: float = 1.0,
        reduction: str = "batch",
        reg_weight: float = 1.0,
        target_sigma: float = 2.0,
        rle_form: str = "corrected",
        rle_density: str = "laplace",
        rle_flow_lr: float = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not loss_scale > 0:
            raise ValueError(f"model: loss_scale must be > 0, got {loss_scale}")
        if not rle_flow_lr > 0:
            raise ValueError(f"model: rle_flow_lr must be > 0, got {rle_flow_lr}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"model: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        self.method = make_method(self.hparams)
        self._counts: list[Tensor] = []  # known points (or coordinates) of the batches of a step

    def rows(self, batch: dict[str, Tensor]) -> tuple[Tensor | Located | list[Tensor], Target]:
        """The network's output ``[B, K, ...]`` for a batch of training, and where the points are.

        A list of outputs is one of each stage of the network: every one is trained, alike.
        """
        raise NotImplementedError

    # ---- training ----

    free = TrainedModule.free | {"rle_flow_lr"}

    def rates(self) -> dict[str, float]:
        return {**super().rates(), "method": self.hparams.rle_flow_lr}  # a method's parameters are RLE's flow

    def begin_epoch(self) -> None:
        super().begin_epoch()
        self.method.set_epoch(self.current_epoch)  # the temperature

    def epoch_numbers(self) -> dict[str, float]:
        return {"tau": self.tau, **super().epoch_numbers()}

    def row_seed(self, output: Tensor) -> Tensor:
        """The seed of a step's noise: a rank draws that of its rows of the global batch, in each of its parts."""
        first_row = (self.micro_batch * self.trainer.world_size + self.global_rank) * output.shape[0] * output.shape[1]
        return step_seed(self.hparams.seed, self.global_step, first_row, output.device)

    def step_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch."""
        outputs, target = self.rows(batch)
        return self.stage_loss(outputs if isinstance(outputs, list) else [outputs], target, batch)

    def stage_loss(self, outputs: list[Tensor | Located], target: Target, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch from the outputs of every stage of the network."""
        total = 0
        for output in outputs:
            per_point = self.method.loss(output, target, self.row_seed(place_of(output)))
            total = total + self._reduce(per_point + self.extra_loss(output, target), target)
        return self.hparams.loss_scale * total

    def extra_loss(self, output: Tensor, target: Target) -> Tensor | float:
        """What a task adds to the loss of every point ``[B, K]``."""
        return 0.0

    def _reduce(self, per_point: Tensor, target: Target) -> Tensor:
        reduction = self.hparams.reduction
        if reduction in ("mean", "batch"):
            return reduce_loss(per_point, reduction=reduction)
        target = target.known()
        known = 1 if reduction == "visible" else len(target.size) if target.axes is None else target.axes.sum(-1)
        # The count of all ranks: a mean of the ranks' means would weigh their points unequally.
        self._count = rank_mean((target.weight * known).sum())
        return per_point.sum() / self._count.clamp(min=1)

    def _adds_up_counts(self) -> bool:
        return self.trainer.accumulate_grad_batches > 1 and self.hparams.reduction in ("visible", "axes")

    def to_add_up(self, loss: Tensor) -> Tensor:
        if not self._adds_up_counts():
            return loss
        # Sums can be added up and means cannot; all points of the step are known after its last batch.
        self._counts.append(self._count)
        return loss * self._count.clamp(min=1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self._adds_up_counts():
            count = sum(self._counts).clamp(min=1) / len(self._counts)
            self._counts.clear()
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad /= count

    @property
    def tau(self) -> float:
        """The temperature of the samples, 1 for a method without samples."""
        return self.method.tau


class LocalizationModule(TaskModule):
    """Points on images: ResNet with a head, flip test, scales and ensembles.

    A task is a subclass: its landmarks, the metric of its best checkpoint and its evaluation.

    Args:
        depth: layers of the ResNet: 18, 34, 50, 101 or 152.
        head_channels: channels of the three deconvolutions.
        norm: batch, frozen (running statistics only) or group.
        weights: state dict to start from (torchvision's ResNet, or a checkpoint of this trainer).
        weights_strict: refuse weights that do not fit in every name and shape.
        weights_gain: factor of the loaded maps: a heatmap's peak of 1 is flat as logits, 10 makes it a peak.
        flip_test: average with the mirrored image in evaluation.
        scales: factors of the image's size that evaluation averages over.
        ensemble: checkpoints of the same task that evaluation averages with, each at its own image size.
        average: what evaluation averages: coords or maps.
    """

    free = TaskModule.free | {"flip_test", "scales", "ensemble", "average"}
    landmarks: Landmarks
    result_fields: Mapping[str, object] = {}  # what every record of the prediction file says besides

    def __init__(
        self,
        depth: int = 50,
        head_channels: int = 256,
        norm: str = "batch",
        weights: str | None = None,
        weights_strict: bool = False,
        weights_gain: float = 1.0,
        flip_test: bool = True,
        scales: tuple[float, ...] = (1.0,),
        ensemble: tuple[str, ...] = (),
        average: str = "coords",
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if average not in self.method.averages:
            known, name = " or ".join(self.method.averages), self.hparams.method
            raise ValueError(f"model: average must be {known} for method {name}, got {average!r}")
        self.model = self._network()
        if weights is not None:
            print(start_from(self.model, weights, weights_strict, weights_gain))
        self.views = Views(self.landmarks.mirrored(), flip_test, scales, average)
        self.members: list[Member] = []

    def _network(self) -> torch.nn.Module:
        h, points = self.hparams, len(self.landmarks)
        volume = h.get("volume")  # an option of the tasks in space
        if self.method.regresses:
            return RegressionNet(points, h.depth, h.norm, volume, self.method.widths)
        return PoseNet(points, h.depth, h.head_channels, h.norm, volume, self.method.widths)

    def map_size(self, images: Tensor) -> tuple[int, ...]:
        """Cells of the maps' axes x, y(, z)."""
        flat = (images.shape[-1] // 4, images.shape[-2] // 4)
        return flat if self.hparams.get("volume") is None else (*flat, self.hparams.volume)

    def forward(self, images: Tensor) -> Tensor | Located:
        """Logits ``[B, K, (D,) H/4, W/4]`` (positions in cells, for a method that regresses) of images ``[B, 3, H, W]``."""
        return self.model(images)

    def rows(self, batch: dict[str, Tensor]) -> tuple[Tensor, Target]:
        target = Target(batch["target"], batch["weight"], self.map_size(batch["image"]), batch.get("axes"))
        return self(batch["image"]), target

    # ---- evaluation ----

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage in ("validate", "predict") and not self.members:
            self.members = [self._member(path) for path in self.hparams.ensemble]

    def _member(self, path: str) -> Member:
        checkpoint = read_checkpoint(path, "model: ensemble checkpoint")
        if checkpoint["task"] != self.task:
            raise ValueError(f"model: ensemble checkpoint {path} is of task {checkpoint['task']}, not {self.task}")
        size = checkpoint["datamodule_hyper_parameters"]["image_size"]
        module = type(self).load_from_checkpoint(path, map_location="cpu", ensemble=(), weights=None).eval()
        own, other = self.method, module.method
        if self.hparams.average == "maps" and ("maps" not in other.averages or own.logits != other.logits):
            names = f"{module.hparams.method} beside {self.hparams.method}"
            raise ValueError(
                f"model: average maps needs maps of one kind, but ensemble checkpoint {path} has method {names}"
            )
        return Member(module.model, module.method, tuple(size))

    def decode(self, images: Tensor) -> dict[str, Tensor]:
        """``position`` ``[B, K, d]`` in cells and ``peak`` ``[B, K]``, averaged over the views.

        Of the images themselves besides: the network's ``output`` and, if it has any, the widths ``sigma`` in cells.
        """
        for member in self.members:  # they are no part of this module, so nobody else moves them
            member.network.to(images.device)
        output, position, peak = self.views.read([Member(self.model, self.method), *self.members], images)
        found = {"output": place_of(output), "position": position, "peak": peak}
        if self.method.widths:
            found["sigma"] = self.method.in_cells(output.sigma, self.map_size(images))
        return found

    def to_image(self, position: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Positions in cells to pixels of the original images."""
        crop = torch.nn.functional.pad(position * 4, (0, 1), value=1.0)
        return torch.einsum("bij,bkj->bki", batch["inverse"].to(crop.dtype), crop)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        found = self.decode(batch["image"])
        pixels, truth = (self.to_image(x, batch) for x in (found["position"], batch["target"]))
        truth = torch.cat([truth, batch["weight"][..., None]], -1)
        self.evaluation.add(batch, found["position"], found["peak"], pixels, truth)
        if index == 0 and self.trainer.is_global_zero:
            self.preview = {"image": batch["image"], "target": batch["target"], "weight": batch["weight"], **found}

    def predict_step(self, batch: dict[str, Tensor], _: int) -> dict[str, object]:
        found = self.decode(batch["image"])
        pixels = self.to_image(found["position"], batch)
        return {**batch, "pixels": pixels, **found}

    def prediction(self, pixels: np.ndarray, peak: np.ndarray) -> dict[str, object]:
        """A record of the prediction file from positions ``[K, d]`` in the image and peaks ``[K]``."""
        keypoints = np.concatenate([pixels[:, :2], peak[:, None]], 1)
        return {"keypoints": keypoints.reshape(-1).tolist(), **self.result_fields, "score": float(peak.mean())}

    def write_prediction(self, item: dict[str, object], folder: Path, maps: bool) -> dict[str, object]:
        path, name = Path(item["file_name"]), item["picture"]
        pixels, peak = (item[key][0].float().cpu().numpy() for key in ("pixels", "peak"))
        overlay = prediction_figure(read_image(path), pixels[:, :2], self.landmarks.bones)
        save_figure(overlay, folder / f"{name}.png")
        if maps and not self.method.regresses:
            figure = maps_figure(item["image"][0], item["output"], self.method, item["position"][0],
                                 self.landmarks.names)  # fmt: skip
            save_figure(figure, folder / f"{name}_maps.png")
        about = self.trainer.datamodule.predict_data.about(int(item["index"]))
        return {"file_name": str(path), **about, **self.prediction(pixels, peak)}

    def figures(self) -> Iterator[tuple[str, Figure]]:
        yield "images", overlay_figure(self.preview, self.method, self.landmarks.bones)
