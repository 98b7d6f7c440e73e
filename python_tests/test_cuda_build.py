"""A build with CUDA where there is no GPU: its kernels, its graphs, and its launches on the runtime of cuda_stand_in.

``make cuda-check`` runs these with a CUDA build of PyTorch, and test_contract.py on the same runtime.
"""

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from sampling_argmax_cuda import axis_sample, backends, expected_error, heatmap_moments, library, sample

needs_build = pytest.mark.skipif("cuda" not in library.KERNEL_DEVICES, reason="needs a build with CUDA")
needs_stand_in = pytest.mark.skipif(
    "SAMPLING_ARGMAX_STAND_IN" not in os.environ, reason="needs the runtime of cuda_stand_in"
)

SETTINGS = dict(num_samples=5, tau=0.7)
LOSSES = {
    "sample": lambda z, t, seed: (sample(z, seed=seed, **SETTINGS) - t[:, :, None]).abs().mean(),
    "axis_sample": lambda z, t, seed: (axis_sample(z, seed=seed, **SETTINGS) - t[:, :, None]).abs().mean(),
    "expected_error": lambda z, t, seed: expected_error(z, t, seed=seed, **SETTINGS).mean(),
    "soft_argmax": lambda z, t, seed: (heatmap_moments(z).mean - t).abs().mean(),
}


@pytest.fixture
def runtime():
    from cuda_stand_in import load_runtime

    return load_runtime()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 2


def value_and_gradient(call, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    z = noise(2, 3, 9, 7).to(device).requires_grad_()
    loss = call(z, torch.full((2, 3, 2), 3.0, device=device), torch.tensor([5], device=device))
    return loss.detach().cpu(), torch.autograd.grad(loss, z)[0].cpu()


@needs_build
def test_every_operator_has_a_cuda_kernel():
    for schema in torch._C._jit_get_all_schemas():
        if schema.name.startswith("sampling_argmax::"):
            has = {key for key in ("CPU", "CUDA") if torch._C._dispatch_has_kernel_for_dispatch_key(schema.name, key)}
            assert has in ({"CPU", "CUDA"}, set()), schema.name  # those without tensors have one kernel for all


@needs_build
@pytest.mark.parametrize("preloaded", [False, True])
def test_doctor_tells_the_truth(preloaded):
    if preloaded and "SAMPLING_ARGMAX_STAND_IN" not in os.environ:
        pytest.skip("needs the runtime of cuda_stand_in")
    environment = {k: v for k, v in os.environ.items() if preloaded or k != "LD_PRELOAD"}
    command = [sys.executable, "-m", "sampling_argmax_cuda"]
    said = subprocess.run(command, env=environment, text=True, capture_output=True, check=True).stdout
    rows = {line[:18].strip(): line[18:].strip() for line in said.splitlines()}
    assert rows["cuda kernels"] == backends.cuda_architectures() != ""
    assert rows["backend cuda"] == ("available" if preloaded else "missing: no CUDA device is visible")


@needs_build
@needs_stand_in
@pytest.mark.parametrize("op", LOSSES)
def test_a_training_step_is_one_graph(op):
    """torch.compile of network and loss for a device, forward and backward; the fused operators stand in its graphs."""
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    with _disable_current_modes(), FakeTensorMode(allow_non_fake_inputs=True):
        network = torch.nn.Conv2d(3, 17, 3, device="cuda")
        images, target = torch.empty(2, 3, 10, 10, device="cuda"), torch.empty(2, 17, 2, device="cuda")
        seed = torch.empty(1, dtype=torch.int64, device="cuda")
        step = torch.compile(lambda x, t, s: LOSSES[op](network(x), t, s), fullgraph=True,
                             backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))  # fmt: skip
        step(images, target, seed).backward()
        assert network.weight.grad.device.type == "cuda"
    found = [
        str(node.target) for graph in graphs for node in graph.graph.nodes if "sampling_argmax" in str(node.target)
    ]
    backward = [] if op == "expected_error" else [f"sampling_argmax.{op}_backward.default"]
    assert found == [f"sampling_argmax.{op}.default", *backward]


@needs_stand_in
@pytest.mark.parametrize("op", LOSSES)
def test_a_launch_is_on_the_current_stream(op, runtime):
    """Of the tensors' device, whichever is current; the values are the CPU's."""
    expected = value_and_gradient(LOSSES[op], "cpu")
    for device in ("cuda:0", "cuda:1"):
        stream = torch.cuda.Stream(device)
        with torch.cuda.stream(stream):
            results = value_and_gradient(LOSSES[op], device)
        assert runtime.stand_in_last_stream() == stream.cuda_stream
        for got, wanted in zip(results, expected, strict=True):
            assert (got - wanted).abs().max() <= 3e-5 * wanted.abs().max().clamp(min=1)


@needs_stand_in
@pytest.mark.parametrize("op", LOSSES)
def test_launches_are_counted(op, runtime):
    """One forward and one backward; of expected_error one for both."""
    before = runtime.stand_in_launches(b"sampling_argmax")
    value_and_gradient(LOSSES[op], "cuda")
    assert runtime.stand_in_launches(b"sampling_argmax") - before == (1 if op == "expected_error" else 2)


@needs_stand_in
@pytest.mark.parametrize("op", LOSSES)
def test_a_launch_is_on_the_device_of_its_tensors(op):
    """A kernel with memory of another device is refused by the runtime."""
    with torch.cuda.device(0):
        result = value_and_gradient(LOSSES[op], "cuda:1")
        assert torch.cuda.current_device() == 0
    with torch.cuda.device(1):
        assert all(map(torch.equal, result, value_and_gradient(LOSSES[op], "cuda:1")))


@needs_stand_in
def test_host_threads_launch_one_kernel_with_sizes_of_their_own():
    from cuda_stand_in.host import OnHost

    heights, errors = (48, 64), {48: [], 64: []}

    def work(height):
        with OnHost():  # a mode of the thread
            z, target = noise(1, 1, height, 48).cuda(), torch.zeros(1, 1, 2, device="cuda")
            errors[height] = [expected_error(z, target, seed=3, **SETTINGS).item() for _ in range(10)]

    threads = [threading.Thread(target=work, args=(height,)) for height in heights]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(errors[height]) == 10 and len(set(errors[height])) == 1 for height in heights)


@needs_stand_in
def test_what_shared_memory_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="bins together on CUDA"):
        z = torch.zeros(1, 1, 2, 60_000, device="cuda", requires_grad=True)
        axis_sample(z, num_samples=1, tau=1.0, seed=1).sum().backward()
