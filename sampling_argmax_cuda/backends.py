"""Which backends this installation has, why one is missing, and which one a call takes."""

import warnings
from importlib.util import find_spec

import torch
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import forward_ad

from . import library

# The dispatcher namespace that holds a backend's operators.
NAMESPACES = {"cpu": library.NAMESPACE, "cuda": library.NAMESPACE, "triton": "sampling_argmax_triton"}

TRITON_FOUND = find_spec("triton") is not None  # found, not imported


def operators(backend: str):
    """The operators of a backend, e.g. ``torch.ops.sampling_argmax``."""
    if backend == "triton":
        from . import _triton  # noqa: F401  (defines the operators, and imports Triton only where it is used)
    return getattr(torch.ops, NAMESPACES[backend])


def _cpu_missing() -> str | None:
    if library.LOAD_ERROR is None:
        return None
    return f"no C++ extension: {library.LOAD_ERROR} (it needs a C++20 compiler; reinstalling says what is wrong)"


def _cuda_missing() -> str | None:
    if library.LOAD_ERROR is not None:
        return _cpu_missing()
    if library.CUDA_LOAD_ERROR is not None:
        return f"no CUDA extension: {library.CUDA_LOAD_ERROR} (it needs an nvcc of PyTorch's CUDA version)"
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
    return {transform.key() for transform in get_interpreter_stack() or ()}


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


def _leaves_python() -> bool:
    """Whether a graph for elsewhere is made, by torch.export, torch.onnx or torch.jit, where this package is not known."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]  # documented


_told: set[str] = set()  # device types of which it was said that the reference runs


def _tell_slow(device: str) -> None:
    """Warn, once, that the reference runs where kernels would be: it is slower by far."""
    if torch.compiler.is_compiling() or device not in ("cpu", "cuda") or device in _told:
        return
    _told.add(device)
    reason = _cpu_missing() if device == "cpu" else _cuda_missing()
    warnings.warn(f"sampling_argmax_cuda: backend 'auto' takes the PyTorch reference on {device}, which is far slower than "
                  f"the kernels: {reason}", stacklevel=2)  # fmt: skip


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
        if _leaves_python():
            return "reference"
        if device in library.KERNEL_DEVICES:
            return device
        if device == "cuda" and TRITON_FOUND and not double:
            return "triton"
        _tell_slow(device)
        return "reference"
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
