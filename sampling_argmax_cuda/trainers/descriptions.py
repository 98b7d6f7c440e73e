"""What is read of the files of other libraries' networks, transformers' by ``hf:`` and timm's by ``timm:``: a description.

It is plain and has no tensors, and builds the same network again: a checkpoint has it, and needs neither the files nor the
network they came from.
"""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .transforms import IMAGENET_MEAN, IMAGENET_STD

LIBRARIES = {"hf": "transformers", "timm": "timm"}
POSE = "ForPoseEstimation"  # how transformers' names of whole networks of heatmaps end


def library(kind: str) -> ModuleType:
    try:
        return import_module(LIBRARIES[kind])
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"model: a backbone {kind}: needs package {error.name!r}; "
                                  f"run: pip install 'sampling-argmax-cuda[{kind}]'", name=error.name) from None  # fmt: skip


def reading(name: str, read: Callable):
    """What ``read`` gives; where it fails, the first line of what the library says, with the option's name."""
    try:
        return read()
    except (OSError, ValueError, RuntimeError, AssertionError, LookupError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"model: backbone {name} cannot be read: {reason}") from None


def describe(name: str, level: int | None = None) -> dict[str, object]:
    """The description of a backbone ``hf:NAME_OR_FOLDER`` or ``timm:NAME`` with the features of a level, None for the last.

    Raises ValueError for a name that is none, or a level that the network does not have.
    """
    kind, _, source = name.partition(":")
    if kind not in LIBRARIES or not source:
        raise ValueError(f"model: backbone must be hf:NAME_OR_FOLDER or timm:NAME, got {name!r}")
    found = (_describe_hf if kind == "hf" else _describe_timm)(name, source, level)
    return {"name": name, "feature_level": level, **found}


def check_description(about: Mapping, name: str | None, level: int | None) -> None:
    """Raise ValueError where the options name another backbone than the description is of."""
    for option, own in (("backbone", name), ("feature_level", level)):
        saved = about["name" if option == "backbone" else option]
        if own != saved:
            raise ValueError(f"model: {option} of the checkpoint is {saved!r}, got {own!r}")


def _describe_hf(name: str, source: str, level: int | None) -> dict[str, object]:
    hf = library("hf")
    config = reading(name, lambda: hf.AutoConfig.from_pretrained(source))
    architecture = next((kind for kind in config.architectures or () if kind.endswith(POSE)), "AutoBackbone")
    if architecture != "AutoBackbone":
        if level is not None:
            raise ValueError(f"model: feature_level: {name} is a whole network with its own head, got {level}")
    else:
        stages = getattr(config, "stage_names", None) or ()
        level = -1 if level is None else level
        if stages and not -len(stages) <= level < len(stages):
            known = ", ".join(f"{i} {stage}" for i, stage in enumerate(stages))
            raise ValueError(f"model: feature_level of {name} must be one of {known}, got {level}")
        config.out_indices = [level % len(stages)] if stages else [level]
    plain = json.loads(config.to_json_string(use_diff=False))
    for labels in ("id2label", "label2id"):  # a thousand classes that nothing here reads
        plain.pop(labels, None)
    return {"architecture": architecture, "config": plain, **_normalisation(hf, source)}


def _normalisation(hf: ModuleType, source: str) -> dict[str, list[float]]:
    """Mean and deviation, of channels in [0, 1], that a network was trained with; ImageNet's where its files do not say."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        said, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:
        return {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    white = 255 * said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 255.0  # what it takes 1 for
    if not said.get("do_normalize", True):
        return {"mean": [0.0] * 3, "std": [1 / white] * 3}
    mean, std = (
        said.get(key) or default for key, default in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD))
    )
    return {"mean": [x / white for x in mean], "std": [x / white for x in std]}


def _describe_timm(name: str, source: str, level: int | None) -> dict[str, object]:
    timm = library("timm")
    folder, options = source.removeprefix("local-dir:"), {}
    if folder == source:
        said = reading(name, lambda: timm.get_pretrained_cfg(source, allow_unregistered=False)).to_dict()
        architecture = said["architecture"]
    else:
        content = reading(name, lambda: json.loads((Path(folder) / "config.json").read_text()))
        said, architecture, options = (
            content["pretrained_cfg"],
            content["architecture"],
            content.get("model_args") or {},
        )
    plain = {"options": dict(options), "input_size": list(said["input_size"][1:])}
    return {"architecture": architecture, "config": plain, "mean": list(said["mean"]), "std": list(said["std"])}
