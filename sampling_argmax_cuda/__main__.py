"""The command ``sampling-argmax`` (or ``python -m sampling_argmax_cuda``): it chooses a command and runs it."""

import sys
from collections.abc import Sequence
from importlib import import_module

# Each command and the file of sampling_argmax_cuda/commands that has it.
COMMANDS = {"doctor": "doctor", "demo": "demo", "fit": "fit", "validate": "fit", "predict": "fit", "visualize": "fit",
            "calibrate": "calibrate", "convert": "convert", "export": "export", "study": "study"}  # fmt: skip
USAGE = """usage: sampling-argmax COMMAND [options]

  doctor    print the backends, versions and the build (the default)
  demo      train soft-argmax and sampling-argmax on synthetic images and compare them
  fit, validate, predict, visualize
            run a trainer, e.g. sampling-argmax fit --config coco (each has --help)
  calibrate fit on validation data how sure a checkpoint is, and write a report
  convert   make a folder of COCO key points of another tool's labels
  export    write a checkpoint as one file, ONNX or torch.export's, that runs without this package
  study     compare objectives over seeds on synthetic images"""
_TRAIN_PACKAGES = (
    "lightning", "jsonargparse", "yaml", "numpy", "scipy", "cv2", "pycocotools", "matplotlib", "tensorboard",
    "rich",
)  # fmt: skip
_EXTRAS = {**dict.fromkeys(_TRAIN_PACKAGES, "train"), **dict.fromkeys(("onnx", "onnxscript"), "export"),
           **dict.fromkeys(("sleap_io", "h5py"), "formats"), "transformers": "hf",
           **dict.fromkeys(("timm", "torchvision"), "timm")}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 where an extra is missing, 2 for a wrong command."""
    argv = list(sys.argv[1:] if argv is None else argv) or ["doctor"]
    if argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if argv[0] not in COMMANDS:
        print(f"sampling-argmax: unknown command {argv[0]!r}\n{USAGE}", file=sys.stderr)
        return 2
    try:
        return int(import_module(f".commands.{COMMANDS[argv[0]]}", __package__).main(argv) or 0)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        print(
            f"sampling-argmax {argv[0]}: package {missing!r} is not installed; "
            f"run: pip install 'sampling-argmax-cuda[{_EXTRAS[missing]}]'",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
