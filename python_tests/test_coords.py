"""Coordinate conventions against their closed forms, and the flip each of them implies."""

import itertools

import pytest
import torch

from sampling_argmax_cuda import convert_coords
from sampling_argmax_cuda.coords import CONVENTIONS, flip_coords

SIZE = (48, 64, 7)


def index_points() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5, 4, 3, generator=generator, dtype=torch.float64) * 60 - 5


@pytest.mark.parametrize(
    ("convention", "formula"),
    [
        ("index", lambda e, n: e),
        ("centered", lambda e, n: e / n - 0.5),
        ("unit", lambda e, n: e / n),
        ("cell", lambda e, n: (2 * e + 1) / n - 1),
        ("corners", lambda e, n: 2 * e / (n - 1) - 1),
    ],
)
def test_formula_of_each_convention(convention, formula):
    x = index_points()
    expected = torch.stack([formula(x[..., a], n) for a, n in enumerate(SIZE)], -1)
    torch.testing.assert_close(convert_coords(x, SIZE, "index", convention), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("src", "dst"), list(itertools.product(CONVENTIONS, CONVENTIONS)))
def test_every_pair_goes_through_index_and_back(src, dst):
    x = convert_coords(index_points(), SIZE, "index", src)
    there = convert_coords(x, SIZE, src, dst)
    via_index = convert_coords(convert_coords(x, SIZE, src, "index"), SIZE, "index", dst)
    torch.testing.assert_close(there, via_index, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(convert_coords(there, SIZE, dst, src), x, rtol=1e-12, atol=1e-12)


def test_one_integer_is_the_size_of_every_axis():
    x = index_points()
    assert torch.equal(convert_coords(x, 9, "index", "cell"), convert_coords(x, (9, 9, 9), "index", "cell"))


def test_cell_and_corners_are_those_of_grid_sample():
    """grid_sample returns the map's own cell at the converted coordinate."""
    image = torch.rand(1, 1, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = torch.tensor([[3.0, 2.0], [0.0, 4.0], [6.0, 0.0]], dtype=torch.float64)
    for convention, align in (("cell", False), ("corners", True)):
        grid = convert_coords(x, (7, 5), "index", convention)[None, None]
        read = torch.nn.functional.grid_sample(image, grid, align_corners=align)[0, 0, 0]
        torch.testing.assert_close(read, torch.stack([image[0, 0, int(b), int(a)] for a, b in x]))


def test_gradient_is_the_scale_of_each_axis():
    x = index_points().requires_grad_()
    convert_coords(x, SIZE, "index", "cell").sum().backward()
    torch.testing.assert_close(x.grad, (2 / torch.tensor(SIZE, dtype=torch.float64)).expand_as(x))


def test_dtype_is_kept():
    assert convert_coords(torch.zeros(2, 2), (4, 4)).dtype == torch.float32
    assert convert_coords(torch.zeros(2, 2, dtype=torch.float64), 4).dtype == torch.float64
    assert convert_coords(torch.tensor([[1, 2]]), 4).dtype == torch.float32


def test_empty_batch():
    assert convert_coords(torch.zeros(0, 17, 2), (48, 64)).shape == (0, 17, 2)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flip_with_one_pixel_a_cell_reverses_the_cells(convention, axis):
    e = index_points()
    mirrored = e.clone()
    mirrored[..., axis] = SIZE[axis] - 1 - e[..., axis]
    x = convert_coords(e, SIZE, "index", convention)
    expected = convert_coords(mirrored, SIZE, "index", convention)
    flipped = flip_coords(x, SIZE, convention, axis=axis)
    torch.testing.assert_close(flipped, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(flip_coords(flipped, SIZE, convention, axis=axis), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("convention", "pixel"),
    [
        ("index", lambda c, w: 4 * c),
        ("centered", lambda c, w: (c + 0.5) * 4 * w),
        ("unit", lambda c, w: c * 4 * w),
        ("cell", lambda c, w: ((c + 1) * 4 * w - 1) / 2),
        ("corners", lambda c, w: (c + 1) / 2 * (4 * w - 1)),
    ],
)
def test_flip_with_stride_reverses_input_pixels(convention, pixel):
    x = convert_coords(index_points()[..., :2], (48, 64), "index", convention)
    flipped = flip_coords(x, (48, 64), convention, stride=4)
    torch.testing.assert_close(pixel(flipped[..., 0], 48), 4 * 48 - 1 - pixel(x[..., 0], 48))
    assert torch.equal(flipped[..., 1], x[..., 1])


def test_flip_has_the_two_released_forms():
    x = torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    for stride in (4, 1):
        flipped = flip_coords(x, (48, 64), "centered", stride=stride)[0, 0].item()
        assert flipped == pytest.approx(-0.1 - 1 / (stride * 48), abs=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 2), (4, 4), "pixels", "unit"), "convention must be one of index, .*, got 'pixels'"),
        ((torch.zeros(2, 2), (4, 4), "unit", "pixels"), "convention must be one of index, .*, got 'pixels'"),
        ((torch.zeros(2, 2), (4, 4, 4)), r"size must be one number or 2 .*, got \(4, 4, 4\)"),
        ((torch.zeros(2, 2), (4, 0)), r"size must hold integers >= 1, got \(4, 0\)"),
        ((torch.zeros(2, 2), (4, 1.5)), r"size must hold integers >= 1, got \(4, 1.5\)"),
        ((torch.zeros(2, 2), 0), "size must hold integers >= 1, got 0"),
        ((torch.zeros(2, 2), 4.0), "size must hold integers >= 1, got 4.0"),
        ((torch.zeros(()), 4), r"x must be a tensor \[..., d\], got shape \(\)"),
        (([[0.0, 0.0]], 4), r"x must be a tensor \[..., d\], got list"),
        ((torch.zeros(2, 2), (4, 1), "index", "corners"), "'corners' needs every size to be >= 2, got 1"),
        ((torch.zeros(2, 2), (4, 1), "corners", "corners"), "'corners' needs every size to be >= 2, got 1"),
    ],
)
def test_convert_coords_errors(arguments, message):
    with pytest.raises(ValueError, match=f"convert_coords: .*{message}"):
        convert_coords(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis": 2}, r"axis must be in \[0, 2\), got 2"),
        ({"axis": -1}, r"axis must be in \[0, 2\), got -1"),
        ({"stride": 0.0}, "stride must be > 0, got 0.0"),
        ({"convention": "pixels"}, "convention must be one of"),
        ({"size": (1, 4), "convention": "corners"}, "'corners' needs every size to be >= 2, got 1"),
    ],
)
def test_flip_coords_errors(options, message):
    with pytest.raises(ValueError, match=f"flip_coords: .*{message}"):
        flip_coords(torch.zeros(2, 2), **{"size": (4, 4), **options})
