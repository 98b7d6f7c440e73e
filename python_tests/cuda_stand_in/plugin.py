"""For pytest, ``-p cuda_stand_in.plugin``: the tests see two GPUs."""

from pathlib import Path

import pytest
import torch

from cuda_stand_in import run_kernels_on_host
from cuda_stand_in.host import OnHost


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with OnHost():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    with OnHost():
        return (yield)


def pytest_sessionstart(session):
    import sampling_argmax_cuda  # noqa: F401  (registers the kernels)

    torch.utils.deterministic.fill_uninitialized_memory = False  # with a kernel of PyTorch's; `poisoned` does it

    run_kernels_on_host(Path(session.config.rootpath) / "build" / "cuda_stand_in")
