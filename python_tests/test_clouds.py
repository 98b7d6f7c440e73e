"""Searches in point clouds: the reference by hand and by SciPy, every backend equal to it index for index."""

import numpy as np
import pytest
import torch
from conftest import cuda_machines, machine_device
from cuda_shim import NAMESPACE
from scipy.spatial import cKDTree
from torch.library import opcheck

from sampling_argmax_cuda import library
from sampling_argmax_cuda.clouds import farthest_points, neighbours
from sampling_argmax_cuda.reference import clouds as reference

MACHINES = [*(["portable"] if library.LOAD_ERROR is None else []), *cuda_machines()]
FUSED = pytest.mark.parametrize("machine", MACHINES, indirect=True)


def cloud(batch: int = 2, count: int = 60, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(seed)).to(machine_device())


def lattice(side: int = 6) -> torch.Tensor:
    """A cloud in which most distances are those of many points."""
    return torch.cartesian_prod(*[torch.arange(side).float()] * 3)[None].to(machine_device())


def at(points: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return points.gather(1, index.flatten(1).unsqueeze(-1).expand(-1, -1, 3)).unflatten(1, index.shape[1:])


# ---- the reference ----


def test_farthest_points_are_greedy():
    points = cloud().double()
    for own, chosen in zip(points, farthest_points(points, 20), strict=True):
        assert chosen[0] == (own - own.mean(0)).norm(dim=1).argmax() and len(set(chosen.tolist())) == 20
        for i in range(1, 20):
            distance = torch.cdist(own[chosen[:i]], own, compute_mode="donot_use_mm_for_euclid_dist").min(0).values
            assert chosen[i] == distance.argmax()


def test_farthest_points_of_a_line():
    x = torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0])
    points = torch.stack([x, torch.zeros(5), torch.zeros(5)], 1)[None]
    assert farthest_points(points, 5).tolist() == [[4, 0, 3, 1, 2]]


def test_neighbours_are_those_of_a_tree():
    points, centers = cloud(count=200).double(), cloud(count=30, seed=1).double()
    found = neighbours(points, centers, 8, radius=0.15)
    for own, places, index in zip(points, centers, found, strict=True):
        distance, wanted = cKDTree(own).query(places, 8)
        assert np.array_equal(index.numpy(), np.where(distance <= 0.15, wanted, wanted[:, :1]))
        assert (distance[:, 0] > 0.15).any() and (distance[:, -1] > 0.15).any() and (distance[:, 1] <= 0.15).any()


def test_equal_distances_go_by_the_index():
    points = lattice(3)
    assert neighbours(points, points[:, 13:14], 7).tolist() == [[[13, 4, 10, 12, 14, 16, 22]]]
    assert neighbours(points, points[:, 13:14], 4, radius=1).tolist() == [[[13, 4, 10, 12]]]
    assert neighbours(points, points[:, 13:14], 4, radius=0.5).tolist() == [[[13] * 4]]
    assert farthest_points(points, 4).tolist() == [[0, 26, 5, 15]]


# ---- the backends ----


@FUSED
@pytest.mark.parametrize("batch, count, chosen", [(3, 700, 90), (1, 33, 33), (2, 2050, 40), (1, 1, 1), (0, 5, 2)])
def test_farthest_points_equal_the_reference(machine, batch, count, chosen):
    points = cloud(batch, count)
    assert torch.equal(farthest_points(points, chosen), farthest_points(points, chosen, backend="reference"))


@FUSED
@pytest.mark.parametrize(
    "batch, count, centers", [(3, 700, 90), (1, 33, 40), (2, 2050, 7), (1, 1, 3), (0, 5, 2), (2, 5, 300)]
)
@pytest.mark.parametrize("wanted, radius", [(1, 0.1), (3, np.inf), (33, 0.2), (16, 1e-6)])
def test_neighbours_equal_the_reference(machine, batch, count, centers, wanted, radius):
    points, places = cloud(batch, count), cloud(batch, centers, seed=1)
    expected = neighbours(points, places, wanted, radius=radius, backend="reference")
    assert torch.equal(neighbours(points, places, wanted, radius=radius), expected)


@FUSED
def test_ties_and_views_equal_the_reference(machine):
    points = lattice().expand(2, -1, -1)
    turned = points.transpose(1, 2).contiguous().transpose(1, 2)
    for own in (points, turned):
        chosen = farthest_points(own, 50)
        assert torch.equal(chosen, farthest_points(own, 50, backend="reference"))
        for radius in (1.0, 2**0.5, 2.3):
            expected = neighbours(own, at(own, chosen), 20, radius=radius, backend="reference")
            assert torch.equal(neighbours(own, at(own, chosen), 20, radius=radius), expected)
    same = torch.ones(1, 40, 3, device=machine_device())
    assert farthest_points(same, 3).tolist() == [[0, 0, 0]] and neighbours(same, same[:, :1], 3).tolist() == [
        [[0, 1, 2]]
    ]


@pytest.mark.skipif("cuda_shim" not in MACHINES, reason="needs a C++ compiler")
def test_no_schedule_changes_an_index(shim):
    points = cloud(2, 700)
    first = torch.zeros(2, dtype=torch.int64)
    try:
        for schedule in range(6):
            shim.settings(4, 227 * 1024, schedule)
            assert torch.equal(shim.farthest_points(points, first, 40), reference.farthest_points(points, first, 40))
            found = shim.neighbours(points, points[:, :50], 0.2, 12)
            assert torch.equal(found, reference.neighbours(points, points[:, :50], 0.2, 12))
    finally:
        shim.settings(4, 227 * 1024, 0)


@FUSED
def test_opcheck(machine, request):
    name = NAMESPACE if machine == "cuda_shim" else library.NAMESPACE
    ops, points = getattr(torch.ops, name), cloud()
    opcheck(ops.farthest_points, (points, torch.zeros(2, dtype=torch.int64, device=points.device), 5))
    opcheck(ops.neighbours, (points, points[:, :4].clone(), 0.3, 70))


@FUSED
def test_compile_fullgraph(machine):
    def search(points):
        return neighbours(points, at(points, farthest_points(points, 7)), 5, radius=0.3)

    points = cloud()
    assert torch.equal(torch.compile(search, fullgraph=True, backend="aot_eager")(points), search(points))


def test_gradients_stop_here():
    points = cloud().requires_grad_()
    assert not farthest_points(points, 3).requires_grad and not neighbours(points, points, 3).requires_grad


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda x: farthest_points(x[0], 3),
            r"farthest_points: points must be \[B, N, 3\] of floating point, N >= 1, got \(60, 3\)",
        ),
        (lambda x: farthest_points(x[:, :0], 3), r"points must be .* got \(2, 0, 3\)"),
        (lambda x: farthest_points(x, 61), r"count must be an integer in \[1, 60\], got 61"),
        (
            lambda x: farthest_points(x, 2, backend="triton"),
            "backend must be one of auto, cuda, cpu, reference, got 'triton'",
        ),
        (lambda x: farthest_points(x.double(), 2, backend="cpu"), "'cpu' takes float32 points, got torch.float64"),
        (lambda x: neighbours(x, x[..., :2], 3), r"neighbours: centers must be \[B, N, 3\].*got \(2, 60, 2\)"),
        (
            lambda x: neighbours(x, x[:1], 3),
            r"centers must be torch.float32 \[2, M, 3\], got torch.float32 \(1, 60, 3\)",
        ),
        (lambda x: neighbours(x, x.double(), 3), r"centers must be torch.float32 .*, got torch.float64"),
        (lambda x: neighbours(x, x, 0), "count must be an integer >= 1, got 0"),
        (lambda x: neighbours(x, x, True), "count must be an integer >= 1, got True"),
        (lambda x: neighbours(x, x, 3, radius=0.0), "radius must be > 0, got 0.0"),
        (lambda x: neighbours(x, x.to("meta"), 3), "centers must be on the points' device cpu, got meta"),
    ],
)
def test_error_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(2, 60, 3))
