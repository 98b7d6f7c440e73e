"""Checkpoints of version 0.1.0 as those of this version: parts had other names then, and options were in one list."""

import torch

from ..objectives import options_of

# Old options of the model by their names as an objective's, an adversary's or the data's.
OLD_OPTIONS = {**{name: name for name in ("estimator", "basis", "num_samples", "tau", "beta", "sigma", "reweight", "clip_grad",
                                          "metric", "units", "reg_weight", "target_sigma")},
               **{f"rle_{name}": name for name in ("form", "density", "flow_lr")}}  # fmt: skip
ADVERSARY = {
    "stacks": "adversary",
    **{name: f"adversary_{name}" for name in ("channels", "factor", "rate", "gamma", "lr")},
}
DATA = {"clouds": "point_clouds"}
_PREFIXES = {"method.inner.sampler.": "objective.inner.", "method.sampler.": "objective.", "method.": "objective.",
             "opponent.": "adversary."}  # fmt: skip


def upgrade(checkpoint: dict) -> None:
    """Rename, in place, what a checkpoint of version 0.1.0 has; one of this version stays as it is."""
    options = checkpoint["hyper_parameters"]
    if "method" in options:
        name = options.pop("method")
        found = {new: options.pop(old) for old, new in OLD_OPTIONS.items() if old in options}
        own = options_of(name)
        options["objective"] = {"name": name, **own, **{key: value for key, value in found.items() if key in own}}
    if "adversary_lr" in options:
        adversary = {name: options.pop(old) for name, old in ADVERSARY.items()}
        options["adversary"] = None if adversary["stacks"] is None else adversary
    data = checkpoint["datamodule_hyper_parameters"]
    for old, new in DATA.items():
        if old in data:
            data[new] = data.pop(old)
    checkpoint["state_dict"] = {_renamed(key): value for key, value in checkpoint["state_dict"].items()}
    for key in [key for key in checkpoint["state_dict"] if key.endswith(".epoch")]:  # the temperature had no other time
        progress = key.removesuffix("epoch") + "progress"
        checkpoint["state_dict"].setdefault(progress, torch.zeros((), dtype=torch.float64))
    callbacks = checkpoint.get("callbacks", {})
    if "RunPictures" in callbacks:
        callbacks["RunFigures"] = callbacks.pop("RunPictures")
    parts = {"method": "objective", "opponent": "adversary"}
    for state in checkpoint.get("optimizer_states", ()):
        for group in state["param_groups"]:
            if "part" in group:
                group["part"] = parts.get(group["part"], group["part"])


def _renamed(key: str) -> str:
    for old, new in _PREFIXES.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key
