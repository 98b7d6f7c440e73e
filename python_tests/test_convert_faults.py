"""Exports that cannot be converted: one line says what and where it is, and nothing is written."""

import shutil
from pathlib import Path

import pytest
from labelling import VIDEOS, blank, export_of
from test_convert import convert

from sampling_argmax_cuda.__main__ import main

# What is changed in one of an export's files, and what is said.
CHANGED = {
    "predictions": ("lightning_pose", "*.csv", "coords,x", "coords,likelihood", "these are predictions (they have a likelihood)"),
    "no headers": ("lightning_pose", "*.csv", "bodyparts", "points", "expected rows of headers scorer, individuals"),
    "other headers": ("lightning_pose", "*.csv", "coords,x", "coords,z", "coords must be x and y, got x, y, z"),
    "a word": ("lightning_pose", "*.csv", "img000.png,", "img000.png,a", "CollectedData.csv: line 4: could not convert"),
    "a short row": ("lightning_pose", "*.csv", "img000.png,", "img000.png\n", "line 4 has 1 cells, expected 9"),
    "no JSON": ("label_studio", "*.json", "[{", "[[", "is not valid JSON"),
    "JSON-MIN": ("label_studio", "*.json", '"annotations"', '"kp"', "as Label Studio exports as JSON (not JSON-MIN)"),
    "no image": ("label_studio", "*.json", "img000.png", "img000", "task 1: data must name one image, got {"),
    "no size": ("label_studio", "*.json", '"original_width"', '"width"', "task 1: region p0: field 'original_width' is missing"),
    "no place": ("label_studio", "*.json", '"x"', '"X"', "task 1: region p0: field 'x' is missing"),
    "turned": ("label_studio", "*.json", '"image_rotation": 0', '"image_rotation": 90', "the image was turned by 90 degrees"),
    "no points": ("ultralytics", "data.yaml", "kpt_shape", "shape", "kpt_shape is missing, so that this is no data set of points"),
    "four numbers": ("ultralytics", "data.yaml", "[4, 3]", "[4, 4]", "kpt_shape must be the number of points and 2 or 3"),
    "five points": ("ultralytics", "data.yaml", "[4, 3]", "[5, 3]", "kpt_names must be 5 names"),
    "a wrong mirror": ("ultralytics", "data.yaml", "[0, 1, 3, 2]", "[0, 1, 1, 2]", "flip_idx must be 0 to 3 in the mirror's order"),
    "no images": ("ultralytics", "data.yaml", "images/train", "images/a", "train: no folder and no list of images "),
    "a long line": ("ultralytics", "img000.txt", "0 ", "0 0 ",
                    "img000.txt: line 1: a line must be 17 numbers, got 18 (class, box, and 4 points of 3 numbers)"),
    "pixels": ("ultralytics", "img000.txt", "0 0.", "0 30.", "coordinates must be shares of the image's sides, got 0"),
    "visibility": ("ultralytics", "img000.txt", " 2\n", " 0.9\n", "img000.txt: line 1: visibility must be 0, 1 or 2"),
}  # fmt: skip


def refused(source: Path, folder: Path, capsys, message: str, *more: str) -> None:
    """One line that says the message, and nothing in the folder nor beside it."""
    assert main(["convert", str(source), str(folder / "out" / "data"), *more]) == 1
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("sampling-argmax convert: ") and message in said
    assert not (folder / "out").exists() or not list((folder / "out").iterdir())


@pytest.mark.parametrize("fault", CHANGED)
def test_a_file_that_is_wrong_in_one_place(fault, tmp_path, capsys):
    kind, name, old, new, message = CHANGED[fault]
    source = export_of(kind, tmp_path / "src")
    path = sorted(source.rglob(name))[0]
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    refused(path if name.endswith(("csv", "json", "yaml")) else source, tmp_path, capsys, message)


def test_what_is_no_export(tmp_path, capsys):
    (tmp_path / "src").mkdir()
    image = blank(tmp_path / "src" / "a.png")
    refused(tmp_path / "none", tmp_path, capsys, "none does not exist")
    refused(
        tmp_path / "src",
        tmp_path,
        capsys,
        "must have one export (DeepLabCut's project, .csv or .h5, Lightning Pose's .csv",
    )
    refused(image, tmp_path, capsys, "expected DeepLabCut's project, .csv or .h5, Lightning Pose's .csv")
    for name, message in (("a.h5", "a.h5: no HDF5 file"), ("a.slp", "a.slp: sleap-io cannot read it as SLEAP's file")):
        refused(Path(shutil.copy(image, tmp_path / name)), tmp_path, capsys, message)
    (tmp_path / "project" / "labeled-data").mkdir(parents=True)
    refused(tmp_path / "project", tmp_path, capsys, "no labeled-data/*/CollectedData*.csv nor .h5")
    coco = export_of("coco", tmp_path / "coco") / "train.json"
    refused(coco, tmp_path, capsys, f"is COCO's already: fit --config keypoints --data.root {coco.parent}")


def test_what_is_more_than_one_export(tmp_path, capsys):
    source = export_of("lightning_pose", tmp_path / "src")
    shutil.copy(source / "CollectedData.csv", source / "b.csv")
    refused(source, tmp_path, capsys, "got CollectedData.csv, b.csv; name the file")
    source = export_of("deeplabcut", tmp_path / "src")
    folder = source / "labeled-data" / VIDEOS[0]
    shutil.copy(folder / "CollectedData_me.csv", folder / "CollectedData_you.csv")
    refused(
        source,
        tmp_path,
        capsys,
        f"{folder} has the labels of several people: CollectedData_me.csv, CollectedData_you.csv",
    )


def test_an_image_that_is_cut_off_leaves_nothing(tmp_path, capsys):
    """Half-way through, when others are written."""
    source = export_of("label_studio", tmp_path / "src")
    path = source / "photos" / "img007.png"
    path.write_bytes(path.read_bytes()[:50])
    refused(source, tmp_path, capsys, f"image {path} cannot be read")
    for path in (source / "photos").iterdir():
        path.unlink()
    refused(source, tmp_path, capsys, "has no image with a labelled point")


def test_a_folder_that_is_in_use_stays_as_it_is(tmp_path, capsys):
    source = export_of("label_studio", tmp_path / "src")
    (tmp_path / "out").mkdir()
    assert convert(source, tmp_path / "out")  # an empty one is filled
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for folder in (tmp_path / "out", tmp_path / "out" / "train.json"):
        assert main(["convert", str(source), str(folder)]) == 1
        assert f"{folder} must be a new or an empty folder" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


@pytest.mark.parametrize("more, message", [
    ("--val=1", "--val must be in [0, 1), got 1.0"),
    ("--images=none", "--images none is not a folder"),
    ("--by=person", "--by person needs an export that names every person; --by image"),
    ("--by=video", "--by video needs an export that names every video; --by image"),
])  # fmt: skip
def test_wrong_options(more, message, tmp_path, capsys):
    refused(export_of("label_studio", tmp_path / "src"), tmp_path, capsys, message, more)
    source = export_of("ultralytics", tmp_path / "src")
    refused(source, tmp_path, capsys, "--images is not used with", f"--images={tmp_path}")
