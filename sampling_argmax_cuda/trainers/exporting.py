"""A trained network as a file that needs no part of this package: ONNX, or torch.export's."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .files import write_atomically
from .reading import LandmarkReader, Prediction

INPUT, OUTPUTS = "images", Prediction._fields
METADATA = "sampling_argmax"  # its name among an ONNX file's metadata, and in a .pt2 file


def metadata(checkpoint: Mapping, reader: LandmarkReader) -> dict[str, object]:
    """What a user of the file has to know, for JSON: how its input is made, and what its output is."""
    crop, landmarks = checkpoint["crop"], checkpoint["landmarks"]
    width, height = crop["image_size"]
    return {
        "task": checkpoint["task"],
        "objective": checkpoint["hyper_parameters"]["objective"]["name"],
        "flip_test": reader.tta.flip,
        **{name: landmarks[name] for name in ("names", "pairs", "skeleton")},
        "crop": crop,
        "input": {INPUT: f"float32 [batch, 3, {height}, {width}]: red, green, blue / 255, less mean, over std"},
        "output": {
            "positions": "[batch, points, 2]: x, y in pixels of the crop, whose first pixel's centre is 0, 0",
            "confidence": "[batch, points]",
            "covariance": "[batch, points, 2, 2]: of x and y, in pixels squared of the crop",
        },
    }


class ByName(torch.nn.Module):
    """A reader whose answer is a dict: a file must not need the type that this package has for it."""

    def __init__(self, reader: LandmarkReader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.reader(images)._asdict()


def traced(reader: LandmarkReader, image_size: tuple[int, int]) -> torch.export.ExportedProgram:
    """The reader as a graph of PyTorch's own operators, for any number of images."""
    width, height = image_size
    images, batch = (
        torch.zeros(2, 3, height, width),
        torch.export.Dim("batch"),
    )  # one image would be taken for a constant
    with torch.no_grad():
        return torch.export.export(ByName(reader).eval(), (images,), dynamic_shapes={INPUT: {0: batch}})


def write_pt2(program: torch.export.ExportedProgram, about: Mapping, path: Path) -> None:
    """A file for ``torch.export.load(path, extra_files={"sampling_argmax": ""})``."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(about)})
    write_atomically(path, buffer.getvalue())


def write_onnx(program: torch.export.ExportedProgram, about: Mapping, path: Path) -> None:
    """A file for onnxruntime and others, with the weights in it."""
    found = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=list(OUTPUTS),
                              dynamic_shapes={INPUT: {0: "batch"}}, verbose=False)  # fmt: skip
    found.model.metadata_props[METADATA] = json.dumps(about)
    write_atomically(path, found.model_proto.SerializeToString())


WRITERS = {"onnx": write_onnx, "pt2": write_pt2}
