"""Shared by all tests: the one table of tolerances, and memory that is NaN until it is written."""

import gc
import os
from importlib.util import find_spec
from pathlib import Path

import cuda_shim
import pytest
import torch

from sampling_argmax_cuda import backends, library

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported: they run on the CPU, in numpy

# Largest difference from the float64 reference, relative to the reference's largest magnitude (at least 1).
# Inputs are the same numbers on both sides, so half precision only rounds the gradients that it stores.
TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 3e-5,
    torch.bfloat16: 2**-8,
    torch.float16: 2**-11,
}


def assert_close(name: str, got: torch.Tensor, expected: torch.Tensor, tau: float = 1.0) -> None:
    """Compare by the table above; the tolerance is that of ``got``'s dtype. NaN must meet NaN.

    Exponents are divided by tau, and so is their rounding: below 1/2 the tolerance grows as 1 / (2 tau).
    """
    assert got.shape == expected.shape, f"{name}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    got_nan, expected_nan = got.isnan(), expected.isnan()
    assert torch.equal(got_nan, expected_nan), f"{name}: NaN in {got_nan.sum()} places, expected {expected_nan.sum()}"
    if got.numel() == 0:
        return
    difference = (got.double() - expected.double()).nan_to_num().abs().max().item()
    scale = max(1.0, expected.double().nan_to_num().abs().max().item())
    tolerance = TOLERANCES[got.dtype] * max(1.0, 0.5 / tau)
    assert difference <= tolerance * scale, f"{name}: off by {difference:.3g}, allowed {tolerance * scale:.3g}"


def random_counters(count: int = 2**20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows on both sides of 2^32, samples, and cells on both sides of 2^31 and 2^32."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(0, 2**40, (count,), generator=generator)
    rows[::2] %= 2**16
    samples = torch.randint(0, 2**20, (count,), generator=generator)
    return rows, samples, torch.randint(0, 2**33, (count,), generator=generator)


def check_exponential(unsigned: torch.Tensor, e: torch.Tensor) -> None:
    """Of words in order: positive, finite, rising; where they begin at 0, the upper tail within 4e-5 and up to 22."""
    assert e.min() > 0 and e.max() < torch.inf
    assert (e[1:] >= e[:-1]).all()
    if unsigned[0] == 0:
        exact = -torch.log1p(-(unsigned.double() + 0.5) / 2**32) / 0.6931471805599453
        assert ((e.double() - exact).abs() / exact).max() <= 4e-5
        assert -torch.log(e[0] * 0.6931471805599453) >= 22


def pytest_configure(config):
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if workers > 1:  # the processes of the tests share the cores, and so do those that they start
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())


@pytest.fixture(autouse=True)
def poisoned_memory(request):
    """Fill torch.empty, in C++ too, with NaN, so that an element nobody writes is seen."""
    torch.use_deterministic_algorithms("written_memory" not in request.keywords)
    yield
    torch.use_deterministic_algorithms(False)


def machine_isas() -> list[str]:
    """The instruction sets that this machine can run, the widest last."""
    if library.LOAD_ERROR is not None:
        return []
    names = []
    for name in ("portable", "avx2", "avx512"):
        try:
            torch.ops.sampling_argmax.limit_isa(name)
        except ValueError:
            break
        names.append(name)
    torch.ops.sampling_argmax.limit_isa("best")
    return names


def pytest_addoption(parser):
    build = Path(__file__).parents[1] / "build" / "cuda_shim"
    parser.addoption("--shim-sources", type=Path, default=cuda_shim.CSRC, help="csrc to build the CUDA kernels from")
    parser.addoption("--shim-build", type=Path, default=build, help="folder to build them in")
    parser.addoption("--shim-optimize", default="-O1", help="optimisation to build them with")


def shim_options(config) -> tuple[Path, Path, str]:
    return tuple(config.getoption(f"--shim-{name}") for name in ("build", "sources", "optimize"))


def needs_shim(item) -> bool:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return "shim" in item.fixturenames or parameters.get("machine") == "cuda_shim"


BUILDS = pytest.StashKey[cuda_shim.BackgroundBuild]()


def pytest_collection_finish(session):
    """Begin to compile the CUDA kernels, in one process of the tests' (the controller of several collects none)."""
    gc.freeze()  # what the modules imported stays: a test that collects garbage need not look at it
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    if first and not session.config.option.collectonly and any(needs_shim(item) for item in session.items):
        session.config.stash[BUILDS] = cuda_shim.BackgroundBuild(*shim_options(session.config))


def pytest_sessionfinish(session):
    gc.unfreeze()
    if BUILDS in session.config.stash:
        session.config.stash[BUILDS].stop()


@pytest.fixture(scope="session")
def shim(request):
    """The operators of the CUDA kernels as compiled for the host."""
    cuda_shim.build(*shim_options(request.config))
    library.register(cuda_shim.NAMESPACE)
    library.register_searches(cuda_shim.NAMESPACE)
    return cuda_shim.operators()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where no other ``--dist`` than that of ``-n`` is asked for."""
    if config.getvalue("dist") == "load":
        from distribution import PieceScheduling

        return PieceScheduling(config, log)


def cuda_machines() -> list[str]:
    """The CUDA kernels on the host, which needs a compiler as the extension does, and on a GPU where there is one."""
    gpu = torch.cuda.is_available() and "cuda" in library.KERNEL_DEVICES
    return ([] if library.LOAD_ERROR else ["cuda_shim"]) + (["cuda"] if gpu else [])


def triton_machines() -> list[str]:
    """The Triton kernels, on a GPU where there is one, interpreted elsewhere."""
    return ["triton"] if find_spec("triton") is not None else []


_device = "cpu"


def machine_device() -> str:
    """The device of the fixture ``machine``."""
    return _device


@pytest.fixture
def machine(request, monkeypatch):
    """Run an instruction set of the CPU, the CUDA kernels on the host or a GPU, or Triton's (parametrised by name)."""
    if request.param == "triton":
        from sampling_argmax_cuda._triton import NAMESPACE

        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu":
            from triton_interpreter import hurry

            hurry()
        monkeypatch.setattr("conftest._device", device)
        monkeypatch.setitem(backends.NAMESPACES, device, NAMESPACE)
        yield request.param
    elif request.param == "cuda":
        monkeypatch.setattr("conftest._device", "cuda")
        yield request.param
    elif request.param == "cuda_shim":
        request.getfixturevalue("shim")
        monkeypatch.setitem(backends.NAMESPACES, "cpu", cuda_shim.NAMESPACE)
        yield request.param
    else:
        torch.ops.sampling_argmax.limit_isa(request.param)
        yield request.param
        torch.ops.sampling_argmax.limit_isa("best")


@pytest.fixture
def isa(request):
    """Run the CPU kernels of one instruction set (indirect parametrisation by name)."""
    torch.ops.sampling_argmax.limit_isa(request.param)
    yield request.param
    torch.ops.sampling_argmax.limit_isa("best")
