"""Files that the tasks read: what is whole is read, and what is not is one line with the file and the place."""

import json
import struct

import cv2
import numpy as np
import pytest

from sampling_argmax_cuda.tasks.keypointnet.reader import CloudFolder, count_pcd, read_pcd, read_split
from sampling_argmax_cuda.tasks.mtfl.reader import read_faces
from sampling_argmax_cuda.trainers.boxes import whole_images
from sampling_argmax_cuda.trainers.crops import InputCrops
from sampling_argmax_cuda.trainers.files import (
    IMAGES,
    RecordFile,
    count_records,
    is_image,
    merge_records,
    read_image,
    read_json,
    read_text,
)
from sampling_argmax_cuda.trainers.sources import find_source
from sampling_argmax_cuda.trainers.transforms import CropRule


def picture(height: int = 40, width: int = 56) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def encoded(suffix: str, *flags: int) -> bytes:
    image = picture()
    if suffix in (".pgm", ".pbm"):
        image = image[..., 0]
    return cv2.imencode(suffix, image, flags)[1].tobytes()


def with_preview(data: bytes) -> bytes:
    """A JPEG whose first segment holds a small JPEG, end marker and all, as cameras write it."""
    small = cv2.imencode(".jpg", picture(8, 8))[1].tobytes()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(small)) + small + data[2:]


JPEGS = {
    "plain": encoded(".jpg"),
    "progressive": encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "preview": with_preview(encoded(".jpg")),
    "filled": encoded(".jpg")[:-2] + b"\xff\xff\xff\xd9",
    "comment": encoded(".jpg")[:2] + b"\xff\xfe\x00\x04\xff\xd9" + encoded(".jpg")[2:],
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_read_whole_or_not_at_all(kind, tmp_path):
    """Cut anywhere, with nothing or with zeros behind; what follows the end marker is nobody's."""
    data, path = JPEGS[kind], tmp_path / "a.jpg"
    for more in (b"", bytes(10), b"\xff\xd8 another"):
        path.write_bytes(data + more)
        whole = read_image(path)
        assert whole.shape == (40, 56, 3) and np.abs(whole[..., ::-1].astype(int) - picture()).mean() < 3
    for length in [*range(0, len(data) - 2, max(1, len(data) // 60)), len(data) - 2, len(data) - 1]:
        for filled in (b"", bytes(len(data) - length)):
            path.write_bytes(data[:length] + filled)
            with pytest.raises(ValueError, match="image .*a.jpg (cannot be read|is cut off: it has no end marker)"):
                read_image(path)


@pytest.mark.parametrize("suffix", sorted(IMAGES))
def test_every_kind_of_image_is_read_whole_or_not_at_all(suffix, tmp_path):
    for name in (f"a{suffix}", f"b{suffix.upper()}"):
        data = encoded(suffix)
        (tmp_path / name).write_bytes(data)
        assert read_image(tmp_path / name).shape == (40, 56, 3)
    assert [file.name for file in find_source(tmp_path).files] == [
        f"a{suffix}",
        f"b{suffix.upper()}",
    ]
    for share in (0.5, 0.9):
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
        with pytest.raises(ValueError, match="(cannot be read|is cut off)"):
            read_image(tmp_path / name)


def test_an_upright_image_stays_so(tmp_path):
    """As OpenCV turns a file's image by its Exif orientation."""
    body = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    data = JPEGS["plain"]
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:])
    found = read_image(tmp_path / "a.jpg")
    assert found.shape == (56, 40, 3) and np.array_equal(found[..., ::-1], cv2.imread(str(tmp_path / "a.jpg")))


def test_images_of_a_folder_have_overlays_of_their_own_and_others_are_told(tmp_path):
    """Also those that OpenCV knows by their content alone; hidden files are no files."""
    for name in ("a.jpg", "a.png", "a.webp"):
        (tmp_path / name).write_bytes(encoded(name[1:]))
    (tmp_path / "photo").write_bytes(encoded(".png"))
    for name in ("a.txt", "b.mp4", ".DS_Store"):
        (tmp_path / name).write_bytes(b"something else")
    (tmp_path / "c.png").mkdir()
    source = find_source(tmp_path)
    folder = InputCrops(source, whole_images(source), CropRule((64, 64)))
    assert [folder.overlay(i) for i in range(len(folder))] == [
        "a.jpg",
        "a.png",
        "a.webp",
        "photo",
    ]
    assert [file.name for file in folder.left_out] == ["a.txt", "b.mp4"]
    (tmp_path / "d.jpg").touch()
    assert is_image(tmp_path / "d.jpg")  # and not left out in silence
    with pytest.raises(ValueError, match="d.jpg cannot be read"):
        read_image(tmp_path / "d.jpg")


# ---- text ----

FACE = "{name} 1 2 3 4 5 6 7 8 9 10 1 1 1 1\n"
PCD = "# {name}\nFIELDS x y z\nPOINTS 2\nDATA ascii\n1 2 3\n4 5 6\n"
READERS = {
    "faces": (lambda path: str(read_faces(path).records), "a.txt", FACE * 3, 1),
    "json": (lambda path: read_json(path, "annotation"), "a.json", '[\n"{name}",\n1]\n', 2),
    "cloud": (lambda path: read_pcd(path).tolist(), "a.pcd", PCD, 1),
    "points": (count_pcd, "a.pcd", PCD, None),
    "split": (read_split, "train.txt", "a-b\n{name}\nc-d\n", 2),
}


@pytest.mark.parametrize("reader", READERS)
def test_text_of_every_system_is_read(reader, tmp_path):
    read, name, text, line = READERS[reader]
    path, plain = tmp_path / name, text.replace("{name}", "fuss")
    path.write_text(plain, newline="")
    expected = read(path)
    for mark in (b"", b"\xef\xbb\xbf"):
        for end in ("\n", "\r\n", "\r"):
            if end == "\r" and reader == "points":
                continue  # a header of the last century, which read_pcd reads
            path.write_bytes(mark + plain.replace("\n", end).encode())
            assert read(path) == expected, (mark, end)


@pytest.mark.parametrize("reader", [name for name, row in READERS.items() if row[3] is not None])
def test_other_encodings_are_named_with_their_line(reader, tmp_path):
    read, name, text, line = READERS[reader]
    path = tmp_path / name
    path.write_bytes(text.replace("{name}", "füße").replace("\n", "\r\n").encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{name}: line {line} is not UTF-8 \(byte 0xfc\)$"):
        read(path)
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match=rf"{name}: line 1 is not UTF-8 \(byte 0xff\)$"):
        read(path)


def test_lines_are_counted_as_editors_do(tmp_path):
    """No other separator of Unicode ends a line."""
    (tmp_path / "a.txt").write_text(
        FACE.format(name="a\x85\x0b\u2028b") + FACE.format(name="b") + "c 1 2\n", newline=""
    )
    with pytest.raises(ValueError, match="a.txt: line 1: expected"):
        read_faces(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text(FACE.format(name="a") + "\r\n" + FACE.format(name="b") + "c 1 2\n", newline="")
    with pytest.raises(ValueError, match="a.txt: line 4: expected an image"):
        read_faces(tmp_path / "a.txt")
    assert read_text(tmp_path / "a.txt", "file").count("\n") == 4


def test_broken_json_is_named_with_its_line(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[\r\n1,\r\n2\r\n")
    with pytest.raises(ValueError, match=r"annotation file .*a.json is not valid JSON: .*line 4"):
        read_json(tmp_path / "a.json", "annotation")


def test_a_cloud_is_read_when_it_is_its_turn(tmp_path):
    for name in ("a.pcd", "b.PCD", "c.pcd"):
        (tmp_path / name).write_text(PCD)
    (tmp_path / "d.ply").touch()
    folder = CloudFolder(tmp_path)
    (tmp_path / "a.pcd").write_text(PCD.replace("2 3", "9 9"))
    assert folder[0]["points"].tolist()[0] == [1, 9, 9] and [folder[i]["overlay"] for i in range(3)] == [
        "a.pcd",
        "b.PCD",
        "c.pcd",
    ]
    assert [file.name for file in folder.left_out] == ["d.ply"]


# ---- predictions ----


def test_records_of_parts_are_joined_in_their_order(tmp_path):
    parts = [tmp_path / f"part{k}" for k in range(3)]
    for k, numbers in enumerate(([0, 3, 10], [], [1, 2, 11])):
        file = RecordFile(parts[k])
        for number in numbers:
            file.write(number, {"name": f"a\nü{number}", "x": [number] * 3})
        file.close()
    assert [count_records(part) for part in parts] == [3, 0, 3]
    assert merge_records(parts, tmp_path / "all.json") == 6
    records = json.loads((tmp_path / "all.json").read_text())
    assert records == [{"name": f"a\nü{n}", "x": [n] * 3} for n in (0, 1, 2, 3, 10, 11)]
    assert {*tmp_path.iterdir()} == {tmp_path / "all.json", *parts}
    RecordFile(parts[0]).close()
    assert (
        merge_records(parts[:1], tmp_path / "none.json") == 0 and json.loads((tmp_path / "none.json").read_text()) == []
    )
    RecordFile(parts[0]).discard()
    assert not parts[0].exists()
