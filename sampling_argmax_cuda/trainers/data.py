"""Data modules: the same reader for real and synthetic files, and the options that the tasks share."""

from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral
from pathlib import Path

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from .boxes import file_boxes, found_boxes, frame_boxes, is_callable_name, whole_images
from .crops import InputCrops
from .epochs import EpochLoader, EpochOrder, GlobalBatches
from .messages import tell
from .predictions import answers_of
from .sources import find_source
from .transforms import Augment, CropRule

_NAMES = ("root", "train_split", "val_split", "train_file", "val_file", "boxes")
_NAMES_OR_NULL = ("mpii_file", "images", "volumes", "point_clouds")
_LEAST = {"synthetic_train": 1, "synthetic_val": 1, "batch_size": 1, "num_workers": 0, "seed": 0}


def _is_count(value, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least


def check_count(name: str, value, least: int) -> None:
    """Raise ValueError unless ``value`` is an integer of at least ``least``."""
    if not _is_count(value, least):
        raise ValueError(f"data: {name} must be an integer >= {least}, got {value!r}")


def check_data(values: Mapping) -> None:
    """Raise ValueError for a wrong argument of a data module; :class:`Augment` checks those of the augmentation."""

    def require(good: bool, name: str, expected: str) -> None:
        if not good:
            raise ValueError(f"data: {name} must be {expected}, got {values[name]!r}")

    for name in {*_NAMES, *_NAMES_OR_NULL} & set(values):
        value = values[name]
        if name == "images" and isinstance(value, list) and value:
            continue
        text = isinstance(value, str | Path) and str(value).strip() != ""
        require(text or (name in _NAMES_OR_NULL and value is None), name, "a path or name that is not empty")
    require(isinstance(values["synthetic"], bool), "synthetic", "true or false")
    for name, least in _LEAST.items():
        check_count(name, values[name], least)
    if values["train_samples"] is not None:
        check_count("train_samples", values["train_samples"], 1)
    size = values.get("image_size", (32, 32))
    pair = isinstance(size, tuple | list) and len(size) == 2
    fits = pair and all(_is_count(n, 32) and n % 32 == 0 for n in size)
    require(fits, "image_size", "two positive multiples of 32 (width and height in pixels)")


class TaskData(lightning.LightningDataModule):
    """What the data of all tasks share. A wrong argument is a ValueError at once.

    Args:
        root: folder of the task's files; synthetic data is written here.
        synthetic: generate data in the task's own file format under root first, and use it.
        synthetic_train: number of synthetic training images (volumes, objects), >= 1.
        synthetic_val: number of synthetic validation images (volumes, objects), >= 1.
        train_samples: train on so many of the training samples, >= 1, which ones is a function of the seed; null for all.
        batch_size: samples a process and step, >= 1.
        num_workers: loader processes a process, >= 0; 0 to load in the process itself.
        flip: probability of mirroring, in [0, 1].
        seed: seed, >= 0, of the order, the augmentation and the synthetic data.
    """

    predicted = 0  # inputs of predict that a rank is done with
    answers: Path | None = None  # the file where a detector's answers are kept until they are predicted on
    inputs = frozenset[str]()  # options that predict alone reads
    shared = frozenset({"batch_size", "num_workers"})  # options that predict reads as training does

    # Options that a resumed run may change: those that no training sees.
    free = frozenset(f"data.{name}" for name in ("root", "num_workers", "val_split", "val_file", "val_subjects", "boxes",
                                                 "images", "volumes", "point_clouds"))  # fmt: skip

    def __init__(
        self,
        root: str = "data",
        synthetic: bool = False,
        synthetic_train: int = 512,
        synthetic_val: int = 128,
        train_samples: int | None = None,
        batch_size: int = 32,
        num_workers: int = 4,
        flip: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # the model's names would clash with these in the logs
        check_data(self.hparams)
        self.root = Path(root)

    def write_synthetic(self) -> None:
        """Write synthetic data in the task's own file format under root, if it is not there yet."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        if self.hparams.synthetic:
            self.write_synthetic()

    def dataset(self, train: bool) -> Dataset | None:
        """The training or the validation samples; None where there is nothing to validate on."""
        raise NotImplementedError

    def to_predict(self) -> Dataset:
        """The samples of predict."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.train_data = self._told(self.dataset(train=True))
        if stage in ("fit", "validate"):
            self.val_data = self._told(self.dataset(train=False))
        if stage == "validate" and self.val_data is None:
            raise ValueError("validate: there is no validation data; --data.val_file names it")
        if stage == "predict":
            self.predict_data = self._told(self.to_predict())

    def _told(self, dataset: Dataset | None) -> Dataset | None:
        """The data set, after what it has to say to the user is printed, once."""
        lines, names = list(getattr(dataset, "notes", ())), [file.name for file in getattr(dataset, "left_out", ())]
        if names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            lines.append(f"predict: {len(names)} files left out, which are none of its inputs: {shown}")
        for line in lines:
            tell(line)
        return dataset

    def _loader(self, dataset: Dataset, train: bool) -> EpochLoader:
        h, trainer = self.hparams, self.trainer
        order = EpochOrder(dataset, train, h.seed, trainer.overfit_batches > 0, h.train_samples)
        accumulate = trainer.accumulate_grad_batches if train else 1
        batches = GlobalBatches(order, h.batch_size, trainer.global_rank, trainer.world_size, accumulate)
        return EpochLoader(dataset, batch_sampler=batches, num_workers=h.num_workers,
                           persistent_workers=h.num_workers > 0, pin_memory=torch.cuda.is_available())  # fmt: skip

    def train_dataloader(self) -> EpochLoader:
        return self._loader(self.train_data, train=True)

    def val_dataloader(self) -> EpochLoader | list:
        return [] if self.val_data is None else self._loader(self.val_data, train=False)

    def predict_dataloader(self) -> DataLoader:
        """Every input on one rank, by turns; the last of them come again where that makes ranks equally long."""
        h, rank, world, count = self.hparams, self.trainer.global_rank, self.trainer.world_size, len(self.predict_data)
        own = [i % count for i in range(rank, -(-count // world) * world, world)][self.predicted :]
        workers = min(h.num_workers, 1) if getattr(self.predict_data, "in_order", False) else h.num_workers
        return DataLoader(self.predict_data, batch_size=h.batch_size, sampler=own, num_workers=workers)


class LandmarkData(TaskData):
    """What the data of all tasks on images share.

    Args:
        images: what to predict on: a folder of images, a glob, a list (in a .txt file, one a line), an image or a video.
        image_size: width and height of the network's input in pixels, multiples of 32.
        scale: scale augmentation: half width of its uniform law (or deviation, if the task says so), in [0, 1).
        rotation: rotation in degrees: the largest (or the deviation), for some of the samples, in [0, 180].
        color: half width of the uniform gain of each colour channel, in [0, 1].
        stride: pixels of the input a cell of the maps, as the model's.
    """

    padding = 1.0  # the share of a box that its crop shows
    normal = False  # whether scale and rotation are drawn from normal laws
    # What `boxes` may be besides a file or a function; predict has whole images then.
    own_boxes: tuple[str, ...] = ("gt",)
    inputs = frozenset({"images"})
    shared = TaskData.shared | {"image_size"}

    def __init__(
        self,
        images: list[str] | str | None = None,
        image_size: tuple[int, int] = (256, 256),
        scale: float = 0.3,
        rotation: float = 40.0,
        color: float = 0.0,
        stride: int = 4,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        check_count("stride", stride, 1)
        self.stride = stride  # no option of a task whose networks have one
        known = {field.name for field in fields(Augment)} & self.hparams.keys()  # those that the task has options of
        self.augment = Augment(**{name: self.hparams[name] for name in known}, normal=self.normal)

    @property
    def crop_rule(self) -> CropRule:
        """How evaluation and prediction make inputs of boxes."""
        return CropRule(tuple(self.hparams.image_size), self.padding)

    @property
    def heatmap_size(self) -> tuple[int, ...]:
        return tuple(n // self.stride for n in self.hparams.image_size)

    def to_predict(self) -> InputCrops:
        if self.hparams.images is None:
            raise ValueError("predict: --data.images must name a folder of images, a glob, a list, an image or a video")
        source, boxes = find_source(self.hparams.images), self.hparams.get("boxes", "gt")
        if boxes in self.own_boxes:
            return InputCrops(source, whole_images(source), self.crop_rule.whole())
        if is_callable_name(boxes):
            self.answers = None if self.trainer is None else answers_of(self.trainer, boxes, source)
            found = found_boxes(boxes, source, self.answers)
        elif source.moving:
            found = frame_boxes(boxes, source)
        else:
            source, found = file_boxes(self.read_boxes(boxes, source.root), source)
        return InputCrops(source, found, self.crop_rule)

    def read_boxes(self, path: str, folder: Path) -> list[dict]:
        """The boxes of a file on images of a folder: ``file``, ``box`` and, if known, ``score`` and ``image_id``."""
        raise NotImplementedError
