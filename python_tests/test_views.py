"""Test-time averaging: mirrors, scales and ensembles of networks whose answer is known."""

from itertools import product

import pytest
import torch

from sampling_argmax_cuda.tasks.methods import Direct, Heatmap, Soft
from sampling_argmax_cuda.tasks.views import Member, Views, resample

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


@pytest.mark.parametrize("average", ["coords", "maps"])
def test_a_mirrored_network_gives_the_same_answer(average):
    """Exact by coordinates; maps move by whole cells, so their mean of both passes is 1/8 of a cell off at most."""
    member = Member(Mirror(), Soft("l1", "index"))
    _, plain, peak = Views(SWAPPED, flip=False, average=average).read([member], image_of(POINTS))
    _, both, both_peak = Views(SWAPPED, flip=True, average=average).read([member], image_of(POINTS))
    tolerance = 3e-3 if average == "coords" else 0.13
    assert (plain[0] - CELLS).abs().max() < 0.01
    assert (both - plain).abs().max() < tolerance and (both_peak - peak).abs().max() < 0.03
    assert (both[..., 1] - plain[..., 1]).abs().max() < 1e-4


@pytest.mark.parametrize("flip, average", product([False, True], ["coords", "maps"]))
def test_scales_agree(flip, average):
    """A network that scales with its image: every scale gives the position in cells of the first one."""
    member = Member(Mirror(), Soft("l1", "index"))
    for scales in ((2.0,), (0.5, 1.0, 2.0)):
        first, found, _ = Views(SWAPPED, flip, scales, average).read([member], image_of(POINTS))
        size = [round(n * scales[0] / 4) for n in (128, 64)]
        assert list(first.shape[2:]) == size
        assert (found[0] - CELLS).abs().max() < (0.02 if average == "coords" else 0.15)  # a mirror moves whole cells


def test_positions_of_other_scales_are_exact():
    """Pixel x of an image is pixel s (x + 1/2) - 1/2 of the image scaled by s."""
    member = Member(Painter("points"), Direct("l1", "index"))
    _, found, peak = Views(SWAPPED, False, (1.5,)).read([member], image_of(POINTS))
    assert (found[0] - CELLS).abs().max() < 0.01 and (peak == 1).all()


@pytest.mark.parametrize("average", ["coords", "maps"])
def test_ensemble_of_opposite_errors_has_none(average):
    members = [Member(Painter(shift=s), Soft("l1", "index")) for s in (-6.0, 6.0)]
    views = Views(SWAPPED, flip=False, average=average)
    errors = [(views.read([member], image_of(POINTS))[1][0] - CELLS).norm(dim=-1) for member in members]
    _, found, _ = views.read(members, image_of(POINTS))
    assert (found[0] - CELLS).abs().max() < 0.02 and min(e.min() for e in errors) > 2


def test_ensemble_of_sizes():
    members = [Member(Painter(), Soft("l1", "index")), Member(Painter(), Soft("l1", "index"), (96, 192))]
    _, found, _ = Views(SWAPPED, flip=False).read(members, image_of(POINTS))
    assert (found[0] - CELLS).abs().max() < 0.02


def test_heatmaps_average():
    members = [Member(Mirror("heatmap"), Heatmap("l1", "index", 2.0))]
    first, found, peak = Views(SWAPPED, flip=True, average="maps").read(members, image_of(POINTS))
    assert (found[0] - CELLS).abs().max() < 0.6 and (peak > 0.8).all() and first.shape == (1, 3, 32, 16)


def test_mirroring_maps_copies_no_column_into_the_next():
    """The shift by one cell must not read what it has just written."""
    maps = torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(0)).abs()
    network = lambda images: maps  # noqa: E731
    read = Heatmap("l1", "index", 2.0)
    seen = []
    read.read_maps = lambda averaged: (seen.append(averaged), (averaged, averaged))[1]
    Views(SWAPPED, flip=True, average="maps").read([Member(network, read)], torch.zeros(1, 3, 16, 24))
    back = maps.flip(-1)[:, SWAPPED]
    expected = (maps + torch.cat([back[..., :1], back[..., :-1]], -1)) / 2
    assert torch.equal(seen[0], expected)


def test_resampled_maps_keep_their_place():
    x = torch.arange(40.0)
    for n in (20, 60):
        blob = (-((x - 11.3) ** 2 + (x[:, None] - 25.6) ** 2) / 18).exp()[None, None]
        small = resample(blob, (n, n))
        p = small / small.sum()
        place = torch.arange(n).float()
        mean = [(p * place).sum().item(), (p * place[:, None]).sum().item()]
        expected = [((4 * c + 0.5) * n / 40 - 0.5) / 4 for c in (11.3, 25.6)]
        assert mean == pytest.approx(expected, abs=2e-3)
    volume = torch.zeros(1, 1, 4, 2, 2)
    volume[0, 0, 2] = 1.0
    assert resample(volume, (2, 2, 2))[0, 0, :, 0, 0].tolist() == [0.0, 1.0]
    assert torch.equal(resample(blob, (40, 40)), blob)
