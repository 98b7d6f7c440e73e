"""``sampling-argmax export``: a checkpoint as one file that runs without this package."""

import argparse
import logging
import sys
from importlib import import_module
from pathlib import Path

from ..calibration.calibration import Calibration
from ..trainers.exporting import WRITERS, metadata, traced
from ..trainers.reading import restored_reader
from .load import read_deployable


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    found = argparse.ArgumentParser(prog="sampling-argmax export", description=__doc__, allow_abbrev=False)
    found.add_argument(
        "--ckpt_path", required=True, help="the checkpoint, of a task that finds points in boxes of images"
    )
    found.add_argument("--format", required=True, choices=tuple(WRITERS), help="ONNX, or torch.export's pt2")
    found.add_argument("--output", required=True, type=Path, help="the file to write")
    found.add_argument("--flip_test", choices=("true", "false"), default=None,
                       help="average with the mirrored image; the checkpoint's own unless said")  # fmt: skip
    return found


def main(argv: list[str]) -> int:
    """Export; a wrong input prints one line and gives status 1."""
    given = parser().parse_args(argv[1:])
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it says that it misses torchvision, which nothing here needs
    if given.format == "onnx":
        import_module("onnxscript")  # PyTorch would ask for it after minutes of work
    try:
        checkpoint = read_deployable(given.ckpt_path, "--ckpt_path:")
        calibration = Calibration.of(checkpoint.get("calibration"))
        reader = restored_reader(checkpoint, None if given.flip_test is None else given.flip_test == "true")
        about = metadata(checkpoint, reader)
        if calibration is not None and calibration.reading["flip_test"] != reader.tta.flip:
            print(
                f"calibrated with --flip_test {calibration.reading['flip_test']}, not {reader.tta.flip}: confidences may be off"
            )
        WRITERS[given.format](traced(reader, checkpoint["crop"]["image_size"], calibration), about, given.output)
    except (ValueError, FileNotFoundError) as error:
        print(f"sampling-argmax export: {error}", file=sys.stderr)
        return 1
    print(f"wrote {given.output}")
    return 0
