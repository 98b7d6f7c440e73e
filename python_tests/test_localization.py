"""LocalizationLoss and decode: labels in a user's coordinates, what is not labelled, reductions, every method."""

import math

import pytest
import torch
from conftest import assert_close

from sampling_argmax_cuda import LocalizationLoss, decode, expected_error, soft_argmax
from sampling_argmax_cuda.objectives import make_objective
from sampling_argmax_cuda.objectives.localization import METHODS

STRIDE = 4


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixels(cells: torch.Tensor) -> torch.Tensor:
    return STRIDE * (cells + 0.5) - 0.5


def cells_of(seed: int = 1) -> torch.Tensor:
    return torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(seed)).double() * 5


SAME = {  # the objective behind a method, and what its loss in pixels is of that in cells
    "sampling": ("sampling", 4), "energy": ({"name": "sampling", "spread": 0.5}, 4),
    "crps": ({"name": "discrete", "spread": 0.5}, 4),
    "soft": ("soft", 4), "debiased": ("debiased", 4), "discrete": ("discrete", 4), "heatmap": ("heatmap", 1),
    "cross_entropy": ("cross_entropy", 1),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_its_objective_in_pixels(method):
    z, cells = noise(2, 3, 6, 6), cells_of()
    loss = LocalizationLoss(method, coords="pixels", stride=STRIDE, reduction="none")
    found = loss(z, pixels(cells), seed=3)
    if method in SAME:
        options, factor = SAME[method]
        objective = make_objective(options)
        assert_close("loss", found, factor * objective.loss(z, cells, seed=3))
    else:  # the distance in pixels, and a regulariser that knows none
        objective = make_objective(method)
        distance = (pixels(soft_argmax(z)) - pixels(cells)).abs().sum(-1)
        regularizer = objective.loss(z, cells) - (soft_argmax(z) - cells).abs().sum(-1)
        assert_close("loss", found, distance + regularizer)
    assert_close("reading", loss.decode(z), pixels(objective.read(z)[0]))
    assert_close("decode", decode(z, method=method, coords="pixels", stride=STRIDE), loss.decode(z))


CONVENTIONS = ("unit", "centered", "cell", "corners", "index")


@pytest.mark.parametrize("method, coords", [(m, "pixels") for m in METHODS] + [("sampling", c) for c in CONVENTIONS])
def test_training_a_map_ends_at_its_label(method, coords):
    """Nobody says what a cell is: a map that is trained is read at its label, on axes that differ."""
    size, label = torch.tensor([48.0, 32.0]), torch.tensor([[[17.5, 21.5]]])  # of the image, and the centre of a cell
    own = {"pixels": label, "unit": label / size, "centered": label / size - 0.5, "cell": (2 * label + 1) / size - 1,
           "corners": 2 * label / (size - 1) - 1, "index": (label + 0.5) / STRIDE - 0.5}[coords]  # fmt: skip
    options = {} if coords == "index" else dict(stride=STRIDE)
    loss = LocalizationLoss(method, coords=coords, **options)
    logits = torch.zeros(1, 1, 8, 12, requires_grad=True)
    with torch.no_grad():
        logits.add_(0.5 * noise(1, 1, 8, 12).float())
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for step in range(80):
        optimizer.zero_grad()
        loss(logits, own, seed=step).backward()
        optimizer.step()
    cell = {"pixels": torch.tensor(4.0), "index": torch.tensor(1.0)}.get(
        coords, (1 + (coords in ("cell", "corners"))) * 4 / size
    )
    allowed = 0.35 * cell
    assert ((decode(logits, method=method, coords=coords, **options) - own).abs() <= allowed).all()


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_labelled_reaches_nothing(method):
    """A NaN in a label, and weight 0, are the same: no loss and no gradient, whatever the map of that point holds."""
    z, target = noise(2, 3, 6, 6), cells_of()
    loss = LocalizationLoss(method, coords="index", reduction="none")
    weight = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    expected = loss(z, target, weight, seed=3)
    half = target.clone()
    half[0, 1, 1], half[1, 2] = math.nan, math.nan
    for own, w in ((half, None), (target, weight.bool()), (target, weight.unsqueeze(-1)), (half, torch.ones(2, 3))):
        leaf = z.clone().requires_grad_()
        found = loss(leaf, own, w, seed=3)
        assert_close("loss", found, expected)
        (gradient,) = torch.autograd.grad(found.sum(), leaf)
        assert found[0, 1] == found[1, 2] == 0 and gradient.isfinite().all()
        assert gradient[0, 1].eq(0).all() and gradient[1, 2].eq(0).all() and gradient[0, 0].ne(0).any()


def test_reductions():
    z, target = noise(2, 3, 6, 6), cells_of()
    weight = torch.tensor([[0.5, 0.0, 0.25], [0.0, 0.0, 0.0]])
    each = expected_error(z, target, weight, num_samples=7, tau=0.5, seed=3)
    built = {
        name: LocalizationLoss(coords="index", reduction=name, num_samples=7, tau=0.5)
        for name in ("none", "sum", "mean")
    }
    assert_close("none", built["none"](z, target, weight, seed=3), each)
    assert_close("sum", built["sum"](z, target, weight, seed=3), each.sum())
    assert_close("mean", built["mean"](z, target, weight, seed=3), each.sum() / 0.75)  # by weight, below a sum of 1 too
    target[0, 0] = math.nan
    assert_close("mean of labelled", built["mean"](z, target, weight, seed=3), each[0, 2] / 0.25)
    leaf = z.clone().requires_grad_()
    nothing = built["mean"](leaf, torch.full_like(target, math.nan), weight)
    nothing.backward()
    assert nothing == 0 and leaf.grad.eq(0).all()
    empty = built["mean"](z[:0], target[:0])
    assert empty == 0 and built["none"](z[:0], target[:0]).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_labels_of_any_type(dtype):
    """Whole pixels as integers, weights as numbers below 1."""
    z, target = noise(2, 3, 6, 6).to(dtype), torch.tensor([[3, 17], [8, 2], [11, 22]]).expand(2, 3, 2)
    loss = LocalizationLoss(coords="pixels", stride=STRIDE)
    weight = torch.rand(2, 3)
    assert_close("loss", loss(z, target, weight, seed=1), loss(z.double(), target.double(), weight.double(), seed=1))


def test_lines_and_volumes_and_strides_by_axis():
    z = noise(1, 2, 3, 4, 5)
    found = decode(z, coords="pixels", stride=(4, 4, 2))
    assert_close("volume", found, soft_argmax(z) * torch.tensor([4, 4, 2]) + torch.tensor([1.5, 1.5, 0.5]))
    line = noise(1, 2, 9)
    assert_close("line", decode(line), soft_argmax(line) / 9)
    assert LocalizationLoss()(line, torch.rand(1, 2, 1).double()).shape == ()


def test_the_temperature_of_samples_moves_on_and_is_saved():
    loss = LocalizationLoss(tau="coco")
    loss.set_epoch(10)
    other = LocalizationLoss(tau="coco")
    other.load_state_dict(loss.state_dict())
    assert other.objective.tau == loss.objective.tau == pytest.approx(1.4)


Z, T = torch.zeros(2, 3, 6, 6), torch.zeros(2, 3, 2)
ERRORS = [
    (lambda: LocalizationLoss("rle"), "LocalizationLoss: method must be one of sampling, energy, crps, .*, got 'rle'"),
    (lambda: LocalizationLoss(reduction="visible"), "LocalizationLoss: reduction must be one of mean, sum, none, got 'visible'"),
    (lambda: LocalizationLoss(coords="pixels"), "LocalizationLoss: coords 'pixels' need stride"),
    (lambda: LocalizationLoss(coords="mm"), "SamplingArgmax: coords must be one of index, .*, got 'mm'"),
    (lambda: LocalizationLoss("soft", num_samples=3), "objective: soft has no option 'num_samples'"),
    (lambda: LocalizationLoss("heatmap", periodic=(0,)), r"Heatmap: its axes are lines, got periodic \(0,\)"),
    (lambda: LocalizationLoss("energy", metric="l2"), "a proper score needs metric l1 or euclidean, got 'l2'"),
    (lambda: LocalizationLoss()(Z, torch.zeros(2, 3, 3)), r"target must be \[B, K, d\] = \[2, 3, 2\], got \(2, 3, 3\)"),
    (lambda: LocalizationLoss()(torch.zeros(2, 6, 6, 3), T), r"these logits \(2, 6, 6, 3\) look like channels last"),
    (lambda: LocalizationLoss()(Z, T, torch.ones(2, 3, 2)), r"weight must be \[B, K\] = \[2, 3\], got \(2, 3, 2\)"),
    (lambda: LocalizationLoss()(Z, T, torch.ones(2, 3, device="meta")), "weight must be on the logits' device cpu"),
]  # fmt: skip


@pytest.mark.parametrize("call, message", ERRORS, ids=[message[:50] for _, message in ERRORS])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
