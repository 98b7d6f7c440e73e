"""A trained network as a file that needs no part of this package: ONNX, or torch.export's."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..calibration.calibration import Calibration
from ..calibration.laws import in_plane, tempered
from ..objectives.spread import plane_covariance
from .certainty import spread_in_radii
from .files import write_atomically
from .reading import LandmarkReader, Prediction

INPUT, SCALE, OUTPUTS = "images", "scale", Prediction._fields
METADATA = "sampling_argmax"  # its name among an ONNX file's metadata, and in a .pt2 file


def metadata(checkpoint: Mapping, reader: LandmarkReader) -> dict[str, object]:
    """What a user of the file has to know, for JSON: how its input is made, and what its output is."""
    crop, landmarks = checkpoint["crop"], checkpoint["landmarks"]
    width, height = crop["image_size"]
    calibration = Calibration.of(checkpoint.get("calibration"))
    scale = {SCALE: "float32 [batch]: pixels of the image a pixel of the crop"} if needs_scale(calibration) else {}
    sure = "" if calibration is None else f": the probability that the error is below {calibration.radius}"
    return {
        "task": checkpoint["task"],
        "objective": checkpoint["hyper_parameters"]["objective"]["name"],
        "flip_test": reader.tta.flip,
        **{name: landmarks[name] for name in ("names", "pairs", "skeleton")},
        "crop": crop,
        "input": {
            INPUT: f"float32 [batch, 3, {height}, {width}]: red, green, blue / 255, less mean, over std",
            **scale,
        },
        "output": {
            "positions": "[batch, points, 2]: x, y in pixels of the crop, whose first pixel's centre is 0, 0",
            "confidence": f"[batch, points]{sure}",
            "covariance": "[batch, points, 2, 2]: of x and y, in pixels squared of the crop",
        },
    }


def needs_scale(calibration: Calibration | None) -> bool:
    """Whether a file has to be told how large its crops' pixels are: its radius is one of the image."""
    return calibration is not None and calibration.radius.unit == "px"


class CalibratedReader(torch.nn.Module):
    """A reader whose covariance is that of the calibrated maps, and whose confidence is the probability that they stand for."""

    def __init__(self, reader: LandmarkReader, calibration: Calibration) -> None:
        super().__init__()
        self.reader, self.calibration = reader, calibration

    def forward(self, images: Tensor, scale: Tensor | None = None) -> Prediction:
        """See :class:`.Prediction`, in pixels of the crops, of which one is ``scale`` ``[B]`` pixels of its image."""
        found, law = self.reader.read(images, law=True)
        plane = in_plane(tempered(law, self.calibration.temperature))
        covariance = plane_covariance(plane, "reference") * self.reader.tta.stride**2
        scale = images.new_ones(images.shape[0]) if scale is None else scale
        radius = self.calibration.radius.pixels(scale.double() * max(images.shape[-2:])) / scale
        confidence = self.calibration.confidence(spread_in_radii(covariance, radius))
        return found._replace(confidence=confidence.float(), covariance=covariance.float())


class ByName(torch.nn.Module):
    """A reader whose answer is a dict: a file must not need the type that this package has for it."""

    def __init__(self, reader: LandmarkReader | CalibratedReader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, images: Tensor, scale: Tensor | None = None) -> dict[str, Tensor]:
        return (self.reader(images) if scale is None else self.reader(images, scale))._asdict()


def traced(reader: LandmarkReader, image_size: tuple[int, int], calibration: Calibration | None = None
           ) -> torch.export.ExportedProgram:  # fmt: skip
    """The reader as a graph of PyTorch's own operators, for any number of images."""
    width, height = image_size
    inputs = {INPUT: torch.zeros(2, 3, height, width)}  # one image would be taken for a constant
    if needs_scale(calibration):
        inputs[SCALE] = torch.ones(2)
    own = ByName(reader if calibration is None else CalibratedReader(reader, calibration)).eval()
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        return torch.export.export(own, tuple(inputs.values()), dynamic_shapes={name: {0: batch} for name in inputs})


def write_pt2(program: torch.export.ExportedProgram, about: Mapping, path: Path) -> None:
    """A file for ``torch.export.load(path, extra_files={"sampling_argmax": ""})``."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(about)})
    write_atomically(path, buffer.getvalue())


def write_onnx(program: torch.export.ExportedProgram, about: Mapping, path: Path) -> None:
    """A file for onnxruntime and others, with the weights in it."""
    inputs = list(program.graph_signature.user_inputs)
    found = torch.onnx.export(program, dynamo=True, input_names=inputs, output_names=list(OUTPUTS),
                              dynamic_shapes={name: {0: "batch"} for name in inputs}, verbose=False)  # fmt: skip
    found.model.metadata_props[METADATA] = json.dumps(about)
    write_atomically(path, found.model_proto.SerializeToString())


WRITERS = {"onnx": write_onnx, "pt2": write_pt2}
