"""The Triton kernels: words, grids, points, long rows, layouts of lines, lazy import, what torch.compile sees.

On a GPU they run there, elsewhere in Triton's interpreter, which is why grids are small. The rest of the contract is
test_contract.py with the machine ``triton``; compiled code is run by test_ptx.py.
"""

import os
import subprocess
import sys

import pytest
import torch
from conftest import assert_close, check_exponential, machine_device, random_counters, triton_machines
from contract_cases import Case, cloud_cases, grid_cases, noise
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from sampling_argmax_cuda import axis_sample, backends, sample
from sampling_argmax_cuda.reference.philox import words

triton = pytest.importorskip("triton")
tl = triton.language

from sampling_argmax_cuda._triton import NAMESPACE  # noqa: E402
from sampling_argmax_cuda._triton import sample as sampler  # noqa: E402
from sampling_argmax_cuda._triton.axis_sample import line_tiles  # noqa: E402
from sampling_argmax_cuda._triton.launch import Sampling  # noqa: E402
from sampling_argmax_cuda._triton.noise import exponential  # noqa: E402
from sampling_argmax_cuda._triton.philox import load_key, philox  # noqa: E402

pytestmark = [pytest.mark.parametrize("machine", triton_machines(), indirect=True)]

# A width of whole quads and one of none, a single line, three axes, one axis; metrics and settings take turns.
GRIDS = [(2, 1, 5, 8), (1, 2, 6, 7), (1, 1, 1, 40), (1, 1, 3, 5, 4), (1, 1, 2, 3, 5), (1, 2, 50), (1, 1, 1)]
CLOUDS = [(1, 1, 1, 3), (2, 2, 7, 2), (1, 2, 63, 1), (1, 1, 513, 3)]
BASES = ["none", "uniform", "triangular", "gaussian"]
SETTINGS = [dict(num_samples=1, tau=1.0), dict(num_samples=5, tau=0.5, beta=0.5), dict(num_samples=6, tau=2.0, beta=1.7),
            dict(num_samples=3, tau=0.1)]  # fmt: skip


@triton.jit
def some_words(seed, rows, samples, index, out, STREAM: tl.constexpr, BLOCK: tl.constexpr):
    key_lo, key_hi, _ = load_key(seed, 1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i = tl.load(index + at)
    four = philox(i >> 2, tl.load(rows + at), tl.load(samples + at), STREAM, key_lo, key_hi)
    word = tl.where(i & 2 == 2, tl.where(i & 1 == 1, four[3], four[2]), tl.where(i & 1 == 1, four[1], four[0]))
    tl.store(out + at, word.to(tl.int64))


@triton.jit
def some_exponentials(words, out, BLOCK: tl.constexpr, FAST: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, exponential(tl.load(words + at).to(tl.uint32), FAST))


def block_of(count: int) -> int:
    """Values of a program: few where it is compiled, which takes longer the more it holds; all where it is interpreted."""
    return 1024 if machine_device() == "cuda" else count


@pytest.mark.parametrize("stream, seed", [(0, 5), (3, -(2**62) + 12345)])
def test_words_equal_the_reference(stream, seed, machine):
    """Rows on both sides of 2^32, cells on both sides of 2^31 and 2^32."""
    device, (rows, samples, index) = machine_device(), random_counters()
    count = len(rows)
    block = block_of(count)
    seed, out = torch.tensor([seed]), torch.empty(count, dtype=torch.int64, device=device)
    some_words[(count // block,)](*(x.to(device) for x in (seed, rows, samples, index)), out, stream, block)
    assert torch.equal(out.cpu(), words(seed[0], rows, samples, index, stream).to(torch.int64) & 0xFFFFFFFF)


@pytest.mark.parametrize("first", [0, 2**25 - 2**17, 2**31 - 2**17, 2**32 - 2**18])
def test_exponential(first, machine):
    """Positive, finite, rising; relative error of the upper tail at most 4e-5."""
    device = machine_device()
    unsigned, e = torch.arange(first, first + 2**18), torch.empty(2**18, device=device)
    block = block_of(2**18)
    some_exponentials[(2**18 // block,)](unsigned.to(device), e, block, device == "cuda" and torch.version.hip is None)
    check_exponential(unsigned, e.cpu())


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("shape", GRIDS, ids=str)
def test_grids(shape, basis, machine):
    turn = GRIDS.index(shape) + BASES.index(basis)
    *samplers, l1, l2, euclidean, smooth_l1 = grid_cases(shape, {}, basis)
    for k, case in enumerate([*samplers, (l1, l2, euclidean, smooth_l1)[turn % 4]]):
        case.arguments.update(SETTINGS[(turn + k) % len(SETTINGS)])
        case.check()
    Case("heatmap_moments", {"logits": noise(*shape)}, {"beta": 0.8}).check()


@pytest.mark.parametrize("basis", ["none", "gaussian"])
@pytest.mark.parametrize("cloud", CLOUDS, ids=str)
def test_points(cloud, basis, machine):
    for case in cloud_cases(cloud, [dict(num_samples=5, tau=0.5)], basis):
        case.check()


@pytest.mark.parametrize("tau", [0.7, 0.1])
@pytest.mark.parametrize("basis", ["uniform", "gaussian"])
def test_split_rows(basis, tau, machine, monkeypatch):
    monkeypatch.setattr(sampler, "SEGMENT", 1024)
    width = {"sigma": noise(1, 2, seed=1).abs() + 0.3} if basis == "gaussian" else {}
    settings = dict(num_samples=3, tau=tau, basis=basis, seed=7)
    Case("sample", {"logits": noise(1, 2, 35, 70), **width}, settings).check()


@pytest.mark.parametrize("basis", ["uniform", "gaussian"])
def test_long_rows(basis, machine):
    """expected_error goes through sample and its backward; a masked row with NaN among them."""
    logits, width = noise(1, 2, 70, 60), {"sigma": noise(1, 2, seed=1).abs() + 0.3} if basis == "gaussian" else {}
    settings = dict(num_samples=2, tau=0.7, basis=basis, seed=7)
    tensors = {"logits": logits, "target": torch.full((1, 2, 2), 20.0), **width}
    Case("expected_error", tensors, settings).check()
    logits[0, 1, 3] = torch.nan
    outputs, grads = Case("expected_error", tensors, dict(settings, weight=torch.tensor([[1.5, 0.0]]))).run()
    assert outputs["result"][0, 1] == 0 and all((g[0, 1] == 0).all() for g in grads.values())
    assert outputs["result"][0, 0] > 0 and grads["logits"][0, 0].abs().sum() > 0


def test_long_rows_with_points(machine):
    tensors = {"logits": noise(1, 2, 4200), "points": noise(1, 4200, 2, seed=5), "target": noise(1, 2, 2, seed=7)}
    Case("expected_error", tensors, dict(num_samples=2, tau=0.6, basis="gaussian", sigma=0.4, seed=3)).check()


def test_counters_beyond_32_bits(machine):
    """The noise of rows above 2^32 continues where the reference's does."""
    z, seed = noise(2, 2, 5, 6).to(machine_device()), torch.tensor([-7, 2**32 - 2], device=machine_device())
    settings = dict(num_samples=4, tau=0.7, basis="uniform", seed=seed)
    for op in (sample, axis_sample):
        assert_close(op.__name__, op(z, **settings), op(z.double(), **settings, backend="reference"))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 10, 13])
def test_samples_do_not_know_each_other(count, machine):
    """However many of them a program draws at once."""
    z = noise(1, 2, 5, 8).to(machine_device())
    for op in (sample, axis_sample):
        many = op(z, num_samples=13, tau=0.7, seed=3)
        assert_close(op.__name__, op(z, num_samples=count, tau=0.7, seed=3), many[:, :, :count].double())


def test_most_samples_are_drawn_together(machine):
    """Groups of four but where too many of the last one would idle."""
    together = [Sampling(torch.tensor([1]), n, 1.0, 1.0, "none").together for n in (1, 2, 4, 8, 10, 30)]
    assert together == [1, 2, 4, 4, 2, 4]


@pytest.mark.parametrize("width", [1, 3, 4, 7, 12, 48, 56, 64, 72, 80, 96, 128, 252, 256, 500])
def test_tiles_cover_lines(width, machine):
    tiles = line_tiles(width, 64, 1)
    covered = tiles["PER"] * tiles["COLUMNS"] * tiles["CHUNKS"]
    assert width <= covered <= 1.5 * width + 4 and tiles["CHUNKS"] <= 4


@pytest.mark.parametrize("shape", [(1, 1, 3, 300), (1, 1, 70, 3)], ids=str)
def test_wide_and_high_maps(shape, machine):
    Case("axis_sample", {"logits": noise(*shape)}, dict(num_samples=2, tau=0.7, seed=3)).check()


@pytest.mark.parametrize("basis", ["uniform", "gaussian"])
def test_opcheck(basis, machine):
    """Schema and autograd; the traced tests of opcheck need compiled kernels (test_compile_sees_the_kernels)."""
    ops, device = getattr(torch.ops, NAMESPACE), machine_device()
    tests = ("test_schema", "test_autograd_registration", "test_faketensor") if device == "cpu" else None
    check = lambda op, args: opcheck(op, args, **({} if tests is None else {"test_utils": tests}))  # noqa: E731
    z, grad = noise(1, 2, 5, 6).to(device).requires_grad_(), noise(1, 2, 4, 2).to(device)
    sigma = torch.full((1, 2), 0.8, device=device, requires_grad=True) if basis == "gaussian" else None
    seed, settings = torch.tensor([9, 100], device=device), (0.7, 1.0, basis)
    check(ops.sample, (z, None, sigma, seed, 4, *settings))
    check(ops.axis_sample, (z, sigma, seed, 4, *settings, 0.5, 2.0))
    needs = [True, False, basis == "gaussian"]
    target, weight = noise(1, 2, 2).to(device), torch.ones(1, 2, device=device)
    check(ops.expected_error, (z, target, weight, None, sigma, seed, 4, *settings, "l2", needs))
    check(ops.soft_argmax, (z, None, 1.5))
    plain, width = z.detach(), None if sigma is None else sigma.detach()
    y, stats = ops.sample(plain, None, width, seed, 4, *settings)
    check(ops.sample_backward, (grad, plain, None, width, seed, y, stats, *settings, needs))
    _, marginals, stats = ops.axis_sample(plain, width, seed, 4, *settings, 0.5, 2.0)
    check(ops.axis_sample_backward, (grad, plain, width, seed, marginals, stats, *settings, 0.5, 2.0, needs[::2]))
    moments = ops.soft_argmax(plain, None, 1.5)
    check(ops.soft_argmax_backward, (*moments[:4], plain, None, *moments, 1.5, [True, False]))


def test_schemas_are_those_of_the_other_backends(machine):
    if not backends.library.LOAD_ERROR:
        for op in ("sample", "sample_backward", "axis_sample", "axis_sample_backward", "expected_error", "soft_argmax",
                   "soft_argmax_backward"):  # fmt: skip
            ours, theirs = (getattr(getattr(torch.ops, n), op).default._schema for n in (NAMESPACE, "sampling_argmax"))
            for a, b in zip(ours.arguments, theirs.arguments, strict=True):  # Triton compiles for ranges of tau
                of_number = ("float", "Tensor") if a.name in ("tau", "beta") else (str(b.type),) * 2
                assert a.name == b.name and (str(a.type), str(b.type)) == of_number
            assert len(ours.returns) == len(theirs.returns)


def run_python(code: str) -> str:
    """Standard output of a process in which Triton compiles."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_triton_is_imported_only_where_it_is_used(machine):
    code = """
import sys, torch, sampling_argmax_cuda as sa
sa.missing_backends(), sa.available_backends()
sa.sample(torch.zeros(1, 1, 4, 4), num_samples=2, tau=1.0)
print("triton" in sys.modules)
"""
    assert run_python(code).split() == ["False"]


def test_compile_sees_the_kernels(machine):
    """Traced as for a GPU, each operator falls into its kernels: Inductor can order and fuse around them."""
    code = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import dispatch_functionalize
from torch.fx.experimental.proxy_tensor import make_fx
import sampling_argmax_cuda._triton
ops = torch.ops.sampling_argmax_triton
needs, settings = [True, False, False], (0.7, 1.0, "uniform")
def sample(z, seed, target):
    y, stats = ops.sample(z, None, None, seed, 5, *settings)
    return ops.sample_backward(y, z, None, None, seed, y, stats, *settings, needs)[0]
def axis_sample(z, seed, target):
    y, marginals, stats = ops.axis_sample(z, None, seed, 5, *settings, 0.0, None)
    return ops.axis_sample_backward(y, z, None, seed, marginals, stats, *settings, 0.0, None, needs[:2])[0]
def expected_error(z, seed, target):
    return ops.expected_error(z, target, None, None, None, seed, 5, *settings, "l1", needs)[1]
def soft_argmax(z, seed, target):
    moments = ops.soft_argmax(z, None, 1.0)
    return ops.soft_argmax_backward(*moments[:4], z, None, *moments, 1.0, needs[:2])[0]
with FakeTensorMode(allow_non_fake_inputs=True):
    z, seed = torch.empty(2, 3, 8, 8, device="cuda"), torch.empty(1, dtype=torch.int64, device="cuda")
    target = torch.empty(2, 3, 2, device="cuda")
    for run in (sample, axis_sample, expected_error, soft_argmax):
        nodes = make_fx(dispatch_functionalize(run))(z, seed, target).graph.nodes
        print(sum("triton_kernel_wrapper" in str(node.target) for node in nodes))
"""
    assert run_python(code).split() == ["3", "3", "1", "2"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("op", [sample, axis_sample])
def test_compile_fullgraph(op, machine):
    """The values of eager mode; a new seed or batch compiles nothing again."""
    counter = CompileCounterWithBackend("inductor")
    compiled = torch.compile(lambda z, seed: op(z, num_samples=4, tau=0.7, seed=seed, backend="triton"), fullgraph=True,
                             backend=counter, dynamic=True)  # fmt: skip
    for batch, seed in ((2, 1), (2, 2), (3, 3)):
        z, key = noise(batch, 2, 8, 8).cuda().requires_grad_(), torch.tensor([seed], device="cuda")
        y = compiled(z, key)
        assert_close(op.__name__, y, op(z, num_samples=4, tau=0.7, seed=key, backend="triton").double())
        y.sum().backward()
    assert counter.frame_count == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="checks a machine with no GPU")
def test_what_is_missing_is_said(machine):
    assert "no CUDA or ROCm device" in backends.missing_backends()["triton"]
    with pytest.raises(ValueError, match="sample: backend 'triton' is not available: no CUDA or ROCm device"):
        sample(torch.zeros(1, 1, 4, 4), num_samples=2, tau=1.0, backend="triton")


def test_auto_takes_triton_on_a_gpu_without_the_extension(machine, monkeypatch):
    with FakeTensorMode():
        single, double = (torch.empty(1, 1, 4, 4, device="cuda", dtype=d) for d in (torch.float16, torch.float64))
    monkeypatch.setattr(backends.library, "KERNEL_DEVICES", frozenset({"cpu"}))
    assert backends.resolve("sample", "auto", single) == "triton"
    assert backends.resolve("sample", "auto", double) == "reference"
    monkeypatch.setattr(backends, "TRITON_FOUND", False)
    assert backends.resolve("sample", "auto", single) == "reference"
    monkeypatch.setattr(backends.library, "KERNEL_DEVICES", frozenset({"cpu", "cuda"}))
    assert backends.resolve("sample", "auto", single) == "cuda"
    monkeypatch.setattr(backends, "missing_backends", dict)
    with pytest.raises(
        ValueError, match="backend 'triton' takes float32, bfloat16 or float16 logits, got torch.float64"
    ):
        backends.resolve("sample", "triton", double)
    with pytest.raises(ValueError, match="backend 'triton' needs tensors on cuda, got cpu"):
        backends.resolve("sample", "triton", torch.zeros(1, 1, 4, 4))
