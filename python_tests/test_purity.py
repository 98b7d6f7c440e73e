"""An operator is a pure function of its arguments: repeats, threads, splits, checkpointing, compilation, vmap."""

import pytest
import torch
from conftest import assert_close
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from sampling_argmax_cuda import axis_sample, expected_error, heatmap_moments, sample

SETTINGS = dict(num_samples=5, tau=0.7)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def call(op: str, logits: torch.Tensor, seed) -> torch.Tensor:
    if op == "expected_error":
        return expected_error(logits, torch.ones(*logits.shape[:2], logits.dim() - 2), seed=seed, **SETTINGS)
    if op == "moments":
        return torch.cat([x.flatten() for x in heatmap_moments(logits)])
    function = {"sample": sample, "axis_sample": axis_sample}[op]
    return function(logits, seed=seed, **SETTINGS)


def with_gradient(op, logits, seed):
    logits = logits.detach().requires_grad_()
    out = call(op, logits, seed)
    (out * torch.cos(torch.arange(out.numel()) + 0.0).view_as(out)).sum().backward()
    return out.detach(), logits.grad


OPS = ["sample", "axis_sample", "expected_error", "moments"]
SAMPLERS = OPS[:3]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("rows", [(1, 1), (3, 5)])
def test_bits_do_not_depend_on_threads_or_repeats(op, rows):
    logits = noise(*rows, 63, 48)
    expected = with_gradient(op, logits, 3)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            for _ in range(5):
                assert all(torch.equal(a, b) for a, b in zip(with_gradient(op, logits, 3), expected, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("op", SAMPLERS)
def test_a_slice_of_the_batch_draws_its_own_rows(op):
    logits = noise(6, 4, 9, 7)
    whole, gradient = with_gradient(op, logits, torch.tensor([9, 2**33]))
    part, part_gradient = with_gradient(op, logits[2:5], torch.tensor([9, 2**33 + 8]))
    assert torch.equal(part, whole[2:5])
    assert part_gradient.shape == gradient[2:5].shape


@pytest.mark.parametrize("op", SAMPLERS)
def test_seeds_differ_and_agree(op):
    logits = noise(2, 3, 9, 7)
    a, b = call(op, logits, 1), call(op, logits, 2)
    assert not torch.equal(a, b)
    assert torch.equal(a, call(op, logits, torch.tensor([1])))
    assert torch.equal(a, call(op, logits, torch.tensor([1, 0])))


def test_every_basis_sees_the_same_weights():
    """With sigma 0 the gaussian basis is the basis none, bit for bit."""
    logits = noise(2, 3, 9, 7)
    plain = sample(logits, basis="none", seed=4, **SETTINGS)
    assert_close("sigma 0", sample(logits, basis="gaussian", sigma=0.0, seed=4, **SETTINGS), plain.double())


def test_generator_draws_the_seed():
    logits = noise(2, 3, 9, 7)
    draws = [sample(logits, generator=torch.Generator().manual_seed(s), **SETTINGS) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    torch.manual_seed(5)
    first = sample(logits, **SETTINGS)
    second = sample(logits, **SETTINGS)
    torch.manual_seed(5)
    assert torch.equal(sample(logits, **SETTINGS), first) and not torch.equal(first, second)


@pytest.mark.parametrize("op", SAMPLERS)
def test_activation_checkpointing(op):
    logits = noise(2, 3, 9, 7).requires_grad_()
    torch.manual_seed(3)
    checkpoint(lambda z: call(op, z, None), logits, use_reentrant=False).sum().backward()
    gradient, logits.grad = logits.grad, None
    torch.manual_seed(3)
    call(op, logits, None).sum().backward()
    assert torch.equal(gradient, logits.grad)


@pytest.mark.written_memory
@pytest.mark.parametrize("op", OPS)
def test_compiled_once_for_all_seeds_and_batches(op):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda z, s: call(op, z, s), fullgraph=True, backend=counter, dynamic=True)
    compiled(noise(2, 3, 9, 7).requires_grad_(), torch.tensor([0]))
    first = counter.frame_count
    for seed, batch in ((1, 2), (2, 3), (3, 3), (4, 5), (5, 7)):
        logits = noise(batch, 3, 9, 7).requires_grad_()
        key = torch.tensor([seed])
        out = compiled(logits, key)
        out.sum().backward()
        expected, leaf = call(op, logits, key), logits.grad
        logits.grad = None
        expected.sum().backward()
        assert torch.equal(out, expected) and torch.equal(leaf, logits.grad)
    assert counter.frame_count == first


def test_vmap_over_logits_and_seeds():
    logits, seeds = noise(4, 2, 3, 9, 7), torch.arange(4)[:, None]
    mapped = torch.vmap(lambda z, s: sample(z, seed=s, **SETTINGS))(logits, seeds)
    assert torch.equal(mapped, torch.stack([sample(z, seed=s, **SETTINGS) for z, s in zip(logits, seeds, strict=True)]))
    shared = torch.vmap(lambda z: axis_sample(z, seed=seeds[0], **SETTINGS))(logits)
    assert torch.equal(shared[1], axis_sample(logits[1], seed=seeds[0], **SETTINGS))


def test_vmap_needs_to_know_what_random_means():
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(lambda z: sample(z, **SETTINGS))(noise(4, 2, 3, 9, 7))


@pytest.mark.parametrize("op", ["sample", "axis_sample", "moments"])
def test_double_backward_says_so(op):
    logits = noise(2, 3, 9, 7).requires_grad_()
    (gradient,) = torch.autograd.grad(call(op, logits, 1).square().sum(), logits, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward is not implemented"):
        gradient.sum().backward()


def test_autocast_keeps_float32_results():
    logits = noise(2, 3, 9, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = logits.bfloat16().requires_grad_()
        for op in OPS:
            out = call(op, half, 1)
            assert out.dtype == torch.float32
            assert torch.equal(out, call(op, half.float(), 1))
            half.grad = None
            out.sum().backward()
            assert half.grad.dtype == torch.bfloat16
