"""Test-time averaging: mirrors, scales and ensembles of networks whose answer is known."""

from itertools import product

import numpy as np
import pytest
import torch

from sampling_argmax_cuda.objectives import Direct, Heatmap, SoftArgmax
from sampling_argmax_cuda.objectives.spread import plane_covariance
from sampling_argmax_cuda.trainers.tta import EnsembleMember, TestTimeAugmentation, resample

SWAPPED = [1, 0, 2]
SIGMA = 1.5


class Painter(torch.nn.Module):
    """Answers with Gaussian maps at the bright pixels of an image's channels, one a point; channels 0 and 1 mirror."""

    def __init__(self, kind: str = "logits", shift: float = 0.0) -> None:
        super().__init__()
        self.kind, self.shift = kind, shift

    def forward(self, images):
        b, k, height, width = images.shape
        y, x = torch.meshgrid(torch.arange(height // 4) * 4.0, torch.arange(width // 4) * 4.0, indexing="ij")
        ys, xs = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
        mass = images.flatten(2).sum(-1)
        px, py = ((images * axis).flatten(2).sum(-1) / mass + self.shift for axis in (xs, ys))
        if self.kind == "points":
            return torch.stack([px, py], -1) / 4
        size = width / 64  # blobs grow with the image
        logits = -((x - px[..., None, None]) ** 2 + (y - py[..., None, None]) ** 2) / (2 * (4 * SIGMA * size) ** 2)
        return logits if self.kind == "logits" else logits.exp()


class Mirror(Painter):
    """A painter that knows left from right: in a mirrored image the first two points are swapped."""

    def forward(self, images):
        mirrored = images[:, 2].flatten(1).argmax(1).remainder(images.shape[-1])[0] > images.shape[-1] // 2
        out = super().forward(images)
        return out[:, SWAPPED] if mirrored else out


def image_of(points) -> torch.Tensor:
    """Blobs of light at points ``[3, 2]`` in pixels of a 64 x 128 image."""
    ys, xs = torch.meshgrid(torch.arange(128.0), torch.arange(64.0), indexing="ij")
    return torch.stack([(-((xs - x) ** 2 + (ys - y) ** 2) / 18).exp() for x, y in points])[None]


POINTS = [(20.0, 40.0), (36.0, 48.0), (24.0, 56.0)]
CELLS = torch.tensor(POINTS) / 4


class Equivariant:
    """A network whose Gaussians, ``sigma`` cells wide, move exactly as its images are mirrored and scaled.

    ``place`` ``[1, K, 2]`` in cells of images of ``size`` (W, H) pixels, the first of which is dark and the last bright.
    """

    def __init__(self, place: torch.Tensor, size: tuple[int, int], sigma: float, values: bool = False) -> None:
        self.place, self.size, self.sigma, self.values = place, size, sigma, values

    def __call__(self, images):
        height, width = images.shape[2:]
        # In pixels: a resized image keeps its borders, and a mirror takes pixel x to W - 1 - x.
        factor = torch.tensor([width, height], dtype=torch.float64) / torch.tensor(self.size)
        pixels = (4 * self.place + 0.5) * factor - 0.5
        if images[0, 0, 0, 0] > images[0, 0, 0, -1]:
            pixels[..., 0] = width - 1 - pixels[..., 0]
            pixels = pixels[:, SWAPPED]
        cells = (4.0 * torch.arange(n // 4, dtype=torch.float64) for n in (width, height))
        x, y = ((c - pixels[..., a, None]) / (4 * self.sigma) for a, c in enumerate(cells))
        logits = -(x.square().unsqueeze(-2) + y.square().unsqueeze(-1)) / 2
        return logits.exp() if self.values else logits


SIZES = ((96, 128), (128, 96), (96, 96), (192, 256), (160, 96), (256, 192))
SCALES = ((1.0,), (2.0,), (0.75,), (1.5,), (1.3,), (1.0, 0.75, 1.3), (0.5, 1.0, 2.0))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_view_has_the_same_mean(size):
    """Of coordinates and of maps, at every size, scale and combination of them."""
    for scales, flip, average in product(SCALES, (False, True), ("coords", "maps")):
        place = torch.rand(1, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        place = 8 + place * (torch.tensor(size) / 4 - 17)
        image = torch.linspace(0, 1, size[0]).expand(1, 3, size[1], size[0])
        members = [EnsembleMember(Equivariant(place, size, 0.8), SoftArgmax()),
                   EnsembleMember(Equivariant(place, size, 0.8), SoftArgmax(), (224, 192))]  # fmt: skip
        found = TestTimeAugmentation(SWAPPED, flip, scales, average).read(members, image).position
        assert (found - place).abs().max() < 1e-3, (scales, flip, average)


@pytest.mark.parametrize("flip, scales", list(product([False, True], [(1.0,), (1.5,), (0.75, 1.0, 2.0)])))
def test_heatmaps_of_every_view_have_one_peak(flip, scales):
    """A position is a quarter of a cell off at most, so that every view of a map is its own peak."""
    place = torch.tensor([[[9.3, 7.6], [14.1, 12.2], [11.9, 20.0]]], dtype=torch.float64)
    image = torch.linspace(0, 1, 96).expand(1, 3, 128, 96)
    member = EnsembleMember(Equivariant(place, (96, 128), 2.0, values=True), Heatmap(2.0))
    _, found, peak, *_ = TestTimeAugmentation(SWAPPED, flip, scales, "maps").read([member], image)
    assert (found - place).abs().max() < 0.27 and (peak > 0.85).all() and (peak <= 1).all()


@pytest.mark.parametrize("average", ["coords", "maps"])
def test_a_mirrored_network_gives_the_same_answer(average):
    member = EnsembleMember(Mirror(), SoftArgmax())
    _, plain, peak, *_ = TestTimeAugmentation(SWAPPED, flip=False, average=average).read([member], image_of(POINTS))
    _, both, both_peak, *_ = TestTimeAugmentation(SWAPPED, flip=True, average=average).read([member], image_of(POINTS))
    assert (plain[0] - CELLS).abs().max() < 0.01
    assert (both - plain).abs().max() < 3e-3 and (both_peak - peak).abs().max() < 0.03
    assert (both[..., 1] - plain[..., 1]).abs().max() < 1e-4


@pytest.mark.parametrize("flip, average", product([False, True], ["coords", "maps"]))
def test_scales_agree(flip, average):
    """A network that scales with its image: every scale gives the position in cells of the first one."""
    member = EnsembleMember(Mirror(), SoftArgmax())
    for scales in ((2.0,), (0.5, 1.0, 2.0)):
        first, found, *_ = TestTimeAugmentation(SWAPPED, flip, scales, average).read([member], image_of(POINTS))
        size = [round(n * scales[0] / 4) for n in (128, 64)]
        assert list(first.shape[2:]) == size
        assert (found[0] - CELLS).abs().max() < 0.02


def test_positions_of_other_scales_are_exact():
    """Pixel x of an image is pixel s (x + 1/2) - 1/2 of the image scaled by s."""
    member = EnsembleMember(Painter("points"), Direct())
    _, found, peak, *_ = TestTimeAugmentation(SWAPPED, False, (1.5,)).read([member], image_of(POINTS))
    assert (found[0] - CELLS).abs().max() < 0.01 and (peak == 1).all()


@pytest.mark.parametrize("average", ["coords", "maps"])
def test_ensemble_of_opposite_errors_has_none(average):
    members = [EnsembleMember(Painter(shift=s), SoftArgmax()) for s in (-6.0, 6.0)]
    views = TestTimeAugmentation(SWAPPED, flip=False, average=average)
    errors = [(views.read([member], image_of(POINTS))[1][0] - CELLS).norm(dim=-1) for member in members]
    found = views.read(members, image_of(POINTS)).position
    assert (found[0] - CELLS).abs().max() < 0.02 and min(e.min() for e in errors) > 2


def test_ensemble_of_sizes():
    members = [EnsembleMember(Painter(), SoftArgmax()), EnsembleMember(Painter(), SoftArgmax(), (96, 192))]
    found = TestTimeAugmentation(SWAPPED, flip=False).read(members, image_of(POINTS)).position
    assert (found[0] - CELLS).abs().max() < 0.02


def test_heatmaps_average():
    members = [EnsembleMember(Mirror("heatmap"), Heatmap(2.0))]
    first, found, peak, *_ = TestTimeAugmentation(SWAPPED, flip=True, average="maps").read(members, image_of(POINTS))
    assert (found[0] - CELLS).abs().max() < 0.6 and (peak > 0.8).all() and first.shape == (1, 3, 32, 16)


def test_the_mirror_of_a_cell_is_two_cells():
    """Cell j of W lies at ``W - 1/4 - j`` of the mirrored maps; probability keeps its sum, a value beyond the border its value."""
    maps = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    back = maps.flip(-1)
    values, mass = (resample(maps, (4, 6), mirrored=True, mass=mass) for mass in (False, True))
    torch.testing.assert_close(values[..., 1:], 0.25 * back[..., 1:] + 0.75 * back[..., :-1])
    torch.testing.assert_close(mass[..., :5], torch.cat([0.25 * back[..., :1], values[..., 1:5]], -1))
    assert torch.equal(values[..., 0], back[..., 0])
    for size in ((4, 6), (3, 5), (9, 14)):
        found = resample(maps, size, mirrored=True, mass=True)
        torch.testing.assert_close(found.sum((2, 3)), maps.sum((2, 3)))
        torch.testing.assert_close(resample(torch.ones(1, 1, 4, 6), size, mirrored=True), torch.ones(1, 1, *size))


@pytest.mark.parametrize("old, new", [(40, 20), (40, 60), (40, 31), (40, 53), (40, 130)])
def test_resampled_probabilities_keep_their_place(old, new):
    """Of a single cell, too, which no new cell lies on."""
    for cell in (11, 26):
        sharp = torch.zeros(1, 1, old, old, dtype=torch.float64)
        sharp[0, 0, cell, cell + 1] = 1
        small = resample(sharp, (new, new), mass=True)
        place = torch.arange(new).double()
        mean = [(small * place).sum().item(), (small * place[:, None]).sum().item()]
        assert mean == pytest.approx([((4 * c + 0.5) * new / old - 0.5) / 4 for c in (cell + 1, cell)], abs=1e-9)


def test_resampled_depth_keeps_its_share():
    volume = torch.zeros(1, 1, 4, 2, 2)
    volume[0, 0, 2] = 0.25
    assert resample(volume, (2, 2, 2), mass=True)[0, 0, :, 0, 0].tolist() == [0.0, 0.25]
    assert torch.equal(resample(volume, (4, 2, 2)), volume)


def test_resampled_maps_do_not_depend_on_precision():
    """Neither on torch's default dtype nor on autocast, whose products have 16 bits."""
    maps = torch.rand(1, 2, 12, 9, generator=torch.Generator().manual_seed(0))
    expected = resample(maps, (17, 9), mirrored=True)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(resample(maps, (17, 9), mirrored=True), expected)
    finally:
        torch.set_default_dtype(torch.float32)


class Tilted:
    """A network whose Gaussians at ``place`` ``[1, 3, 2]`` in cells of a 96 x 128 image have a covariance in cells squared.

    Each point has its own, and those that a mirror swaps differ.
    """

    def __init__(self, place: torch.Tensor, covariance: torch.Tensor) -> None:
        self.place, self.covariance = place, covariance

    def __call__(self, images):
        height, width = images.shape[2:]
        factor = torch.tensor([width / 96, height / 128], dtype=torch.float64)
        place, linear = (self.place + 0.125) * factor - 0.125, factor.diag()
        covariance = linear @ self.covariance @ linear
        if images[0, 0, 0, 0] > images[0, 0, 0, -1]:
            place = torch.stack([width / 4 - 0.25 - place[..., 0], place[..., 1]], -1)[:, SWAPPED]
            covariance = (covariance * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))[:, SWAPPED]
        y, x = torch.meshgrid(*(torch.arange(n // 4, dtype=torch.float64) for n in (height, width)), indexing="ij")
        apart = torch.stack([x, y], -1) - place[:, :, None, None]
        return -torch.einsum("bkhwi,bkij,bkhwj->bkhw", apart, covariance.inverse(), apart) / 2


PLACE = torch.tensor([[[9.3, 11.6], [14.1, 16.2], [11.9, 20.0]]], dtype=torch.float64)
TILTS = torch.tensor(
    [[[[2.0, 0.9], [0.9, 1.5]], [[1.2, -0.4], [-0.4, 3.0]], [[1.5, 0.0], [0.0, 1.5]]]], dtype=torch.float64
)
RAMP = torch.linspace(0, 1, 96).expand(1, 3, 128, 96)


@pytest.mark.parametrize("flip, scales", list(product([False, True], [(1.0,), (1.5,), (1.0, 2.0)])))
def test_every_view_has_the_same_covariance(flip, scales):
    """Mirrored with its points swapped and its tilt turned, and in cells of the image itself."""
    member = EnsembleMember(Tilted(PLACE, TILTS), SoftArgmax())
    read = TestTimeAugmentation(SWAPPED, flip, scales).read([member], RAMP)
    assert (read.position - PLACE).abs().max() < 1e-3 and (read.covariance - TILTS).abs().max() < 2e-3


@pytest.mark.parametrize("average", ["coords", "maps"])
def test_what_members_disagree_on_is_part_of_the_covariance(average):
    """As in the mixture of two Gaussians: the mean of their covariances, and the half distance squared."""
    step = torch.tensor([3.0, -1.0], dtype=torch.float64)
    members = [EnsembleMember(Tilted(PLACE + sign * step, TILTS), SoftArgmax()) for sign in (-1, 1)]
    read = TestTimeAugmentation(SWAPPED, False, average=average).read(members, RAMP)
    assert (read.covariance - TILTS - torch.outer(step, step)).abs().max() < 2e-3


def test_the_covariance_of_a_map_is_numpys():
    """Of flat maps and volumes; below 0 nothing counts, and nothing at all has no covariance."""
    maps = torch.rand(2, 3, 5, 7, 6, generator=torch.Generator().manual_seed(0)) - 0.3
    y, x = np.mgrid[:7, :6]
    for found, own in ((plane_covariance(maps), maps.numpy().clip(0).sum(2)),
                       (plane_covariance(maps[:, :, 0]), maps[:, :, 0].numpy().clip(0))):  # fmt: skip
        for b, k in product(range(2), range(3)):
            expected = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=own[b, k].ravel(), ddof=0)
            assert np.allclose(found[b, k], expected, atol=1e-5)
    assert plane_covariance(-maps[:, :, 0].abs()).isnan().all()
