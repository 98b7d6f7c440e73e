"""tau and beta as numbers or as tensors with no dimension: values, gradients, what is refused, and what torch.compile makes of
one that changes."""

import pytest
import torch
from conftest import cuda_machines, machine_isas, triton_machines
from contract_cases import noise
from torch._dynamo.testing import CompileCounterWithBackend

from sampling_argmax_cuda import axis_sample, expected_error, heatmap_moments, sample, soft_argmax

SAMPLING = dict(num_samples=4, seed=3)
OPS = {
    "sample": lambda z, **o: sample(z, **SAMPLING, **o),
    "axis_sample": lambda z, **o: axis_sample(z, **SAMPLING, **o),
    "expected_error": lambda z, **o: expected_error(z, torch.ones_like(z[..., 0, :2]), **SAMPLING, **o),
    "spread": lambda z, **o: expected_error(z, torch.ones_like(z[..., 0, :2]), spread=0.5, **SAMPLING, **o),
    "moments": lambda z, tau=None, **o: torch.cat([x.flatten(2) for x in heatmap_moments(z, **o)[:2]], -1),
}
SAMPLERS = list(OPS)[:4]
each = pytest.mark.parametrize("op", OPS)


def scalar(x: float, dtype=torch.float64, **options) -> torch.Tensor:
    return torch.tensor(x, dtype=dtype, **options)


@pytest.mark.parametrize("machine", machine_isas()[-1:] + cuda_machines()[:1] + triton_machines(), indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each
def test_a_tensor_is_its_number(op, dtype, machine):
    """Of its own type: 0.75 and 0.5 are numbers of all."""
    z = noise(1, 2, 4, 5).requires_grad_()
    results = [OPS[op](z, tau=0.75, beta=0.5), OPS[op](z, tau=scalar(0.75, dtype), beta=scalar(0.5, dtype))]
    grads = [torch.autograd.grad(y.sum(), z)[0] for y in results]
    assert torch.equal(*results) and torch.equal(*grads)


@each
def test_the_reference_takes_tensors(op):
    z = noise(1, 2, 4, 5)
    found = OPS[op](z, tau=scalar(0.75), beta=scalar(0.5), backend="reference")
    assert torch.equal(found, OPS[op](z, tau=0.75, beta=0.5, backend="reference"))


@pytest.mark.parametrize("name", ["tau", "beta"])
@each
def test_gradients_are_the_slope(op, name):
    """Of tau by the reference, of beta by the kernels; a cell of -inf spoils neither."""
    if (op, name) == ("moments", "tau"):
        return
    z = noise(1, 2, 4, 5).double()
    z[0, 0, 1, 2] = -torch.inf
    numbers, step = {"tau": 0.8, "beta": 0.9}, 1e-5
    learnt = scalar(numbers[name], requires_grad=True)
    y = OPS[op](z, **{**numbers, name: learnt})
    weights = noise(*y.shape, seed=1).double()
    (found,) = torch.autograd.grad((y * weights).sum(), learnt)
    above, below = (OPS[op](z, **{**numbers, name: numbers[name] + s}) for s in (step, -step))
    expected = ((above - below) * weights).sum() / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert found != 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_gradient_of_beta_is_summed_in_float32(dtype):
    """Values are those without it."""
    z, beta = noise(2, 3, 16, 16).to(dtype), scalar(0.9, torch.float32, requires_grad=True)
    y = soft_argmax(z, beta=beta)
    assert torch.equal(y, soft_argmax(z, beta=0.9))
    exact = scalar(0.9, requires_grad=True)
    expected = torch.autograd.grad(soft_argmax(z.double(), beta=exact).sum(), exact)[0]
    torch.testing.assert_close(torch.autograd.grad(y.sum(), beta)[0].double(), expected, rtol=2e-3, atol=2e-3)


def test_kernels_have_no_gradient_of_tau_and_say_so():
    z, tau = noise(1, 2, 4, 5), scalar(0.8, requires_grad=True)
    with pytest.raises(ValueError, match="sample: backend 'cpu' has no gradient of tau; backend 'reference' has"):
        sample(z, tau=tau, backend="cpu", **SAMPLING)
    with torch.no_grad():
        assert torch.equal(sample(z, tau=tau, backend="cpu", **SAMPLING), sample(z, tau=0.8, **SAMPLING))


@pytest.mark.parametrize("op", SAMPLERS)
@pytest.mark.parametrize(
    "tau, said",
    [
        (scalar(0.0), "tau must be > 0, got 0.0"),
        (scalar(torch.nan), "tau must be > 0, got nan"),
        (scalar(0.001), "tau must be at least 0.01"),
        (torch.ones(1), "tau must be a number or a floating-point tensor with no dimension, got torch.float32"),
        (torch.tensor(1), "tau must be a number or a floating-point tensor with no dimension, got torch.int64"),
    ],
    ids=str,
)
def test_what_is_no_temperature_is_refused(op, tau, said):
    with pytest.raises(ValueError, match=said):
        OPS[op](noise(1, 2, 4, 5), tau=tau)


def test_a_tensor_that_changes_before_backward_is_an_error():
    """Not the gradient of another temperature."""
    z, tau = noise(1, 2, 4, 5).requires_grad_(), scalar(0.8)
    y = sample(z, tau=tau, **SAMPLING).sum()
    tau.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def compiled(function, **options):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(function, fullgraph=True, backend=counter, **options), counter


TAUS, BATCHES = [4 * 0.95**k for k in range(50)], (2, 3, 4, 5, 7)


@pytest.mark.written_memory
@pytest.mark.parametrize("op", ["axis_sample", "expected_error", "moments"])
def test_a_schedule_of_tensors_recompiles_nothing(op):
    """Over 50 temperatures and 5 batch sizes; values and gradients are the eager ones."""
    step, counter = compiled(lambda z, tau: OPS[op](z, tau=tau, beta=tau), dynamic=True)
    frames = set()
    for k, tau in enumerate(TAUS):
        z = noise(BATCHES[k % 5], 6, 8, 9, seed=k).requires_grad_()  # sizes that are equal would be taken for one
        found, expected = step(z, scalar(tau)), OPS[op](z, tau=tau, beta=tau)
        assert torch.equal(found, expected)
        assert torch.equal(*(torch.autograd.grad(y.sum(), z)[0] for y in (found, expected)))
        frames.add(counter.frame_count)
    assert len(frames) == 1


@pytest.mark.written_memory
def test_a_schedule_of_numbers_is_compiled_twice():
    """torch.compile takes the first for a constant, and sees at the second that it is none."""
    step, counter = compiled(lambda z, tau: OPS["expected_error"](z, tau=tau, beta=tau))
    z = noise(2, 2, 4, 5)
    for tau in TAUS[:20]:
        assert torch.equal(step(z, tau), OPS["expected_error"](z, tau=tau, beta=tau))
    assert counter.frame_count == 2


@pytest.mark.written_memory
def test_a_compiled_step_refuses_what_is_no_temperature():
    step, _ = compiled(lambda z, tau: OPS["sample"](z, tau=tau))
    with pytest.raises(ValueError, match="tau must be > 0, got -1"):
        step(noise(1, 2, 4, 5), scalar(-1.0))
