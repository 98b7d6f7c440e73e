"""The covariance of a map on every backend: closed forms, symmetry, mirrors, precision, gradients of single entries."""

import pytest
import torch
from conftest import assert_close, cuda_machines, machine_device, machine_isas, triton_machines
from contract_cases import Case, noise

from sampling_argmax_cuda import Moments, heatmap_moments, soft_argmax

one_of_each = pytest.mark.parametrize(
    "machine", [machine_isas()[-1], *cuda_machines(), *triton_machines()], indirect=True
)
LAWS = {  # mean and covariance by axes x, y, z, inside of maps of 16 to 30 cells
    (30,): ([13.3], [[5.0]]),
    (24, 28): ([14.2, 11.6], [[6.0, -2.5], [-2.5, 3.0]]),
    (16, 18, 20): ([9.4, 8.3, 7.8], [[3.0, 1.2, -0.8], [1.2, 2.5, 0.5], [-0.8, 0.5, 2.0]]),
}


def cells(shape: tuple[int, ...]) -> torch.Tensor:
    """Positions ``[N, d]`` in the order x, y, z."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    return torch.stack(axes[::-1], -1).flatten(0, -2)


def gaussian(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a normal law, its mean and its covariance."""
    mean, covariance = (torch.tensor(x, dtype=torch.float64) for x in LAWS[shape])
    from_mean = cells(shape) - mean
    return -(from_mean @ torch.linalg.inv(covariance) * from_mean).sum(-1).view(1, 1, *shape) / 2, mean, covariance


def moments(logits: torch.Tensor, **options) -> Moments:
    return Moments(*(x.cpu() for x in heatmap_moments(logits.to(machine_device()), **options)))


@one_of_each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", LAWS, ids=str)
def test_a_correlated_gaussian_has_its_covariance(shape, dtype, machine):
    """A lattice this fine has the law's own moments; 16-bit logits have those of the rounded ones."""
    logits, mean, covariance = gaussian(shape)
    found = moments(logits.to(dtype))
    loose = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(found.covariance[0, 0].double(), covariance, atol=loose * 6, rtol=loose)
    torch.testing.assert_close(found.mean[0, 0].double(), mean, atol=loose, rtol=loose)
    entropy = torch.logdet(2 * torch.pi * torch.e * covariance) / 2
    assert abs(found.entropy.item() - entropy) < 20 * loose
    assert torch.equal(found.covariance, found.covariance.mT)
    assert torch.equal(found.variance, found.covariance.diagonal(dim1=-2, dim2=-1))


@one_of_each
@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_map_has_covariances_of_the_other_sign(axis, machine):
    logits = noise(1, 2, 9, 12)
    plain, mirrored = moments(logits), moments(logits.flip(3 - axis))
    sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert_close("covariance", mirrored.covariance, sign * plain.covariance.double())
    assert plain.covariance[..., 0, 1].abs().min() > 0.05


@one_of_each
def test_turned_points_have_a_turned_covariance(machine):
    """C of R c + t is R C R^T, also far from the origin."""
    logits, points = noise(1, 2, 70), noise(1, 70, 3, seed=1)
    turn = torch.linalg.qr(noise(3, 3, seed=2).double())[0]
    there = (points.double() @ turn.mT).float()
    plain = moments(logits, points=points.to(machine_device())).covariance.double()
    for away in (0.0, 1e4):
        found = moments(logits, points=(there + away).to(machine_device())).covariance
        allowed = 2e-5 if away == 0 else 2e-3  # the points themselves are rounded there, by 5e-4
        torch.testing.assert_close(found.double(), turn @ plain @ turn.mT, atol=allowed * 4, rtol=0)


@one_of_each
@pytest.mark.parametrize("shape", [(1, 1, 70, 120), (1, 1, 8200)], ids=str)
def test_nothing_cancels(shape, machine):
    """Two neighbours in a far corner, of which one has 1e-4 of the mass: squares of coordinates are 1e8 times larger."""
    logits = torch.full(shape, -torch.inf)
    logits[0, 0].view(-1)[-1], logits[0, 0].view(-1)[-2] = 0.0, torch.tensor(1e-4).log()
    share = 1e-4 / (1 + 1e-4)
    found = moments(logits)
    rounding = torch.finfo(torch.float32).eps * shape[-1]  # of the mean, whose square is part of the variance
    assert abs(found.variance[0, 0, 0].item() - share * (1 - share)) < 1e-3 * share + rounding**2
    assert len(shape) == 3 or found.covariance[0, 0, :, 1].abs().max() < 1e-8


@one_of_each
@pytest.mark.parametrize("between", [4095, 4096, 6000])
def test_a_long_row_is_put_together_from_its_parts(between, machine):
    """Mass in two far cells of a row that is cut, with -inf between, so that parts without mass are among them."""
    logits = torch.full((1, 1, 2, 2 * 4096 + 40), -torch.inf)
    logits[0, 0, 0, 7], logits[0, 0, 1, 7 + between] = 1.0, 1.0 + torch.tensor(3.0).log()
    found = moments(logits)
    torch.testing.assert_close(found.mean[0, 0], torch.tensor([7 + 0.75 * between, 0.75]))
    step = torch.tensor([float(between), 1.0])
    torch.testing.assert_close(found.covariance[0, 0], 0.1875 * step[:, None] * step, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found.entropy.item(), -0.75 * torch.tensor(0.75).log().item() + 0.25 * 1.3862944)


@one_of_each
@pytest.mark.parametrize("on_points", [False, True])
@pytest.mark.parametrize("entry", [(0, 0), (0, 1), (1, 0), (2, 1), (1, 2), (2, 2)])
def test_gradients_of_single_entries(entry, on_points, machine):
    """An incoming gradient need not be symmetric: entries (a, b) and (b, a) are the same number with the same gradient."""
    tensors = {"logits": noise(1, 2, 40) if on_points else noise(1, 2, 3, 4, 5)}
    if on_points:
        tensors["points"] = noise(1, 40, 3, seed=1)
    grads = []
    for backend in ("auto", "reference"):
        dtype, device = (torch.float32, machine_device()) if backend == "auto" else (torch.float64, "cpu")
        leaves = {name: x.to(device, dtype).requires_grad_() for name, x in tensors.items()}
        found = heatmap_moments(**leaves, beta=0.7, backend=backend).covariance[..., entry[0], entry[1]]
        grads.append(torch.autograd.grad(found.sum(), list(leaves.values())))
    for name, got, wanted in zip(tensors, *grads, strict=True):
        assert_close(f"grad {name}", got.cpu(), wanted)


@one_of_each
def test_outputs_that_nobody_needs_have_no_part_in_gradients(machine):
    """A row that is NaN in one output's gradient alone; every output by itself; and none of them."""
    logits = noise(1, 2, 6, 8)
    for name in Moments._fields:
        z = logits.to(machine_device()).requires_grad_()
        found, wanted = getattr(heatmap_moments(z), name), logits.double().requires_grad_()
        expected = torch.autograd.grad(getattr(heatmap_moments(wanted, backend="reference"), name).sum(), wanted)[0]
        assert_close(name, torch.autograd.grad(found.sum(), z)[0].cpu(), expected)


@one_of_each
def test_the_mode_is_the_first_of_equal_peaks(machine):
    """What backward takes a row's largest logit from; NaN is no peak."""
    device = machine_device()
    logits = noise(1, 3, 3, 3000)
    logits[0, :, 1, 1500] = logits[0, :, 1, 1501] = logits[0, :, 2, 2900] = 9.0
    logits[0, 1, 2, 2999] = logits[0, 1, 0, 0] = 9.0
    z = logits.to(device).requires_grad_()
    peak = heatmap_moments(z).peak
    got = torch.autograd.grad(peak.sum(), z)[0].cpu().flatten(2)
    assert got.argmax(-1).tolist() == [[4500, 0, 4500]]


@pytest.mark.parametrize("machine", [machine_isas()[-1], *cuda_machines()], indirect=True)
def test_the_mode_of_more_parts_than_a_warp_has_lanes(machine):
    """Equal peaks in parts that one lane compares with one another: 32 parts of 4,096 cells lie between them."""
    logits = torch.zeros(1, 1, 33 * 4096 + 8)
    logits[0, 0, [5, 5 + 32 * 4096]] = 20.0
    z = logits.to(machine_device()).requires_grad_()
    got = torch.autograd.grad(heatmap_moments(z).peak.sum(), z)[0].cpu().flatten()
    assert got.argmax().item() == 5 and got[5] > 0 > got[5 + 32 * 4096]


def test_a_width_is_read_by_name_alone():
    """Four fields; variance is a view of the covariance, so that there is one source."""
    found = heatmap_moments(noise(1, 2, 5, 7))
    assert Moments._fields == ("mean", "covariance", "peak", "entropy")
    assert found.variance.data_ptr() == found.covariance.data_ptr() and found.variance.shape == (1, 2, 2)
    assert torch.equal(soft_argmax(noise(1, 2, 5, 7)), found.mean)


@one_of_each
@pytest.mark.parametrize("points", [None, 2])
def test_layouts_do_not_change_a_bit_of_long_rows(points, machine):
    """Rows that can be read four cells at a time, and the same that cannot."""
    logits = noise(2, 2, 40, 128) if points is None else noise(2, 2, 5120)
    more = {} if points is None else {"points": noise(2, 5120, points, seed=1)}
    apart = torch.cat([logits, logits], -1)[..., 3 : 3 + logits.shape[-1]].clone()
    shifted = torch.empty(apart.numel() + 1)[1:].view_as(apart).copy_(apart)
    for x, y in zip(Case("heatmap_moments", {"logits": apart, **more}).run(),
                    Case("heatmap_moments", {"logits": shifted, **more}).run(), strict=True):  # fmt: skip
        assert all(torch.equal(x[name], y[name]) for name in x)
