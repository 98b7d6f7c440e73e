"""The CUDA kernels on the host: words, independence of schedule and grid, split and long rows, memory, counters."""

import pytest
import test_memory as memory
import torch
from conftest import assert_close, check_exponential, random_counters
from contract_cases import number, of_gradient
from cuda_shim import NAMESPACE
from test_memory import measure
from torch.library import opcheck

from sampling_argmax_cuda import axis_sample, backends, expected_error, heatmap_moments, sample
from sampling_argmax_cuda.reference.philox import words

SHARED = 227 * 1024
DEFAULT = (4, SHARED, 0)


@pytest.fixture(autouse=True)
def on_shim(shim, monkeypatch):
    monkeypatch.setitem(backends.NAMESPACES, "cpu", NAMESPACE)
    yield
    shim.settings(*DEFAULT)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def everything(shape, basis="triangular", tau=0.7, rows=slice(None), first_row=0, num_samples=7, backend="cpu"):
    """Outputs and gradients of all operators on the batch elements ``rows`` of one problem."""
    dtype = torch.float64 if backend == "reference" else torch.float32
    whole = noise(*shape).to(dtype)
    axes, row = len(shape) - 2, (rows.start or 0) * shape[1] + first_row
    results = []
    seed = torch.tensor([5, row])
    settings = dict(num_samples=num_samples, tau=tau, basis=basis, seed=seed, backend=backend)
    target = noise(*shape[:2], axes, seed=1).to(dtype)[rows]
    for call in (
        lambda z: sample(z, **settings),
        lambda z: axis_sample(z, **settings),
        lambda z: expected_error(z, target, **settings),
        lambda z: torch.cat([m.reshape(*m.shape[:2], -1) for m in heatmap_moments(z, backend=backend)], -1),
    ):  # fmt: skip
        z = whole[rows].clone().requires_grad_()
        y = call(z)
        weights = torch.cos(torch.arange(y[0].numel(), dtype=torch.float64)).reshape(y.shape[1:]).to(y)
        (y * weights).sum().backward()
        results += [y.detach(), z.grad]
    return results


def assert_equal(got, expected):
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_words_equal_the_reference(shim):
    """Rows on both sides of 2^32, cells on both sides of 2^31 and 2^32."""
    rows, samples, index = random_counters()
    for stream, seed in ((0, 5), (3, -(2**62) + 12345)):
        seed = torch.tensor([seed])
        expected = words(seed[0], rows, samples, index, stream)
        assert torch.equal(shim.random_words(seed, rows, samples, index, stream), expected)


@pytest.mark.parametrize("first", [0, 2**25 - 2**17, 2**31 - 2**17, 2**32 - 2**18])
def test_exponential(shim, first):
    """Positive, finite, rising; relative error of the upper tail at most 4e-5 (all words: on a GPU, bench/gpu_check.sh)."""
    unsigned = torch.arange(first, first + 2**18)
    check_exponential(unsigned, shim.exponential(unsigned.to(torch.int32)))


@pytest.mark.parametrize("perturbation", [1, -1, 2])
@pytest.mark.parametrize("tau", [0.7, 1.0, 2.0, 0.1])
@pytest.mark.parametrize("basis", ["uniform", "triangular", "gaussian"])
def test_special_functions_may_be_off_by_what_their_manual_allows(shim, basis, tau, perturbation):
    """All up, all down, or the one or the other by argument: rare winners, whose E is a logarithm beside 1, among them."""
    shim.settings(*DEFAULT, perturbation)
    problem = dict(shape=(3, 2, 24, 20), basis=basis, tau=tau, num_samples=30)
    for k, (got, wanted) in enumerate(
        zip(everything(**problem), everything(**problem, backend="reference"), strict=True)
    ):
        assert_close(f"result {k}", got, wanted, of_gradient(tau))


@pytest.mark.parametrize("shape", [(2, 2, 9, 7), (1, 2, 300), (1, 1, 4, 33, 40)], ids=str)
def test_no_schedule_changes_a_bit(shim, shape):
    expected = everything(shape)
    for schedule in range(1, 6):
        shim.settings(4, SHARED, schedule)
        assert_equal(everything(shape), expected)


@pytest.mark.parametrize("shape", [(1, 2, 300), (1, 1, 100, 120)], ids=str)
def test_more_samples_than_are_handled_at_once(shim, shape):
    """Backward keeps the slopes of 64 samples at a time, axis_sample's what fits into shared memory."""
    expected = everything(shape, num_samples=70)
    for schedule in range(1, 4):
        shim.settings(4, SHARED, schedule)
        assert_equal(everything(shape, num_samples=70), expected)


@pytest.mark.parametrize("multiprocessors", [1, 3, 132])
@pytest.mark.parametrize("basis, tau", [("uniform", 0.7), ("gaussian", 1.0), ("triangular", 0.1)])
def test_no_grid_changes_a_bit(shim, basis, tau, multiprocessors):
    """Few multiprocessors give every block whole rows, many cut samples and segments apart."""
    shapes = [(2, 2, 9, 7), (1, 1, 70_001)]
    expected = [everything(shape, basis, tau) for shape in shapes]
    shim.settings(multiprocessors, SHARED, 0)
    for shape, wanted in zip(shapes, expected, strict=True):
        assert_equal(everything(shape, basis, tau), wanted)


def test_more_samples_than_a_grid_has_blocks(shim):
    """CUDA takes 65,535 blocks along y; a device of many multiprocessors would be given more."""
    settings = dict(num_samples=66_000, tau=0.7, seed=3)
    expected = axis_sample(noise(1, 1, 4), **settings)
    shim.settings(10_000, SHARED, 0)
    assert torch.equal(axis_sample(noise(1, 1, 4), **settings), expected)


def test_a_smaller_launch_takes_no_shared_memory_from_a_larger_one():
    """A kernel's allowance is of all host threads: one that lowers it would make another's launch fail."""
    for height in (64, 48):
        expected_error(noise(1, 1, height, 48), torch.zeros(1, 1, 2), num_samples=2, tau=0.7, seed=3)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 3)])
def test_rows_do_not_know_each_other(rows):
    whole = everything((3, 2, 9, 7))
    for part, all_rows in zip(everything((3, 2, 9, 7), rows=rows), whole, strict=True):
        assert torch.equal(part, all_rows[rows])


def test_samples_do_not_know_each_other(shim):
    """Whatever number of them is drawn: a block takes five at a time and the rest one by one."""
    many = everything((1, 3, 9, 7), num_samples=13)
    for count in range(1, 13):
        for multiprocessors in (1, 132):
            shim.settings(multiprocessors, SHARED, count)
            few = everything((1, 3, 9, 7), num_samples=count)
            assert torch.equal(few[0], many[0][:, :, :count])
            assert torch.equal(few[2], many[2][:, :, :count])


def test_repeated_calls_are_equal():
    expected = everything((1, 2, 5, 7))
    for _ in range(250):
        assert_equal(everything((1, 2, 5, 7)), expected)


@pytest.mark.parametrize("basis", ["none", "uniform", "triangular", "gaussian"])
@pytest.mark.parametrize("shape", [(1, 2, 70_001), (1, 1, 3, 150, 151)], ids=str)
def test_several_segments(shape, basis):
    for tau in (0.7, 0.1):
        results, expected = (everything(shape, basis, tau, backend=b) for b in ("cpu", "reference"))
        for k, (got, wanted) in enumerate(zip(results, expected, strict=True)):
            assert_close(f"result {k}", got, wanted, of_gradient(tau))


def long_row_calls(basis, tau, points):
    logits = noise(2, 3, 300).transpose(0, 1) if points is None else noise(2, 3, 300)
    logits = logits.contiguous().transpose(0, 1) if points is None else logits
    sigma = (noise(2, 3, seed=4).abs() + 0.2).requires_grad_()
    z = logits.detach().clone().requires_grad_()
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.5, 1.0, 0.0]])
    axes = 1 if points is None else points.shape[-1]
    points = None if points is None else points.clone().requires_grad_()
    target = noise(2, 3, axes, seed=2).requires_grad_()
    error = expected_error(z, target, weight, num_samples=7, tau=tau, basis=basis, sigma=sigma, points=points, seed=3)
    inputs = [z, target] + ([sigma] if basis == "gaussian" else []) + ([points] if points is not None else [])
    return [error.detach(), *torch.autograd.grad(error.sum(), inputs)]


@pytest.mark.parametrize(
    "basis, with_points", [("triangular", False), ("gaussian", False), ("gaussian", True), ("none", True)]
)
@pytest.mark.parametrize("tau", [0.7, 0.1])
def test_rows_too_long_for_shared_memory(shim, basis, with_points, tau):
    """expected_error then goes through sample and its backward, with the same results to rounding."""
    points = noise(2, 300, 3, seed=5) if with_points else None
    expected = long_row_calls(basis, tau, points)
    shim.settings(4, 8 * 1024, 0)
    for k, (got, wanted) in enumerate(zip(long_row_calls(basis, tau, points), expected, strict=True)):
        assert_close(f"result {k}", got, wanted, tau)


@pytest.mark.parametrize(
    "shape, room", [((2, 3, 9, 7), 4), ((2, 3, 300), 4), ((2, 3, 300), 0), ((4, 4, 40, 60), 4)], ids=str
)
def test_axis_gradients_however_many_samples_fit(shim, shape, room):
    """The bins of ``room`` samples fit into shared memory; of one long axis perhaps those of none.

    With one multiprocessor a block has all ranges of cells of a row.
    """
    z, sigma = noise(*shape).requires_grad_(), (noise(*shape[:2], seed=4).abs() + 0.2).requires_grad_()
    y = axis_sample(z, num_samples=11, tau=0.7, basis="gaussian", sigma=sigma, reweight=0.5, seed=3)
    cotangent = noise(*y.shape, seed=6)
    expected = torch.autograd.grad(y, (z, sigma), cotangent, retain_graph=True)
    shim.settings(1, 1024 + 4 * (4 + room * (sum(shape[2:]) + 4)), 0)
    assert_equal(torch.autograd.grad(y, (z, sigma), cotangent, retain_graph=True), expected)
    assert_equal(torch.autograd.grad(y, sigma, cotangent), expected[1:])


def test_weights_of_masked_rows_in_long_rows(shim):
    logits = noise(1, 2, 300)
    logits[0, 1] = torch.nan
    shim.settings(4, 8 * 1024, 0)
    z = logits.clone().requires_grad_()
    target = torch.full((1, 2, 1), 3.0)
    target[0, 1] = torch.nan
    error = expected_error(z, target, torch.tensor([[1.0, 0.0]]), num_samples=3, tau=1.0, seed=1)
    error.sum().backward()
    assert error[0, 1] == 0 and (z.grad[0, 1] == 0).all() and z.grad[0, 0].abs().sum() > 0


def test_counters_beyond_32_bits():
    """The noise of rows above 2^32 continues where the reference's does."""
    z, seed = noise(2, 2, 5, 6), torch.tensor([-7, 2**32 - 2])
    settings = dict(num_samples=4, tau=0.7, basis="uniform", seed=seed)
    assert_close("sample", sample(z, **settings), sample(z.double(), **settings, backend="reference"))
    assert_close("axis_sample", axis_sample(z, **settings), axis_sample(z.double(), **settings, backend="reference"))


@pytest.mark.written_memory
def test_bytes():
    """The CPU's formulas (test_memory.py)."""
    for basis, numbers in (("none", 3), ("uniform", 3), ("triangular", 3)):
        got = measure(lambda z, basis=basis: sample(z, basis=basis, **memory.SETTINGS), memory.SAMPLE_SHAPE)
        assert got == 4 * memory.ROWS * (memory.SAMPLES * numbers + memory.CELLS) + 2 * memory.NUMBER
    got = measure(lambda z: axis_sample(z, **memory.SETTINGS), memory.SAMPLE_SHAPE)
    assert got == 4 * memory.ROWS * (memory.SAMPLES * (3 + memory.BINS) + memory.CELLS) + 2 * memory.NUMBER
    target = torch.ones(memory.BATCH, memory.KEYPOINTS, 2)
    got = measure(lambda z: expected_error(z, target, **memory.SETTINGS), (memory.BATCH, memory.KEYPOINTS))
    assert got == 4 * memory.ROWS * (1 + 2 + memory.CELLS + memory.CELLS) + 2 * memory.NUMBER


def test_a_division_is_exact_at_its_limits():
    """Cells are found by a multiplication in place of a division; widths next to powers of two are its hard cases."""
    for width in (1, 2, 3, 31, 32, 33, 127, 128, 129, 1023, 1025):
        z = torch.full((1, 1, 3, width), -30.0)
        z[..., 2, width - 1] = 30.0
        assert heatmap_moments(z).mean.flatten().tolist() == [width - 1, 2]


@pytest.mark.parametrize("basis", ["uniform", "gaussian"])
def test_opcheck(shim, basis):
    z, grad = noise(1, 2, 5, 6).requires_grad_(), noise(1, 2, 4, 2)
    sigma = torch.full((1, 2), 0.8, requires_grad=True) if basis == "gaussian" else None
    seed, settings = torch.tensor([9, 100]), (number(0.7), number(1.0), basis)
    opcheck(shim.sample, (z, None, sigma, seed, 4, *settings))
    opcheck(shim.axis_sample, (z, sigma, seed, 4, *settings, 0.5, 2.0))
    needs = [True, False, basis == "gaussian"]
    opcheck(shim.expected_error, (z, noise(1, 2, 2), torch.ones(1, 2), None, sigma, seed, 4, *settings, "l2", needs))
    opcheck(shim.soft_argmax, (z, None, number(1.5)))
    plain, width = z.detach(), None if sigma is None else sigma.detach()
    y, stats = shim.sample(plain, None, width, seed, 4, *settings)
    opcheck(shim.sample_backward, (grad, plain, None, width, seed, y, stats, *settings, needs))
    _, marginals, stats = shim.axis_sample(plain, width, seed, 4, *settings, 0.5, 2.0)
    opcheck(shim.axis_sample_backward, (grad, plain, width, seed, marginals, stats, *settings, 0.5, 2.0, needs[::2]))
