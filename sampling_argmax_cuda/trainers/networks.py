"""The network of a task on images, from the options of its module: a checkpoint has them too."""

from collections.abc import Mapping

from torch import nn

from ..objectives.objective import Objective
from .descriptions import POSE
from .hourglass import HourglassNet
from .pretrained import PretrainedBackbone, PretrainedPose
from .resnet import LandmarkNet, PoseNet, RegressionNet
from .tta import STRIDE


def make_network(options: Mapping, points: int, objective: Objective, volume: int | None = None) -> nn.Module:
    """Hourglasses where ``options`` have ``stacks``, else a back-bone with a head that answers with what the objective reads.

    Args:
        options: those of the module: ``depth``, ``head_channels``, ``norm``, ``gain``, ``backbone_config``,
            ``backbone_lr_factor``, ``stride``, ``sub_distributions``, of some tasks ``stacks``, ``channels``.
        points: number of points K.
        objective: what reads the network's answer.
        volume: cells of the maps' depth axis, None for flat maps.
    """
    factor = options.get("backbone_lr_factor", 1.0)
    cells = {"stride": options.get("stride", STRIDE), "sub_distributions": options.get("sub_distributions")}
    usual = tuple(cells.values()) == (STRIDE, None)  # as in checkpoints that do not know the options
    if options.get("stacks") is not None:
        if not usual:
            raise ValueError(
                "model: hourglasses have maps of stride 4 without sub_distributions; stacks null has a ResNet"
            )
        if objective.regresses or objective.predicts_sigma:
            raise ValueError(f"model: hourglasses need an objective with maps alone, got {options['objective']['name']}; "
                             "stacks null has a ResNet")  # fmt: skip
        if options.get("backbone_config") is not None or factor != 1:
            raise ValueError("model: hourglasses have no backbone; stacks null has one")
        return HourglassNet(points, options["stacks"], options["channels"], options["norm"])
    network = _on_backbone(options, points, objective, volume, None if usual else cells)
    if factor == 0:
        network.freeze_backbone()
    return network


def _on_backbone(options: Mapping, points: int, objective: Objective, volume: int | None, cells: Mapping | None
                 ) -> LandmarkNet:  # fmt: skip
    """A back-bone with a head: the ResNet, one of another library, or a whole network of one. ``cells`` None are the usual ones."""
    about = options.get("backbone_config")
    depth, norm, sigma = options["depth"], options["norm"], objective.predicts_sigma
    gain = options.get("gain", 1.0)  # which checkpoints of version 0.1.0 do not know
    if about is not None and about["architecture"].endswith(POSE):
        if objective.regresses or sigma or volume is not None:
            raise ValueError(f"model: backbone {about['name']} is a whole network of flat maps, which objective "
                             f"{options['objective']['name']} of this task is not for")  # fmt: skip
        if cells is not None:
            raise ValueError(
                f"model: backbone {about['name']} is a whole network of maps of stride 4, without sub_distributions"
            )
        return PretrainedPose(about, points, gain)
    backbone = None if about is None else PretrainedBackbone(about)
    if objective.regresses:
        if cells is not None:
            raise ValueError(f"model: stride needs an objective with maps, got {options['objective']['name']}")
        return RegressionNet(points, depth, norm, volume, sigma, backbone)
    if cells is None:
        return PoseNet(points, depth, options["head_channels"], norm, volume, sigma, gain, backbone)
    # A width that learns begins as the objective's own.
    width = {"sigma": objective.sigma} if cells["sub_distributions"] == "offset_sigma" else {}
    return PoseNet(points, depth, options["head_channels"], norm, volume, sigma, gain, backbone, **cells, **width)
