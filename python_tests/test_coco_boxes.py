"""Predictions of a person's own boxes: no annotated people are needed, and every box has its record and its figure."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import runs
from crops import coco_crops
from test_coco_dialects import DOG, PERSON, category, regular

from sampling_argmax_cuda.tasks.coco.task import CocoData
from sampling_argmax_cuda.tasks.keypoints.boxes import read_boxes
from sampling_argmax_cuda.tasks.mpii.task import MpiiData

BOXES = [("a.png", [20, 30, 60.5, 90], 0.75), ("b.png", [5, 5, 200, 100], None), ("a.png", [100, 10, 50, 120], 0.25)]


def listed() -> list[dict]:
    return [
        {"file_name": name, "bbox": box} | ({} if score is None else {"score": score}) for name, box, score in BOXES
    ]


def structured(**more) -> dict:
    """The same as a file like COCO's, without keypoints; with a crowd, which is no person."""
    numbers = {"a.png": 2**60 + 1, "b.png": 0}
    annotations = [{"image_id": numbers[r["file_name"]], "category_id": 3, **r, **more} for r in listed()]
    crowd = {"image_id": 0, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    return {
        "images": [{"id": i, "file_name": name} for name, i in numbers.items()],
        "annotations": [*annotations, crowd],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("boxes")
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(path / name), np.random.default_rng(len(name)).integers(0, 256, (200, 240, 3), np.uint8))
    return path


def written(folder: Path, content) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("content", [listed(), structured()], ids=["list", "structure"])
def test_boxes_are_cropped_as_those_of_training(folder, tmp_path, content):
    path = tmp_path / "people.json"
    named = {"a.png": 1, "b.png": 2}
    people = [{"id": i, "image_id": named[name], "category_id": 1, "bbox": box, "keypoints": [9.0, 9.0, 2.0] * 17}
              for i, (name, box, _) in enumerate(BOXES)]  # fmt: skip
    path.write_text(
        json.dumps({"images": [{"id": i, "file_name": n} for n, i in named.items()], "annotations": people})
    )
    truth = coco_crops(folder, path, folder, image_size=(64, 96), heatmap_size=(16, 24))
    given = written(tmp_path, content)
    data = CocoData(images=str(folder), boxes=str(given), image_size=(64, 96)).to_predict()
    assert len(data) == 3
    ids = {"a.png": 2**60 + 1, "b.png": 0} if isinstance(content, dict) else {"a.png": 0, "b.png": 1}
    for i, (known, instance) in enumerate(((0, 0), (2, 1), (1, 0))):  # those of one image follow one another
        assert all(np.array_equal(data[i][key], truth[known][key]) for key in ("image", "inverse"))
        name, box, score = BOXES[known]
        about = {"file_name": str(folder / name), "image_id": ids[name], "instance": instance}
        assert data.about(i) == about | ({} if score is None else {"box_score": score})
        assert data[i]["index"] == i and data[i]["box"].tolist() == box


def test_figures_of_one_name_do_not_meet(folder, tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/a.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((9, 9, 3), np.uint8))
    boxes = [{"file_name": name, "bbox": [0, 0, 5, 5]} for name in ("a.png", "sub/a.png", "a.png")]
    data = CocoData(images=str(tmp_path), boxes=str(written(tmp_path, boxes))).to_predict()
    assert [data.overlay(i) for i in range(3)] == ["a.png_0", "a.png_1", "a.png_2"]
    assert [Path(data.about(i)["file_name"]).parent.name for i in range(3)] == [tmp_path.name, tmp_path.name, "sub"]
    data = CocoData(images=str(tmp_path / "**" / "*.png")).to_predict()
    assert [data.overlay(i) for i in range(2)] == ["a.png_0", "a.png_1"]


def test_boxes_of_other_categories_are_no_people(folder, tmp_path):
    content = regular()
    category(2, DOG)(content)
    for record in content["annotations"]:
        record.pop("keypoints")
    boxes = read_boxes(written(tmp_path, content), folder, 17)
    people = [r["bbox"] for r in content["annotations"] if r["category_id"] == 2 and not r["iscrowd"]]
    assert [box["box"].tolist() for box in boxes] == people and len(people) == 7


@pytest.mark.parametrize(
    "content, message",
    [
        ([{"bbox": [1, 2, 3, 4]}], "box 0: field 'file_name' is missing"),
        ([{"file_name": "a.png"}], "box 0: field 'bbox' is missing"),
        ([*listed(), {"file_name": "a.png", "bbox": [1, 2, 3]}], "box 3: bbox must be 4 numbers, got 3"),
        ([{"file_name": "a.png", "bbox": [1, 2, 0, 4]}], "box 0: bbox must have a width and a height > 0"),
        (
            [{"file_name": "a.png", "bbox": [1, 2, 3, 4], "score": "high"}],
            "box 0: score must be a finite number, got 'high'",
        ),
        ([7], "box 0: field 'file_name' is missing"),
        ([], "no box of a person"),
        (structured(image_id=5), "annotation 0: no image 5"),
        (structured(iscrowd=1), "no box of a person"),
        (
            {**structured(), "categories": [DOG, {**PERSON, "id": 2, "name": "cat"}]},
            "one category must be named person",
        ),
    ],
)
def test_malformed_boxes_are_named(folder, tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=message) as error:
        read_boxes(path, folder, 17)
    assert str(path) in str(error.value)


def test_missing_files_of_boxes_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"c.png does not exist \(.*boxes.json: box 0\)"):
        read_boxes(written(tmp_path, [{"file_name": "c.png", "bbox": [1, 2, 3, 4]}]), folder, 17)
    with pytest.raises(FileNotFoundError, match="box file .*none.json does not exist"):
        read_boxes(tmp_path / "none.json", folder, 17)


@pytest.mark.parametrize("data", [CocoData, MpiiData])
def test_boxes_are_an_option_of_predict(folder, tmp_path, data):
    path = str(written(tmp_path, listed()))
    assert len(data(images=str(folder), boxes=path).to_predict()) == 3
    assert len(data(images=str(folder)).to_predict()) == 2
    with pytest.raises(ValueError, match="predict: --data.images must name a folder of images, a glob, a list"):
        data(boxes=path).to_predict()


@pytest.mark.written_memory
def test_predict_of_boxes(folder, tmp_path):
    """Through the real command, and without a file of annotations."""
    given = (f"--data.images={folder}", f"--data.boxes={written(tmp_path, listed())}", "--data.synthetic=false")
    assert runs.run("visualize", *runs.small("coco", tmp_path / "none", tmp_path / "run", *given)) == 0
    records = json.loads((tmp_path / "run" / "predictions.json").read_text())
    assert [(Path(r["file_name"]).name, r["box"], r.get("box_score")) for r in records] == [BOXES[i] for i in (0, 2, 1)]
    assert all(len(r["keypoints"]) == 51 for r in records) and records[0]["keypoints"] != records[1]["keypoints"]
    drawn = {path.name for path in (tmp_path / "run" / "predictions").iterdir()}
    assert drawn == {f"{name}{end}.png" for name in ("a.png_0", "b.png_0", "a.png_1") for end in ("", "_maps")}
