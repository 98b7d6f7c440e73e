"""The command ``sampling-argmax`` (or ``python -m sampling_argmax_cuda``)."""

import sys
from collections.abc import Sequence

TASK_COMMANDS = ("demo", "fit", "validate", "predict", "visualize", "study")
USAGE = """usage: sampling-argmax [doctor | demo | fit | validate | predict | visualize | study] [options]

  doctor    print the backends, versions and the build (the default)
  demo      train soft-argmax and sampling-argmax on generated images and compare them
  fit, validate, predict, visualize
            run a trainer, e.g. sampling-argmax fit --config coco (each has --help)
  study     compare methods over seeds on generated images"""
_TRAIN_PACKAGES = (
    "lightning", "jsonargparse", "yaml", "numpy", "scipy", "cv2", "pycocotools", "matplotlib", "tensorboard",
    "rich",
)  # fmt: skip


def _run_task(argv: list[str]) -> int:
    try:
        from .commands import fit as cli

        return int(cli.main(argv) or 0)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _TRAIN_PACKAGES:
            raise
        print(
            f"sampling-argmax {argv[0]}: package {missing!r} is not installed; "
            "run: pip install 'sampling-argmax-cuda[train]'",
            file=sys.stderr,
        )
        return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 where the [train] extra is missing, 2 for a wrong command."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv[0] if argv else "doctor"
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command in TASK_COMMANDS:
        return _run_task(argv)
    if command == "doctor" and len(argv) <= 1:
        from .commands.doctor import report

        print(report())
        return 0
    problem = f"doctor takes no options, got {argv[1]!r}" if command == "doctor" else f"unknown command {command!r}"
    print(f"sampling-argmax: {problem}\n{USAGE}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
