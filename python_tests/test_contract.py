"""Every operator on every backend against the float64 reference: values, every gradient, layouts and edge cases."""

import pytest
import torch
from conftest import assert_close, cuda_machines, machine_device, machine_isas, triton_machines
from contract_cases import Case, cloud_cases, grid_cases, noise, number
from torch.library import opcheck

from sampling_argmax_cuda import axis_sample, expected_error, heatmap_moments, reference, sample
from sampling_argmax_cuda.checks import PROPER

ISAS, CUDA, TRITON = machine_isas(), cuda_machines(), triton_machines()
# Interpreted, Triton's kernels take smaller grids and points: test_triton.py.
each_machine = pytest.mark.parametrize(
    "machine", ISAS + CUDA + (TRITON if torch.cuda.is_available() else []), indirect=True
)
one_of_each = pytest.mark.parametrize("machine", ISAS[-1:] + CUDA + TRITON, indirect=True)

GRIDS = [(1, 1, 1), (2, 3, 7), (1, 2, 48), (1, 1, 3073), (2, 2, 5, 7), (1, 1, 63, 48), (1, 2, 1, 1), (2, 1, 3, 4, 5),
         (1, 1, 7, 1, 9), (1, 1, 3, 33, 65)]  # fmt: skip
CLOUDS = [(1, 1, 1, 3), (2, 3, 7, 2), (1, 2, 63, 1), (1, 1, 3073, 3)]
SETTINGS = [dict(num_samples=1, tau=1.0), dict(num_samples=5, tau=0.5, beta=0.5), dict(num_samples=30, tau=2.0, beta=1.7),
            dict(num_samples=5, tau=0.1)]  # fmt: skip


@each_machine
@pytest.mark.parametrize("basis", ["none", "uniform", "triangular", "gaussian"])
@pytest.mark.parametrize("shape", GRIDS, ids=str)
def test_grids(shape, basis, machine):
    for settings in SETTINGS:
        for case in grid_cases(shape, settings, basis):
            case.check()


@pytest.mark.parametrize("machine", ISAS, indirect=True)
def test_a_short_axis_after_a_long_one(machine):
    """Axes take turns on one scratch: nothing of a longer one is left behind the last of a whole number of blocks."""
    settings = dict(num_samples=3, tau=1.0, basis="triangular", seed=3)
    Case("axis_sample", {"logits": noise(1, 1, 64, 80)}, settings).check()
    Case("axis_sample", {"logits": noise(1, 2, 64, 16, 70)}, settings).check()


@each_machine
@pytest.mark.parametrize("basis", ["none", "gaussian"])
@pytest.mark.parametrize("cloud", CLOUDS, ids=str)
def test_points(cloud, basis, machine):
    for case in cloud_cases(cloud, SETTINGS, basis):
        case.check()


@one_of_each
@pytest.mark.parametrize("metric", PROPER)
@pytest.mark.parametrize("basis", ["none", "uniform", "triangular", "gaussian"])
def test_spread(basis, metric, machine):
    """The distance between samples that is taken off: on a grid, and on points far from 0."""
    settings = dict(num_samples=5, tau=0.7, basis=basis, metric=metric, spread=0.5, seed=3)
    width = {"sigma": noise(2, 2, seed=1).abs() + 0.3} if basis == "gaussian" else {}
    target = {"target": noise(2, 2, 2, seed=3) + 3, "weight": noise(2, 2, seed=4).abs(), **width}
    Case("expected_error", {"logits": noise(2, 2, 5, 7), **target}, settings).check()
    if basis in ("none", "gaussian"):
        points = {"points": noise(2, 9, 2, seed=5) + 1e4}
        target["target"] = target["target"] + 1e4
        Case("expected_error", {"logits": noise(2, 2, 9), **points, **target}, settings).check()


@each_machine
@pytest.mark.parametrize("shape", GRIDS, ids=str)
def test_moments(shape, machine):
    Case("heatmap_moments", {"logits": noise(*shape)}, {"beta": 0.8}).check()


@one_of_each
def test_first_of_equal_peaks(machine):
    """The peak's derivative goes to the first cell of the maximum, whichever of them one thread holds."""
    logits = noise(1, 1, 600)
    logits[0, 0, [5, 5 + 32, 5 + 64, 5 + 128, 5 + 256, 5 + 512]] = 9.0
    grads = []
    for backend, z in (("auto", logits.to(machine_device())), ("reference", logits.double())):
        z.requires_grad_()
        grads += torch.autograd.grad(heatmap_moments(z, backend=backend).peak.sum(), z)
    assert_close("grad_peak", grads[0].cpu(), grads[1])


def all_ops(shape=(2, 2, 9, 7), dtype=torch.float32, basis="triangular", **changes):
    logits = changes.pop("logits", None)
    logits = noise(*shape).to(dtype) if logits is None else logits
    shape = logits.shape
    settings = dict(num_samples=3, tau=0.7, basis=basis, seed=11)
    yield Case("sample", {"logits": logits}, settings)
    yield Case("axis_sample", {"logits": logits}, settings)
    yield Case("expected_error", {"logits": logits, "target": noise(*shape[:2], len(shape) - 2).to(dtype)}, settings)
    yield Case("heatmap_moments", {"logits": logits})


@one_of_each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("basis", ["uniform", "triangular", "gaussian"])
def test_half_precision(dtype, basis, machine):
    for case in all_ops(dtype=dtype, basis=basis):
        outputs, _ = case.check()
        assert all(x.dtype == torch.float32 for x in outputs.values())


@pytest.mark.parametrize("machine", ISAS[-1:] + CUDA, indirect=True)
@pytest.mark.parametrize("basis", ["uniform", "triangular", "gaussian"])
def test_double_precision(basis, machine):
    for case in all_ops(dtype=torch.float64, basis=basis):
        outputs, _ = case.check()
        assert all(x.dtype == torch.float64 for x in outputs.values())


@one_of_each
@pytest.mark.parametrize("layout", ["transposed", "batch_last", "expanded", "offset"])
def test_layouts(layout, machine):
    base = noise(2, 2, 9, 9)
    logits = {
        "transposed": base.transpose(2, 3),
        "batch_last": base.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        "expanded": base[:1].expand(2, -1, -1, -1),
        "offset": torch.cat([base, base])[1:3, :, ::2, 1:],
    }[layout]
    for ours, plain in zip(all_ops(logits=logits), all_ops(logits=logits.contiguous()), strict=True):
        outputs, grads = ours.run()
        expected_outputs, expected_grads = plain.run()
        for name, x in outputs.items():
            assert torch.equal(x, expected_outputs[name])
        assert torch.equal(grads["logits"], expected_grads["logits"])


@one_of_each
@pytest.mark.parametrize("tau", [0.1, 0.7])
@pytest.mark.parametrize("basis", ["none", "uniform", "triangular", "gaussian"])
def test_minus_infinity(basis, tau, machine):
    logits = noise(1, 2, 9, 7) if machine in TRITON else noise(2, 3, 9, 7)
    logits[:, :, 2:4] = -torch.inf
    logits[0, 0, :, :] = -torch.inf
    logits[0, 0, 5, 3] = 1.0
    for case in all_ops(logits=logits, basis=basis):
        if "tau" in case.arguments:
            case.arguments["tau"] = tau
        _, grads = case.check()
        assert (grads["logits"][logits == -torch.inf] == 0).all()


@one_of_each
@pytest.mark.parametrize("basis", ["none", "uniform", "triangular", "gaussian"])
def test_the_smallest_temperature(basis, machine):
    """A sample is all but an argmax, and the gradient where two cells are near a tie is as exact as anywhere."""
    for case in all_ops((2, 2, 24, 20), basis=basis):
        if "tau" in case.arguments:
            case.arguments["tau"] = 0.01
            case.check()


@one_of_each
def test_row_of_minus_infinity_is_nan_and_alone(machine):
    logits = noise(2, 2, 9, 7)
    logits[1, 0] = -torch.inf
    check_spoiled_row(logits)


@one_of_each
def test_nan_spoils_its_row_only(machine):
    logits = noise(2, 2, 9, 7)
    logits[1, 0, 4, 4] = torch.nan
    check_spoiled_row(logits)


def spoilt(*values: float) -> torch.Tensor:
    """Maps of which one row has the values in its first cells, or one value everywhere."""
    logits = noise(1, 3, 5, 6)
    if len(values) == 1:
        logits[0, 1] = values[0]
    else:
        logits[0, 1].view(-1)[: len(values)] = torch.tensor(values)
    return logits


NAN, INF = torch.nan, torch.inf
ROWS = [(NAN,), (INF,), (-INF,), (1e30,), (-1e30,), (3e38,), (NAN, 0), (INF, 0), (-INF, 0), (1e30, 0), (-1e30, 0), (INF, -INF),
        (INF, INF), (NAN, INF), (3e38, -3e38)]  # fmt: skip


@one_of_each
@pytest.mark.parametrize("values", ROWS, ids=str)
def test_what_no_network_should_give(values, machine):
    """NaN where the reference has NaN, numbers where it has numbers, and these numbers; other rows as ever."""
    basis, tau = (
        ("uniform", "triangular", "gaussian")[ROWS.index(values) % 3],
        (0.7, 1.0, 0.1)[ROWS.index(values) // 3 % 3],
    )
    for case in all_ops(logits=spoilt(*values), basis=basis):
        if "tau" in case.arguments:
            case.arguments["tau"] = tau
        case.check()


@one_of_each
def test_a_cloud_far_from_the_origin(machine):
    """A scan in metres of a country's grid: its gradients are those of the same cloud at the origin."""
    generator = torch.Generator().manual_seed(5)
    points = torch.rand(2, 90, 3, generator=generator).double() * 4
    away = torch.tensor([4.5e5, 5.2e6, 300.0], dtype=torch.float64)
    far = (points + away).float()
    target = (far[:, :4] + 0.3).float()
    settings = dict(num_samples=4, tau=0.7, basis="gaussian", seed=3)
    logits = noise(2, 4, 90)
    for op, tensors, arguments in (("sample", {}, settings), ("heatmap_moments", {}, {}),
                                   ("expected_error", {"target": target}, {**settings, "metric": "l2"})):  # fmt: skip
        case = Case(op, {"logits": logits, "points": far, **tensors}, arguments)
        _, grads = case.run()
        _, expected = case.expected()
        for name, g in grads.items():
            assert (g - expected[name]).abs().max() <= 3e-5 * expected[name].abs().max(), (op, name)


# The square of 1e30 is no float32: l2 has no value there.
TARGETS = [(metric, value) for metric in ("l1", "l2", "euclidean", "smooth_l1") for value in (NAN, INF, -INF, 1e30)
           if (metric, value) != ("l2", 1e30)]  # fmt: skip


@one_of_each
@pytest.mark.parametrize("metric, value", TARGETS, ids=str)
def test_targets_that_no_label_should_be(metric, value, machine):
    target = noise(1, 3, 2, seed=3)
    target[0, 1, 0] = value
    tensors = {"logits": noise(1, 3, 5, 6), "target": target}
    Case("expected_error", tensors, dict(num_samples=3, tau=0.7, basis="triangular", metric=metric, seed=1)).check()


def check_spoiled_row(logits):
    clean = logits.clone()
    clean[1, 0] = 0
    others = torch.ones(2, 2, dtype=torch.bool)
    others[1, 0] = False
    for case, good in zip(all_ops(logits=logits), all_ops(logits=clean), strict=True):
        (outputs, grads), (expected_outputs, expected_grads) = case.run(), good.run()
        for name, x in outputs.items():
            assert x[1, 0].isnan().all(), name
            assert torch.equal(x[others], expected_outputs[name][others])
        assert grads["logits"][1, 0].isnan().any()
        assert torch.equal(grads["logits"][others], expected_grads["logits"][others])


@one_of_each
@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("tau", [0.1, 0.7])
def test_weight_zero_reaches_nothing(tau, spread, machine):
    logits, target, weight = noise(2, 2, 9, 7), noise(2, 2, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    logits[0, 1], target[1, 0] = torch.nan, torch.nan
    case = Case("expected_error", {"logits": logits, "target": target},
                dict(weight=weight, num_samples=3, tau=tau, spread=spread, seed=1))  # fmt: skip
    outputs, grads = case.run()
    assert (outputs["result"][weight == 0] == 0).all()
    assert all((g[weight == 0] == 0).all() and not g.isnan().any() for g in grads.values())


@one_of_each
@pytest.mark.parametrize("shape", [(0, 3, 5, 7), (3, 0, 5, 7)])
def test_empty_batch(shape, machine):
    for case in all_ops(shape):
        outputs, grads = case.run()
        assert all(x.shape[:2] == shape[:2] for x in outputs.values())
        assert grads["logits"].shape == shape


@pytest.mark.parametrize("basis", ["none", "uniform", "triangular", "gaussian"])
@pytest.mark.written_memory
def test_gradcheck(basis):
    logits = noise(1, 2, 3, 4).double().requires_grad_()
    sigma = (noise(1, 2, seed=1).abs() + 0.5).double().requires_grad_()
    target = noise(1, 2, 2, seed=2).double().requires_grad_()
    settings = dict(num_samples=3, tau=0.9, beta=1.2, basis=basis, seed=5)
    check = torch.autograd.gradcheck
    assert check(lambda z, s: sample(z, sigma=s, **settings), (logits, sigma))
    assert check(lambda z, s: axis_sample(z, sigma=s, reweight=0.5, **settings), (logits, sigma))
    for metric in ("l1", "l2", "euclidean", "smooth_l1"):
        assert check(
            lambda z, t, s, metric=metric: expected_error(z, t, sigma=s, metric=metric, **settings),
            (logits, target, sigma),
        )
    for metric in ("l1", "euclidean"):
        assert check(lambda z, t, s, metric=metric: expected_error(z, t, sigma=s, metric=metric, spread=0.5, **settings),
                     (logits, target, sigma))  # fmt: skip
    assert check(lambda z: tuple(heatmap_moments(z, beta=1.1)), (logits,))


@pytest.mark.parametrize("basis", ["none", "gaussian"])
@pytest.mark.written_memory
def test_gradcheck_points(basis):
    logits, points = (
        noise(2, 2, 6).double().requires_grad_(),
        noise(2, 6, 3, seed=1).double().requires_grad_(),
    )
    target = noise(2, 2, 3, seed=2).double()
    settings = dict(num_samples=2, tau=0.9, basis=basis, sigma=0.4, seed=5)
    check = torch.autograd.gradcheck
    assert check(lambda z, x: sample(z, points=x, **settings), (logits, points))
    assert check(lambda z, x: expected_error(z, target, points=x, **settings), (logits, points))
    assert check(lambda z, x: tuple(heatmap_moments(z, points=x)), (logits, points))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("basis", ["none", "triangular", "gaussian"])
def test_opcheck(basis, transposed):
    logits = noise(2, 3, 5, 5)
    logits = (logits.transpose(2, 3) if transposed else logits).requires_grad_()
    sigma = torch.full((2, 3), 0.8, requires_grad=True) if basis == "gaussian" else None
    seed, grad = torch.tensor([9]), noise(2, 3, 4, 2)
    ops = torch.ops.sampling_argmax
    settings = (number(0.7), number(1.0), basis)
    opcheck(ops.sample, (logits, None, sigma, seed, 4, *settings))
    opcheck(ops.axis_sample, (logits, sigma, seed, 4, *settings, 0.5, 2.0))
    needs = [True, False, basis == "gaussian"]
    opcheck(
        ops.expected_error,
        (logits, noise(2, 3, 2), torch.ones(2, 3), None, sigma, seed, 4, *settings, "l2", needs),
    )
    opcheck(ops.soft_argmax, (logits, None, number(1.5)))
    plain, width = logits.detach(), None if sigma is None else sigma.detach()
    y, stats = ops.sample(plain, None, width, seed, 4, *settings)
    opcheck(ops.sample_backward, (grad, plain, None, width, seed, y, stats, *settings, needs))
    _, marginals, stats = ops.axis_sample(plain, width, seed, 4, *settings, 0.5, 2.0)
    needs = needs[::2]
    opcheck(ops.axis_sample_backward, (grad, plain, width, seed, marginals, stats, *settings, 0.5, 2.0, needs))
    moments = ops.soft_argmax(plain, None, number(1.5))
    opcheck(ops.soft_argmax_backward, (*moments[:4], plain, None, *moments, number(1.5), [True, False]))
    opcheck(ops.soft_argmax_backward, (None, moments[1], None, None, plain, None, *moments, number(1.5), [True, False]))


def test_opcheck_points():
    logits, points = noise(2, 3, 9).requires_grad_(), noise(2, 9, 3).requires_grad_()
    sigma, seed, ops = (
        torch.full((2, 3), 0.8, requires_grad=True),
        torch.tensor([9, 100]),
        torch.ops.sampling_argmax,
    )
    opcheck(ops.sample, (logits, points, sigma, seed, 4, number(0.7), number(1.0), "gaussian"))
    opcheck(ops.soft_argmax, (logits, points, number(1.5)))
    target, needs = noise(2, 3, 3), [True, True, True]
    opcheck(
        ops.expected_error,
        (logits, target, None, points, sigma, seed, 4, number(0.7), number(1.0), "gaussian", "l1", needs),
    )


def test_reference_is_not_the_package():
    """The comparisons above would be empty if the reference called the operators."""
    from pathlib import Path

    for source in Path(reference.__file__).parent.glob("*.py"):
        assert "torch.ops" not in source.read_text()
