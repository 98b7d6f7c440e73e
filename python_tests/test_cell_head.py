"""The head of learned sub-distributions: what a cell's place and width do to losses, readings and files; maps of other strides."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from combinations import make
from conftest import TOLERANCES, assert_close
from deployed import PEAKS, predicted, write_images
from runs import fit, fitting, last, one_and_two, small
from task_runs import NO_FIGURES, from_last, resumed, trained
from test_tta import PLACE, SWAPPED

from sampling_argmax_cuda import load
from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.objectives import make_objective
from sampling_argmax_cuda.objectives.answers import SubDistributions
from sampling_argmax_cuda.objectives.decoders import Decoder
from sampling_argmax_cuda.objectives.targets import Target
from sampling_argmax_cuda.trainers.resnet import CellHead, PoseNet
from sampling_argmax_cuda.trainers.tta import EnsembleMember, TestTimeAugmentation

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

SIZE = (5, 4)  # cells of x, y
SAMPLES = {"name": "sampling", "num_samples": 6, "tau": 0.7}
LEARN = {
    "soft": {"name": "soft"},
    "discrete": {"name": "discrete"},
    "crps": {"name": "discrete", "spread": 0.5},
    "sampling": SAMPLES,
    "energy": {**SAMPLES, "spread": 0.5, "basis": "gaussian"},
    "fading": {**SAMPLES, "beta": "tau", "tau": 3.0},
}
WIDE = {name: own for name, own in LEARN.items() if own.get("basis") == "gaussian"}


def answer(seed: int = 0, sigma: bool = False, dtype: torch.dtype = torch.float64) -> SubDistributions:
    rng = torch.Generator().manual_seed(seed)
    z, o, s = (torch.randn(2, 3, *more, *SIZE[::-1], generator=rng, dtype=dtype) for more in ((), (2,), ()))
    return SubDistributions(z, 0.7 * o, (0.4 * s).exp() if sigma else None)


def target_of(**more) -> Target:
    rng = torch.Generator().manual_seed(9)
    return Target(torch.rand(2, 3, 2, generator=rng, dtype=torch.float64) * 3, torch.ones(2, 3), SIZE, **more)


def cells() -> torch.Tensor:
    """Where cells are that do not move, ``[N, 2]``."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SIZE[::-1]), indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


# ---- objectives ----


@pytest.mark.parametrize("name", ["soft", "discrete", "sampling"])
def test_one_cell_that_moves_reaches_a_target_between_cells(name):
    """Of one cell logits move nothing; the squared error of its place is 0 after one step of half its gradient."""
    options = {"name": name, "metric": "l2", **({"num_samples": 3, "basis": "none"} if name == "sampling" else {})}
    objective, where = make_objective(options), torch.tensor([[[0.3, -0.4]]])
    target = Target(where, torch.ones(1, 1), (1, 1))
    logits, offset = torch.zeros(1, 1, 1, 1, requires_grad=True), torch.zeros(1, 1, 2, 1, 1, requires_grad=True)
    loss = objective.loss(SubDistributions(logits, offset), target, seed=3)
    assert loss.item() == pytest.approx(0.25) and loss.item() == objective.loss(logits, target, seed=3).item()
    of_logits, of_offset = torch.autograd.grad(loss.sum(), (logits, offset))
    moved = SubDistributions(logits, offset - 0.5 * of_offset)
    assert of_logits.abs().max() < 1e-6
    assert objective.loss(moved, target, seed=3).item() < 1e-12
    assert (objective.eval().read(moved)[0] - where).abs().max() < 1e-6


@pytest.mark.parametrize("name", LEARN)
@pytest.mark.parametrize("units, axes", [("index", None), ("centered", None), ("index", torch.tensor([1.0, 0.0]))])
def test_cells_that_have_not_moved_are_the_plain_ones(name, units, axes):
    """Loss and gradient, whole points and points of which a coordinate is not known."""
    objective = make_objective({**LEARN[name], "units": units})
    target = target_of(axes=None if axes is None else axes.double().expand(2, 3, 2))
    z = answer().output.requires_grad_()
    plain = objective.loss(z, target, seed=5)
    moved = objective.loss(SubDistributions(z, torch.zeros(2, 3, 2, *SIZE[::-1], dtype=z.dtype)), target, seed=5)
    assert_close(name, moved, plain)
    assert_close(name, *(torch.autograd.grad(x.sum(), z)[0] for x in (moved, plain)))


@pytest.mark.parametrize("name", LEARN)
def test_cells_that_have_all_moved_alike_are_a_target_that_moved_back(name):
    """Of the loss and of what is read; a width of every cell that is the objective's own changes nothing."""
    objective, z, target = make_objective(LEARN[name]), answer().output, target_of()
    step = torch.tensor([0.3, -1.2], dtype=z.dtype)
    offset = step[:, None, None].expand(2, 3, 2, *SIZE[::-1])
    back = Target(target.position - step, target.weight, SIZE)
    kinds = [None, torch.ones_like(z)] if name in WIDE else [None]
    for sigma in kinds:
        moved = SubDistributions(z, offset, sigma)
        assert_close(name, objective.loss(moved, target, seed=5), objective.loss(z, back, seed=5))
        assert_close(name, objective.read(moved)[0], objective.read(z)[0] + step)
        if "num_samples" in LEARN[name]:  # called as a module
            assert_close(name, objective.train()(moved, seed=5), objective(z, seed=5) + step)
            assert torch.equal(objective.eval()(moved), objective.read(moved)[0])


def test_the_score_of_cells_that_moved_is_that_of_all_pairs():
    """CRPS: the mean distance to the target less half that of two draws, axis by axis, whatever the order of the cells."""
    found = make_objective(LEARN["crps"]).loss(answer(), target_of())
    z, o, _ = answer()
    for b, k in product(range(2), range(3)):
        p = z[b, k].flatten().softmax(0)
        x = cells() + o[b, k].flatten(1).T
        apart = (x[:, None] - x).abs().sum(-1)
        expected = p @ (x - target_of().position[b, k]).abs().sum(-1) - 0.5 * p @ apart @ p
        assert found[b, k].item() == pytest.approx(expected.item(), abs=TOLERANCES[z.dtype])


@pytest.mark.parametrize("sigma", [False, True])
def test_mean_and_covariance_are_the_mixtures(sigma):
    """By the law of total variance; the peak is the largest probability of a cell."""
    objective, own = make_objective(LEARN["energy"]), answer(sigma=sigma)
    position, peak = objective.read(own)
    for b, k in product(range(2), range(3)):
        p, x = own.output[b, k].flatten().softmax(0), cells() + own.offset[b, k].flatten(1).T
        mean = p @ x
        within = (p @ own.sigma[b, k].flatten().square()) * torch.eye(2) if sigma else 0
        expected = torch.einsum("n,ni,nj->ij", p, x - mean, x - mean) + within
        assert torch.allclose(position[b, k], mean) and torch.allclose(peak[b, k], p.max())
        assert torch.allclose(objective.covariance(own, SIZE)[b, k], expected)


def test_samples_have_the_mixtures_law():
    """At a low temperature: mean and covariance of many, within four standard errors."""
    objective, own = make_objective({**LEARN["energy"], "tau": 0.02}), answer(sigma=True)
    draws = objective.samples(own, num_samples=20_000, seed=1)
    spread = objective.covariance(own, SIZE).diagonal(dim1=-2, dim2=-1)
    assert ((draws.mean(2) - objective.read(own)[0]).abs() <= 4 * (spread / 20_000).sqrt() + 0.02).all()
    assert ((draws.var(2) / spread - 1).abs() < 0.08).all()


def test_decoders_add_the_offset_of_their_cells():
    """mode: that of the largest cell; local: the mean of the moved cells of the window, which is of cells where they were."""
    own = answer()
    for b, k in product(range(2), range(3)):
        p, x = own.output[b, k].flatten().softmax(0), cells() + own.offset[b, k].flatten(1).T
        best = p.argmax()
        near = (cells() - cells()[best]).abs().amax(-1) <= 1
        for decoder, expected in (
            (Decoder("mode"), x[best]),
            (Decoder("local", 1.0), (p[near] @ x[near]) / p[near].sum()),
        ):
            objective = make_objective("soft")
            objective.decoder = decoder
            assert torch.allclose(objective.read(own)[0][b, k], expected), decoder


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="learned sub-distributions are no law of cells"):
        make_objective("soft").law(answer())
    for name, own, message in (
        (
            "soft_dr",
            answer(),
            "DistributionRegularized: knows of no sub-distributions offset; soft, discrete or sampling",
        ),
        (
            "soft",
            answer(sigma=True),
            "SoftArgmax: knows of no sub-distributions offset_sigma; sampling with estimator cell",
        ),
        ("discrete", answer()._replace(offset=torch.zeros(2, 3, 2, 1, 1)), r"offset must be \[B, K, d, \*axes\] = "),
    ):
        with pytest.raises(ValueError, match=message):
            make_objective(name).loss(own, target_of())
    for options, message in (
        (dict(sub_distributions="width"), "sub_distributions must be offset or offset_sigma, got 'width'"),
        (
            dict(sub_distributions="offset", regions=(0.5,)),
            "regions are of laws of cells, which sub_distributions are not",
        ),
        (dict(sub_distributions="offset", average="maps"), "sub_distributions need average coords"),
        (dict(stride=6), "stride must be one of 4, 8, 16, 32, got 6"),
    ):
        with pytest.raises(ValueError, match=message):
            make("coco", "soft", **options)
    for own in (dict(estimator="axis"), dict(basis="triangular"), dict(basis="gaussian", sigma=0.0)):
        with pytest.raises(
            ValueError, match="sub_distributions offset_sigma needs objective sampling with estimator cell"
        ):
            make("coco", "sampling", own, sub_distributions="offset_sigma")
    with pytest.raises(ValueError, match="stride needs an objective with maps, got direct"):
        make("coco", "direct", stride=8)
    with pytest.raises(ValueError, match="hourglasses have maps of stride 4"):
        make("mpii", "soft", stride=8)


# ---- the network ----


def test_a_network_begins_as_the_one_without_offsets():
    """Bit for bit: its weights and its maps; offsets are 0 and widths what they are told to begin with."""
    images, nets = torch.randn(2, 3, 64, 96), {}
    for kind in (None, "offset", "offset_sigma"):
        torch.manual_seed(1)
        nets[kind] = PoseNet(5, 18, 16, "group", stride=16, sub_distributions=kind, sigma=0.8)
    plain = nets[None](images)
    assert plain.shape == (2, 5, 4, 6)
    for kind in ("offset", "offset_sigma"):
        assert all(torch.equal(x, nets[kind].state_dict()[name]) for name, x in nets[None].state_dict().items())
        found = nets[kind](images)
        assert torch.equal(found.output, plain) and found.offset.shape == (2, 5, 2, 4, 6) and not found.offset.any()
        assert found.sigma is None if kind == "offset" else (found.sigma - 0.8).abs().max() < 1e-6


@pytest.mark.parametrize("start", [1e-5, 0.01, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_widths_are_positive_whatever_the_features(start, dtype):
    head = CellHead(2, (3, 2), start).to(dtype)
    for value in (0.0, -1e4, 1e4):
        torch.nn.init.constant_(head.sigma.bias, value)
        found = head(torch.zeros(1, 2, 4, 5, dtype=dtype), torch.zeros(1, 3, 2, 4, 5))
        assert found.sigma.shape == (1, 3, 2, 4, 5) and found.offset.shape == (1, 3, 3, 2, 4, 5)
        assert found.sigma.dtype == torch.float32 and (found.sigma > 0).all() and found.sigma.isfinite().all()
        if value == 0:
            assert (found.sigma / start - 1).abs().max() < 1e-3


# ---- strides and mirrors ----


class Dots:
    """Points at ``PLACE`` in cells of 4 of a 96 x 128 image, whose nearest cells of ``stride`` know where in them they are.

    Every other cell of the map points elsewhere, so that an offset of a wrong sign or of a wrong point is seen.
    """

    def __init__(self, stride: int, moves: bool) -> None:
        self.stride, self.moves = stride, moves

    def __call__(self, images: torch.Tensor) -> torch.Tensor | SubDistributions:
        height, width = images.shape[2:]
        pixels = (4 * PLACE + 0.5) * torch.tensor([width / 96, height / 128]) - 0.5
        if images[0, 0, 0, 0] > images[0, 0, 0, -1]:
            pixels = torch.stack([width - 1 - pixels[..., 0], pixels[..., 1]], -1)[:, SWAPPED]
        y, x = torch.meshgrid(*(torch.arange(n // self.stride).double() for n in (height, width)), indexing="ij")
        apart = (pixels / self.stride)[..., None, None] - torch.stack([x, y])
        if not self.moves:
            return -apart.square().sum(2) / 2
        nearest = apart.square().sum(2).flatten(2).argmin(-1)
        logits = (
            torch.zeros_like(apart[:, :, 0]).flatten(2).scatter(-1, nearest[..., None], 40.0).view_as(apart[:, :, 0])
        )
        tilt = torch.linspace(-0.3, 0.3, apart.shape[-1], dtype=torch.float64)
        return SubDistributions(logits, torch.where(logits[:, :, None] > 0, apart, tilt), 0 * logits + 0.5)


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("flip, scales", list(product([False, True], [(1.0,), (1.0, 1.5)])))
def test_every_view_of_moved_cells_has_the_same_place(stride, flip, scales):
    """In pixels, at every stride; the covariance is the cells' own width, in cells of the image itself."""
    ramp = torch.linspace(0, 1, 96).expand(1, 3, 128, 96)
    member = EnsembleMember(Dots(stride, True), make_objective(LEARN["energy"]))
    found = TestTimeAugmentation(SWAPPED, flip, scales, stride=stride).read([member], ramp)
    assert (found.position * stride - 4 * PLACE).abs().max() < 1e-6
    width = np.mean([(0.5 * 96 / max(32, round(96 * s / 32) * 32)) ** 2 for s in scales])
    assert (found.covariance[..., 0, 0] - width).abs().max() < 1e-6 and found.covariance[..., 0, 1].abs().max() < 1e-6


@pytest.mark.parametrize("average", ["coords", "maps"])
@pytest.mark.parametrize("stride", [8, 16])
def test_plain_maps_of_other_strides_have_one_place_in_every_view(stride, average):
    ramp, member = (
        torch.linspace(0, 1, 96).expand(1, 3, 128, 96),
        EnsembleMember(Dots(stride, False), make_objective("soft")),
    )
    plain, both = (
        TestTimeAugmentation(SWAPPED, flip, average=average, stride=stride).read([member], ramp).position
        for flip in (0, 1)
    )
    inside = PLACE[..., 1] * 4 / stride < 128 / stride - 4  # of those near a border the Gaussian is cut
    assert ((both - plain).abs().amax(-1)[inside] < 0.05).all() and inside.any()


# ---- the commands ----

CELLS = ("--objective.basis=gaussian", "--model.sub_distributions=offset_sigma", "--model.stride=8")


def of_task(task: str):
    """The options of a small run of a task, as :func:`.runs.fit` takes them."""

    def options(data: Path, run: Path, *more: str, config: str = task) -> list[str]:
        return fitting(small(config, data, run, *CELLS, *more))

    return options


@pytest.fixture(scope="module")
def runs_of_mtfl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mtfl")

    def run(data: Path, run: Path, *more: str) -> dict:
        return fit(data, run, *more, config="mtfl", options=of_task("mtfl"))

    return trained(run, folder / "data", folder, PEAKS), folder


def test_a_run_with_offsets_is_resumed_bit_for_bit(runs_of_mtfl):
    """Offsets and widths are trained, and a checkpoint says the options that they need."""
    checkpoint = resumed(runs_of_mtfl[0])
    state, options = checkpoint["state_dict"], checkpoint["hyper_parameters"]
    assert state["model.cells.offset.weight"].any() and state["model.cells.sigma.weight"].any()
    assert options["sub_distributions"] == "offset_sigma" and options["stride"] == 8
    assert checkpoint["datamodule_hyper_parameters"]["stride"] == 8


@pytest.mark.parametrize("kind, flip", [("pt2", "true"), pytest.param("onnx", "false", marks=pytest.mark.long)])
def test_predictor_and_files_answer_as_the_command(runs_of_mtfl, kind, flip, tmp_path):
    """With the maps' figures; an exported file holds the offsets too."""
    checkpoint = runs_of_mtfl[0].first / "checkpoints" / "last.ckpt"
    arrays = write_images(tmp_path / "photos")
    given = [f"--ckpt_path={checkpoint}", f"--data.images={tmp_path / 'photos'}", f"--model.flip_test={flip}"]
    records = predicted(tmp_path / "run", *given, command="visualize")
    predictor = load(checkpoint, device="cpu", flip_test=flip == "true")
    found = predictor(list(arrays.values()))
    points = np.array([record["keypoints"] for record in records]).reshape(len(records), -1, 3)
    assert np.abs(found.positions - points[..., :2]).max() <= 1e-4
    assert np.allclose(found.covariance, [record["covariance"] for record in records], rtol=1e-4, atol=1e-4)
    assert (found.covariance[..., 0, 0] > 0).all()
    crops = torch.randn(3, 3, *predictor.rule.image_size[::-1])
    path = tmp_path / f"file.{kind}"
    given = [f"--ckpt_path={checkpoint}", f"--format={kind}", f"--output={path}", f"--flip_test={flip}"]
    assert main(["export", *given]) == 0
    with torch.inference_mode():
        expected = predictor.reader(crops)
        if kind == "pt2":
            answers = torch.export.load(path).module()(crops).values()
        else:
            answers = onnxruntime.InferenceSession(str(path)).run(None, {"images": crops.numpy()})
    for name, own, other in zip(expected._fields, expected, answers, strict=True):
        assert torch.allclose(torch.as_tensor(other), own, rtol=1e-4, atol=1e-4), name


def test_a_mirrored_image_has_the_mirrored_points(runs_of_mtfl):
    """Read with both views, by a network that has learnt next to nothing."""
    predictor = load(runs_of_mtfl[0].first / "checkpoints" / "last.ckpt", device="cpu", flip_test=True)
    crops, swapped = torch.randn(2, 3, 64, 64), predictor.landmarks.mirrored()
    with torch.inference_mode():
        one, other = (predictor.reader(x) for x in (crops, crops.flip(-1)))
        alone = predictor.reader.network(crops)
    back = torch.stack([63 - other.positions[..., 0], other.positions[..., 1]], -1)[:, swapped]
    assert (back - one.positions).abs().max() < 1e-3 and alone.offset.abs().max() > 1e-3


def test_what_needs_a_law_of_cells_is_refused(runs_of_mtfl, capsys, tmp_path):
    runs, folder = runs_of_mtfl
    given = [from_last(runs.first), f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu"]
    data = [f"--data.root={folder / 'data' / 'mtfl'}", "--data.num_workers=0"]
    assert main(["calibrate", *given, *data]) == 1
    assert "calibrate: learned sub-distributions are no law of cells" in capsys.readouterr().err
    assert main(["validate", *given, *data, "--model.average=maps"]) == 1
    assert "sub_distributions need average coords" in capsys.readouterr().err
    assert main(["validate", *given, *data, f"--model.ensemble=[{runs.whole / 'checkpoints' / 'last.ckpt'}]"]) == 0
    told = capsys.readouterr().out
    assert "abs_px" in told and "crps" not in told  # the maps' own scores are of cells that stay


def test_an_ensemble_has_cells_of_one_stride(runs_of_mtfl):
    other = make("mtfl", "soft", ensemble=(str(runs_of_mtfl[0].first / "checkpoints" / "last.ckpt"),))
    with pytest.raises(ValueError, match="has cells of stride 8, not 4"):
        other._member(other.hparams.ensemble[0])


@pytest.mark.long  # combinations.csv has what two ranks tell each other
def test_two_ranks_are_one(tmp_path):
    """The mean over ranks of the gradients of offsets and widths, in two real processes."""

    def logged(*given: str, **named: str) -> list[str]:
        return [option for option in of_task("coco")(*given, **named) if option != NO_FIGURES]

    one, _ = one_and_two(tmp_path / "data", tmp_path, config="coco", options=logged, last_bias="model.head.6.bias")
    assert one["state_dict"]["model.cells.offset.weight"].any()


def test_the_first_step_is_the_plain_networks(tmp_path):
    """The loss of one step, whose offsets are 0; after it the offsets have moved."""
    found = {}
    for name, more in (("plain", ()), ("moved", CELLS[1:2])):
        run = small("mtfl", tmp_path / "data", tmp_path / name, CELLS[0], "--trainer.max_steps=1", *more)
        assert main(["fit", *(x for x in run if x != "--trainer.logger=false"), "--trainer.limit_val_batches=0"]) == 0
        found[name] = last(tmp_path / name)["loops"] and (tmp_path / name / "version_0" / "metrics.csv").read_text()
    losses = [float(text.splitlines()[1].split(",")[text.splitlines()[0].split(",").index("train/loss_epoch")])
              for text in found.values()]  # fmt: skip
    assert math.isclose(*losses, rel_tol=TOLERANCES[torch.float32])
