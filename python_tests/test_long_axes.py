"""Long axes: a float32 position far from the first cell has few digits, its distance from the row's largest cell has all.

Narrow and wide peaks at both ends and between, and two narrow ones: every value and gradient to the one table of tolerances.
"""

import pytest
import torch
from conftest import cuda_machines, machine_isas, triton_machines
from contract_cases import Case

from sampling_argmax_cuda import sample
from sampling_argmax_cuda.cells import LONG_AXIS, largest_cell

ISAS = machine_isas()
MACHINES = ISAS[-1:] + cuda_machines()
BASES = ("none", "uniform", "triangular", "gaussian")
# Places along every axis, as parts of it, and widths in cells. Gradients of wide ones, and of two at once, are large, and a
# tolerance goes by the largest of a call: they have calls of their own.
NARROW = [(0.0005, 0.6), (0.37, 0.6), (0.73, 1.7), (0.9995, 0.6), (0.9995, 1.7)]
WIDE = [(0.03, 40.0), (0.98, 40.0)]


def bell(shape: tuple[int, ...], place: float, width: float) -> torch.Tensor:
    squares = 0.0
    for axis, n in enumerate(shape):
        view = [-1 if a == axis else 1 for a in range(len(shape))]
        squares = squares + ((torch.arange(n).double() - place * (n - 1)) / width).square().view(view)
    return -squares / 2


def peaks(shape: tuple[int, ...], places=NARROW) -> torch.Tensor:
    """Logits ``[1, K, *shape]`` of a peak at each of the places."""
    return torch.stack([bell(shape, *place) for place in places]).clamp(min=-1e4).float()[None]


def two_peaks(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.maximum(peaks(shape, NARROW[1:2]), peaks(shape, NARROW[3:4]) - 0.3)


def check(logits: torch.Tensor, basis: str, num_samples: int) -> None:
    """Samples, and their errors to a target beside each row's largest cell."""
    settings = dict(num_samples=num_samples, tau=0.8, basis=basis, seed=3)
    width = {"sigma": torch.linspace(0.4, 1.6, logits.shape[1])[None]} if basis == "gaussian" else {}
    target = largest_cell(logits, None)[0] + 0.25
    Case("sample", {"logits": logits, **width}, settings).check()
    Case("axis_sample", {"logits": logits, **width}, settings).check()
    Case("expected_error", {"logits": logits, "target": target, **width}, {**settings, "metric": "l2"}).check()


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("shape", [(6000,), (2, 5000), (5000, 2), (1, 2, 4000)], ids=str)
def test_samples(shape, basis, machine):
    check(peaks(shape), basis, num_samples=2)


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
@pytest.mark.parametrize("basis", BASES)
def test_samples_of_wide_and_of_two_peaks(basis, machine):
    check(peaks((6000,), WIDE), basis, num_samples=2)
    check(two_peaks((6000,)), basis, num_samples=2)


@pytest.mark.parametrize("machine", triton_machines(), indirect=True)
@pytest.mark.parametrize(
    "basis, shape", [("uniform", (1500,)), ("triangular", (1, 1500)), ("gaussian", (1500,)), ("none", (1500, 2))]
)
def test_triton(basis, shape, machine):
    """Interpreted on a CPU, where it takes small problems."""
    logits = peaks(shape, NARROW[4:])
    check(logits, basis, num_samples=1)
    Case("heatmap_moments", {"logits": logits}, {"beta": 0.8}).check()


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
@pytest.mark.parametrize("reweight", [0.0, 0.5])
def test_clipped_gradients(reweight, machine):
    """The side of the position that a bin is on, counted from the origin too."""
    settings = dict(num_samples=2, tau=0.8, basis="gaussian", reweight=reweight, clip_grad=2.0, seed=3)
    Case("axis_sample", {"logits": peaks((6000,), NARROW[3:])}, settings).check()


@pytest.mark.parametrize("machine", ISAS, indirect=True)
@pytest.mark.parametrize("basis", BASES)
def test_samples_of_a_million_cells(basis, machine):
    check(peaks((2**20,), NARROW[3:4]), basis, num_samples=1)


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
@pytest.mark.parametrize("shape", [(6000,), (2, 5000), (5000, 2), (1, 2, 4000)], ids=str)
def test_moments(shape, machine):
    for logits in (peaks(shape), peaks(shape, WIDE), two_peaks(shape)):
        Case("heatmap_moments", {"logits": logits}, {"beta": 0.8}).check()


@pytest.mark.parametrize("machine", ISAS + cuda_machines(), indirect=True)
def test_moments_of_a_million_cells(machine):
    Case("heatmap_moments", {"logits": peaks((2**20,), NARROW[3:])}, {"beta": 0.8}).check()


def test_rows_keep_their_own_origins_under_vmap():
    """The mapped axis lies between batch and keypoints, so that the origins of a call are no contiguous tensor."""
    logits = peaks((LONG_AXIS + 44,))[0].reshape(1, 5, 1, -1).expand(2, -1, -1, -1)
    settings = dict(num_samples=2, tau=0.8, seed=3)
    mapped = torch.func.vmap(lambda z: sample(z, **settings), in_dims=1)(logits)
    assert torch.equal(mapped, torch.stack([sample(z, **settings) for z in logits.unbind(1)]))
