"""Pretrained networks of other libraries in the trainers, built from descriptions."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate

from .descriptions import library, reading
from .resnet import LandmarkNet
from .transforms import IMAGENET_MEAN, IMAGENET_STD

STRIDES = (4, 8, 16, 32)  # from which a head comes to maps of stride 4


class Pretrained(nn.Module):
    """A network of another library, ``inner``, that sees images as it was trained to.

    Args:
        about: its description.
        inner: the library's network.
    """

    def __init__(self, about: Mapping, inner: nn.Module) -> None:
        super().__init__()
        self.about, self.inner = about, inner
        ours, theirs = ((torch.tensor(mean), torch.tensor(std)) for mean, std in (
            (IMAGENET_MEAN, IMAGENET_STD), (about["mean"], about["std"])))  # fmt: skip
        self.register_buffer("factor", (ours[1] / theirs[1])[:, None, None], persistent=False)
        self.register_buffer("shift", ((ours[0] - theirs[0]) / theirs[1])[:, None, None], persistent=False)

    def prepared(self, images: Tensor) -> Tensor:
        """Images of the trainers, normalised with ImageNet's numbers, as the network takes them."""
        return (images * self.factor + self.shift).to(next(self.inner.parameters()).dtype)

    def answer(self, output) -> Tensor:
        """The tensor of the library's answer that is used."""
        raise NotImplementedError

    def examined(self, size: tuple[int, int], **more: Tensor) -> torch.Size:
        """The shape of the answer to an image of height and width ``size``; parameters that do not reach it are not trained.

        Distributed training would wait for their gradients. Run on the meta device, it costs no arithmetic.
        """
        training = self.inner.training
        self.inner.eval()
        with torch.inference_mode(False), torch.enable_grad():  # wherever a predictor is loaded
            state = {name: torch.empty_like(x, device="meta", requires_grad=isinstance(x, nn.Parameter))
                     for name, x in chain(self.inner.named_parameters(), self.inner.named_buffers())}  # fmt: skip
            image = torch.empty(1, 3, *size, device="meta")
            answer = self.answer(functional_call(self.inner, state, (image,), more))
            answer.sum().backward()
        self.inner.train(training)
        for name, parameter in self.inner.named_parameters():
            parameter.requires_grad_(state[name].grad is not None)
        return answer.shape

    def load(self) -> str:
        """Load the weights that the description is of; a line that says what was loaded, and what begins anew."""
        name, own = self.about["name"], self.inner.state_dict()
        found = reading(name, self.pretrained_state)
        fits = {key: value for key, value in found.items() if key in own and own[key].shape == value.shape}
        anew = [key for key in own if key not in fits]
        if not any(key in fits for key, _ in self.inner.named_parameters()):
            raise ValueError(f"model: backbone {name}: its files have no weights of {type(self.inner).__name__}")
        self.inner.load_state_dict(fits, strict=False)
        shown = ", ".join(anew[:4]) + (", ..." if len(anew) > 4 else "")
        return f"backbone {name}: {len(fits)} tensors loaded" + (f"; {len(anew)} begin anew ({shown})" if anew else "")

    def pretrained_state(self) -> dict[str, Tensor]:
        """The tensors of the library's files, by ``inner``'s names."""
        raise NotImplementedError


@contextmanager
def _silent() -> Iterator[None]:
    """Without transformers' tables and progress bars: what was loaded is said in a line."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def _hf_state(about: Mapping, inner: nn.Module, **more) -> dict[str, Tensor]:
    """The tensors of a folder or of the hub for a network of transformers; what they lack is not among them."""
    source = about["name"].partition(":")[2]
    with _silent():
        found, report = type(inner).from_pretrained(source, config=inner.config, dtype=torch.float32, output_loading_info=True,
                                                    ignore_mismatched_sizes=True)  # fmt: skip
    lacking = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    return {key: value for key, value in found.state_dict().items() if key not in lacking}


def _hf_config(about: Mapping):
    plain = about["config"]
    return library("hf").CONFIG_MAPPING[plain["model_type"]].from_dict(dict(plain))


class PretrainedBackbone(Pretrained):
    """Images ``[B, 3, H, W]`` to features ``[B, channels, H/stride, W/stride]``.

    A network whose patches are no power of two pixels wide sees the image smaller, so that a feature has the next power's:
    14 pixels of one that is 14/16 as large are 16 of ours.
    """

    def __init__(self, about: Mapping) -> None:
        self.is_hf = about["name"].startswith("hf:")
        super().__init__(about, reading(about["name"], lambda: (_hf_backbone if self.is_hf else _timm_backbone)(about)))
        self.channels, self.patch = self._channels_and_patch()
        self.stride = 2 ** math.ceil(math.log2(self.patch))
        if self.stride not in STRIDES:
            raise ValueError(f"model: backbone {about['name']} must have features of a stride of 3 to 32 pixels, got "
                             f"{self.patch}; feature_level chooses others")  # fmt: skip

    def _channels_and_patch(self) -> tuple[int, int]:
        """Channels of the features, and pixels from one to the next in both directions."""
        size = getattr(self.inner.config, "image_size", None) if self.is_hf else self.about["config"]["input_size"]
        own = (size, size) if isinstance(size, int) else tuple(size or (224, 224))
        for size in dict.fromkeys((own, tuple(32 * math.ceil(n / 32) for n in own))):  # features may not fill the first
            shape = self.examined(size)
            patch = size[0] // shape[-1]
            if len(shape) == 4 and all(patch * n == pixels for n, pixels in zip(shape[2:], size, strict=True)):
                return shape[1], patch
        raise ValueError(
            f"model: backbone {self.about['name']}: features {tuple(shape)} of {size} pixels have no stride"
        )

    def answer(self, output) -> Tensor:
        return output.feature_maps[0] if self.is_hf else output[0]

    def forward(self, images: Tensor) -> Tensor:
        x = self.prepared(images)
        if self.patch != self.stride:
            size = [n // self.stride * self.patch for n in images.shape[-2:]]
            x = interpolate(x, size, mode="bilinear", align_corners=False)
        return self.answer(self.inner(x))

    def pretrained_state(self) -> dict[str, Tensor]:
        if self.is_hf:
            return _hf_state(self.about, self.inner)
        return _timm_backbone(self.about, self.about["name"].partition(":")[2], pretrained=True).state_dict()


def _hf_backbone(about: Mapping) -> nn.Module:
    return library("hf").AutoBackbone.from_config(_hf_config(about))


def _timm_backbone(about: Mapping, name: str | None = None, pretrained: bool = False) -> nn.Module:
    timm, level = library("timm"), about["feature_level"]
    options = {**about["config"]["options"], "features_only": True, "out_indices": (-1 if level is None else level,)}
    try:  # transformers take images of any size only where they are told to, and the others do not know the word
        return timm.create_model(name or about["architecture"], pretrained, dynamic_img_size=True, **options)
    except TypeError:
        return timm.create_model(name or about["architecture"], pretrained, **options)


class PretrainedPose(Pretrained, LandmarkNet):
    """A whole network of transformers, ViTPose or Sapiens2: images ``[B, 3, H, W]`` to maps ``[B, K, H/4, W/4]``.

    Args:
        about: its description.
        points: maps K; where its files have another number, its last layer begins anew.
        gain: factor of the maps, > 0.
    """

    def __init__(self, about: Mapping, points: int, gain: float = 1.0) -> None:
        config = _hf_config(about)
        config.num_labels = points
        super().__init__(about, getattr(library("hf"), about["architecture"])(config))
        self.gain, part = gain, getattr(config, "backbone_config", None) or config
        self.fixed = hasattr(config, "backbone_config")  # ViTPose has a position embedding of each patch
        self.size = tuple(part.image_size)
        self.experts = getattr(part, "num_experts", 1) > 1
        shape = self.examined(self.size, **self._expert(1, "meta"))
        if tuple(4 * n for n in shape[-2:]) != self.size:
            raise ValueError(f"model: backbone {about['name']} must have maps of a quarter of the image's size, got "
                             f"{tuple(shape[-2:])} cells for {self.size} pixels")  # fmt: skip

    @property
    def backbone(self) -> nn.Module:
        return self.inner.backbone if self.fixed else self.inner.model

    def _expert(self, images: int, device: torch.device | str) -> dict[str, Tensor]:
        """ViTPose+ has experts for data sets, of which the first is COCO's."""
        return {"dataset_index": torch.zeros(images, dtype=torch.int64, device=device)} if self.experts else {}

    def answer(self, output) -> Tensor:
        return output.heatmaps

    def forward(self, images: Tensor) -> Tensor:
        size = tuple(images.shape[-2:])
        if self.fixed and size != self.size:
            own, got = ("x".join(map(str, reversed(pair))) for pair in (self.size, size))
            raise ValueError(f"model: backbone {self.about['name']} takes images of {own} pixels alone "
                             f"(--data.image_size=[{own.replace('x', ',')}]), got {got}")  # fmt: skip
        more = self._expert(images.shape[0], images.device)  # its len() would fix an exported file's batch
        return self.answer(self.inner(self.prepared(images), **more)) * self.gain

    def scale_output(self, gain: float) -> None:
        """Multiply the maps by ``gain``, as :meth:`.PoseNet.scale_output`."""
        last = [part for part in self.inner.modules() if isinstance(part, nn.Conv2d)][-1]
        with torch.no_grad():
            last.weight.mul_(gain)
            last.bias.mul_(gain)

    def pretrained_state(self) -> dict[str, Tensor]:
        return _hf_state(self.about, self.inner)
