"""Files of weights: checkpoints of the trainer, and state dicts of others whose names are understood."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .upgrade import upgrade

# Names of others for the parts of a network with a ResNet and deconvolutions.
_NAMES = (
    (re.compile(r"^(?:keypoint_head\.)?deconv_layers\."), "head."),
    (re.compile(r"^(?:keypoint_head\.)?final_layer\."), "head.9."),
    (re.compile(r"^preact\."), "backbone."),
)
_OF_CHECKPOINTS = {"state_dict", "task", "hyper_parameters", "datamodule_hyper_parameters", "pytorch-lightning_version"}
_WRAPPED = re.compile(r"^(?:module\.|_orig_mod\.)+")  # DataParallel's, DDP's and torch.compile's


def read_tensors(path: str | Path, what: str) -> dict:
    """The dict that ``torch.save`` wrote, without running code from the file. One line says what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist")
    if path.stat().st_size == 0:
        raise ValueError(f"{what} {path} is empty")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for a file that is not its own, with pages of advice to run its code
        raise ValueError(
            f"{what} {path} cannot be read: expected a file of torch.save with tensors and no code"
        ) from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{what} {path}: expected a state dict or a checkpoint, got {type(content).__name__}")
    return dict(content)


def read_checkpoint(path: str | Path, what: str = "--ckpt_path:") -> dict:
    """A checkpoint of this trainer. Raises ValueError for other files."""
    content = read_tensors(path, what)
    missing = _OF_CHECKPOINTS - content.keys()
    if missing:
        raise ValueError(f"{what} {path} is no checkpoint of this trainer, which would have {', '.join(sorted(missing))} "
                         "(--model.weights starts from weights of others)")  # fmt: skip
    upgrade(content)
    return content


def _state_of(path: str | Path) -> dict[str, Tensor]:
    """The network's part of a state dict or of a checkpoint, without the prefixes of what it was wrapped in."""
    what = "model: weights file"
    content = read_tensors(path, what)
    inner = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    state = {_WRAPPED.sub("", str(key)): value for key, value in inner.items()}
    wrong = next((key for key, value in state.items() if not isinstance(value, Tensor)), None)
    if wrong is not None:
        raise ValueError(f"{what} {path}: expected tensors by name, got {type(state[wrong]).__name__} for {wrong!r}")
    own = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    return {_WRAPPED.sub("", key): value for key, value in (own or state).items()}


def _own_name(key: str, own: Mapping[str, Tensor]) -> str:
    """The name that a model with these tensors has for a tensor of a file."""
    for pattern, name in _NAMES:
        key = pattern.sub(name, key)
    return key if key in own or f"backbone.{key}" not in own else f"backbone.{key}"


def load_weights(model: nn.Module, path: str | Path, strict: bool = False) -> dict[str, list[str]]:
    """Load a state dict of the whole model, or of the backbone (torchvision's names), where names and shapes fit.

    Returns the keys that were ``loaded``, ``skipped`` (unknown to the model), ``mismatched`` (another shape) and
    ``missing`` (in the whole model only). Raises ValueError if nothing fits, or with ``strict`` if anything does not.
    """
    own, found = model.state_dict(), {}
    report = {"loaded": [], "skipped": [], "mismatched": []}
    state = _state_of(path)
    for key, value in state.items():
        name = _own_name(key, own)
        fits = name in own and own[name].shape == value.shape
        report["loaded" if fits else "mismatched" if name in own else "skipped"].append(key)
        if fits:
            found[name] = value
    if not found:
        raise ValueError(f"model: no tensor of {path} fits the model, first key {next(iter(state), None)!r}")
    # Files of old versions have no count of batches, which nothing reads.
    report["missing"] = sorted(key for key in own.keys() - found.keys() if not key.endswith("num_batches_tracked"))
    wrong = {name: keys for name, keys in report.items() if keys and name != "loaded"}
    if strict and wrong:
        raise ValueError(f"model: {path} does not fit the model: {describe(wrong)}")
    model.load_state_dict(found, strict=False)
    return report


def describe(report: dict[str, list[str]]) -> str:
    """A line that counts the keys of each kind, and names the first of all but those loaded."""
    parts = []
    for name, keys in report.items():
        shown = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
        parts.append(f"{len(keys)} {name}" + (f" ({shown})" if keys and name != "loaded" else ""))
    return "; ".join(parts)


def start_from(model: nn.Module, path: str | Path, strict: bool, gain: float) -> str:
    """Load weights, scale the maps, and return one line that says what was loaded and what was not."""
    report = load_weights(model, path, strict)
    if gain != 1:
        if not hasattr(model, "scale_output"):
            raise ValueError("model: weights_gain needs an objective with maps")
        model.scale_output(gain)
    return f"weights {Path(path).name}: {describe(report)}"
