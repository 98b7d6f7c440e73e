"""Every objective with every form of its logits: what is trained is what is read, and what figures show is what is trained."""

import itertools

import lightning
import numpy as np
import pytest
import torch
from objective_problems import SEED, SIZES, Problem, objective_of

from sampling_argmax_cuda import axis_sample, sample
from sampling_argmax_cuda.objectives import OBJECTIVES
from sampling_argmax_cuda.objectives.answers import OutputWithSigma
from sampling_argmax_cuda.objectives.targets import Target
from sampling_argmax_cuda.tasks.coco.task import CocoPose
from sampling_argmax_cuda.tasks.keypointnet.task import PointCloudKeypoints
from sampling_argmax_cuda.tasks.oct.task import RetinalSurfaces
from sampling_argmax_cuda.tasks.skeleton.task import SkeletonMerger
from sampling_argmax_cuda.trainers import figures
from sampling_argmax_cuda.trainers.tta import EnsembleMember, TestTimeAugmentation

# ---- beta: what is trained is what is read ----

BETAS = (1.0, 4.0, 0.5, "tau")
ONE_MAP = ("soft", "soft_vr", "soft_dr", "debiased", "discrete", "cross_entropy", "soft_rle")
NO_SOFTMAX = ("heatmap", "direct", "rle")


@pytest.mark.parametrize("name, beta", list(itertools.product(ONE_MAP, BETAS)))
def test_a_map_is_trained_and_read_with_one_beta(name, beta):
    """As that of logits times beta; of the released form of samples, softmax(z + g / tau), as softmax(z)."""
    one, other = Problem(objective_of(name, beta=1.0), "plane"), Problem(objective_of(name, beta=beta), "plane")
    factor = 1.0 if beta == "tau" else beta
    one.output = other.output * factor
    torch.testing.assert_close(one.run()[0], other.run()[0])
    torch.testing.assert_close(one.run()[1] * factor, other.run()[1])
    read = [m.read(OutputWithSigma(x.output, x.sigma) if m.predicts_sigma else x.output)
            for x in (one, other) for m in (x.objective.eval(),)]  # fmt: skip
    torch.testing.assert_close(read[0], read[1])
    torch.testing.assert_close(one.objective.maps(one.output), other.objective.maps(other.output))
    if "maps" in other.objective.averages:
        torch.testing.assert_close(other.objective.read_maps(other.objective.maps(other.output)), read[1])


@pytest.mark.parametrize("estimator", ["cell", "axis"])
@pytest.mark.parametrize("name, beta", list(itertools.product(("sampling", "sampling_rle"), BETAS)))
def test_samples_have_the_mean_that_is_read(name, beta, estimator):
    """As tau falls they are cells drawn by the map that is read; in the released form, as tau grows, its very mean."""
    tau = 1e5 if beta == "tau" else 0.01
    objective = objective_of(name, beta=beta, tau=tau, basis="none", estimator=estimator, num_samples=4000)
    problem = Problem(objective, "plane")
    target = Target(problem.position, problem.weight, problem.size)
    draws = objective.draws(problem.output, target, SEED) if name == "sampling" else objective.inner.draws(
        problem.output, target, SEED)  # fmt: skip
    read = objective.eval().read(problem.answer())[0]
    error = (draws.mean(2) - read).abs() / (draws.std(2) / 4000**0.5 + 1e-3)
    assert error.max() < 4.5
    sampler = objective if name == "sampling" else objective.inner
    torch.testing.assert_close(sampler.eval()(problem.output), read)
    if beta in (4.0, 0.5):
        assert (read - objective_of("soft").read(problem.output)[0]).abs().max() > 0.3


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_beta_that_nobody_reads_is_refused(name):
    if name in NO_SOFTMAX:
        for beta in (4.0, 1.0, "tau"):
            with pytest.raises(ValueError, match=f"objective: {name} has no option 'beta'"):
                objective_of(name, beta=beta)
        assert objective_of(name).beta == 1
        return
    assert objective_of(name, beta=4.0).beta == 4 and objective_of(name, beta="tau").beta == 1
    for wrong, message in (
        (-1.0, "beta must be > 0, got -1.0"),
        ("two", "beta must be a number > 0 or 'tau', got 'two'"),
    ):
        with pytest.raises(ValueError, match=message):
            objective_of(name, beta=wrong)


@pytest.mark.parametrize("average", ["coords", "maps"])
def test_members_are_read_with_their_own_beta(average):
    """The mean of the members' positions, by maps as by coordinates: a mean of maps has the mean of their places."""
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    members = [EnsembleMember(lambda images: z, objective_of("soft", beta=beta)) for beta in (1.0, 4.0)]
    found = (
        TestTimeAugmentation([0, 1, 2], flip=False, average=average).read(members, torch.zeros(2, 3, 32, 32)).position
    )
    expected = torch.stack([member.objective.read(z)[0] for member in members]).mean(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("own, other", [("sampling", "heatmap"), ("heatmap", "soft"), ("soft", "direct"), ("soft", "debiased"),
                                        ("soft", "sampling_rle")])  # fmt: skip
def test_maps_of_two_kinds_have_no_mean(own, other, tmp_path):
    """A probability and a height of 1 at a joint; coordinates of both have one."""
    trained = CocoPose(depth=18, head_channels=16, objective=other)
    checkpoint = {"task": "coco", "state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams),
                  "datamodule_hyper_parameters": {"image_size": (64, 64)},
                  "pytorch-lightning_version": lightning.__version__}  # fmt: skip
    torch.save(checkpoint, tmp_path / "other.ckpt")
    module = CocoPose(depth=18, head_channels=16, objective=own, average="maps")
    with pytest.raises(ValueError, match=f"average maps needs maps of one kind, .* has objective {other} beside {own}"):
        module._member(str(tmp_path / "other.ckpt"))
    module.hparams.average = "coords"
    assert module._member(str(tmp_path / "other.ckpt")).image_size == (64, 64)


# ---- what figures show ----

SAMPLERS = [("cell", basis) for basis in ("none", "uniform", "triangular", "gaussian")]
SAMPLERS += [("axis", basis) for basis in ("triangular", "gaussian")]


@pytest.mark.parametrize("name", ["sampling", "sampling_rle"])
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("estimator, basis", SAMPLERS)
def test_samples_in_figures_are_those_of_the_objective(estimator, basis, beta, shape, name):
    """Estimator, basis, tau, beta, sigma and reweighting, in evaluation as in training."""
    if (shape == "cloud" and (estimator, basis) not in (("cell", "none"), ("cell", "gaussian"))) or (
        name == "sampling_rle" and shape in ("line", "cloud")
    ):
        return
    reweight = 2.0 if (estimator, basis) == ("axis", "gaussian") else 0.0
    objective = objective_of(
        name, shape, estimator=estimator, basis=basis, beta=beta, tau=0.7, sigma=1.7, reweight=reweight
    )
    problem = Problem(objective, shape)
    options = dict(num_samples=11, tau=0.7, beta=0.7 if beta == "tau" else beta, basis=basis, sigma=1.7, seed=0)
    if estimator == "cell":
        expected = sample(problem.output, points=problem.points, **options)
    else:
        expected = axis_sample(problem.output, reweight=reweight, **options)
    for training in (False, True):
        assert torch.equal(
            objective.train(training).samples(problem.output, problem.points, num_samples=11, seed=0), expected
        )
    if shape in ("plane", "volume"):
        drawn = figures.draw_samples(problem.output, objective, 11)
        assert torch.equal(torch.from_numpy(drawn), 4 * expected[..., :2])


def cyan(axes) -> torch.Tensor:
    """The points of a panel in space that stand for samples, ``[n, 3]``."""
    (line,) = [line for line in axes.lines if line.get_color() == "cyan" or line.get_label() == "samples"]
    x, z, y = line.get_data_3d()
    return torch.tensor(np.stack([x, y, z], 1))


def of_points(name: str, basis: str) -> dict:
    """The options of an objective of these tests' figures."""
    return {"name": name, "beta": 3.0, **({"basis": basis, "tau": 0.4} if name == "sampling" else {})}


@pytest.mark.parametrize("objective, basis", [("sampling", "none"), ("sampling", "gaussian"), ("soft", "gaussian")])
def test_figures_of_point_clouds_show_the_objectives_samples(objective, basis):
    module = PointCloudKeypoints(objective=of_points(objective, basis), width=0.1, centers=(8, 4, 2, 1), spacing=1.5)
    rng = torch.Generator().manual_seed(0)
    shown = {"points": torch.randn(1, 12, 3, generator=rng), "output": torch.randn(1, 2, 12, generator=rng),
             "position": torch.zeros(1, 2, 3), "sigma": torch.tensor([0.2])}  # fmt: skip
    (axes,) = module._figure(shown).axes
    if objective == "soft":
        assert not [line for line in axes.lines if line.get_color() == "cyan"]
        return
    own = dict(num_samples=30, tau=0.4, beta=3.0, basis=basis, sigma=torch.tensor([[0.3]]), seed=0)
    expected = sample(shown["output"], points=shown["points"], **own)
    torch.testing.assert_close(cyan(axes), expected.flatten(0, 2).double())


@pytest.mark.parametrize("objective, counts", [("sampling", [3, 3]), ("soft", [])])
def test_figures_of_skeletons_show_the_objectives_samples(objective, counts):
    module = SkeletonMerger(objective=of_points(objective, "none"), width=0.1, centers=(8, 4, 2, 1), keypoints=2)
    rng = torch.Generator().manual_seed(0)
    shown = {"cloud": torch.randn(1, 12, 3, generator=rng), "logits": torch.randn(1, 2, 12, generator=rng),
             "strength": torch.zeros(1, 1), "keypoints": torch.zeros(1, 2, 3), "sigma": torch.tensor([[0.2]])}  # fmt: skip
    (axes,) = module._figure(shown).axes
    lines = [line.get_data_3d() for line in axes.lines if len(line.get_data_3d()[0]) == 20]
    assert [len(line) for line in lines] == counts
    own = dict(num_samples=20, tau=0.4, beta=3.0, basis="none", seed=0)
    for (x, z, y), draws in zip(lines, sample(shown["logits"], points=shown["cloud"], **own)[0], strict=False):
        torch.testing.assert_close(torch.tensor(np.stack([x, y, z], 1)), draws.double())


@pytest.mark.parametrize("objective", ["sampling", "soft"])
def test_figures_of_scans_show_the_objectives_samples(objective):
    module = RetinalSurfaces(width=2, objective=of_points(objective, "uniform"))
    output = torch.randn(1, 9 * 4, 16, generator=torch.Generator().manual_seed(0))
    spread = module._figure(torch.zeros(16, 4), output, torch.zeros(9, 4)).axes[2]
    if objective == "soft":
        assert not spread.collections and spread.get_title() == "soft has no samples"
        return
    draws = module.in_order(sample(output, num_samples=50, tau=0.4, beta=3.0, basis="uniform", seed=0))
    draws = draws[0, ..., 0].unflatten(0, (9, 4)).double()
    for k, area in enumerate(spread.collections):
        rows = torch.tensor(area.get_paths()[0].vertices[:, 1])
        for bound in (draws[k].mean(-1) - draws[k].std(-1), draws[k].mean(-1) + draws[k].std(-1)):
            assert (rows[:, None] - bound).abs().amin(0).max() < 1e-4
    assert len(spread.collections) == 9
