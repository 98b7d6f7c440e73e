"""The extension keeps to the stable ABIs of PyTorch and Python, so that one binary serves all their releases."""

import re
import resource
import shutil
import subprocess
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch
from contract_cases import number

import sampling_argmax_cuda
from sampling_argmax_cuda import library

PACKAGE = Path(sampling_argmax_cuda.__file__).parent
MODULES = sorted(PACKAGE.glob("_C*.so"))
# Names of C and of the standard library, demangled; nothing of C++ from PyTorch is among them.
STABLE = re.compile(r"\w+|((vtable|typeinfo|VTT) for )?(std|__cxxabiv1|__gnu_cxx)::.*|operator (new|delete).*")
PYTHON = re.compile(r"_?Py[A-Z]\w*")

pytestmark = pytest.mark.skipif(library.LOAD_ERROR is not None, reason="needs the C++ extension")


def undefined(module: Path) -> list[str]:
    """Names that the dynamic loader looks up elsewhere, demangled."""
    listed = subprocess.run(["nm", "-D", "-C", "--undefined-only", module], text=True, capture_output=True, check=True)
    return [line.split(maxsplit=1)[1].split("@")[0] for line in listed.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm of binutils")
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_nothing_but_stable_functions_is_looked_up(module):
    names = undefined(module)
    assert any(name.startswith("aoti_torch_") for name in names)
    assert [name for name in names if not STABLE.fullmatch(name)] == []
    assert {name for name in names if PYTHON.fullmatch(name)} <= {"PyModule_Create2"}


def test_a_module_is_of_every_python_from_the_oldest_on():
    assert MODULES and all(module.suffixes[-2:] == [".abi3", ".so"] for module in MODULES)
    assert ".abi3.so" in EXTENSION_SUFFIXES


def test_the_functions_are_of_the_oldest_pytorch():
    """What newer ones add stands behind a version in their header."""
    header = Path(torch.__file__).parent / "include" / "torch" / "csrc" / "stable" / "c" / "shim.h"
    newer = re.split(r"#if TORCH_FEATURE_VERSION >= TORCH_VERSION_2_1[2-9]_0", header.read_text())[1:]
    added = set(re.findall(r"\b(torch_\w+)\(", "".join(newer)))
    assert added and not added & {name for module in MODULES for name in undefined(module)}


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_call_keeps_no_memory():
    """Strings, lists and tensors of a call are freed: a string that is not would leave 32 bytes."""
    z, ops, numbers = torch.zeros(1, 1, 2), torch.ops.sampling_argmax, (number(1.0), number(1.0))

    def calls(count: int) -> None:
        for _ in range(count):
            ops.expected_error(z, z[..., :1], None, None, None, torch.tensor([1]), 1, *numbers, "uniform", "euclidean",
                               [True, False, False])  # fmt: skip

    calls(2000)
    before = megabytes()
    calls(60_000)
    assert megabytes() - before < 1


@pytest.mark.parametrize("tau", [0.0, -1.0, torch.nan, torch.inf])
def test_a_launcher_refuses_what_no_graph_could_check(tau):
    with pytest.raises(ValueError, match="tau must be > 0, got"):
        torch.ops.sampling_argmax.sample(
            torch.zeros(1, 1, 2), None, None, torch.tensor([1]), 1, number(tau), number(1.0), "none"
        )


def test_an_unknown_name_is_a_value_error():
    arguments = torch.zeros(1, 1, 2), None, None, torch.tensor([1]), 1, number(1.0), number(1.0)
    with pytest.raises(ValueError, match="basis must be none, uniform, triangular or gaussian, got round"):
        torch.ops.sampling_argmax.sample(*arguments, "round")
    with pytest.raises(ValueError, match="tau must be one float64 number on the CPU"):
        torch.ops.sampling_argmax.sample(*arguments[:5], torch.tensor(1.0), number(1.0), "none")
