"""The training step that all tasks share: a network of maps, a localization method, and the metrics of the task."""

from collections.abc import Mapping
from pathlib import Path

import lightning
import torch
from torch import Tensor

from ..losses import discrete_expectation_loss, reduce_loss, soft_argmax_loss
from ..modules import SamplingArgmax
from ..ops import heatmap_moments
from ..regularizers import distribution_regularizer, variance_regularizer
from .coco import PERSON
from .evaluation import CocoEvaluation
from .landmarks import Landmarks
from .models import PoseNet, load_weights
from .mtfl import FACE, MtflEvaluation

METHODS = ("soft", "soft_vr", "soft_dr", "discrete", "sampling")


def step_seed(seed: int, step: int, first_row: int, device: torch.device) -> Tensor:
    """Key and first row of a step's noise: a pure function of the run's seed and the step."""
    return torch.tensor([seed << 32 | step, first_row], dtype=torch.int64, device=device)


class LocalizationModule(lightning.LightningModule):
    """Trains maps of logits with one of the methods that the paper compares, and evaluates their soft-argmax.

    A task is a subclass: its landmarks, the metric of its best checkpoint and its evaluation.

    Args:
        depth: layers of the ResNet: 18, 34, 50, 101 or 152.
        head_channels: channels of the three deconvolutions.
        norm: batch, frozen (running statistics only) or group.
        weights: state dict to start from (torchvision's ResNet, or a checkpoint of this trainer).
        method: soft, soft_vr (Eq. 15), soft_dr (Eq. 16), discrete (Eq. 4) or sampling (Eq. 14).
        estimator: sampling's noise: cell (the paper's) or axis (the released code's).
        basis: none, uniform, triangular or gaussian.
        num_samples: samples a map, S.
        tau: temperature: a number, or the released schedule "coco" or "h36m".
        beta: factor of the logits, or "tau" for the released form softmax(z + g / tau).
        sigma: width of the gaussian basis in cells.
        clip_grad: A of the released clipped gradient (axis estimator only); null for the true one.
        metric: distance to the target in cells: l1, l2, euclidean or smooth_l1.
        reduction: mean, batch (sum / B, as released) or visible (sum / visible joints).
        reg_weight: factor of the regulariser of soft_vr and soft_dr.
        reg_sigma: target width of the regulariser in cells.
        lr: learning rate of Adam.
        milestones: epochs at which the learning rate falls to a tenth.
        flip_test: average with the mirrored image in evaluation.
        seed: seed of the sampling noise.
    """

    landmarks: Landmarks
    best: tuple[str, str]  # a metric of the evaluation, and whether its min or max is best
    result_fields: Mapping[str, object] = {}  # what every record of the prediction file says besides

    def __init__(
        self,
        depth: int = 50,
        head_channels: int = 256,
        norm: str = "batch",
        weights: str | None = None,
        method: str = "sampling",
        estimator: str = "cell",
        basis: str = "triangular",
        num_samples: int = 30,
        tau: float | str = "coco",
        beta: float | str = 1.0,
        sigma: float = 1.0,
        clip_grad: float | None = None,
        metric: str = "l1",
        reduction: str = "batch",
        reg_weight: float = 1.0,
        reg_sigma: float = 2.0,
        lr: float = 1e-3,
        milestones: tuple[int, ...] = (90, 120),
        flip_test: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"model: method must be one of {', '.join(METHODS)}, got {method!r}")
        if not lr > 0:
            raise ValueError(f"model: lr must be > 0, got {lr}")
        if not 0 <= seed < 2**31:
            raise ValueError(f"model: seed must be in [0, 2**31), got {seed}")
        self.save_hyperparameters()
        self.model = PoseNet(len(self.landmarks), depth, head_channels, norm)
        if weights is not None:
            report = load_weights(self.model, weights)
            counts = ", ".join(f"{len(keys)} {name}" for name, keys in report.items())
            print(f"weights {Path(weights).name}: {counts}")
        self.sampler = SamplingArgmax(
            num_samples, basis, tau, beta, estimator, sigma=sigma, clip_grad=clip_grad
        )  # fmt: skip
        self.preview: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K, H/4, W/4]`` of images ``[B, 3, H, W]``."""
        return self.model(images)

    # ---- training ----

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=self.hparams.lr)

    def on_train_epoch_start(self) -> None:
        # Learning rate and temperature are functions of the epoch, so a resumed run needs nothing else to agree.
        passed = sum(self.current_epoch >= milestone for milestone in self.hparams.milestones)
        for group in self.optimizers().param_groups:
            group["lr"] = self.hparams.lr * 0.1**passed
        self.sampler.set_epoch(self.current_epoch)

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor, seed: Tensor) -> Tensor:
        """The method's loss of every keypoint, ``[B, K]``."""
        h = self.hparams
        if h.method == "sampling":
            return self.sampler.loss(logits, target, weight, metric=h.metric, seed=seed)
        if h.method == "discrete":
            return discrete_expectation_loss(logits, target, weight, metric=h.metric)
        loss = soft_argmax_loss(logits, target, weight, metric=h.metric)
        if h.method == "soft_vr":
            loss = loss + h.reg_weight * variance_regularizer(logits, h.reg_sigma, weight)
        if h.method == "soft_dr":
            loss = loss + h.reg_weight * distribution_regularizer(logits, target, h.reg_sigma, weight)
        return loss

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        logits = self(batch["image"])
        # A rank draws the noise of its rows of the global batch.
        first_row = self.global_rank * logits.shape[0] * logits.shape[1]
        seed = step_seed(self.hparams.seed, self.global_step, first_row, logits.device)
        per_keypoint = self.loss(logits, batch["target"], batch["weight"], seed)
        loss = reduce_loss(per_keypoint, batch["weight"], self.hparams.reduction)
        self.log(
            "train/loss",
            loss,
            prog_bar=True,
            on_step=True,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(logits),
        )
        self.log("tau", self.sampler.tau, on_step=False, on_epoch=True, batch_size=len(logits))
        return loss

    # ---- evaluation ----

    def decode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, positions ``[B, K, 2]`` in cells and peak probabilities ``[B, K]``, with the flip test if asked."""
        logits = self(images)
        moments = heatmap_moments(logits)
        if not self.hparams.flip_test:
            return logits, moments.mean, moments.peak
        mirrored = heatmap_moments(self(images.flip(-1)))
        swapped = self.landmarks.mirrored()
        position = mirrored.mean[:, swapped].clone()
        # Cell i is the left edge of the input's pixels 4i..4i+3 and pixel x mirrors to W_in - 1 - x.
        position[..., 0] = logits.shape[-1] - logits.shape[-1] / images.shape[-1] - position[..., 0]
        return logits, (moments.mean + position) / 2, (moments.peak + mirrored.peak[:, swapped]) / 2

    def to_image(self, position: Tensor, batch: dict[str, Tensor], map_width: int) -> Tensor:
        """Positions in cells to pixels of the original images."""
        stride = batch["image"].shape[-1] / map_width
        crop = torch.nn.functional.pad(position * stride, (0, 1), value=1.0)
        return torch.einsum("bij,bkj->bki", batch["inverse"], crop)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        logits, position, peak = self.decode(batch["image"])
        pixels, truth = (self.to_image(x, batch, logits.shape[-1]) for x in (position, batch["target"]))
        self.evaluation.add(batch, position, peak, pixels, torch.cat([truth, batch["weight"][..., None]], -1))
        if index == 0 and self.trainer.is_global_zero:
            self.preview = {"image": batch["image"], "logits": logits, "target": batch["target"],
                            "weight": batch["weight"], "position": position}  # fmt: skip

    def on_validation_epoch_end(self) -> None:
        metrics = self.evaluation.compute(self.trainer.datamodule.val_annotations, gather_objects)
        for name, value in metrics.items():  # every rank has the same numbers
            self.log(f"val/{name}", value, prog_bar=name in (self.best[0], "error"))

    def predict_step(self, batch: dict[str, Tensor], _: int) -> dict[str, object]:
        logits, position, peak = self.decode(batch["image"])
        pixels = self.to_image(position, batch, logits.shape[-1])
        return {"file_name": batch["file_name"], "keypoints": torch.cat([pixels, peak[..., None]], -1)}


class CocoPose(LocalizationModule):
    """2-D poses of people: COCO's 17 keypoints, scored by OKS-AP.

    Args:
        rescore: instance score: sum (box + mean + max of joints) or product (box * mean of joints > 0.2).
    """

    landmarks, best, result_fields = PERSON, ("AP", "max"), {"category_id": 1}

    def __init__(self, rescore: str = "sum", **kwargs) -> None:
        super().__init__(**kwargs)
        self.evaluation = CocoEvaluation(rescore)


class FaceLandmarks(LocalizationModule):
    """MTFL's five facial landmarks, scored by their distance in pixels of the image."""

    landmarks, best = FACE, ("abs_px", "min")

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.evaluation = MtflEvaluation()


def gather_objects(items: list) -> list:
    """The items of all ranks, in rank order."""
    if not torch.distributed.is_initialized():
        return items
    parts = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]
