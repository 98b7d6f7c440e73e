"""The tasks on images: a network of maps, test-time augmentation, predictions and figures."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..calibration.calibration import Calibration
from ..objectives.answers import SUB_DISTRIBUTIONS, Answer, answer_in, parts_of
from ..objectives.targets import Target
from .certainty import certainty, record_of
from .descriptions import check_description, describe
from .evaluation import MapEvaluation
from .figures import maps_figure, overlay_figure, prediction_figure, save_figure
from .landmarks import Landmarks
from .messages import tell
from .networks import make_network
from .objective_module import ObjectiveModule
from .pretrained import STRIDES, Pretrained
from .reading import covariance_to_image, to_image
from .resume import changed_options
from .tables import write_tables
from .trained_module import gather_objects
from .tta import STRIDE, EnsembleMember, TestTimeAugmentation
from .weights import read_checkpoint, start_from


class LandmarkModule(ObjectiveModule):
    """Landmarks on images: a back-bone with a head, and test-time augmentation: flip test, scales and ensembles.

    A task is a subclass: its landmarks, the metric of its best checkpoint and its evaluation.

    Args:
        depth: layers of the ResNet: 18, 34, 50, 101 or 152.
        head_channels: channels of the three deconvolutions, >= 1.
        gain: factor, > 0, that the head's maps are multiplied by: logits then grow faster at the same learning rate.
        norm: batch, frozen (running statistics only) or group.
        backbone: hf:NAME_OR_FOLDER (transformers) or timm:NAME, pretrained; null for the ResNet. A ViTPose or Sapiens2 brings its
            head along.
        backbone_config: what the backbone is, without its weights; a checkpoint says it.
        backbone_lr_factor: learning rate of the backbone as a factor of the others', >= 0; 0 freezes it, its statistics too.
        feature_level: which of the backbone's features, as the library counts them; null for the last.
        weights: state dict to start from (torchvision's ResNet, or a checkpoint of this trainer).
        weights_strict: refuse weights that do not fit in every name and shape.
        weights_gain: factor of the loaded maps, > 0: a heatmap's peak of 1 is flat as logits, 10 makes it a peak. It is of the maps
            of a backbone with a head, too.
        flip_test: average with the mirrored image in evaluation.
        scales: factors of the image's size, > 0, that evaluation averages over.
        ensemble: checkpoints of the same task that evaluation averages with, each at its own image size.
        average: what evaluation averages: coords or maps.
        regions: levels, in (0, 1), of the central regions that predictions have; none if empty.
        stride: pixels of the input a cell of the maps: 4, 8, 16 or 32, at most the backbone's.
        sub_distributions: what the network learns of every cell besides its logit: offset, where it lies, or offset_sigma, how
            wide its basis is too; null for neither.
    """

    linked = {"stride": "stride"}

    free = ObjectiveModule.free | {
        f"model.{name}" for name in ("flip_test", "scales", "ensemble", "average", "regions")
    }
    landmarks: Landmarks
    result_fields: Mapping[str, object] = {}  # what every record of the prediction file says besides

    def __init__(
        self,
        depth: int = 50,
        head_channels: int = 256,
        gain: float = 1.0,
        norm: str = "batch",
        backbone: str | None = None,
        backbone_config: dict | None = None,
        backbone_lr_factor: float = 1.0,
        feature_level: int | None = None,
        weights: str | None = None,
        weights_strict: bool = False,
        weights_gain: float = 1.0,
        flip_test: bool = True,
        scales: tuple[float, ...] = (1.0,),
        ensemble: tuple[str, ...] = (),
        average: str = "coords",
        regions: tuple[float, ...] = (),
        stride: int = STRIDE,
        sub_distributions: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if stride not in STRIDES:
            raise ValueError(f"model: stride must be one of {', '.join(map(str, STRIDES))}, got {stride}")
        if sub_distributions is not None:
            self._check_sub_distributions()
        if average not in self.objective.averages:
            known, name = " or ".join(self.objective.averages), self.hparams.objective["name"]
            raise ValueError(f"model: average must be {known} for objective {name}, got {average!r}")
        if not all(0 < level < 1 for level in regions):
            raise ValueError(f"model: regions must be levels in (0, 1), got {list(regions)}")
        if regions and self.objective.regresses:
            raise ValueError(f"model: regions need an objective with maps, got {self.hparams.objective['name']}")
        if backbone is None and (feature_level, backbone_config) != (None, None):
            raise ValueError("model: feature_level and backbone_config need a backbone hf:NAME_OR_FOLDER or timm:NAME")
        if not 0 <= backbone_lr_factor < math.inf:
            raise ValueError(f"model: backbone_lr_factor must be >= 0, got {backbone_lr_factor}")
        self.model = self.network() if backbone is None else self._pretrained()
        if weights is not None:
            print(start_from(self.model, weights, weights_strict, weights_gain))
        flip_test = flip_test and self.landmarks.pairs is not None  # a mirror needs to know whose points change sides
        self.tta = TestTimeAugmentation(self.landmarks.mirrored(), flip_test, scales, average, stride)
        self.members: list[EnsembleMember] = []
        self.map_evaluation = MapEvaluation()
        self.calibration: Calibration | None = None
        self.validates_laws = False  # whether validation steps give the laws of the points

    def _check_sub_distributions(self) -> None:
        """Raise ValueError for what has no meaning for cells that learn where they are."""
        h = self.hparams
        if h.sub_distributions not in SUB_DISTRIBUTIONS:
            kinds = " or ".join(SUB_DISTRIBUTIONS)
            raise ValueError(f"model: sub_distributions must be {kinds}, got {h.sub_distributions!r}")
        if h.sub_distributions not in self.objective.sub_distributions:
            raise ValueError(f"model: sub_distributions {h.sub_distributions} needs objective "
                             f"{SUB_DISTRIBUTIONS[h.sub_distributions]}, got {h.objective['name']}")  # fmt: skip
        if h.average != "coords":
            raise ValueError("model: sub_distributions need average coords, for maps of cells that moved have no mean, got "
                             f"{h.average!r}")  # fmt: skip
        if h.regions:
            raise ValueError("model: regions are of laws of cells, which sub_distributions are not, got "
                             f"{list(h.regions)}")  # fmt: skip

    def _pretrained(self) -> torch.nn.Module:
        """The network with a backbone of another library: its weights too, unless those of a checkpoint follow."""
        h = self.hparams
        if h.backbone_config is not None:
            check_description(h.backbone_config, h.backbone, h.feature_level)
            return self.network()
        h.backbone_config = describe(h.backbone, h.feature_level)  # for the checkpoints
        network = self.network()
        (part,) = (part for part in network.modules() if isinstance(part, Pretrained))
        tell(part.load())
        if part is network and h.weights is None:  # with its head
            network.scale_output(h.weights_gain)
        return network

    @property
    def volume(self) -> int | None:
        """Cells of the maps' depth axis, None for flat maps."""
        return None

    def network(self) -> torch.nn.Module:
        """What answers an image with what the objective reads."""
        return make_network(self.hparams, len(self.landmarks), self.objective, self.volume)

    def map_size(self, images: Tensor) -> tuple[int, ...]:
        """Cells of the maps' axes x, y(, z)."""
        stride = self.hparams.stride
        flat = (images.shape[-1] // stride, images.shape[-2] // stride)
        return flat if self.volume is None else (*flat, self.volume)

    def forward(self, images: Tensor) -> Answer:
        """Logits ``[B, K, (D,) H/s, W/s]``, s the stride, of images ``[B, 3, H, W]``; or positions in cells, to be regressed."""
        return self.model(images)

    def rates(self) -> dict[str, float]:
        factor = self.hparams.backbone_lr_factor
        if factor in (0, 1):
            return super().rates()
        own = next(name for name, part in self.named_modules() if part is self.model.backbone)
        return {**super().rates(), own: factor}

    def rows(self, batch: dict[str, Tensor]) -> tuple[Tensor, Target]:
        target = Target(batch["target"], batch["weight"], self.map_size(batch["image"]), batch.get("axes"))
        return self(batch["image"]), target

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Write down what predicting needs besides the network, so that it needs no task."""
        super().on_save_checkpoint(checkpoint)
        if self.volume is None and self.trainer.datamodule is not None:
            checkpoint["landmarks"] = self.landmarks.as_mapping()
            checkpoint["crop"] = self.trainer.datamodule.crop_rule.plain()

    # ---- evaluation ----

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self.trainer.datamodule
        if data is not None and data.stride != self.hparams.stride:
            raise ValueError(f"data: stride must be the model's {self.hparams.stride}, got {data.stride}")
        if stage in ("validate", "predict") and not self.members:
            self.members = [self._member(path) for path in self.hparams.ensemble]

    def _member(self, path: str) -> EnsembleMember:
        checkpoint = read_checkpoint(path, "model: ensemble checkpoint")
        if checkpoint["task"] != self.task:
            raise ValueError(f"model: ensemble checkpoint {path} is of task {checkpoint['task']}, not {self.task}")
        size = checkpoint["datamodule_hyper_parameters"]["image_size"]
        reading = {"decoder": self.hparams.decoder, "decoder_radius": self.hparams.decoder_radius}
        module = self.restored(checkpoint, ensemble=(), weights=None, **reading).eval()
        own, other = self.objective, module.objective
        if module.hparams.stride != self.hparams.stride:
            raise ValueError(f"model: ensemble checkpoint {path} has cells of stride {module.hparams.stride}, not "
                             f"{self.hparams.stride}")  # fmt: skip
        moved = module.hparams.sub_distributions is not None
        if self.hparams.average == "maps" and ("maps" not in other.averages or own.logits != other.logits or moved):
            names = " beside ".join(found.hparams.objective["name"] for found in (module, self))
            raise ValueError(
                f"model: average maps needs maps of one kind, but ensemble checkpoint {path} has objective {names}"
            )
        return EnsembleMember(module.model, module.objective, tuple(size))

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        super().on_load_checkpoint(checkpoint)
        self.calibration = Calibration.of(checkpoint.get("calibration"))

    def reading(self) -> dict[str, object]:
        """The options that say how a position is read."""
        h = self.hparams
        names = ("decoder", "decoder_radius", "flip_test", "scales", "ensemble", "average")
        return {name: list(h[name]) if isinstance(h[name], tuple) else h[name] for name in names}

    def on_predict_start(self) -> None:
        if self.calibration is not None:
            for name, (before, now) in changed_options(self.calibration.reading, self.reading(), "model").items():
                tell(f"calibrated with --{name} {before!r}, not {now!r}: confidences may be off")

    def decode(self, images: Tensor, law: bool = False) -> dict[str, Tensor]:
        """The parts of a :class:`.Reading` by name and, if the network says them, the widths ``sigma`` in cells."""
        for member in self.members:  # they are no part of this module, so nobody else moves them
            member.network.to(images.device)
        read = self.tta.read([EnsembleMember(self.model, self.objective), *self.members], images, law)
        found = {**read._asdict(), **parts_of(read.output)}
        if self.objective.predicts_sigma:
            found["sigma"] = self.objective.in_cells(read.output.sigma, self.map_size(images))
        return found

    @property
    def has_laws(self) -> bool:
        """Whether the network's maps are laws of the positions."""
        moved = self.hparams.sub_distributions is not None
        return self.objective.logits and not self.objective.regresses and not moved

    def scores(self) -> dict[str, float]:
        return {**super().scores(), **self.map_evaluation.compute(gather_objects)}

    def to_image(self, position: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Positions in cells to pixels of the original images."""
        return to_image(position * self.hparams.stride, batch["inverse"])

    def validation_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        found = self.decode(batch["image"], law=self.validates_laws)
        pixels, truth = (self.to_image(x, batch) for x in (found["position"], batch["target"]))
        truth = torch.cat([truth, batch["weight"][..., None]], -1)
        self.evaluation.add(batch, found["position"], found["peak"], pixels, truth)
        if self.has_laws:
            known = batch["weight"].unsqueeze(-1) * batch.get("axes", torch.ones_like(batch["target"]))
            self.map_evaluation.add(batch["index"], self.objective.maps(found["output"]), batch["target"], known)
        if index == 0 and self.trainer.is_global_zero:
            self.preview = {"image": batch["image"], "target": batch["target"], "weight": batch["weight"], **found}
        return {**found, "pixels": pixels, "truth": truth}

    def predict_step(self, batch: dict[str, Tensor], _: int) -> dict[str, object]:
        found = self.decode(batch["image"], law=bool(self.hparams.regions) or self.calibration is not None)
        found["covariance"] = covariance_to_image(found["covariance"] * self.hparams.stride**2, batch["inverse"])
        law = found.pop("law")
        if law is not None:
            found |= certainty(law, batch["image"], batch["inverse"], self.calibration, self.hparams.regions)
        return {**batch, "pixels": self.to_image(found["position"], batch), **found}

    def prediction(self, pixels: np.ndarray, peak: np.ndarray) -> dict[str, object]:
        """A record of the prediction file from positions ``[K, d]`` in the image and peaks ``[K]``."""
        keypoints = np.concatenate([pixels[:, :2], peak[:, None]], 1)
        return {"keypoints": keypoints.reshape(-1).tolist(), **self.result_fields, "score": float(peak.mean())}

    def write_prediction(self, item: dict[str, object], folder: Path, maps: bool) -> dict[str, object]:
        data, index = self.trainer.datamodule.predict_data, int(item["index"])
        sure = "peak" if self.calibration is None else "confidence"
        pixels, peak, covariance = (item[key][0].float().cpu().numpy() for key in ("pixels", sure, "covariance"))
        if not data.in_order:  # those of a video are one
            overlay = prediction_figure(data.image(index), pixels[:, :2], self.landmarks.bones)
            save_figure(overlay, folder / f"{data.overlay(index)}.png")
        if maps and not self.objective.regresses:
            figure = maps_figure(item["image"][0], answer_in(item), self.objective, item["position"][0],
                                 self.landmarks.names)  # fmt: skip
            save_figure(figure, folder / f"{data.overlay(index)}_maps.png")
        spread = np.sqrt(covariance.trace(axis1=1, axis2=2)).tolist()  # of the map around its mean, in pixels
        return {**data.about(index), "box": item["box"][0].tolist(), "names": self.landmarks.names,
                **self.prediction(pixels, peak), "spread": [x if math.isfinite(x) else None for x in spread],
                **record_of(item, self.hparams.regions)}  # fmt: skip

    def write_tables(self, predictions: Path) -> list[Path]:
        return write_tables(predictions, self.trainer.datamodule.predict_data.source, self.landmarks)

    def figures(self) -> Iterator[tuple[str, Figure]]:
        yield "images", overlay_figure(self.preview, self.objective, self.landmarks.bones)
