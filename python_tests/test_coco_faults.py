"""Wrong files and wrong arguments of COCO's data: every fault is named with its place, and at once."""

import inspect
import json
import re

import numpy as np
import pytest
from crops import coco_crops
from test_coco_data import DETECTION, IMAGE, PERSON, write

from sampling_argmax_cuda.tasks.coco.task import CocoData, CocoFiles
from sampling_argmax_cuda.trainers.data import LandmarkData, TaskData
from sampling_argmax_cuda.trainers.sources import find_source

MISSING = object()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"area": None}, "annotation 5: area must be a finite number, got None"),
        ({"area": float("nan")}, "annotation 5: area must be a finite number, got nan"),
        ({"image_id": [1]}, r"annotation 5: image_id must be an integer, got \[1\]"),
        ({"id": " "}, "id must be an integer, got ' '"),
        ({"keypoints": [1.0, 1.0, 7.0] * 17}, "annotation 5: visibility must be 0, 1 or 2"),
        ({"keypoints": [1.0] * 50}, "annotation 5: keypoints must be 51 numbers, got 50"),
        ({"keypoints": [float("nan")] * 51}, "annotation 5: keypoints holds a number that is not finite"),
        ({"keypoints": MISSING}, "annotation 5: field 'keypoints' is missing"),
        ({"keypoints": [0.0] * 51}, "no annotation has keypoints"),
        ({"iscrowd": 1}, "no annotation has keypoints"),
        ({"bbox": [1, 2, 3]}, "annotation 5: bbox must be 4 numbers, got 3"),
        ({"bbox": "box"}, "annotation 5: bbox must be 4 numbers, got 'box'"),
        ({"image_id": 9}, "annotation 5: no image 9"),
    ],
)
def test_malformed_people_are_named(tmp_path, change, message):
    person = {key: value for key, value in {**PERSON, **change}.items() if value is not MISSING}
    path = write(tmp_path, [person])
    with pytest.raises(ValueError, match=message) as error:
        coco_crops(tmp_path, path, tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"images": [IMAGE], "annotations": 3}, "annotations must be a list, got int"),
        ({"images": {"id": 1}, "annotations": [PERSON]}, "images must be a list, got dict"),
        ({"images": [{"id": [1]}], "annotations": [PERSON]}, "an image: id must be an integer"),
        ([1], "field 'images' is missing"),
        ("{", "is not valid JSON"),
    ],
)
def test_malformed_structure_is_named(tmp_path, content, message):
    path = tmp_path / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        coco_crops(tmp_path, path, tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content, message",
    [
        ([{**DETECTION, "score": None}], "detection 0: score must be a finite number, got None"),
        ([{**DETECTION, "score": float("nan")}], "detection 0: score must be a finite number, got nan"),
        ([{**DETECTION, "image_id": [1]}], "detection 0: image_id must be an integer"),
        ([{**DETECTION, "bbox": [1, 2]}], "detection 0: bbox must be 4 numbers, got 2"),
        ([{**DETECTION, "bbox": [1, 2, float("inf"), 3]}], "detection 0: bbox holds a number that is not finite"),
        ({}, "detections must be a list, got dict"),
        ([], "no detection of a person on the annotated images"),
        ([{**DETECTION, "category_id": 2}], "no detection of a person on the annotated images"),
    ],
)
def test_malformed_detections_are_named(tmp_path, content, message):
    boxes = tmp_path / "detections.json"
    boxes.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        coco_crops(tmp_path, write(tmp_path), tmp_path, boxes=str(boxes))
    assert str(boxes) in str(error.value)


WRONG = [
    ("image_size", (0, 0), "two positive multiples of 32 (width and height in pixels), got (0, 0)"),
    ("image_size", (-32, 64), "two positive multiples of 32"), ("image_size", (100, 96), "two positive multiples of 32"),
    ("image_size", (64,), "two positive multiples of 32"), ("image_size", 64, "two positive multiples of 32"),
    ("image_size", (64.0, 64.0), "two positive multiples of 32"),
    ("batch_size", 0, "an integer >= 1, got 0"), ("batch_size", 1.5, "an integer >= 1, got 1.5"),
    ("batch_size", True, "an integer >= 1, got True"), ("num_workers", -1, "an integer >= 0, got -1"),
    ("train_samples", 0, "an integer >= 1, got 0"), ("stride", 0, "an integer >= 1, got 0"),
    ("synthetic_train", 0, "an integer >= 1, got 0"), ("synthetic_val", 0, "an integer >= 1, got 0"),
    ("seed", -1, "an integer >= 0, got -1"), ("scale", -0.1, "a number in [0, 1), got -0.1"),
    ("scale", 1.0, "a number in [0, 1), got 1.0"), ("rotation", -1.0, "a number in [0, 180], got -1.0"),
    ("rotation", 181.0, "a number in [0, 180], got 181.0"), ("flip", 1.5, "a number in [0, 1], got 1.5"),
    ("flip", float("nan"), "a number in [0, 1], got nan"), ("flip", "often", "a number in [0, 1], got 'often'"),
    ("half_body", -0.1, "a number in [0, 1], got -0.1"), ("color", 2.0, "a number in [0, 1], got 2.0"),
    ("synthetic", "yes", "true or false, got 'yes'"), ("root", "", "a path or name that is not empty, got ''"),
    ("train_split", "", "a path or name that is not empty"), ("val_split", None, "a path or name that is not empty"),
    ("boxes", None, "a path or name that is not empty, got None"), ("images", " ", "a path or name that is not empty"),
]  # fmt: skip


@pytest.mark.parametrize("name, value, expected", WRONG)
def test_wrong_arguments_are_named_at_once(name, value, expected):
    with pytest.raises(ValueError, match=re.escape(f"data: {name} must be {expected}")):
        CocoData(**{name: value})


def test_every_argument_has_its_check():
    owners = (CocoData, CocoFiles, LandmarkData, TaskData)
    parameters = {name for owner in owners for name in inspect.signature(owner).parameters} - {"kwargs"}
    assert parameters == {name for name, _, _ in WRONG}
    CocoData(scale=0, rotation=180, flip=1, half_body=1, color=1, num_workers=0, image_size=[32, 32], batch_size=1)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="annotation file .*none.json does not exist"):
        coco_crops(tmp_path, tmp_path / "none.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        find_source(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no image"):
        find_source(tmp_path)


def test_bad_images_are_named_with_their_record(tmp_path):
    path = write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"a.png does not exist \(image 1 of .*annotations.json\)"):
        coco_crops(tmp_path, path, tmp_path)[0]
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a.png cannot be read \(image 1 of .*annotations.json\)"):
        coco_crops(tmp_path, path, tmp_path)[0]
    write(tmp_path, picture=np.zeros((100, 120, 3), np.uint8))
    with pytest.raises(ValueError, match="a.png is 120x100, but image 1 of .* is 240x200"):
        coco_crops(tmp_path, path, tmp_path)[0]
    with pytest.raises(ValueError, match="image 1: fields 'file_name' and 'coco_url' are missing"):
        coco_crops(tmp_path, write(tmp_path, images=[{"id": 1}]), tmp_path)[0]
    with pytest.raises(ValueError, match="data: seed must be >= 0, got -1"):
        coco_crops(tmp_path, path, tmp_path, seed=-1)
