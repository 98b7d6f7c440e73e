"""A trained network as one function: from crops to positions, confidences and covariances in pixels."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..objectives import make_objective
from ..objectives.decoders import Decoder
from ..objectives.objective import Objective
from .landmarks import landmarks_of
from .networks import make_network
from .tta import STRIDE, EnsembleMember, TestTimeAugmentation


class Prediction(NamedTuple):
    """Positions ``[n, K, 2]`` in pixels, confidences ``[n, K]`` and covariances ``[n, K, 2, 2]`` in pixels squared."""

    positions: Tensor
    confidence: Tensor
    covariance: Tensor


def to_image(position: Tensor, inverse: Tensor) -> Tensor:
    """Positions ``[B, K, 2]`` in pixels of crops to pixels of their images, by the affines ``[B, 2, 3]`` from one to the other."""
    position = nn.functional.pad(position, (0, 1), value=1.0)
    return torch.einsum("bij,bkj->bki", inverse.to(position.dtype), position)


def covariance_to_image(covariance: Tensor, inverse: Tensor) -> Tensor:
    """Covariances ``C`` ``[B, K, 2, 2]`` of crops as ``A C A^T`` of their images, A the linear part of the affines."""
    linear = inverse[:, None, :, :2].to(covariance.dtype)
    return linear @ covariance @ linear.mT


class LandmarkReader(nn.Module):
    """A network with its objective and test-time augmentation. Whoever predicts and whoever exports runs this."""

    def __init__(self, network: nn.Module, objective: Objective, tta: TestTimeAugmentation) -> None:
        super().__init__()
        self.network, self.objective, self.tta = network, objective, tta

    def forward(self, crops: Tensor) -> Prediction:
        """What is found in inputs ``[B, 3, H, W]``, in pixels of the inputs."""
        return self.read(crops)[0]

    def read(self, crops: Tensor, law: bool = False) -> tuple[Prediction, Tensor | None]:
        """The same and, if asked, the law of the points, as :class:`.Reading` has it."""
        read = self.tta.read([EnsembleMember(self.network, self.objective)], crops, law)
        stride = self.tta.stride
        return Prediction(read.position * stride, read.peak, read.covariance * stride**2), read.law


def _part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of a part of a module, by their names in it."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def restored_reader(checkpoint: Mapping, flip_test: bool | None = None) -> LandmarkReader:
    """The reader of a checkpoint of :func:`.read_checkpoint` that has ``landmarks``, ready to evaluate.

    ``flip_test`` stands for the checkpoint's own. Other members of an ensemble are files of their own and no part of it.
    """
    options, state = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    landmarks = landmarks_of(checkpoint["landmarks"], "checkpoint")
    objective = make_objective(options["objective"])
    network = make_network(options, len(landmarks), objective)
    network.load_state_dict(_part(state, "model"))
    objective.load_state_dict(_part(state, "objective"))
    if options.get("decoder") is not None:  # checkpoints from before there were decoders have none
        objective.decoder = Decoder(options["decoder"], options["decoder_radius"])
    flip = (options["flip_test"] if flip_test is None else flip_test) and landmarks.pairs is not None
    stride = options.get("stride", STRIDE)  # which older checkpoints do not know
    tta = TestTimeAugmentation(landmarks.mirrored(), flip, options["scales"], options["average"], stride)
    return LandmarkReader(network, objective, tta).eval()
