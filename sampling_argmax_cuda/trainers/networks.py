"""The network of a task on images, from the options of its module: a checkpoint has them too."""

from collections.abc import Mapping

from torch import nn

from ..objectives.objective import Objective
from .hourglass import HourglassNet
from .resnet import PoseNet, RegressionNet


def make_network(options: Mapping, points: int, objective: Objective, volume: int | None = None) -> nn.Module:
    """Hourglasses where ``options`` have ``stacks``, else a ResNet that answers with what the objective reads.

    Args:
        options: those of the module: ``depth``, ``head_channels``, ``norm``, ``gain``, of some tasks ``stacks``, ``channels``.
        points: number of points K.
        objective: what reads the network's answer.
        volume: cells of the maps' depth axis, None for flat maps.
    """
    if options.get("stacks") is not None:
        if objective.regresses or objective.predicts_sigma:
            raise ValueError(f"model: hourglasses need an objective with maps alone, got {options['objective']['name']}; "
                             "stacks null has a ResNet")  # fmt: skip
        return HourglassNet(points, options["stacks"], options["channels"], options["norm"])
    depth, norm, sigma = options["depth"], options["norm"], objective.predicts_sigma
    if objective.regresses:
        return RegressionNet(points, depth, norm, volume, sigma)
    gain = options.get("gain", 1.0)  # which checkpoints of version 0.1.0 do not know
    return PoseNet(points, depth, options["head_channels"], norm, volume, sigma, gain)
