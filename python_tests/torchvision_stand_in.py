"""torchvision where its C++ cannot be: its wheels of PyPI do not load beside a CPU build of PyTorch.

`make build` keeps them in a folder of their own, which only tests look into. What is missing there is non-maximum suppression,
which stands here; torchvision's RoI align has a form in Python, and its data sets, networks and transforms are Python.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

FOLDER = Path(sys.prefix) / "torchvision"


def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """``torchvision::nms``: boxes ``[N, 4]`` by falling score, without those that overlap a better one by more than a part."""
    order, kept = scores.argsort(descending=True, stable=True), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        rest, one = boxes[order], boxes[best]
        both = (rest[:, 2:].minimum(one[2:]) - rest[:, :2].maximum(one[:2])).clamp(min=0).prod(-1)
        union = (rest[:, 2:] - rest[:, :2]).prod(-1) + (one[2:] - one[:2]).prod() - both
        order = order[both <= iou_threshold * union]
    return torch.stack(kept) if kept else order


def forget(*packages: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def import_torchvision() -> ModuleType:
    """The installed torchvision if it loads, else that of the folder with the operator above."""
    try:
        return import_module("torchvision")
    except (ImportError, RuntimeError):
        forget("torchvision")
    for name in ("nms", "qnms"):  # that of quantized boxes is named while torchvision is imported, and not called
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.impl("torchvision::nms", "cpu", suppress)
    sys.path.insert(0, str(FOLDER))
    try:
        torchvision = import_module("torchvision")
    finally:
        sys.path.remove(str(FOLDER))
    torchvision.extension._has_ops = lambda: True  # its check before nms; RoI align has its own, and takes its Python
    roi_align = sys.modules["torchvision.ops.roi_align"]
    roi_align._roi_align = roi_align._roi_align.__wrapped__  # without torch.compile, which takes half a minute
    return torchvision


def import_timm() -> ModuleType:
    """timm, which imports torchvision."""
    import_torchvision()
    return import_module("timm")
