"""Which backends this installation has, why one is missing, and which one a call takes."""

from importlib.util import find_spec

import torch
from torch._C._functorch import TransformType
from torch.autograd import forward_ad

from . import library

_INSTALL_HINT = "the C++ extension was not built: install a C++17 compiler, then reinstall this package"


# The dispatcher namespace that holds a backend's operators.
NAMESPACES = {"cpu": library.NAMESPACE, "cuda": library.NAMESPACE, "triton": "sampling_argmax_triton"}

TRITON_FOUND = find_spec("triton") is not None  # found, not imported


def operators(backend: str):
    """The operators of a backend, e.g. ``torch.ops.sampling_argmax``."""
    if backend == "triton":
        from . import _triton  # noqa: F401  (defines the operators, and imports Triton only where it is used)
    return getattr(torch.ops, NAMESPACES[backend])


def _cpu_missing() -> str | None:
    return None if library.LOAD_ERROR is None else f"{_INSTALL_HINT} ({library.LOAD_ERROR})"


def _cuda_missing() -> str | None:
    if library.LOAD_ERROR is not None:
        return f"{_INSTALL_HINT} ({library.LOAD_ERROR})"
    if "cuda" not in library.KERNEL_DEVICES:
        return "the extension was built without CUDA (no nvcc that matches torch's CUDA version at build time)"
    return None if torch.cuda.is_available() else "no CUDA device is visible"


def _triton_missing() -> str | None:
    if not TRITON_FOUND:
        return "Triton is not installed (pip install triton)"
    return None if torch.cuda.is_available() else "no CUDA or ROCm device is visible"


def missing_backends() -> dict[str, str]:
    """The backends that cannot run here, each with the reason in one line."""
    reasons = {"cuda": _cuda_missing(), "cpu": _cpu_missing(), "triton": _triton_missing()}
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


def _transforms() -> set[TransformType]:
    """The transforms of torch.func that a call is in; a compiled graph has none."""
    if torch.compiler.is_compiling():
        return set()
    return {transform.key() for transform in torch._C._functorch.get_interpreter_stack() or ()}


def is_mapped() -> bool:
    """Whether vmap hides which tensors need a gradient."""
    return TransformType.Vmap in _transforms()


def is_transformed() -> bool:
    """Whether a transform of torch.func runs, in which no number can be looked at."""
    return bool(_transforms())


def _differentiates_otherwise() -> bool:
    """Whether derivatives are asked for in another way than by backward: forward mode, or a transform of torch.func.

    The operators have gradients for autograd's backward alone; in these their output would be a constant.
    """
    return forward_ad._current_level >= 0 or bool({TransformType.Grad, TransformType.Jvp} & _transforms())


def resolve(op: str, backend: str, logits: torch.Tensor) -> str:
    """The backend that runs ``op`` on these logits: ``"cpu"``, ``"cuda"``, ``"triton"`` or ``"reference"``."""
    device, double = logits.device.type, logits.dtype == torch.float64
    if backend not in ("auto", "cuda", "triton", "cpu", "reference"):
        raise ValueError(f"{op}: backend must be one of auto, cuda, triton, cpu, reference, got {backend!r}")
    if backend != "reference" and _differentiates_otherwise():
        if backend != "auto":
            raise ValueError(f"{op}: backend {backend!r} has gradients for backward alone; forward mode and torch.func need "
                             "backend 'reference', which 'auto' takes for them")  # fmt: skip
        return "reference"
    if backend == "auto":
        if device in library.KERNEL_DEVICES:
            return device
        return "triton" if device == "cuda" and TRITON_FOUND and not double else "reference"
    if backend == "reference":
        return backend
    if backend in missing_backends():
        raise ValueError(f"{op}: backend {backend!r} is not available: {missing_backends()[backend]}")
    needed = "cuda" if backend == "triton" else backend
    if needed != device:
        raise ValueError(f"{op}: backend {backend!r} needs tensors on {needed}, got {device}")
    if backend == "triton" and double:
        raise ValueError(f"{op}: backend 'triton' takes float32, bfloat16 or float16 logits, got {logits.dtype}")
    return backend
