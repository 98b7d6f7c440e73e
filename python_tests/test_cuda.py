"""On a GPU: words, every word's exponential, bit equality over repeats, streams and graphs, bytes, compile, gradcheck.

The contract itself is test_contract.py, which runs there too; these are the properties of the device.
"""

import pytest
import torch
from conftest import cuda_machines, random_counters

from sampling_argmax_cuda import axis_sample, expected_error, heatmap_moments, sample
from sampling_argmax_cuda.reference.philox import words

pytestmark = pytest.mark.skipif("cuda" not in cuda_machines(), reason="needs a GPU and a build with CUDA")
OPS = torch.ops.sampling_argmax
SETTINGS = dict(num_samples=7, tau=0.7)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2).cuda()


def calls():
    def error(z, **settings):
        return expected_error(z, torch.full((*z.shape[:2], z.dim() - 2), 2.0, device=z.device), **settings)

    return {"sample": sample, "axis_sample": axis_sample, "expected_error": error}


def run(op, logits, **settings):
    """Result and gradient."""
    z = logits.detach().clone().requires_grad_()
    y = calls()[op](z, **{**SETTINGS, **settings})
    weights = torch.cos(torch.arange(y.numel(), device=y.device)).view_as(y)
    return y.detach(), torch.autograd.grad((y * weights).sum(), z)[0]


def assert_equal(got, expected):
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_words_equal_the_reference():
    rows, samples, index = random_counters()
    for stream, seed in ((0, 5), (3, -(2**62) + 12345)):
        seed = torch.tensor([seed])
        expected = words(seed[0], rows, samples, index, stream)
        got = OPS.random_words(seed.cuda(), rows.cuda(), samples.cuda(), index.cuda(), stream)
        assert torch.equal(got.cpu(), expected)


def test_exponential_of_every_word():
    """All 2^32 words through the hardware's logarithm: positive, finite, rising, the upper tail within 4e-5."""
    chunk, last = 2**26, 0.0
    for first in range(0, 2**32, chunk):
        unsigned = torch.arange(first, first + chunk, device="cuda")
        e = OPS.exponential(unsigned.to(torch.int32))
        assert e.min() > 0 and e.max() < torch.inf and (e[1:] >= e[:-1]).all() and e[0] >= last
        last = e[-1].item()
        if first == 0:
            exact = -torch.log1p(-(unsigned.double() + 0.5) / 2**32) / 0.6931471805599453
            assert ((e.double() - exact).abs() / exact).max() <= 4e-5
            assert -torch.log(e[0] * 0.6931471805599453) >= 22


@pytest.mark.parametrize("op", calls())
@pytest.mark.parametrize("shape", [(8, 17, 64, 48), (1, 1, 70_001), (2, 3, 8, 33, 40)], ids=str)
def test_repeats_are_equal(op, shape):
    logits = noise(*shape)
    expected = run(op, logits, seed=3)
    for _ in range(250 if shape[0] == 8 else 20):
        assert_equal(run(op, logits, seed=3), expected)


@pytest.mark.parametrize("op", calls())
def test_streams_are_equal(op):
    logits = noise(4, 5, 64, 48)
    expected, stream = run(op, logits, seed=3), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results = run(op, logits, seed=3)
    torch.cuda.current_stream().wait_stream(stream)
    assert_equal(results, expected)


@pytest.mark.parametrize("op", calls())
def test_row_subsets_are_equal(op):
    logits = noise(6, 3, 32, 24)
    whole = calls()[op](logits, seed=torch.tensor([9, 0], device="cuda"), **SETTINGS)
    part = calls()[op](logits[2:5], seed=torch.tensor([9, 6], device="cuda"), **SETTINGS)
    assert torch.equal(part, whole[2:5])


@pytest.mark.parametrize("op", calls())
def test_graphs_replay(op):
    """A replay draws from the seed tensor as it is then: the same seed the same bits, another seed others."""
    logits, seed = noise(4, 5, 64, 48), torch.tensor([3], device="cuda")
    run(op, logits, seed=seed)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad():
        calls()[op](logits, seed=seed, **SETTINGS)
        with torch.cuda.graph(graph):
            y = calls()[op](logits, seed=seed, **SETTINGS)
    graph.replay()
    first = y.clone()
    assert torch.equal(first, calls()[op](logits, seed=3, **SETTINGS))
    seed.add_(1)
    graph.replay()
    assert not torch.equal(y, first) and torch.equal(y, calls()[op](logits, seed=4, **SETTINGS))


def test_nothing_waits_for_the_device():
    logits, seed = noise(4, 5, 64, 48).requires_grad_(), torch.tensor([3], device="cuda")
    for op in calls().values():
        op(logits, seed=seed, **SETTINGS).sum().backward()  # allocates and compiles what it needs
    torch.cuda.set_sync_debug_mode("error")
    try:
        for op in calls().values():
            op(logits, seed=seed, **SETTINGS).sum().backward()
        heatmap_moments(logits).mean.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def allocated_bytes(function) -> int:
    function()
    before = torch.cuda.memory_stats()["requested_bytes.all.allocated"]
    function()
    return torch.cuda.memory_stats()["requested_bytes.all.allocated"] - before


def test_bytes():
    """The CPU's formulas (test_memory.py)."""
    batch, keypoints, samples, height, width = 3, 5, 7, 24, 20
    rows, cells, bins = batch * keypoints, height * width, height + width
    logits, seed = noise(batch, keypoints, height, width).requires_grad_(), torch.tensor([1], device="cuda")
    cotangent = torch.ones(batch, keypoints, samples, 2, device="cuda")

    def of(op):
        return allocated_bytes(lambda: torch.autograd.grad(op(logits, seed=seed, **SETTINGS), logits, cotangent))

    assert of(sample) == 4 * rows * (samples * (2 + 1) + cells)
    assert of(axis_sample) == 4 * rows * (samples * (2 + 1 + bins) + cells)
    target, ones = torch.ones(batch, keypoints, 2, device="cuda"), torch.ones(batch, keypoints, device="cuda")
    loss = lambda: torch.autograd.grad(expected_error(logits, target, seed=seed, **SETTINGS), logits, ones)  # noqa: E731
    assert allocated_bytes(loss) == 4 * rows * (1 + 2 + cells + cells)


def test_compile_fullgraph():
    compiled = torch.compile(lambda z, seed: expected_error(z, torch.zeros_like(z[..., 0, :2]), seed=seed, **SETTINGS),
                             fullgraph=True)  # fmt: skip
    logits, seed = noise(2, 3, 16, 12), torch.tensor([1], device="cuda")
    assert torch.equal(
        compiled(logits, seed), expected_error(logits, torch.zeros(2, 3, 2, device="cuda"), seed=seed, **SETTINGS)
    )


@pytest.mark.parametrize("basis", ["none", "uniform", "triangular", "gaussian"])
def test_gradcheck(basis):
    z = noise(1, 2, 3, 4).double().requires_grad_()
    sigma = torch.full((1, 2), 0.8, dtype=torch.float64, device="cuda", requires_grad=True)
    settings = dict(num_samples=3, tau=0.9, beta=1.2, basis=basis, seed=5)
    assert torch.autograd.gradcheck(lambda z, s: sample(z, sigma=s, **settings), (z, sigma))
    assert torch.autograd.gradcheck(lambda z, s: axis_sample(z, sigma=s, reweight=0.5, **settings), (z, sigma))


def test_large_rows_and_offsets_beyond_32_bits():
    """2^20 cells a row, and a row whose elements lie beyond 2^31 of a bfloat16 tensor."""
    big = noise(1, 1, 1024, 1024)
    mean = sample(big, num_samples=3, tau=1.0, seed=1)
    assert mean.isfinite().all() and (mean > 300).all() and (mean < 724).all()
    wide = torch.zeros(2**31 // 4096 + 2, 1, 64, 64, dtype=torch.bfloat16, device="cuda")
    wide[-1, 0, 10, 20] = 1e4
    position = heatmap_moments(wide).mean[-1, 0]
    assert position.tolist() == [20.0, 10.0]
    drawn = sample(wide, num_samples=1, tau=1.0, basis="none", seed=1)[-1, 0, 0]
    assert drawn.tolist() == pytest.approx([20.0, 10.0], rel=1e-6)  # 20 w / w, rounded twice
