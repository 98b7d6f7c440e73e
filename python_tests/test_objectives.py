"""The objectives against closed forms, slow references and dsntnn."""

import itertools
import math

import dsntnn
import numpy as np
import pytest
import torch
from objective_problems import SEED, objective_of, options

from sampling_argmax_cuda import js_divergence, sample, soft_argmax
from sampling_argmax_cuda.objectives import (
    OBJECTIVES,
    Debiased,
    Direct,
    Discrete,
    DistributionRegularized,
    Heatmap,
    Objective,
    SamplingArgmax,
    SoftArgmax,
    make_objective,
    options_of,
)
from sampling_argmax_cuda.objectives.answers import OutputWithSigma
from sampling_argmax_cuda.objectives.targets import Target
from sampling_argmax_cuda.tasks.coco.task import CocoPose
from sampling_argmax_cuda.trainers.resnet import NormedLinear, PoseNet, RegressionNet, SigmaHead

SHAPE = (2, 3, 12, 10)  # B, K, H, W


def sampling(**more) -> SamplingArgmax:
    return make_objective({"name": "sampling", "tau": 1.0, **more}).train()


def problem(shape=SHAPE, axes=None, seed: int = 0) -> tuple[torch.Tensor, Target]:
    rng = torch.Generator().manual_seed(seed)
    size = tuple(reversed(shape[2:]))
    position = torch.rand(*shape[:2], len(size), generator=rng) * (torch.tensor(size) - 1.0)
    weight = torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    return 3 * torch.randn(*shape, generator=rng), Target(position, weight, size, axes)


@pytest.mark.parametrize("units", ["index", "centered", "unit", "cell", "corners"])
@pytest.mark.parametrize("metric", ["l1", "l2", "euclidean"])
def test_distance_in_every_unit(metric, units):
    """A distance in other units is that of converted coordinates."""
    from sampling_argmax_cuda import convert_coords

    z, target = problem()
    found = SoftArgmax(metric=metric, units=units).loss(z, target, seed=SEED)
    a, b = (convert_coords(x.double(), target.size, "index", units) for x in (soft_argmax(z), target.position))
    expected = {"l1": (a - b).abs().sum(-1), "l2": (a - b).square().sum(-1), "euclidean": (a - b).norm(dim=-1)}[metric]
    torch.testing.assert_close(found, (expected * target.weight).float())


def test_dsnt_equals_dsntnn():
    z, target = problem()
    ours = DistributionRegularized(1.0, 1.0, metric="euclidean", units="cell").loss(z, target, seed=SEED)
    maps = dsntnn.flat_softmax(z)
    truth = 2 * (target.position + 0.5) / torch.tensor(target.size) - 1
    theirs = dsntnn.euclidean_losses(dsntnn.dsnt(maps), truth) + dsntnn.js_reg_losses(maps, truth, 1.0)
    torch.testing.assert_close(ours, theirs * target.weight, rtol=1e-4, atol=1e-5)
    assert torch.equal(js_divergence(z, target.position, 1.0) > 0, torch.ones(2, 3, dtype=torch.bool))


def test_discrete_by_a_loop():
    z, target = problem()
    found, p = Discrete().loss(z, target, seed=SEED), z.flatten(2).softmax(-1).view_as(z)
    for b, k in itertools.product(range(2), range(3)):
        x, y = target.position[b, k]
        expected = sum(p[b, k, i, j] * (abs(j - x) + abs(i - y)) for i in range(12) for j in range(10))
        assert found[b, k].item() == pytest.approx((expected * target.weight[b, k]).item(), rel=1e-4)


def test_unknown_axes_reach_no_loss():
    shape, axes = (2, 3, 4, 6, 5), torch.ones(2, 3, 3)
    axes[0, 0, 2] = axes[1, 1, 0] = 0
    z, target = problem(shape, axes)
    other = Target(target.position.clone(), target.weight, target.size, axes)
    other.position[0, 0, 2] = other.position[1, 1, 0] = 1e3
    for objective in (SoftArgmax(units="centered"), Discrete(metric="l2"), sampling(), Direct()):
        objective.train()
        output = soft_argmax(z) if objective.regresses else z
        a, b = (objective.loss(output, t, seed=SEED) for t in (target, other))
        assert torch.equal(a, b) and (a[target.weight > 0] > 0).all()
    plain = sampling()
    everything = plain.loss(z, Target(target.position, target.weight, target.size, torch.ones(2, 3, 3)), seed=SEED)
    torch.testing.assert_close(plain.loss(z, Target(*list(vars(target).values())[:3]), seed=SEED), everything)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_masked_points_reach_nothing(name):
    objective = make_objective(options(name)).train()
    z, target = problem()
    output = (soft_argmax(z) if objective.regresses else z).clone()
    output[0, 2] = float("nan")
    output.requires_grad_()
    target.position[0, 2] = float("nan")
    sigma = torch.full((2, 3, 2), 0.1)
    sigma[0, 2] = float("nan")
    sigma.requires_grad_()
    loss = objective.loss(OutputWithSigma(output, sigma) if objective.predicts_sigma else output, target, seed=SEED)
    loss.sum().backward()
    assert loss.shape == (2, 3) and loss[0, 2] == 0 and loss.isfinite().all()
    assert output.grad.isfinite().all() and (output.grad[0, 2] == 0).all() and (output.grad[1] != 0).any()
    assert not objective.predicts_sigma or ((sigma.grad[0, 2] == 0).all() and (sigma.grad[1] != 0).all())


@pytest.mark.parametrize("form, density", [("corrected", "laplace"), ("released", "released")])
@pytest.mark.parametrize("name", ["rle", "soft_rle", "sampling_rle"])
def test_rle_is_the_likelihood_of_what_the_method_trains(name, form, density):
    """In shares of the map's axes; of samples the mean over them; a coordinate that is not known has no part in it."""
    axes = torch.ones(2, 3, 3)
    axes[0, 0, 2] = axes[1, 1, 1] = 0  # a point in the plane, and one that is no point
    z, target = problem((2, 3, 4, 6, 5), axes)
    objective = objective_of(name, "volume", form=form, density=density, units="centered")
    output, sigma = soft_argmax(z) if name == "rle" else z, torch.rand(2, 3, 3) / 5 + 0.05
    draws = output.unsqueeze(2) if name == "rle" else soft_argmax(z).unsqueeze(2)
    if name == "sampling_rle":
        draws = sample(z, num_samples=5, tau=1.0, seed=SEED)
    size = torch.tensor([5, 6, 4])
    total = sum(objective.likelihood(draws[:, :, s] / size, sigma, target.position / size, target.weight, axes)
                for s in range(draws.shape[2]))  # fmt: skip
    found = objective.loss(OutputWithSigma(output, sigma), target, seed=SEED)
    torch.testing.assert_close(found, total / draws.shape[2], rtol=1e-4, atol=1e-4)
    assert found[1, 1] == 0 and (found[0, :2] != 0).all()
    position, confidence = objective.eval().read(OutputWithSigma(output, sigma))
    torch.testing.assert_close(position, soft_argmax(z))
    torch.testing.assert_close(confidence, 1 - sigma.mean(-1))
    torch.testing.assert_close(objective.in_cells(sigma, (5, 6, 4)), sigma * size)


def test_networks_with_widths():
    """sigma is bounded on both sides however large the features are; positions depend on their direction alone."""
    images, net = torch.randn(2, 3, 64, 64), RegressionNet(5, 18, "group", None, widths=True).eval()
    found = net(images)
    assert found.output.shape == found.sigma.shape == (2, 5, 2)
    for factor in (1e6, -1e6):
        with torch.no_grad():
            net.sigma.weight.fill_(factor)
        sigma = net(images).sigma
        assert (sigma >= SigmaHead.LEAST).all() and (sigma <= 1).all()
    layer, x = NormedLinear(7, 3), torch.randn(4, 7)
    torch.testing.assert_close(layer(100 * x), layer(x))
    assert not torch.equal(layer(-x), layer(x)) and layer(torch.zeros(1, 7)).isfinite().all()
    maps = PoseNet(5, 18, 16, "group", 4, widths=True)(images)
    assert maps.output.shape == (2, 5, 4, 16, 16) and maps.sigma.shape == (2, 5, 3)


def gaussian_maps(position: torch.Tensor, shape, sigma: float = 2.0) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(shape[2]), torch.arange(shape[3]), indexing="ij")
    px, py = position[..., 0, None, None], position[..., 1, None, None]
    return (-((x - px).square() + (y - py).square()) / (2 * sigma**2)).exp()


def test_heatmaps_are_read_to_less_than_a_third_of_a_cell():
    rng = torch.Generator().manual_seed(3)
    position = 3 + torch.rand(50, 4, 2, generator=rng) * torch.tensor([10.0, 14.0])
    maps = gaussian_maps(position, (50, 4, 20, 16))
    found, peak = Heatmap(2.0).read(maps)
    assert (found - position).abs().max() <= 0.2501 and (peak <= 1).all() and (peak > 0.9).all()
    cell = maps.flatten(2).argmax(-1)
    assert torch.equal((found[..., 0] * 4).frac(), torch.zeros(50, 4))
    assert ((found[..., 0] - cell % 16).abs() <= 0.25).all()


def test_a_heatmap_at_the_border_stays_there():
    maps = torch.zeros(1, 2, 6, 6)
    maps[0, 0, 0, 5], maps[0, 1, 5, 2], maps[0, 1, 5, 3] = 1.0, 1.0, 0.5
    found, _ = Heatmap(2.0).read(maps)
    assert found.tolist() == [[[5, 0], [2.25, 5]]]


def test_heatmap_loss_by_a_loop():
    z, target = problem((2, 3, 12, 10))
    found = Heatmap(1.5).loss(z, target, seed=SEED)
    for b, k in itertools.product(range(2), range(3)):
        x, y = (math.floor(v + 0.5) for v in target.position[b, k].tolist())
        total = 0.0
        for i, j in itertools.product(range(12), range(10)):
            near = abs(i - y) <= 4.5 and abs(j - x) <= 4.5
            truth = math.exp(-((i - y) ** 2 + (j - x) ** 2) / 4.5) if near else 0.0
            total += 0.5 * (z[b, k, i, j].item() - truth) ** 2
        assert found[b, k].item() == pytest.approx(total / 120 * target.weight[b, k].item(), rel=1e-4)


def test_heatmaps_in_space():
    maps = torch.zeros(1, 1, 5, 6, 7)
    maps[0, 0, 3, 2, 4], maps[0, 0, 2, 2, 4], maps[0, 0, 3, 2, 5] = 1.0, 0.5, 0.5
    assert Heatmap(2.0).read(maps)[0].tolist() == [[[4.25, 2, 2.75]]]


def test_debiased_positions_are_those_of_the_peak_alone():
    """A peak on zeros: soft-argmax is pulled to the middle, the debiased mean is that of the peak without its zeros."""
    z = torch.zeros(1, 1, 20, 30)
    z[0, 0, 4:7, 22:27] = 4 * torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) + 5
    found, _ = Debiased().read(z)
    mass = (z[0, 0].double().exp() - 1).numpy()  # what a cell has beyond the background
    expected = [(mass.sum(0) * np.arange(30)).sum() / mass.sum(), (mass.sum(1) * np.arange(20)).sum() / mass.sum()]
    biased = soft_argmax(z)[0, 0]
    assert np.allclose(found[0, 0], expected, atol=1e-4) and abs(biased[0].item() - expected[0]) > 0.2
    # The published form in unit coordinates with the middle at 1/2: C / (C - 1) (x - 1 / (2 C)).
    c, unit = z.exp().mean().item(), (biased + 0.5) / torch.tensor([30.0, 20.0])
    assert np.allclose((found[0, 0] + 0.5) / torch.tensor([30.0, 20.0]), c / (c - 1) * (unit - 1 / (2 * c)), atol=1e-5)


def test_debiased_positions_of_a_flat_map_are_finite():
    z = torch.zeros(1, 1, 8, 8, requires_grad=True)
    found, _ = Debiased().read(z)
    found.sum().backward()
    assert found.tolist() == [[[3.5, 3.5]]] and z.grad.isfinite().all()


def test_sampling_in_units_equals_the_fused_loss():
    """On a square grid centered units divide the fused loss by the number of cells."""
    z, target = problem((2, 3, 12, 12))
    fused = sampling().loss(z, target, seed=SEED)
    scaled = sampling(units="centered").loss(z, target, seed=SEED)
    torch.testing.assert_close(scaled * 12, fused, rtol=1e-4, atol=1e-5)


def test_options_reach_the_sampler():
    chosen = dict(estimator="axis", basis="gaussian", num_samples=7, beta="tau", reweight=2.0, clip_grad=2.0, sigma=1.5)
    objective = make_objective({"name": "sampling", **chosen})
    assert isinstance(objective, SamplingArgmax) and objective.released and chosen.pop("beta") == "tau"
    assert {name: getattr(objective, name) for name in chosen} == chosen
    objective = sampling(tau="coco")
    objective.set_epoch(10)
    assert objective.tau == pytest.approx(2 - 0.6)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(objective="hard"), "objective: name must be one of soft, .* got 'hard'"),
        (dict(objective={"tau": 1.0}), "objective: name must be one of soft, .* got None"),
        (dict(objective={"name": "soft", "tau": 1.0}), r"objective: soft has no option 'tau' \(it has beta, "),
        (
            dict(objective={"name": "soft", "units": "pixels"}),
            "SoftArgmax: units must be one of index, .* got 'pixels'",
        ),
        (dict(objective={"name": "soft", "metric": "l3"}), "SoftArgmax: metric must be one of l1, .* got 'l3'"),
        (dict(objective={"name": "heatmap", "target_sigma": 0.0}), "Heatmap: target_sigma must be > 0, got 0.0"),
        (dict(objective={"name": "rle", "flow_lr": 0.0}), "Rle: flow_lr must be > 0, got 0.0"),
        (dict(objective="direct", average="maps"), "model: average must be coords for objective direct, got 'maps'"),
        (
            dict(objective="debiased", average="maps"),
            "model: average must be coords for objective debiased, got 'maps'",
        ),
        (dict(average="all"), "model: average must be coords or maps for objective sampling, got 'all'"),
        (dict(scales=()), r"model: scales must be numbers > 0, got \[\]"),
        (dict(scales=(1.0, -1.0)), "model: scales must be numbers > 0"),
        (dict(reduction="sum"), "model: reduction must be one of mean, batch, visible, axes, got 'sum'"),
        (dict(loss_scale=0.0), "model: loss_scale must be > 0, got 0.0"),
        (dict(lr=0.0), "model: lr must be > 0, got 0.0"),
        (dict(seed=-1), r"model: seed must be in \[0, 2\*\*31\), got -1"),
    ],
)
def test_wrong_options_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        CocoPose(depth=18, head_channels=16, **wrong)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if "backend" in options_of(name)])
def test_all_that_an_objective_computes_is_on_its_backend(name):
    """Tensors of the CPU are refused by another one, wherever they go in."""
    z, target = problem()
    objective = make_objective({"name": name, "backend": "cuda"})
    calls = [lambda: objective.loss(z, target, seed=SEED), lambda: objective.read(z), lambda: objective(z),
             lambda: objective.eval()(z)]  # fmt: skip
    if "maps" in objective.averages:
        calls.append(lambda: objective.read_maps(objective.maps(z)))
    for call in calls:
        with pytest.raises(ValueError, match="backend 'cuda' (is not available|needs tensors on cuda)"):
            call()


def test_the_base_says_what_it_lacks():
    with pytest.raises(NotImplementedError):
        Objective().loss(*problem(), seed=SEED)


# ---- the step ----


def rates(epochs, **options) -> list[float]:
    module = CocoPose(depth=18, head_channels=16, **options)
    module._trainer = type("Trainer", (), {"world_size": 4})()
    return [module.learning_rate(epoch) for epoch in epochs]


def test_a_flow_has_a_rate_of_its_own():
    module = CocoPose(depth=18, head_channels=16, objective={"name": "soft_rle", "units": "centered", "flow_lr": 0.1})
    groups = module.configure_optimizers().param_groups
    assert [(group["part"], group["decays"]) for group in groups] == [
        ("", False),
        ("", True),
        ("objective", False),
        ("objective", True),
    ]
    assert module.rates() == {"objective": 0.1}
    for part, parameters in (("objective", module.objective.likelihood.parameters()), ("", module.model.parameters())):
        own = [group for group in groups if group["part"] == part]
        assert {id(p) for group in own for p in group["params"]} == {id(p) for p in parameters}
        assert all((p.dim() > 1) == group["decays"] for group in own for p in group["params"])


def test_learning_rate_table():
    """The released Human3.6M schedule: x 0.1 at 90 and 120, again from the start at 140, x 0.1 at 160 and 190."""
    released = dict(lr=1e-3, milestones=(90, 120, 160, 190), restarts=(140,))
    found = rates((0, 89, 90, 119, 120, 139, 140, 159, 160, 189, 190, 199), **released)
    assert found == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert rates((0, 90), lr=1e-3, milestones=(90,), lr_world=True) == pytest.approx([4e-3, 4e-4])


def test_reductions():
    _, target = problem()
    target.axes = torch.ones(2, 3, 2)
    target.axes[1, 0, 1] = 0
    target.axes[1, 1] = 0  # nothing of this point is known, whatever its weight
    for name, expected in {"mean": 15 / 6, "batch": 15 / 2, "visible": 15 / 3.5, "axes": 15 / 6}.items():
        module = CocoPose(depth=18, head_channels=16, reduction=name)
        assert module._reduce(torch.arange(6.0).view(2, 3), target).item() == pytest.approx(expected)
