"""The task associative: bottom-up pose by associative embedding: maps of joints and tags, joined into people."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...objectives.targets import nearest_cell, person_maps
from ...trainers.adversary import make_adversary
from ...trainers.figures import draw_skeleton, save_figure, shown_image
from ...trainers.hourglass import HourglassNet
from ...trainers.tables import write_tables
from ...trainers.trained_module import TrainedModule
from ...trainers.tta import STRIDE, passes, resample
from ...trainers.weights import start_from
from ..coco.reader import PERSON
from ..coco.synthetic import write_synthetic_coco
from ..coco.task import CocoFiles
from .grouping import Grouping
from .losses import detection_loss, tag_loss
from .metrics import BottomUpEvaluation
from .reader import CocoImages, to_image

COLORS = ("red", "deepskyblue", "lime", "orange", "magenta", "yellow", "cyan", "white")


class BottomUpPose(TrainedModule):
    """All people of an image without boxes: one map and one map of tags a joint, scored by OKS-AP without boxes.

    Args:
        stacks: hourglasses of the network, >= 1.
        channels: channels of the hourglasses, a multiple of 8.
        plain: associative embedding's own blocks without norms; false for the residuals of single-person pose.
        norm: of the residuals: batch, frozen (running statistics only) or group.
        target_sigma: width of the maps' Gaussians in cells, > 0.
        detection_weight: factor, >= 0, of the squared error of the maps.
        pull_weight: factor, >= 0, of the spread of a person's tags.
        push_weight: factor, >= 0, of the nearness of different people's tags.
        threshold: least score of a joint that joins or makes a person.
        tag_distance: largest distance, > 0, of a joint's tag to its person's.
        refine: look for the joints that a person lacks.
        shown_score: least score of a person that figures show; files and metrics have all.
        flip_test: average with the mirrored image in evaluation, whose tags are a second number.
        scales: factors of the image's size that evaluation averages maps over; tags are those of the first.
        weights: checkpoint of this trainer to start from.
        weights_strict: refuse weights that do not fit in every name and shape.
        adversary: options of the discriminator of self-adversarial training, or null to train without one.
    """

    task, landmarks, best = "associative", PERSON, ("AP", "max")
    free = (
        TrainedModule.free
        | {"adversary.lr"}
        | {f"model.{name}" for name in ("threshold", "tag_distance", "refine", "shown_score", "flip_test", "scales")}
    )

    def __init__(
        self,
        stacks: int = 4,
        channels: int = 256,
        plain: bool = True,
        norm: str = "batch",
        target_sigma: float = 2.0,
        detection_weight: float = 1.0,
        pull_weight: float = 1e-3,
        push_weight: float = 1e-3,
        threshold: float = 0.1,
        tag_distance: float = 1.0,
        refine: bool = True,
        shown_score: float = 0.1,
        flip_test: bool = True,
        scales: tuple[float, ...] = (1.0,),
        weights: str | None = None,
        weights_strict: bool = False,
        adversary: Mapping | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.adversary = make_adversary(adversary, maps=len(PERSON), norm=norm, plain=plain)
        if not target_sigma > 0:
            raise ValueError(f"model: target_sigma must be > 0, got {target_sigma}")
        if min(detection_weight, pull_weight, push_weight) < 0:
            got = f"{detection_weight}, {pull_weight} and {push_weight}"
            raise ValueError(f"model: detection_weight, pull_weight and push_weight must be >= 0, got {got}")
        if not scales or not all(scale > 0 for scale in scales):
            raise ValueError(f"model: scales must be numbers > 0, got {list(scales)}")
        self.model = HourglassNet(2 * len(PERSON), stacks, channels, norm, plain)
        if weights is not None:
            print(start_from(self.model, weights, weights_strict, gain=1.0))
        self.grouping = Grouping(threshold, tag_distance, refine=refine)
        self.evaluation = BottomUpEvaluation()

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Maps and tags ``[B, 2 K, H/4, W/4]`` of images ``[B, 3, H, W]``; in training a list of every stack's."""
        return self.model(images)

    # ---- training ----

    def step_loss(self, batch: dict[str, Tensor]) -> Tensor:
        h, visible = self.hparams, batch["weight"]
        outputs = self(batch["image"])
        height, width = outputs[0].shape[-2:]
        truth = person_maps(batch["target"], visible, (width, height), h.target_sigma)
        # The cell of the maps' peak: grouping reads a tag there.
        x, y = nearest_cell(batch["target"]).long().unbind(-1)
        place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        total = 0
        for output in outputs:
            maps, tags = output.chunk(2, 1)
            apart = tag_loss(tags, place, visible)
            found = h.detection_weight * detection_loss(maps, truth, batch["mask"])
            total = total + (found + h.pull_weight * apart.pull + h.push_weight * apart.push).mean()
        loss = total / len(outputs)
        if self.adversary is None:
            return loss
        return loss + self.adversary.step(self, batch["image"], outputs[-1].chunk(2, 1)[0], truth)

    # ---- evaluation ----

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``[B, K, h, w]`` averaged over scales and mirror, at most 1, and tags ``[B, K, h, w, T]``."""
        h, found, tags, size = self.hparams, [], [], (images.shape[-2] // 4, images.shape[-1] // 4)
        swapped = self.landmarks.mirrored()
        for scale, view, mirrored in passes(images, images.shape[-2:], h.scales, h.flip_test, multiple=64):
            both = self(view).float().chunk(2, 1)
            own, tag = (resample(x[:, swapped] if mirrored else x, size, mirrored) for x in both)
            found.append(own)
            if scale == h.scales[0]:
                tags.append(tag)
        return torch.stack(found).mean(0).clamp(max=1), torch.stack(tags, -1)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        maps, tags = self.maps(batch["image"])
        people = [self.grouping.people(*pair) for pair in zip(maps, tags, strict=True)]
        self.evaluation.add(batch, people)
        if index == 0 and self.trainer.is_global_zero:
            self.preview = {"image": batch["image"], "maps": maps, "tags": tags[..., 0]}
            self.people = people

    def predict_step(self, batch: dict[str, Tensor], _: int) -> dict[str, object]:
        maps, tags = self.maps(batch["image"])
        return {**batch, "maps": maps, "tags": tags}

    def write_prediction(self, item: dict[str, object], folder: Path, maps: bool) -> dict[str, object]:
        data, index = self.trainer.datamodule.predict_data, int(item["index"])
        people, scores = self.grouping.people(item["maps"][0], item["tags"][0])
        pixels = to_image(people, item["inverse"][0].double().cpu().numpy())
        if not data.in_order:  # those of a video are one
            image = data.image(index)
            figure = Figure(figsize=(6, 6 * image.shape[0] / image.shape[1]), layout="constrained")
            axes = figure.subplots()
            axes.imshow(image)
            axes.set_axis_off()
            draw_people(axes, self._shown(pixels, scores))
            save_figure(figure, folder / f"{data.overlay(index)}.png")
        if maps:
            shown = {"image": item["image"], "maps": item["maps"], "tags": item["tags"][..., 0]}
            save_figure(groups_figure(shown, [self._shown(people, scores)]), folder / f"{data.overlay(index)}_maps.png")
        found = [{"keypoints": person.reshape(-1).tolist(), "category_id": 1, "score": float(score)}
                 for person, score in zip(pixels, scores, strict=True)]  # fmt: skip
        return {**data.about(index), "names": self.landmarks.names, "people": found}

    def write_tables(self, predictions: Path) -> list[Path]:
        return write_tables(predictions, self.trainer.datamodule.predict_data.source, self.landmarks)

    def figures(self) -> Iterator[tuple[str, Figure]]:
        yield "people", groups_figure(self.preview, [self._shown(*found) for found in self.people])

    def _shown(self, people: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return people[scores >= self.hparams.shown_score]


def draw_people(axes, people: np.ndarray) -> None:
    """Skeletons of people ``[n, 17, 3]``, each in a colour of its own."""
    for n, person in enumerate(people):
        draw_skeleton(axes, person[:, :2], person[:, 2] > 0, PERSON.bones, COLORS[n % len(COLORS)])


def groups_figure(preview: dict[str, Tensor], people: list[np.ndarray], rows: int = 3) -> Figure:
    """Each row: people on the image, the largest map of a cell, and the tag of its joint as a colour where the map is high."""
    rows = min(rows, len(people))
    figure = Figure(figsize=(9, 3 * rows), layout="constrained")
    for i, (plain, heat, tag) in enumerate(figure.subplots(rows, 3, squeeze=False)):
        shown = shown_image(preview["image"][i])
        extent = (0, shown.shape[1], shown.shape[0], 0)
        plain.imshow(shown)
        draw_people(plain, people[i] * [4, 4, 1])
        value, joint = preview["maps"][i].max(0)
        heat.imshow(value.cpu(), cmap="magma", extent=extent, vmin=0, vmax=1)
        tags = preview["tags"][i].gather(0, joint[None])[0]
        tag.imshow(torch.where(value > 0.1, tags, torch.nan).cpu(), cmap="turbo", extent=extent)
        for axes, title in ((plain, f"{len(people[i])} people"), (heat, "maps"), (tag, "tags")):
            axes.set_title(title, fontsize=8)
            axes.set_axis_off()
    return figure


class BottomUpData(CocoFiles):
    """COCO's images with all their people.

    Args:
        image_size: width and height of the network's input in pixels, multiples of 64.
    """

    def __init__(self, image_size: tuple[int, int] = (512, 512), **kwargs) -> None:
        super().__init__(image_size=image_size, stride=STRIDE, **kwargs)  # the hourglasses'
        if any(n % 64 for n in image_size):
            raise ValueError(f"data: image_size must be two multiples of 64, got {list(image_size)}")

    def write_synthetic(self) -> None:
        h = self.hparams
        write_synthetic_coco(self.root, h.synthetic_train, h.synthetic_val, seed=h.seed, pairs=0.7)

    def dataset(self, train: bool) -> CocoImages:
        h = self.hparams
        annotations, images = self.files(train)
        return CocoImages(self.root, annotations, images, train, tuple(h.image_size), self.heatmap_size,
                          self.augment if train else None, h.seed)  # fmt: skip
