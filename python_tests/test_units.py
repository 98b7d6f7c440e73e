"""Positions and losses in a user's units: against formulas of the conventions, on every operator and both modules."""

import math

import pytest
import torch
from conftest import assert_close

from sampling_argmax_cuda import (
    SamplingArgmax,
    SoftArgmax,
    axis_sample,
    convert_coords,
    energy_score,
    expected_error,
    heatmap_moments,
    ops,
    sample,
    soft_argmax,
)
from sampling_argmax_cuda.checks import METRICS
from sampling_argmax_cuda.coords import CONVENTIONS
from sampling_argmax_cuda.distances import metric_of
from sampling_argmax_cuda.objectives import OBJECTIVES, make_objective, options_of
from sampling_argmax_cuda.objectives.targets import Target

SAMPLING = dict(num_samples=5, tau=0.7, seed=3)
STRIDES = [1, 4.0, (4, 2)]
CASES = [(coords, stride) for coords in CONVENTIONS for stride in STRIDES]
every_case = pytest.mark.parametrize("coords, stride", CASES, ids=[f"{c}-{s}" for c, s in CASES])
FORMULAS = {
    "index": lambda x, n: x,
    "unit": lambda x, n: x / n,
    "centered": lambda x, n: x / n - 0.5,
    "cell": lambda x, n: (2 * x + 1) / n - 1,
    "corners": lambda x, n: 2 * x / (n - 1) - 1,
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shown(cells: torch.Tensor, size, coords: str, stride) -> torch.Tensor:
    """Cells to pixels by their centres, and then the convention on the image's axes."""
    strides = stride if isinstance(stride, tuple) else (stride,) * len(size)
    columns = [
        FORMULAS[coords](s * (e + 0.5) - 0.5, s * n) for e, s, n in zip(cells.unbind(-1), strides, size, strict=True)
    ]
    return torch.stack(columns, -1)


@every_case
def test_answers_are_those_of_the_formula(coords, stride):
    z, size, own = noise(2, 3, 5, 7), (7, 5), dict(coords=coords, stride=stride)
    assert_close("soft_argmax", soft_argmax(z, **own), shown(soft_argmax(z), size, coords, stride))
    assert_close("sample", sample(z, **SAMPLING, **own), shown(sample(z, **SAMPLING), size, coords, stride))
    assert_close(
        "axis_sample", axis_sample(z, **SAMPLING, **own), shown(axis_sample(z, **SAMPLING), size, coords, stride)
    )
    moments, cells = heatmap_moments(z, **own), heatmap_moments(z)
    assert_close("mean", moments.mean, shown(cells.mean, size, coords, stride))
    assert torch.equal(moments.peak, cells.peak) and torch.equal(moments.entropy, cells.entropy)
    # The covariance of the coordinates, from their definition.
    grid = (
        torch.stack(torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")[::-1], -1).view(-1, 2).double()
    )
    away = shown(grid, size, coords, stride) - moments.mean[:, :, None]
    covariance = torch.einsum("bkn,bkna,bknc->bkac", z.flatten(2).softmax(-1), away, away)
    assert_close("covariance", moments.covariance, covariance)


def test_a_stride_puts_the_borders_of_map_and_image_together():
    """The image's left border is at -1/2, its right one at its last pixel + 1/2; normalized between borders no stride is seen."""
    edges = torch.tensor([[-0.5, -0.5], [6.5, 4.5]])
    assert torch.equal(shown(edges, (7, 5), "index", 4.0), torch.tensor([[-0.5, -0.5], [27.5, 19.5]]))
    z = noise(1, 2, 5, 7)
    assert_close("cell", soft_argmax(z, coords="cell", stride=4), soft_argmax(z, coords="cell"))
    pixels = soft_argmax(z, stride=4)
    for coords in CONVENTIONS:  # of the image: what convert_coords makes of its pixels
        assert_close(coords, soft_argmax(z, coords=coords, stride=4), convert_coords(pixels, (28, 20), "index", coords))


ERROR_CASES = [(grid, metric, spread) for grid in ((6, 6), (5, 7)) for metric in METRICS for spread in (0.0, 0.5)
               if spread == 0 or metric in ("l1", "euclidean")]  # fmt: skip


@every_case
@pytest.mark.parametrize("grid, metric, spread", ERROR_CASES, ids=str)
def test_losses_are_the_distances_of_samples_in_those_units(grid, metric, spread, coords, stride, monkeypatch):
    """Value and gradients; where units are alike on both axes without a sample drawn by the public function, in one pass."""
    z, size, own = noise(2, 3, *grid).requires_grad_(), grid[::-1], dict(coords=coords, stride=stride)
    target = shown(torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(1)).double() * 5, size, coords, stride)
    weight = torch.tensor([[1.0, 0.0, 0.5], [2.0, 1.0, 1.0]], dtype=torch.float64)
    y = shown(sample(z, **SAMPLING), size, coords, stride)
    offsets = y - target[:, :, None]
    expected = metric_of(offsets.unbind(-1), metric).mean(-1)
    if spread > 0:
        pairs = metric_of((y[:, :, :, None] - y[:, :, None]).unbind(-1), metric)
        expected = expected - spread * pairs.sum((-1, -2)) / (5 * 4)
    expected = expected * weight
    bad = target.clone()
    bad[0, 1] = math.nan
    alike = coords == "index" if grid[0] != grid[1] else True
    alike = alike and not isinstance(stride, tuple)
    fused = alike and (metric != "smooth_l1" or (coords == "index" and stride == 1))
    if coords == "cell" and isinstance(stride, tuple):
        fused = grid[0] == grid[1] and metric != "smooth_l1"  # no stride is seen there
    with monkeypatch.context() as patch:
        if fused and spread == 0:
            patch.setattr(ops, "sample", None)
        found = expected_error(z, bad, weight, metric=metric, spread=spread, **SAMPLING, **own)
    assert_close("loss", found, expected)
    wanted = torch.autograd.grad(expected.sum(), z, retain_graph=True)[0]
    assert_close("gradient", torch.autograd.grad(found.sum(), z)[0], wanted)
    assert found[0, 1] == 0


def test_learned_sub_distributions_in_units():
    """Offsets and widths are in cells, whatever the answer is in."""
    z, offset, sigma = noise(2, 3, 5, 7), noise(2, 3, 2, 5, 7, seed=1), noise(2, 3, 5, 7, seed=2).exp()
    form, own = dict(**SAMPLING, basis="gaussian", offset=offset, sigma=sigma), dict(coords="unit", stride=4)
    draws = shown(sample(z, **form), (7, 5), "unit", 4)
    assert_close("sample", sample(z, **form, **own), draws)
    target = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(1)).double()
    found = expected_error(z, target, metric="l2", **form, **own)
    assert_close("loss", found, (draws - target[:, :, None]).square().sum(-1).mean(-1))
    cells, moments = (heatmap_moments(z, offset=offset, sigma=sigma, **more) for more in ({}, own))
    assert_close("mean", moments.mean, shown(cells.mean, (7, 5), "unit", 4))
    assert_close("variance", moments.variance, cells.variance / torch.tensor([49, 25]))
    assert_close("position", soft_argmax(z, offset=offset, **own), moments.mean)


def test_float32_and_half_precision_in_units():
    z = noise(2, 3, 5, 7).float()
    for dtype in (torch.float32, torch.bfloat16):
        own = z.to(dtype)
        found = expected_error(own, torch.full((2, 3, 2), 0.5), coords="unit", stride=4, **SAMPLING)
        expected = expected_error(own.double(), torch.full((2, 3, 2), 0.5), coords="unit", stride=4, **SAMPLING)
        assert found.dtype == torch.float32
        assert_close("loss", found, expected)


@pytest.mark.parametrize("grid", [(6,), (5, 6), (6, 6), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("coords", CONVENTIONS)
def test_modules(grid, coords):
    z, own = noise(2, 3, *grid), dict(coords=coords, stride=4)
    target = soft_argmax(noise(2, 3, *grid, seed=1), **own)
    sampling, form = SamplingArgmax(num_samples=5, tau=0.7, metric="euclidean", **own), {**SAMPLING, **own}
    assert_close("loss", sampling.loss(z, target, seed=3), expected_error(z, target, metric="euclidean", **form))
    assert_close("samples", sampling(z, seed=3), sample(z, **form))
    assert_close("more", sampling.samples(z, num_samples=2, seed=3), sample(z, **{**form, "num_samples": 2}))
    assert_close("position", sampling.eval()(z), soft_argmax(z, **own))
    assert_close("reading", sampling.read(z)[0], soft_argmax(z, **own))
    soft = SoftArgmax(metric="l2", **own)
    assert_close("soft", soft(z), soft_argmax(z, **own))
    assert_close("its loss", soft.loss(z, target), (soft_argmax(z, **own) - target).square().sum(-1))
    released = SamplingArgmax(num_samples=5, tau=0.7, estimator="axis", **own)
    assert_close("axis", released(z, seed=3), axis_sample(z, **form))
    expected = (axis_sample(z, **form) - target[:, :, None]).abs().sum(-1).mean(-1)
    assert_close("its loss", released.loss(z, target, seed=3), expected)
    assert f"coords={coords!r}" in repr(sampling) or coords == "index"


def test_a_target_of_a_trainer_stays_in_cells():
    """What knows of maps speaks of cells; the distance is in the module's units."""
    z, cells = noise(2, 3, 5, 7), torch.rand(2, 3, 2).double() * 4
    objective = SamplingArgmax(num_samples=5, tau=0.7, coords="unit")
    found = objective.loss(z, Target(cells, None, (7, 5)), seed=3)
    assert_close("loss", found, objective.loss(z, convert_coords(cells, (7, 5), "index", "unit"), seed=3))
    for name in OBJECTIVES:
        assert not {"coords", "stride", "periodic"} & options_of(name).keys(), name


def test_the_scale_of_every_objective_with_a_distance():
    """Pixels are four cells: so are the losses that are distances, and others are as they were."""
    z, cells = noise(2, 3, 6, 6), torch.rand(2, 3, 2).double() * 4
    for name, factor in {
        "soft": 4,
        "debiased": 4,
        "discrete": 4,
        "sampling": 4,
        "cross_entropy": 1,
        "heatmap": 1,
    }.items():
        objective = make_objective(name)
        expected = objective.loss(z, cells, seed=3)
        objective.set_coords("index", 4)
        found = objective.loss(z, 4 * cells + 1.5, seed=3)
        assert_close(name, found, expected * factor)
        assert_close(f"{name}, read", objective.read(z)[0], make_objective(name).read(z)[0] * 4 + 1.5)


def test_soft_argmax_loads_what_sampling_argmax_saved(tmp_path):
    def model(objective):
        return torch.nn.Sequential(torch.nn.Linear(2, 2), objective)

    trained = model(SamplingArgmax(tau="coco"))
    trained[1].set_epoch(7)
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    plain = model(SoftArgmax())
    plain.load_state_dict(state)
    assert torch.equal(plain[0].weight, trained[0].weight)
    SoftArgmax().load_state_dict(trained[1].state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key.*1.other"):
        plain.load_state_dict({**state, "1.other": torch.zeros(())})
    with pytest.raises(RuntimeError, match="Unexpected key.*epoch"):  # of another module
        plain.load_state_dict({**state, "0.epoch": torch.zeros(())})


def test_weights_with_an_axis_more():
    z, target, weight = noise(2, 3, 5, 7), torch.rand(2, 3, 2).double(), torch.rand(2, 3).double()
    draws = sample(z, **SAMPLING)
    for name, loss in {
        "expected_error": lambda w: expected_error(z, target, w, **SAMPLING),
        "energy_score": lambda w: energy_score(draws, target, w),
        "SoftArgmax": lambda w: SoftArgmax().loss(z, target, w),
        "SamplingArgmax": lambda w: SamplingArgmax().loss(z, target, w, seed=1),
        "Heatmap": lambda w: make_objective("heatmap").loss(z, target, w),
    }.items():
        assert torch.equal(loss(weight), loss(weight.unsqueeze(-1))), name
        with pytest.raises(ValueError, match=r"weight must be \[B, K\] = \[2, 3\], got \(2, 3, 2\)"):
            loss(weight.unsqueeze(-1).expand(2, 3, 2))


Z, T, CLOUD = (
    torch.zeros(2, 3, 5, 7),
    torch.zeros(2, 3, 2),
    dict(logits=torch.zeros(2, 3, 9), points=torch.zeros(2, 9, 2)),
)
ERRORS = [
    (lambda: soft_argmax(Z, coords="pixel"), "soft_argmax: coords must be one of index, .*, corners, got 'pixel'"),
    (lambda: sample(Z, **SAMPLING, stride=0), "sample: stride must be > 0, one number or one an axis, got 0"),
    (lambda: sample(Z, **SAMPLING, stride="4"), "sample: stride must be > 0"),
    (lambda: axis_sample(Z, **SAMPLING, stride=(4, 4, 4)), r"axis_sample: stride must be one number or 2 .*, got \(4, 4, 4\)"),
    (lambda: expected_error(Z, T, **SAMPLING, stride=math.inf), "expected_error: stride must be > 0"),
    (lambda: soft_argmax(torch.zeros(1, 2, 1, 5), coords="corners"), "soft_argmax: .*corners.* >= 2, got 1"),
    (lambda: soft_argmax(**CLOUD, coords="unit"), "soft_argmax: points have units of their own, .*, got 'unit'"),
    (lambda: heatmap_moments(**CLOUD, stride=2), "points have units of their own"),
    (lambda: sample(**CLOUD, **SAMPLING, basis="none", coords="unit"), "sample: points have units of their own"),
    (lambda: SoftArgmax(coords="unit").loss(CLOUD["logits"], T, points=CLOUD["points"]), "SoftArgmax: points have units"),
    (lambda: SoftArgmax(coords="unit")(**CLOUD), "SoftArgmax: points have units of their own"),
    (lambda: SoftArgmax(units="cell", coords="unit"), "SoftArgmax: units are those of coords 'unit', got units 'cell'"),
    (lambda: SamplingArgmax(coords="pixels"), "SamplingArgmax: coords must be one of"),
    (lambda: SamplingArgmax(stride=-1), "SamplingArgmax: stride must be > 0"),
    (lambda: expected_error(Z, torch.zeros(2, 3, 3), **SAMPLING), r"target must be \[B, K, d\] = \[2, 3, 2\], got \(2, 3, 3\)$"),
    (lambda: expected_error(torch.zeros(2, 5, 7, 3), T, **SAMPLING), r"these logits \(2, 5, 7, 3\) look like channels last"),
    (lambda: SoftArgmax().loss(torch.zeros(2, 5, 7, 3), T), r"SoftArgmax: target .* look like channels last: they must be \[B, K"),
]  # fmt: skip


@pytest.mark.parametrize("call, message", ERRORS, ids=[message[:50] for _, message in ERRORS])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("coords", ["index", "unit"])  # in one pass, and by samples
def test_compiled(coords):
    def step(z, target):
        return expected_error(z, target, coords=coords, stride=4, num_samples=3, tau=1.0, seed=1)

    z, target = noise(2, 3, 5, 7).float(), torch.full((2, 3, 2), 0.3)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert_close("loss", compiled(z, target), step(z, target))
