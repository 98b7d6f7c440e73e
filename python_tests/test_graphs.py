"""A user's own model with these operators in it: exported it is made of PyTorch's operators alone; copied, pickled, forked and
on a device without memory it works as any other."""

import copy
import io
import multiprocessing
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from contract_cases import noise

from sampling_argmax_cuda import (
    LocalizationLoss,
    SamplingArgmax,
    SoftArgmax,
    backends,
    expected_error,
    heatmap_moments,
    sample,
    soft_argmax,
)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps = torch.nn.Conv2d(3, 2, 3)

    def forward(self, images):
        maps = self.maps(images)
        moments = heatmap_moments(maps, beta=1.5)
        return soft_argmax(maps), moments.covariance, moments.peak, moments.entropy


IMAGES = noise(2, 3, 10, 9)
BATCH = {"images": {0: torch.export.Dim("batch")}}


def own_operators(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if "sampling_argmax" in str(node.target)]


def same(found, expected) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(ours), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.written_memory
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_has_pytorch_operators_alone(strict):
    program = torch.export.export(Network().eval(), (IMAGES,), dynamic_shapes=BATCH, strict=strict)
    assert own_operators(program) == []
    for batch in (2, 5):
        images = noise(batch, 3, 10, 9, seed=batch)
        same(program.module()(images), Network()(images))


@pytest.mark.written_memory
def test_a_compiled_program_has_the_fused_ones():
    """Exporting alone takes them apart."""
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    torch.compile(Network(), backend=keep, fullgraph=True)(IMAGES)
    assert any("sampling_argmax.soft_argmax" in str(node.target) for node in graphs[0].graph.nodes)


class Sampler(torch.nn.Module):
    def forward(self, logits, seed):
        return sample(logits, num_samples=3, tau=0.7, seed=seed)


@pytest.mark.written_memory
def test_samples_can_be_exported():
    """With a seed that is an input; the numbers are the operators'."""
    inputs = noise(2, 2, 5, 6), torch.tensor([7])
    program = torch.export.export(Sampler(), inputs)
    assert own_operators(program) == []
    same([program.module()(*inputs)], [Sampler()(*inputs)])


@pytest.mark.written_memory
def test_onnx_equals_eager():
    """By torch.onnx.export as a user calls it, for any number of images."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own
        found = torch.onnx.export(Network().eval(), (IMAGES,), dynamo=True, dynamic_shapes=BATCH, verbose=False)
    session = runtime.InferenceSession(found.model_proto.SerializeToString())
    for batch in (2, 5):
        images = noise(batch, 3, 10, 9, seed=batch)
        same(session.run(None, {session.get_inputs()[0].name: images.numpy()}), Network()(images))


def test_a_traced_program_has_pytorch_operators_alone():
    traced = torch.jit.trace(Network().eval(), (IMAGES,))
    assert "sampling_argmax::" not in str(traced.inlined_graph)
    same(traced(IMAGES), Network()(IMAGES))


def packaged(program: torch.export.ExportedProgram, folder: Path):
    """The program compiled by AOTInductor, as it is loaded from its file."""
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "network.pt2"))
    return torch._inductor.aoti_load_package(path)


@pytest.mark.long
@pytest.mark.written_memory
def test_a_package_of_aot_inductor_equals_eager(tmp_path):
    program = torch.export.export(Network().eval(), (IMAGES,), dynamic_shapes=BATCH)
    images = noise(5, 3, 10, 9, seed=5)
    same(packaged(program, tmp_path)(images), Network()(images))


@pytest.mark.long
@pytest.mark.written_memory
def test_a_package_of_aot_inductor_draws_the_same_samples(tmp_path):
    """For other maps, another key and another first row than those that it was compiled with."""
    shapes = {"logits": {0: torch.export.Dim("batch")}, "seed": None}
    program = torch.export.export(Sampler(), (noise(2, 2, 5, 6), torch.tensor([7, 0])), dynamic_shapes=shapes)
    package = packaged(program, tmp_path)
    for inputs in (
        (noise(2, 2, 5, 6), torch.tensor([7, 0])),
        (noise(5, 2, 5, 6, seed=1), torch.tensor([2**40 + 3, 2**33])),
    ):
        same([package(*inputs)], [Sampler()(*inputs)])


MODULES = (
    SamplingArgmax(4, tau=0.7, basis="gaussian"),
    SoftArgmax(beta=2.0),
    LocalizationLoss("energy", num_samples=4, tau="coco", coords="pixels", stride=4),
)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_modules_are_copied_and_pickled(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    given = [noise(2, 3, 5, 6), *[torch.ones(2, 3, 2)] * isinstance(module, LocalizationLoss)]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(buffer, weights_only=False)):
        for mode in (True, False):
            outputs = []
            for one in (module, other):
                torch.manual_seed(3)
                outputs.append(one.train(mode)(*given))
            assert torch.equal(*outputs)


def test_a_device_without_memory_gives_the_shapes():
    with torch.device("meta"):
        z = torch.empty(2, 3, 5, 6, requires_grad=True)
        y = sample(z, num_samples=4, tau=0.7)
        error = expected_error(z, torch.empty(2, 3, 2), num_samples=4, tau=0.7)
        moments = heatmap_moments(z)
    assert y.is_meta and y.shape == (2, 3, 4, 2) and error.shape == (2, 3)
    assert moments.covariance.shape == (2, 3, 2, 2)
    (error.sum() + y.sum() + moments.entropy.sum()).backward()
    assert z.grad.shape == z.shape


def test_what_random_means_under_vmap():
    """``different`` draws for each of the batch, ``same`` once for all."""
    z = noise(1, 2, 5, 6).expand(3, 1, 2, 5, 6)
    calls = {
        kind: torch.vmap(lambda x: sample(x, num_samples=4, tau=0.7), randomness=kind) for kind in ("same", "different")
    }
    same, different = calls["same"](z), calls["different"](z)
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    assert not torch.equal(different[0], different[1]) and not torch.equal(different[1], different[2])


def values(seed: int) -> np.ndarray:
    z = noise(2, 3, 16, 12).requires_grad_()
    error = expected_error(z, torch.ones(2, 3, 2), num_samples=8, tau=0.7, seed=seed).sum()
    return torch.autograd.grad(error, z)[0].numpy()


def test_threads_do_not_know_each_other():
    expected = [values(seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        assert all(map(np.array_equal, pool.map(values, range(16)), expected))


def in_child(queue) -> None:
    torch.set_num_threads(1)  # as PyTorch's own data workers do: threads of a pool are not forked
    queue.put(values(1))


def test_a_process_that_is_forked_after_use():
    expected, context = values(1), multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_child, args=(queue,))
    child.start()
    found = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0 and np.array_equal(found, expected)


def test_a_fall_back_to_the_reference_is_told_once(monkeypatch):
    """Where the extension is missing; what asks for the reference by its kind is told nothing."""
    monkeypatch.setattr(backends.library, "KERNEL_DEVICES", frozenset())
    monkeypatch.setattr(backends.library, "LOAD_ERROR", "it was not built when this package was installed")
    monkeypatch.setattr(backends, "_told", set())
    z = noise(1, 2, 5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        soft_argmax(z, backend="reference")
        torch.func.grad(lambda x: soft_argmax(x).sum())(z)
    with pytest.warns(
        UserWarning, match="takes the PyTorch reference on cpu, which is far slower .*: no C.. extension: it was not"
    ):
        soft_argmax(z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        soft_argmax(z)
