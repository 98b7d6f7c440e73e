"""Which backends this installation has, why one is missing, and which one a call takes."""

import torch

from . import library

_INSTALL_HINT = "the C++ extension was not built: install a C++17 compiler, then reinstall this package"


# The dispatcher namespace that holds a backend's operators.
NAMESPACES = {"cpu": library.NAMESPACE, "cuda": library.NAMESPACE}


def operators(backend: str):
    """The operators of a backend, e.g. ``torch.ops.sampling_argmax``."""
    return getattr(torch.ops, NAMESPACES[backend])


def _cpu_missing() -> str | None:
    return None if library.LOAD_ERROR is None else f"{_INSTALL_HINT} ({library.LOAD_ERROR})"


def _cuda_missing() -> str | None:
    if library.LOAD_ERROR is not None:
        return f"{_INSTALL_HINT} ({library.LOAD_ERROR})"
    if "cuda" not in library.KERNEL_DEVICES:
        return "the extension was built without CUDA (no nvcc that matches torch's CUDA version at build time)"
    return None if torch.cuda.is_available() else "no CUDA device is visible"


def missing_backends() -> dict[str, str]:
    """The backends that cannot run here, each with the reason in one line."""
    reasons = {"cuda": _cuda_missing(), "cpu": _cpu_missing(), "triton": "this release has no Triton kernels"}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def available_backends() -> tuple[str, ...]:
    """The backends that can run here, the preferred first, e.g. ``("cuda", "cpu", "reference")``."""
    missing = missing_backends()
    return tuple(name for name in ("cuda", "triton", "cpu", "reference") if name not in missing)


def build_info() -> dict[str, str]:
    """Instruction set in use, compiler and CUDA architectures of the C++ extension; empty where it was not built."""
    if library.LOAD_ERROR is not None:
        return {}
    isa, compiler = torch.ops.sampling_argmax.build_info().split("|")
    return {"isa": isa, "compiler": compiler, "cuda": cuda_architectures()}


def cuda_architectures() -> str:
    """What the CUDA kernels were built for, e.g. ``"sm_80 sm_90"``; empty where they were not built."""
    if "cuda" not in library.KERNEL_DEVICES:
        return ""
    return " ".join(f"sm_{int(a) // 10}" for a in torch.ops.sampling_argmax.cuda_architectures().split(","))


def resolve(op: str, backend: str, device: torch.device) -> str:
    """The backend that runs ``op`` on tensors of ``device``: ``"cpu"``, ``"cuda"`` or ``"reference"``."""
    if backend not in ("auto", "cuda", "triton", "cpu", "reference"):
        raise ValueError(f"{op}: backend must be one of auto, cuda, triton, cpu, reference, got {backend!r}")
    if backend == "auto":
        return device.type if device.type in library.KERNEL_DEVICES else "reference"
    if backend == "reference":
        return backend
    if backend in missing_backends():
        raise ValueError(f"{op}: backend {backend!r} is not available: {missing_backends()[backend]}")
    if backend != device.type:
        raise ValueError(f"{op}: backend {backend!r} needs tensors on {backend}, got {device.type}")
    return backend
