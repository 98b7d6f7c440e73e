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
# Places along every axis, as parts of it, and widths in cells.
PEAKS = [(0.001, 0.6), (0.37, 0.6), (0.73, 1.7), (0.999, 0.6), (0.999, 1.7), (0.98, 40.0)]


def bell(shape: tuple[int, ...], place: float, width: float) -> torch.Tensor:
    squares = 0.0
    for axis, n in enumerate(shape):
        view = [-1 if a == axis else 1 for a in range(len(shape))]
        squares = squares + ((torch.arange(n).double() - place * (n - 1)) / width).square().view(view)
    return -squares / 2


def peaks(shape: tuple[int, ...]) -> torch.Tensor:
    """Logits ``[1, K, *shape]``: each of PEAKS, and two of them at once."""
    rows = [bell(shape, *peak) for peak in PEAKS]
    rows.append(torch.maximum(rows[1], rows[3] - 0.3))
    return torch.stack(rows).clamp(min=-1e4).float()[None]


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
@pytest.mark.parametrize("shape", [(1500,), (3, 1100), (700, 2), (2, 2, 600)], ids=str)
def test_samples(shape, basis, machine):
    check(peaks(shape), basis, num_samples=2)


@pytest.mark.parametrize("machine", triton_machines(), indirect=True)
@pytest.mark.parametrize(
    "basis, shape", [("uniform", (700,)), ("triangular", (2, 500)), ("gaussian", (500, 2)), ("none", (1, 2, 500))]
)
def test_samples_in_triton(basis, shape, machine):
    """Interpreted on a CPU, where it takes small problems: two peaks at once."""
    check(peaks(shape)[:, -1:], basis, num_samples=1)


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
@pytest.mark.parametrize("reweight", [0.0, 0.5])
def test_clipped_gradients(reweight, machine):
    """The side of the position that a bin is on, counted from the origin too."""
    settings = dict(num_samples=2, tau=0.8, basis="gaussian", reweight=reweight, clip_grad=2.0, seed=3)
    Case("axis_sample", {"logits": peaks((900,))[:, 2:4]}, settings).check()


@pytest.mark.parametrize("machine", ISAS, indirect=True)
@pytest.mark.parametrize("basis", BASES)
def test_samples_of_a_million_cells(basis, machine):
    check(peaks((2**20,))[:, 3:4], basis, num_samples=1)


@pytest.mark.parametrize("machine", MACHINES + triton_machines(), indirect=True)
@pytest.mark.parametrize("shape", [(1500,), (5000,), (3, 1100), (700, 2), (2, 2, 600)], ids=str)
def test_moments(shape, machine):
    Case("heatmap_moments", {"logits": peaks(shape)}, {"beta": 0.8}).check()


@pytest.mark.parametrize("machine", ISAS + cuda_machines(), indirect=True)
def test_moments_of_a_million_cells(machine):
    Case("heatmap_moments", {"logits": peaks((2**20,))[:, 3:]}, {"beta": 0.8}).check()


def test_rows_keep_their_own_origins_under_vmap():
    """The mapped axis lies between batch and keypoints, so that the origins of a call are no contiguous tensor."""
    logits = peaks((LONG_AXIS + 44,))[0].reshape(1, 7, 1, -1).expand(2, -1, -1, -1)
    settings = dict(num_samples=2, tau=0.8, seed=3)
    mapped = torch.func.vmap(lambda z: sample(z, **settings), in_dims=1)(logits)
    assert torch.equal(mapped, torch.stack([sample(z, **settings) for z in logits.unbind(1)]))
