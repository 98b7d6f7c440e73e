"""Decoders: their loops, every objective with every one, test-time augmentation, and the option through the command line."""

import math
import re
from itertools import combinations

import pytest
import torch
from combinations import OPTIONS
from combinations import make as make_small
from objective_problems import SIZES, Problem, objective_of
from runs import small
from test_objective_table import cases, start
from test_tta import CELLS, POINTS, SWAPPED, Mirror, image_of

from sampling_argmax_cuda import heatmap_mode, local_soft_argmax, soft_argmax
from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.objectives import OBJECTIVES, SoftArgmax
from sampling_argmax_cuda.objectives.answers import output_of
from sampling_argmax_cuda.objectives.decoders import DECODERS, Decoder
from sampling_argmax_cuda.trainers.tta import EnsembleMember, TestTimeAugmentation

GRIDS = [(9,), (7, 6), (5, 4, 6)]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def by_loop(p: torch.Tensor, cells: torch.Tensor, near) -> torch.Tensor:
    """The mean of the cells ``[N, d]`` with probabilities ``[N]`` that are near the largest."""
    mode = cells[int(p.argmax())]
    chosen = [i for i, cell in enumerate(cells) if near(cell - mode)]
    return sum(p[i] * cells[i] for i in chosen) / sum(p[i] for i in chosen)


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0, 20.0])
def test_local_is_its_loop_on_grids(shape, radius):
    z, beta = noise(2, 3, *shape), 0.7
    axes = torch.meshgrid(*(torch.arange(n).double() for n in shape), indexing="ij")
    cells = torch.stack(axes[::-1], -1).flatten(0, -2)
    found, modes = local_soft_argmax(z, radius=radius, beta=beta), heatmap_mode(z)
    for b in range(2):
        for k in range(3):
            p = (beta * z[b, k]).flatten().softmax(0)
            assert torch.equal(modes[b, k], cells[int(p.argmax())])
            expected = by_loop(p, cells, lambda offset: offset.abs().max() <= radius)
            assert torch.allclose(found[b, k], expected, atol=1e-12)
    if radius == 0.5:
        assert torch.equal(found, modes)
    if radius == 20.0:
        assert torch.allclose(found, soft_argmax(z, beta=beta))


def test_local_is_its_loop_on_points():
    z, points = noise(2, 3, 40), noise(2, 40, 3, seed=1)
    found, modes = local_soft_argmax(z, radius=3.0, points=points), heatmap_mode(z, points=points)
    for b in range(2):
        for k in range(3):
            p = z[b, k].softmax(0)
            assert torch.equal(modes[b, k], points[b, int(p.argmax())])
            expected = by_loop(p, points[b], lambda offset: offset.norm() <= 3.0)
            assert torch.allclose(found[b, k], expected, atol=1e-12)


def test_two_peaks():
    """The mean is between them, where nothing is; local is the mean of the higher one, with the default window."""
    x = torch.arange(40.0)
    z = torch.stack([-((x - 8.3) ** 2) / 2, -((x - 30.6) ** 2) / 2 + 0.4]).logsumexp(0).view(1, 1, 40)
    assert 15 < soft_argmax(z).item() < 25
    assert local_soft_argmax(z).item() == pytest.approx(30.6, abs=0.02) and heatmap_mode(z).item() == 31


def test_the_first_of_equal_cells():
    assert heatmap_mode(torch.zeros(1, 1, 3, 4)).tolist() == [[[0, 0]]]
    z = torch.tensor([[[-math.inf, 1.0, 1.0]]])
    assert heatmap_mode(z).item() == 1 and local_soft_argmax(z, radius=1.0).item() == 1.5


def test_gradient_within_the_window():
    z = noise(1, 2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: local_soft_argmax(z, radius=1.0), z)
    (grad,) = torch.autograd.grad(local_soft_argmax(z, radius=1.0).sum(), z)
    assert ((grad != 0).flatten(2).sum(-1) <= 9).all() and grad.isfinite().all()


@pytest.mark.parametrize("call, message", [
    (lambda: local_soft_argmax(noise(1, 2, 5), radius=0), "local_soft_argmax: radius must be > 0, got 0"),
    (lambda: local_soft_argmax(noise(1, 2, 5), points=noise(1, 5, 2)), "points have no spacing, so radius must be given"),
    (lambda: heatmap_mode(noise(2, 5)), "heatmap_mode: logits must be"),
    (lambda: Decoder("median"), "decoder must be one of mean, mode, local, got 'median'"),
    (lambda: Decoder("local", -1.0), "decoder_radius must be > 0, got -1.0"),
])  # fmt: skip
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- objectives ----


@pytest.mark.parametrize("decoder", [Decoder("mean"), Decoder("mode"), Decoder("local", 1.0)], ids=lambda d: d.name)
@pytest.mark.parametrize("name, shape", cases())
def test_every_objective_with_every_decoder(name, shape, decoder):
    """What is read is the decoder's reading of the map, alone and of averaged maps; what is trained stays as it was."""
    problem = start(name, shape, ordered=False)
    if problem is None or problem.objective.regresses:
        return
    objective = problem.objective
    trained, (_, peak) = problem.run(), objective.read(problem.answer(), problem.points)
    objective.decoder = decoder
    found, same_peak = objective.read(problem.answer(), problem.points)
    maps = objective.maps(output_of(problem.answer()))
    z = maps.clamp(min=1e-30).log() if name == "heatmap" else problem.output
    functions = {"mean": lambda: soft_argmax(z, points=problem.points),
                 "mode": lambda: heatmap_mode(z, points=problem.points),
                 "local": lambda: local_soft_argmax(z, radius=1.0, points=problem.points)}  # fmt: skip
    assert torch.allclose(found, functions[decoder.name](), atol=1e-5) and torch.equal(peak, same_peak)
    if problem.points is None:
        assert torch.allclose(objective.read_maps(maps)[0], found, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(problem.run(), trained, strict=True))


@pytest.mark.parametrize("decoder", [Decoder(name, 1.0) for name in DECODERS], ids=lambda d: d.name)
def test_a_constraint_holds_whatever_the_decoder(decoder):
    problem = Problem(objective_of("soft", "line"), "line")
    problem.objective.constraint, problem.objective.decoder = lambda x: x.cummax(1).values, decoder
    found = problem.objective.read(problem.output)[0]
    assert torch.equal(found, found.cummax(1).values)
    problem.objective.constraint = None
    assert not torch.equal(found, problem.objective.read(problem.output)[0])


def test_a_map_of_values_without_a_positive_one():
    objective = objective_of("heatmap")
    objective.decoder = Decoder("mean")
    found, _ = objective.read(-torch.ones(1, 1, *reversed(SIZES["plane"])))
    assert found.flatten().tolist() == pytest.approx([2.5, 2.0])


@pytest.mark.parametrize("average", ["coords", "maps"])
@pytest.mark.parametrize("decoder, bound", [(Decoder("mean"), 0.01), (Decoder("mode"), 0.51), (Decoder("local"), 0.15)],
                         ids=lambda x: getattr(x, "name", ""))  # fmt: skip
def test_mirrors_scales_and_ensembles_have_it(average, decoder, bound):
    members = [EnsembleMember(Mirror(), SoftArgmax()), EnsembleMember(Mirror(), SoftArgmax(), (96, 192))]
    for member in members:
        member.objective.decoder = decoder
    tta = TestTimeAugmentation(SWAPPED, True, (1.0, 1.5), average)
    found = tta.read(members, image_of(POINTS)).position
    assert (found[0] - CELLS).abs().max() < bound
    for member in members:
        member.objective.decoder = None
    assert decoder.name == "mean" or not torch.equal(found, tta.read(members, image_of(POINTS)).position)


# ---- tasks ----


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("task", OPTIONS)
def test_every_task_and_objective_has_it_or_refuses_it(task, objective):
    if task == "associative":
        return  # it trains no objective
    more = {"decoder": "local", "decoder_radius": 2.0}
    try:
        make_small(task, objective)
    except ValueError:  # the task has no such objective
        with pytest.raises(ValueError):
            make_small(task, objective, **more)
        return
    if objective in ("direct", "rle"):
        with pytest.raises(ValueError, match=f"model: a decoder needs an objective with maps, got {objective}"):
            make_small(task, objective, **more)
    else:
        assert make_small(task, objective, **more).objective.decoder == Decoder("local", 2.0)


@pytest.mark.parametrize("task", ["keypointnet", "skeleton"])
def test_point_clouds_need_a_radius(task):
    with pytest.raises(ValueError, match="decoder local needs a decoder_radius in their units"):
        make_small(task, "sampling", decoder="local")
    assert make_small(task, "sampling", decoder="local", decoder_radius=0.1).objective.decoder.radius == 0.1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def answers(run) -> torch.Tensor:
    """Every number of the results of a run."""
    return torch.tensor([float(x) for x in re.findall(r"-?\d+\.\d+", (run / "results.json").read_text())])


@pytest.mark.written_memory
@pytest.mark.parametrize("task", ["keypointnet", "oct"])
def test_other_tasks_have_it(task, data, tmp_path):
    """Of a network that has not been trained."""
    found = {}
    for decoder in ("null", "mode"):
        assert main(["validate", *small(task, data, tmp_path / decoder, f"--model.decoder={decoder}")]) == 0
        found[decoder] = answers(tmp_path / decoder)
    assert not torch.allclose(found["null"], found["mode"], rtol=1e-3)


@pytest.mark.written_memory
def test_the_option_of_a_run(data, tmp_path, capfd):
    """It moves what is validated, and may change whenever a run goes on or is evaluated."""
    assert main(["fit", *small("mtfl", data, tmp_path / "a", "--trainer.max_epochs=1")]) == 0
    checkpoint, found = f"--ckpt_path={tmp_path / 'a' / 'checkpoints' / 'last.ckpt'}", {}
    for decoder in DECODERS:
        argv = [f"--model.decoder={decoder}", "--model.decoder_radius=1", checkpoint]
        assert main(["validate", *small("mtfl", data, tmp_path / decoder, *argv)]) == 0
        found[decoder] = answers(tmp_path / decoder)
    assert all(not torch.allclose(found[a], found[b], rtol=1e-5) for a, b in combinations(DECODERS, 2))
    argv = ["--model.decoder=local", "--ckpt_path=last", "--trainer.max_epochs=2", "--trainer.limit_val_batches=0"]
    assert main(["fit", *small("mtfl", data, tmp_path / "a", *argv)]) == 0
    assert "resumed with --model.decoder 'local' instead of None" in capfd.readouterr().out


@pytest.mark.parametrize("option, message", [
    (["--model.decoder=median"], "model: decoder must be one of mean, mode, local, got 'median'"),
    (["--model.decoder=local", "--model.decoder_radius=0"], "model: decoder_radius must be > 0, got 0.0"),
    (["--model.decoder=mode", "--objective=direct"], "model: a decoder needs an objective with maps, got direct"),
])  # fmt: skip
def test_wrong_options(option, message, data, tmp_path, capfd):
    assert main(["fit", *small("mtfl", data, tmp_path, *option)]) == 1
    assert message in capfd.readouterr().err
