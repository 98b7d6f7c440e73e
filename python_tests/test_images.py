"""Images of every kind are read as they are seen: a known pixel of each, turned as EXIF says; else one message."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sampling_argmax_cuda.trainers.files import read_image

# A dark yellow image with a corner in green, whose colours a web-safe palette holds exactly.
REST, CORNER, SIZE = (204, 102, 51), (0, 204, 51), (40, 24)


def scene() -> Image.Image:
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[:], pixels[:10, :16] = REST, CORNER
    return Image.fromarray(pixels)


def of_cv2(path: Path, factor: int = 257) -> None:
    cv2.imwrite(str(path), np.asarray(scene())[..., ::-1].astype(np.uint16) * factor)


KINDS = {
    "rgb.png": lambda path: scene().save(path), "rgba.png": lambda path: scene().convert("RGBA").save(path),
    "palette.png": lambda path: scene().convert("P").save(path), "16-bit.png": of_cv2, "16-bit.tif": of_cv2,
    "rgb.tif": lambda path: scene().save(path), "lzw.tiff": lambda path: scene().save(path, compression="tiff_lzw"),
    "cmyk.tif": lambda path: scene().convert("CMYK").save(path), "cmyk.jpg": lambda path: scene().convert("CMYK").save(path),
    "progressive.jpeg": lambda path: scene().save(path, progressive=True),
    "lossless.webp": lambda path: scene().save(path, lossless=True),
    "rgba.webp": lambda path: scene().convert("RGBA").save(path, lossless=True), "a.bmp": lambda path: scene().save(path),
    "a.jp2": lambda path: scene().save(path), "UPPER.JPG": lambda path: scene().save(path, format="JPEG"),
    "with spaces (1).png": lambda path: scene().save(path), "\u732b \u00fc\u043f.png": lambda path: scene().save(path),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_known_pixel_of_every_kind(name, tmp_path):
    KINDS[name](tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8 and image.shape == (SIZE[1], SIZE[0], 3)
    for place, color in (((3, 3), CORNER), ((20, 30), REST), ((3, 30), REST), ((20, 3), REST)):
        assert np.abs(image[place].astype(int) - color).max() <= 12, (place, image[place])


@pytest.mark.parametrize(
    "kind, name", [("L", "grey.png"), ("LA", "alpha.png"), ("L", "grey.jpg"), ("I;16", "16.png"), ("1", "bits.png")]
)
def test_grey_images_have_three_equal_channels(kind, name, tmp_path):
    ramp = np.linspace(0, 255, SIZE[0]).astype(np.uint8)[None].repeat(SIZE[1], 0)
    image = Image.fromarray(ramp.astype(np.uint16) * 257) if kind == "I;16" else Image.fromarray(ramp).convert(kind)
    image.save(tmp_path / name)
    found = read_image(tmp_path / name)
    assert (found == found[..., :1]).all() and (found[0, 0] <= 4).all() and (found[0, -1] >= 251).all()
    assert kind == "1" or abs(int(found[5, 20, 0]) - int(ramp[5, 20])) <= 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_exif_says(suffix, orientation, tmp_path):
    """As labelling tools show them: key points are in pixels of the turned image."""
    exif = Image.Exif()
    exif[274] = orientation
    more = {"quality": 95} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    scene().save(path, exif=exif, **more)
    image = read_image(path)
    assert image.shape[:2] == (SIZE[::-1] if orientation < 5 else SIZE)
    corners = {1: (2, 2), 2: (2, -3), 3: (-3, -3), 4: (-3, 2), 5: (2, 2), 6: (2, -3), 7: (-3, -3), 8: (-3, 2)}
    for place in ((2, 2), (2, -3), (-3, 2), (-3, -3)):
        expected = CORNER if place == corners[orientation] else REST
        assert np.abs(image[place].astype(int) - expected).max() <= 12, (place, image[place])


@pytest.mark.parametrize(
    "name, content", [("text.png", b"no image"), ("empty.jpg", b""), ("photo.heic", b"\0\0\0\x18ftypheic")]
)
def test_what_cannot_be_read_has_one_message(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^image .*{name} cannot be read$"):
        read_image(tmp_path / name)


def test_images_of_real_numbers_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.full((8, 8, 3), 0.5, np.float32))
    with pytest.raises(ValueError, match=r"a.tif cannot be read"):
        read_image(tmp_path / "a.tif")
