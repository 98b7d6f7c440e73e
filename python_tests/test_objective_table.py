"""Every objective with everything that it may not see: each combination, or its refusal."""

import itertools
import math
from functools import partial

import pytest
import torch
from objective_problems import RLE, SEED, SIZES, Problem, objective_of, options

from sampling_argmax_cuda.objectives import OBJECTIVES
from sampling_argmax_cuda.objectives.answers import OutputWithSigma
from sampling_argmax_cuda.objectives.targets import Target, gaussian_maps
from sampling_argmax_cuda.tasks.keypointnet.task import PointCloudKeypoints, nearest_copy
from sampling_argmax_cuda.tasks.mpii.task import MpiiPose
from sampling_argmax_cuda.tasks.oct.task import RetinalSurfaces

# What has no meaning: the message that says so, when a task is made or at the first call.
REFUSED = {
    **{(name, "cloud"): f"{OBJECTIVES[name].__name__}: needs a grid, got points"
       for name in ("heatmap", "debiased", "direct", *RLE)},
    **{(name, "line"): r"RLELoss: prediction must be \[\.\.\., 2\]" for name in RLE},
}  # fmt: skip


def cases(*kinds) -> list[tuple]:
    return list(itertools.product(OBJECTIVES, SIZES, *kinds))


def start(name: str, shape: str, ordered: bool) -> Problem | None:
    """A problem of the combination, or None where it is refused, as it has to be."""
    problem = Problem(objective_of(name, shape), shape)
    if ordered:
        problem.objective.constraint = lambda position: position.cummax(1).values
    if (name, shape) not in REFUSED:
        return problem
    with pytest.raises(ValueError, match=REFUSED[name, shape]):
        problem.run()


def same(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> bool:
    return all(map(torch.equal, a, b))


@pytest.mark.parametrize("name, shape, ordered", cases([False, True]))
def test_no_loss_sees_an_unknown_coordinate(name, shape, ordered):
    """Bit for bit, wherever it is said to be; but the known ones of the same point."""
    problem = start(name, shape, ordered)
    if problem is None:
        return
    axes = len(problem.size)
    for known in itertools.product((0.0, 1.0), repeat=axes):
        problem.known = torch.ones(2, 3, axes)
        problem.known[0, 1] = torch.tensor(known)
        if (name, shape) == ("cross_entropy", "cloud"):
            with pytest.raises(ValueError, match="where cells are points every coordinate must be known"):
                problem.run()
            continue
        expected, place = problem.run(), problem.position.clone()
        assert all(x.isfinite().all() for x in expected)
        for a, value in itertools.product(range(axes), (1e3, -2.0, math.nan)):
            problem.position = place.clone()
            inwards = 2 if place[0, 1, a] < 1.5 else -2
            problem.position[0, 1, a] = place[0, 1, a] + inwards if known[a] else value
            if known[a]:
                # RLE has a density of x and y, and one of x, y and z.
                counts = not problem.objective.predicts_sigma or all(known[:2])
                assert torch.equal(problem.run()[0][0, 1], expected[0][0, 1]) != counts
            else:
                assert same(problem.run(), expected)
        problem.position = place
        if not any(known):
            assert expected[0][0, 1] == 0
            assert ordered or all((gradient[0, 1] == 0).all() for gradient in expected[1:])


@pytest.mark.parametrize("name, shape", cases())
def test_no_loss_trains_towards_an_unknown_coordinate(name, shape):
    """It is the same whichever way round the answer is on an axis that is not known, and it is not on one that is.

    Samples of a grid have other noise then; their loss is that of the known axes of each.
    """
    problem = start(name, shape, ordered=False)
    if problem is None or (name, shape) == ("cross_entropy", "cloud"):
        return
    objective, axes = problem.objective, len(problem.size)
    for known in itertools.product((0.0, 1.0), repeat=axes):
        problem.known = torch.tensor(known).expand(2, 3, axes)
        loss, place, points = problem.run()[0], problem.output, problem.points
        if name in ("sampling", "sampling_rle") and shape != "cloud":
            target = Target(problem.position, problem.weight, problem.size, problem.known)
            draws = (objective if name == "sampling" else objective.inner).draws(place, target, SEED)
            offsets = torch.where(problem.known.unsqueeze(2) > 0, draws - problem.position.unsqueeze(2), 0)
            expected = offsets.abs().sum(-1).mean(-1)
            if name == "sampling_rle":
                sigma, counts = (x.unsqueeze(2).expand_as(offsets) for x in (problem.sigma, problem.known))
                expected = objective.likelihood(offsets, sigma, torch.zeros_like(offsets), None, counts).mean(-1)
            torch.testing.assert_close(loss, expected)
            continue
        for a in range(axes):
            turned = torch.where(torch.arange(axes) == a, -1.0, 1.0)
            if shape == "cloud":
                problem.points = points * turned
            else:
                problem.output = place * turned if objective.regresses else place.flip(-1 - a)
            counts = known[a] and (not objective.predicts_sigma or all(known[:2]))
            assert torch.allclose(problem.run()[0], loss, rtol=1e-5, atol=1e-5) != counts
            problem.output, problem.points = place, points


@pytest.mark.parametrize("name, shape, ordered", cases([False, True]))
def test_no_loss_sees_a_point_that_does_not_count(name, shape, ordered):
    """Neither its target nor, where no constraint compares it with others, what the network answers there."""
    problem = start(name, shape, ordered)
    if problem is None:
        return
    problem.weight[0, 1], problem.weight[1] = 0, torch.tensor([0.5, 2.0, 1.0])
    for known in (None, torch.ones(2, 3, len(problem.size))):
        problem.known = known
        if known is not None and (name, shape) == ("cross_entropy", "cloud"):
            continue
        expected, place = problem.run(), problem.position.clone()
        assert expected[0][0, 1] == 0 and (expected[0][problem.weight > 0] != 0).all()
        for value in (1e3, -math.inf, math.nan):
            problem.position = place.clone()
            problem.position[0, 1] = value
            assert same(problem.run(), expected)
        problem.position = place
        if not (ordered and problem.objective.constrained):
            answers = problem.output, problem.sigma
            problem.output, problem.sigma = (x.index_put((torch.tensor(0), torch.tensor(1)), x.new_tensor(math.nan))
                                            for x in answers)  # fmt: skip
            assert same(problem.run(), expected) and (expected[1][0, 1] == 0).all()
            problem.output, problem.sigma = answers


@pytest.mark.parametrize("name, shape", cases())
def test_every_read_position_is_possible(name, shape):
    """Whatever is trained, a constraint holds for what is read, of an image and of averaged maps, and for what is drawn."""
    problem = start(name, shape, ordered=True)
    if problem is None:
        return
    objective, output = problem.objective.eval(), problem.output
    found = [
        objective.read(OutputWithSigma(output, problem.sigma) if objective.predicts_sigma else output, problem.points)[
            0
        ]
    ]
    if "maps" in objective.averages and problem.points is None:
        found.append(objective.read_maps(objective.maps(output))[0])
    draws = objective.samples(output, problem.points, num_samples=20, seed=0)
    found += [] if draws is None else [draws]
    assert (draws is not None) == (name in ("sampling", "sampling_rle"))
    for position in found:
        assert torch.equal(position, position.cummax(1).values)
    objective.constraint = None
    free = objective.read(problem.answer(), problem.points)[0]
    assert not torch.equal(free, found[0])


CLOUD = partial(PointCloudKeypoints, width=0.1, centers=(8, 4, 2, 1))
SCANS, SCANS_WITH_ENTROPY = partial(RetinalSurfaces, width=2), partial(RetinalSurfaces, width=2, ce_weight=1.0)
REFUSED_BY_TASKS = {
    **{(CLOUD, name): f"objective {name} needs a grid" for name in ("heatmap", "debiased", "direct", *RLE)},
    **{(task, name): f"task oct needs an objective with maps alone, got {name}"
       for task in (SCANS, SCANS_WITH_ENTROPY) for name in ("direct", *RLE)},
    (SCANS_WITH_ENTROPY, "heatmap"): "ce_weight needs an objective whose maps are logits, got heatmap",
}  # fmt: skip


@pytest.mark.parametrize("task", [CLOUD, SCANS, SCANS_WITH_ENTROPY], ids=["cloud", "scans", "scans_with_entropy"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_tasks_refuse_what_their_objectives_cannot(name, task):
    """When the task is made, with the reason; what is not refused is trained as the tables above say."""
    if (task, name) in REFUSED_BY_TASKS:
        with pytest.raises(ValueError, match=f"model: {REFUSED_BY_TASKS[task, name]}"):
            task(objective=options(name, cloud=task is CLOUD))
    else:
        made = task(objective=options(name, cloud=task is CLOUD))
        assert (name, "cloud" if task is CLOUD else "line") not in REFUSED and made.hparams.objective["name"] == name


def test_a_keypoint_that_a_model_lacks_chooses_no_copy():
    copies = torch.tensor([[[[0.0, 0, 0], [math.nan, 9, 9]], [[1, 0, 0], [0, 0, 0]]]])
    found = nearest_copy(torch.tensor([[[0.9, 0, 0], [9.0, 9, 9]]]), copies, torch.tensor([[1.0, 0]]))
    assert found[0, 0].tolist() == [1, 0, 0]


# ---- what a marginal is ----


def test_cross_entropy_of_a_marginal():
    z, axes = torch.randn(2, 3, 3, 4, 5, generator=torch.Generator().manual_seed(0)), torch.ones(2, 3, 3)
    position = torch.tensor([3.4, 0.6, 1.6]).expand(2, 3, 3)
    p = z.flatten(2).softmax(-1).view_as(z)
    expected = {(1, 1, 1): p[..., 2, 1, 3], (1, 1, 0): p.sum(2)[..., 1, 3], (0, 1, 1): p.sum(4)[..., 2, 1],
                (0, 0, 1): p.sum((3, 4))[..., 2], (0, 1, 0): p.sum((2, 4))[..., 1]}  # fmt: skip
    for known, share in expected.items():
        axes = torch.tensor(known, dtype=torch.float32).expand(2, 3, 3)
        found = objective_of("cross_entropy").loss(z, Target(position, torch.ones(2, 3), (5, 4, 3), axes), seed=SEED)
        torch.testing.assert_close(found, -share.log())


@pytest.mark.parametrize("known", list(itertools.product((0.0, 1.0), repeat=3)))
def test_a_perfect_volume_has_no_error_in_the_plane(known):
    """The largest value over unknown axes is the Gaussian of the others, wherever on them the point is."""
    position = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([11.0, 9.0, 7.0])
    maps, axes = gaussian_maps(position, (12, 10, 8), 1.3), torch.tensor(known).expand(2, 3, 3)
    objective, weight = objective_of("heatmap", target_sigma=1.3), torch.ones(2, 3)
    loss = objective.loss(maps, Target(position, weight, (12, 10, 8), axes), seed=SEED)
    assert (loss < 1e-12).all()
    other = objective.loss(maps.flip(-1), Target(position, weight, (12, 10, 8), axes), seed=SEED)
    assert (other > 1e-4).all() == bool(known[0])
    flat = maps.amax(2) + 0.1
    both = Target(position, weight, (12, 10, 8), torch.tensor([1.0, 1.0, 0.0]).expand(2, 3, 3))
    plane = objective.loss(flat, Target(position[..., :2], weight, (12, 10)), seed=SEED)
    torch.testing.assert_close(objective.loss(maps + 0.1, both, seed=SEED), plane)


def test_surfaces_entropy_sees_no_unknown_row():
    module = RetinalSurfaces(width=2, objective={"name": "soft", "beta": 3.0}, ce_weight=2.0)
    z = torch.randn(1, 9 * 4, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    row, weight = torch.randint(16, (1, 36), generator=torch.Generator().manual_seed(1)), torch.ones(1, 36)
    weight[0, ::5] = 0
    position = torch.where(weight > 0, row + 0.3, torch.nan).unsqueeze(-1)
    with torch.no_grad():
        z[0, ::5] = torch.nan
    loss = module.extra_loss(z, Target(position, weight, (16,)))
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    expected = -2 * (3 * z.detach()).log_softmax(-1).gather(-1, row.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(loss.detach(), torch.where(weight > 0, expected, 0))
    assert (gradient[0, ::5] == 0).all() and gradient.isfinite().all() and (gradient[0, 1] != 0).any()


# ---- one Gaussian ----


def test_true_maps_of_the_discriminator_are_those_of_the_network(monkeypatch):
    """Bit for bit: at maps of 0 the gradient of a heatmap's loss is minus the true map over its 256 cells."""
    module, seen = MpiiPose(stacks=1, channels=8, objective="heatmap", adversary=dict(stacks=1, channels=8)), []
    monkeypatch.setattr(module.adversary, "step", lambda module, images, maps, truth: seen.append(truth) or 0.0)
    monkeypatch.setattr(module, "row_seed", lambda output: SEED)
    rng = torch.Generator().manual_seed(0)
    position, weight = torch.rand(2, 16, 2, generator=rng) * 15, torch.ones(2, 16)
    weight[0, 3] = 0
    maps = torch.zeros(2, 16, 16, 16, requires_grad=True)
    module.stage_loss([maps], Target(position, weight, (16, 16)), {"image": torch.zeros(2, 3, 64, 64)})
    loss = module.objective.loss(maps, Target(position, weight, (16, 16)), seed=SEED)
    (gradient,) = torch.autograd.grad(loss.sum(), maps)
    assert torch.equal(seen[0], -256 * gradient) and seen[0].amax((2, 3)).eq(weight).all()
