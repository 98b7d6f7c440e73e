"""``sampling-argmax doctor``: what this installation can run, and why it cannot run the rest."""

import platform
import sys
from importlib import metadata

import torch

from ..backends import TRITON_FOUND, available_backends, build_info, missing_backends


def _cuda_line() -> str:
    if torch.version.cuda is None:
        return "none: torch was built without CUDA"
    if not torch.cuda.is_available():
        return f"{torch.version.cuda}, no device is visible"
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{torch.version.cuda}, {', '.join(devices)}"


def report() -> str:
    """Backends with the reason for each missing one, versions, threads and the build's instruction set."""
    from .. import __version__

    build = build_info()
    rows = [
        ("sampling-argmax", __version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("torch", torch.__version__),
        ("cuda", _cuda_line()),
        ("threads", str(torch.get_num_threads())),
        ("isa", build.get("isa", "none: the C++ extension was not built")),
        ("compiler", build.get("compiler", "none")),
        ("cuda kernels", build.get("cuda") or "none: not built"),
        ("triton", metadata.version("triton") if TRITON_FOUND else "none: not installed"),
    ]
    rows += [(f"backend {name}", "available") for name in available_backends()]
    rows += [(f"backend {name}", f"missing: {reason}") for name, reason in missing_backends().items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def main(argv: list[str]) -> int:
    """Print the report; status 2 for an option, of which there are none."""
    if len(argv) > 1:
        print(f"sampling-argmax doctor: there are no options, got {argv[1]!r}", file=sys.stderr)
        return 2
    print(report())
    return 0
