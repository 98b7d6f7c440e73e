"""The drop-ins beside kornia and dsntnn as installed: same arguments, same numbers, same gradients; and samples."""

import inspect
import math
from functools import partial

import pytest
import torch

from sampling_argmax_cuda import expected_error, sample
from sampling_argmax_cuda.compat import dsntnn as our_dsntnn
from sampling_argmax_cuda.compat import kornia as our_kornia

subpix = pytest.importorskip("kornia.geometry.subpix")
dsntnn = pytest.importorskip("dsntnn")

EQUAL = {torch.float32: 1e-6, torch.float64: 1e-10}
GRIDS = [(7,), (5, 6), (1, 6), (3, 4, 5)]
both_dtypes = pytest.mark.parametrize("dtype", EQUAL, ids=lambda dtype: str(dtype)[6:])


def noise(*shape: int, dtype=torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_same(ours, theirs, *inputs: torch.Tensor, scale: float = 1.0) -> None:
    """Two functions have the same answer, dtype and gradients by every input.

    Equal to 1e-6 of the largest number (at least 1), gradients of that times the cotangent. ``scale``: a factor that the function
    itself multiplies numbers and so their rounding by.
    """
    found = []
    for function in (ours, theirs):
        leaves = [x.clone().requires_grad_() for x in inputs]
        answer = function(*leaves)
        cotangent = noise(*answer.shape, dtype=answer.dtype, seed=9)
        found.append((answer.detach(), *torch.autograd.grad((answer * cotangent).sum(), leaves)))
    size = scale * max(1.0, answer.abs().max().item())
    for a, b, own in zip(*found, [1.0] + [max(1.0, cotangent.abs().max().item())] * len(inputs), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert (a - b).abs().max() <= EQUAL[a.dtype] * size * own


# ---- kornia ----


@both_dtypes
@pytest.mark.parametrize("grid", [(5, 6), (1, 6), (4, 1), (64, 48)], ids=str)
@pytest.mark.parametrize("normalized", [True, False])
def test_kornia(grid, normalized, dtype):
    logits = noise(2, 3, *grid, dtype=dtype) * 3
    probabilities = our_kornia.spatial_softmax2d(logits)
    assert_same(our_kornia.spatial_softmax2d, subpix.spatial_softmax2d, logits)
    for maps in (probabilities, 0.3 * logits.exp()):  # as they are, whatever their sum
        assert_same(lambda p: our_kornia.spatial_expectation2d(p, normalized),
                    lambda p: subpix.spatial_expectation2d(p, normalized), maps)  # fmt: skip
    for temperature in (None, 0.5, 3, torch.tensor(2.0), torch.rand(3, 1) + 0.5):
        for name in ("spatial_soft_argmax2d", "SpatialSoftArgmax2d"):
            own, their = (getattr(kind, name) for kind in (our_kornia, subpix))
            if name.startswith("spatial"):
                options = dict(temperature=temperature, normalized_coordinates=normalized)
                assert_same(partial(own, **options), partial(their, **options), logits, scale=2)
            else:
                assert_same(own(temperature, normalized), their(temperature, normalized), logits, scale=2)


@both_dtypes
def test_a_temperature_that_is_learned(dtype):
    temperature = torch.tensor(0.7, dtype=dtype)
    for name in ("spatial_softmax2d", "spatial_soft_argmax2d"):
        assert_same(getattr(our_kornia, name), getattr(subpix, name), noise(2, 3, 5, 6, dtype=dtype), temperature)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_and_is_nearer(dtype):
    logits = noise(2, 3, 5, 6)
    exact = subpix.spatial_soft_argmax2d(logits)
    ours, theirs = (f(logits.to(dtype)) for f in (our_kornia.spatial_soft_argmax2d, subpix.spatial_soft_argmax2d))
    assert ours.dtype == theirs.dtype == dtype
    assert (ours - exact).abs().max() <= max((theirs - exact).abs().max(), torch.finfo(dtype).eps)


def same_arguments(ours, theirs) -> bool:
    """Their arguments in their order with their defaults; what is ours alone is said by name."""
    kinds = [(p.name, p.default) for p in inspect.signature(theirs).parameters.values()]
    own = list(inspect.signature(ours).parameters.values())
    more = own[len(kinds) :]
    return kinds == [(p.name, p.default) for p in own[: len(kinds)]] and all(p.kind == p.KEYWORD_ONLY for p in more)


@pytest.mark.parametrize(
    "name", ["spatial_softmax2d", "spatial_expectation2d", "spatial_soft_argmax2d", "SpatialSoftArgmax2d"]
)
def test_arguments_of_kornia(name):
    assert same_arguments(getattr(our_kornia, name), getattr(subpix, name))
    assert not hasattr(subpix, "spatial_soft_argmax3d")  # which would have to be here


# ---- dsntnn ----


def public(module) -> list[str]:
    return [
        n
        for n, f in vars(module).items()
        if inspect.isfunction(f) and not n.startswith("_") and f.__module__ == "dsntnn"
    ]


def test_every_function_of_dsntnn_is_here():
    names = public(dsntnn)
    assert len(names) == 15
    for name in names:
        assert same_arguments(getattr(our_dsntnn, name), getattr(dsntnn, name)), name


@both_dtypes
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_dsntnn_on_maps(grid, dtype):
    logits, axes = noise(2, 3, *grid, dtype=dtype) * 2, len(grid)
    maps, centre = dsntnn.flat_softmax(logits), noise(2, 3, axes, dtype=dtype, seed=1) * 0.4
    assert_same(our_dsntnn.flat_softmax, dsntnn.flat_softmax, logits)
    values = [noise(n, dtype=dtype, seed=n) for n in grid]
    assert_same(
        lambda p: our_dsntnn.linear_expectation(p, values), lambda p: dsntnn.linear_expectation(p, values), maps
    )
    for normalized in (True, False):
        own, their = (partial(kind.dsnt, normalized_coordinates=normalized) for kind in (our_dsntnn, dsntnn))
        assert_same(own, their, maps)
        assert_same(partial(own, from_logits=True), lambda z, f=their: f(dsntnn.flat_softmax(z)), logits)
        own, their = (partial(kind.soft_argmax, normalized_coordinates=normalized) for kind in (our_dsntnn, dsntnn))
        assert_same(own, their, 2 * maps)
    for name in ("js_reg_losses", "kl_reg_losses"):
        assert_same(lambda p, m, n=name: getattr(our_dsntnn, n)(p, m, 1.5),
                    lambda p, m, n=name: getattr(dsntnn, n)(p, m, 1.5), maps, centre)  # fmt: skip
    cells = (max(grid) / 2) ** 2  # squares of normalized numbers, in cells
    own, their = (partial(kind.variance_reg_losses, sigma_t=1.5) for kind in (our_dsntnn, dsntnn))
    assert_same(own, their, maps, scale=cells)
    for normalize in (True, False):
        own, their = (
            partial(f, size=grid, sigma=1.5, normalize=normalize) for f in (our_dsntnn.make_gauss, dsntnn.make_gauss)
        )
        assert_same(own, their, centre)


@both_dtypes
def test_dsntnn_on_positions(dtype):
    actual, target = noise(2, 3, 2, dtype=dtype), noise(2, 3, 2, dtype=dtype, seed=1)
    for name in ("euclidean_losses", "l1_losses", "mse_losses"):
        assert_same(getattr(our_dsntnn, name), getattr(dsntnn, name), actual, target)
    for name in ("normalized_to_pixel_coordinates", "pixel_to_normalized_coordinates"):
        assert_same(
            lambda x, n=name: getattr(our_dsntnn, n)(x, (5, 6)), lambda x, n=name: getattr(dsntnn, n)(x, (5, 6)), actual
        )
        assert getattr(our_dsntnn, name)(0.25, 6) == getattr(dsntnn, name)(0.25, 6)
    losses = noise(2, 3, dtype=dtype)
    assert_same(our_dsntnn.average_loss, dsntnn.average_loss, losses)
    for mask in (torch.tensor([[1.0, 0, 1], [0, 0, 1]]), torch.zeros(2, 3)):
        assert_same(
            lambda x, m=mask: our_dsntnn.average_loss(x, m), lambda x, m=mask: dsntnn.average_loss(x, m), losses
        )
    line = our_dsntnn.normalized_linspace(5, dtype=dtype)
    assert (
        torch.equal(line, -line.flip(0))
        and (line - dsntnn.normalized_linspace(5, dtype=dtype)).abs().max() <= EQUAL[dtype]
    )


def test_a_loss_at_its_target_has_no_slope():
    target = noise(2, 3, 2)
    actual = target.clone().requires_grad_()
    our_dsntnn.euclidean_losses(actual, target).sum().backward()
    assert actual.grad.eq(0).all()


# ---- samples ----

SAMPLING = dict(num_samples=6, tau=0.7, basis="gaussian", sigma=0.8, seed=4)


@pytest.mark.parametrize("from_logits", [True, False])
def test_one_argument_makes_dsntnn_s_loss_the_expectation_of_the_error(from_logits):
    """In dsntnn's units, which are as long on both axes of a square: the fused loss; and elsewhere the same."""
    for grid in ((6, 6), (5, 7)):
        z = noise(2, 3, *grid).requires_grad_()
        target = noise(2, 3, 2, seed=1) * 0.3
        maps = z if from_logits else our_dsntnn.flat_softmax(z)
        samples = our_dsntnn.dsnt(maps, from_logits=from_logits, sampling=SAMPLING)
        assert samples.shape == (2, 3, 6, 2)
        loss = our_dsntnn.euclidean_losses(samples, target)
        expected = expected_error(z, target, metric="euclidean", coords="cell", **SAMPLING)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
        found, wanted = (torch.autograd.grad(x.sum(), z)[0] for x in (loss, expected))
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_samples_of_kornia_s_functions():
    z = noise(2, 3, 5, 6)
    form = {**SAMPLING, "beta": 1 / 0.5}
    for normalized, coords in ((True, "corners"), (False, "index")):
        expected = sample(z, coords=coords, **form)
        found = our_kornia.spatial_soft_argmax2d(z, 0.5, normalized, sampling=SAMPLING)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        module = our_kornia.SpatialSoftArgmax2d(torch.tensor(0.5), normalized, sampling=SAMPLING)
        torch.testing.assert_close(module(z), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(module.eval()(z), subpix.spatial_soft_argmax2d(z, 0.5, normalized))
        maps = our_kornia.spatial_softmax2d(z, 0.5)
        found = our_kornia.spatial_expectation2d(maps, normalized, sampling=SAMPLING)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_samples_of_probabilities_that_are_0():
    """A softmax underflows; its samples have finite gradients."""
    z = torch.tensor([0.0, 1.0, -500.0, 800.0]).view(1, 1, 2, 2).requires_grad_()
    found = our_dsntnn.dsnt(our_dsntnn.flat_softmax(z), sampling=SAMPLING)
    found.square().sum().backward()
    assert found.isfinite().all() and z.grad.isfinite().all()


def test_an_empty_mapping_is_thirty_samples():
    assert our_kornia.spatial_soft_argmax2d(noise(1, 2, 5, 6), sampling={}).shape == (1, 2, 30, 2)


ERRORS = [
    (lambda: our_kornia.spatial_soft_argmax2d(noise(2, 5, 6)), r"argmax2d: input must be \[B, N, H, W\], got \(2, 5, 6\)"),
    (lambda: our_kornia.spatial_softmax2d([1.0]), r"spatial_softmax2d: input must be \[B, N, H, W\], got list"),
    (lambda: our_kornia.spatial_soft_argmax2d(noise(1, 2, 5, 6), 0.0), "spatial_soft_argmax2d: temperature must be > 0, got 0.0"),
    (lambda: our_kornia.spatial_softmax2d(noise(1, 2, 5, 6), torch.tensor(math.nan)), "spatial_softmax2d: temperature must be > 0"),
    (lambda: our_kornia.spatial_soft_argmax2d(noise(1, 2, 5, 6), sampling=dict(beta=2.0)), "sampling has no option 'beta'"),
    (lambda: our_dsntnn.dsnt(noise(1, 2, 5, 6), sampling=30), "soft_argmax: sampling must be a mapping of options .*, got 30"),
    (lambda: our_dsntnn.dsnt(noise(1, 2, 5, 6), sampling=dict(tau=0.0)), "sample: tau must be > 0, got 0.0"),
    (lambda: our_dsntnn.euclidean_losses(noise(2, 3, 2), noise(2, 4, 2)), r"actual must be as target \(2, 4, 2\), or samples"),
    (lambda: our_dsntnn.l1_losses(noise(2, 4, 5, 2), noise(2, 3, 2)), r"l1_losses: actual must be as target \(2, 3, 2\)"),
    (lambda: our_dsntnn.js_reg_losses(noise(2, 3, 5, 6), noise(2, 3, 3), 1.0), r"js_reg_losses: mu_t must be \[B, L, d\]"),
    (lambda: our_dsntnn.average_loss(noise(2, 3), noise(3)), r"average_loss: mask must be as losses \(2, 3\), got \(3,\)"),
    (lambda: our_dsntnn.linear_expectation(noise(2, 3, 5), []), "linear_expectation: values must be one tensor an axis, 1, got 0"),
]  # fmt: skip


@pytest.mark.parametrize("call, message", ERRORS, ids=[message[:40] for _, message in ERRORS])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
