"""What COCO's files cannot say is refused by name; regular files have pycocotools' own numbers; a file is parsed once."""

import contextlib
import copy
import io
import json
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import runs
from crops import coco_crops
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_coco_dialects import (
    DOG,
    PERSON,
    SIZE,
    annotation_ids,
    assert_perfect,
    category,
    exported,
    image_ids,
    no_categories,
    of_all,
    of_one,
    person,
    regular,
    validated,
    without,
    write,
)

from sampling_argmax_cuda.tasks.associative.reader import CocoImages
from sampling_argmax_cuda.tasks.coco.reader import read_annotations
from sampling_argmax_cuda.tasks.coco.synthetic import write_synthetic_coco
from sampling_argmax_cuda.tasks.keypoints.annotations import person_category
from sampling_argmax_cuda.tasks.keypoints.oks import STATS, coco_results, evaluate_coco

REAL = os.environ.get("SAMPLING_ARGMAX_DATA")


# ---- what a file cannot say is refused, and what cannot be cropped is nowhere ----


def renamed(content: dict) -> None:
    content["images"].append({**content["images"][0], "file_name": "b.png"})


def two_kinds(content: dict) -> None:
    category(2, DOG, name="cat")(content)


def two_people(content: dict) -> None:
    category(2, {**PERSON, "id": 1})(content)


def two_of_one_id(content: dict) -> None:
    content["categories"].append(DOG)


def several_without_a_list(content: dict) -> None:
    no_categories(content)
    content["annotations"][0]["category_id"] = 4


def sides_swapped(content: dict) -> None:
    names = content["categories"][0]["keypoints"]
    names[1], names[2] = names[2], names[1]


REFUSED = [
    (renamed, "two images have the id 1: file_name 'a.png' and 'b.png'"),
    (two_kinds, r"must be named person, or have 17 keypoints alone, got 1 \(dog, 17 keypoints\), 2 \(cat, 17 keypoints\)"),
    (two_people, r"got 1 \(person, 17 keypoints\), 2 \(person, 17 keypoints\)"),
    (two_of_one_id, "two categories have the id 1: 'person' and 'dog'"),
    (several_without_a_list, r"got 4 \(no name, 17 keypoints\), 1 \(no name, 17 keypoints\)"),
    (sides_swapped, "category 1: keypoints must be in this order: 17"),
    (of_all("category_id", 0), r"no annotation has keypoints \(of category 1; left out: {'of other categories': 8}\)"),
    (of_all("category_id", " "), "category_id must be an integer, got ' '"),
    (of_all("iscrowd", "0"), "annotation 1: iscrowd must be 0 or 1, got '0'"),
    (annotation_ids(lambda i: i + 0.5), "id must be an integer, got 1.5"),
    (image_ids(lambda i: 2.0**54 + i), r"id must be an integer, got 1.8\d*e\+16"),
    (image_ids(lambda i: i > 1), "id must be an integer, got False"),
    (of_one("image_id", 77), "no image 77"),
    (without("id"), "field 'id' is missing"),
    (lambda content: content.update(annotations=[7]), "an annotation must be an object, got 7"),
    (lambda content: content.update(categories=[7]), "a category: field 'id' is missing"),
    (lambda content: content["images"][0].update(width="240"), "image 1: width must be an integer, got '240'"),
]  # fmt: skip


@pytest.mark.parametrize("change, message", REFUSED)
def test_what_cannot_be_read_is_refused(tmp_path, change, message):
    content = regular()
    change(content)
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("order", [1, -1])
def test_points_of_a_category_are_those_of_any_annotation(order):
    """Boxes to predict on may be without points, of people too."""
    listed = [{"category_id": 1, "keypoints": [0] * 51}, {"category_id": 1}, {"category_id": 2}]
    assert person_category({"annotations": listed[::order]}, 17, "here") == 1


def test_who_cannot_be_cropped_is_not_scored(tmp_path, capsys):
    """One labelled joint and no box: neither a crop nor a truth, and one line that says so. Other categories are counted too."""
    content = regular()
    lone = np.zeros((17, 3))
    lone[4] = 30, 40, 2
    content["annotations"][0] |= {"keypoints": lone.ravel().tolist(), "bbox": [30, 40, 0, 0]}
    del content["annotations"][7]["bbox"]
    content["annotations"] += [person(9, 3, category_id=18), copy.deepcopy(content["annotations"][1])]
    path = write(tmp_path, content)
    data = coco_crops(tmp_path, path, tmp_path)
    assert [p["annotation_id"] for p in data.records] == [2, 3, 4, 5, 6]
    told = f"{path}: 6 annotations of category 1 are read; left out are 1 listed again, 1 of other categories, 2 without a box\n"
    assert capsys.readouterr().out == told
    points = np.stack([p["keypoints"] for p in data.records])
    found = coco_results([p["image_id"] for p in data.records], points, np.ones(5), np.ones(5))
    assert_perfect(evaluate_coco(data.truth, found))


def test_predictions_that_are_not_finite_find_nobody(tmp_path):
    """pycocotools takes a NaN for a match, and a network that has diverged would score best."""
    path, _ = exported(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    data = coco_crops(tmp_path, path, tmp_path, image_size=(48, 64), heatmap_size=(12, 16))
    for lost, recall in ((0, 1.0), (3, 0.5), (6, 0.0)):
        evaluation = validated(data)
        for record in evaluation.records[:lost]:
            record["pixels"][2] = np.nan
        scores = evaluation.compute(list, data)
        assert scores["AR"] == pytest.approx(recall) and len(evaluation.results) == 6 - lost


def test_segmentations_are_checked_at_once(tmp_path):
    wrong = {
        "a segmentation is of (30, 20), but the image of (240, 200)": {"size": [20, 30], "counts": [600]},
        "counts must be a list or a string, got int": {"size": [200, 240], "counts": 3},
        "segmentation must be polygons or run lengths, got str": "all",
        "a polygon must be a list of x and y in turns, got [1, 2, 3]": [[1, 2, 3]],
        "a polygon holds a number that is not finite": [[1, 2, 3, float("nan")]],
    }
    for message, segmentation in wrong.items():
        content = regular()
        content["annotations"][6]["segmentation"] = segmentation
        with pytest.raises(ValueError) as error:
            CocoImages(tmp_path, write(tmp_path, content), tmp_path, False, (64, 64), (16, 16))
        assert str(error.value).endswith(f"annotation 7: {message}")
    content = regular()
    del content["images"][1]["width"]
    with pytest.raises(ValueError, match="image 2: field 'width' is missing"):
        CocoImages(tmp_path, write(tmp_path, content), tmp_path, False, (64, 64), (16, 16))


# ---- detections ----


def detection(image, kind, **more) -> dict:
    return {"image_id": image, "category_id": kind, "bbox": [1, 1, 90, 90], "score": 0.5, **more}


@pytest.mark.parametrize("key", [0, 1, 2, 90])
@pytest.mark.parametrize("large", [0, 2**53, 2**64])
def test_detections_are_of_the_annotations_category(tmp_path, key, large):
    content = regular()
    category(key)(content)
    image_ids(lambda i: large + i)(content)
    boxes = tmp_path / "boxes.json"
    listed = [
        detection(large + 1, key),
        detection(large + 2, key + 1),
        detection(large + 9, key),
        detection(large + 3, float(key)),
    ]
    boxes.write_text(json.dumps(listed))
    data = coco_crops(tmp_path, write(tmp_path, content), tmp_path, boxes=str(boxes))
    assert [p["image_id"] for p in data.records] == [large + 1, large + 3]
    boxes.write_text(json.dumps([detection(large + 1, key + 1), detection(large + 1, key + 3)]))
    with pytest.raises(ValueError, match=rf"whose category is {key}; the detections' are \[{key + 1}, {key + 3}\]"):
        coco_crops(tmp_path, write(tmp_path, content), tmp_path, boxes=str(boxes))


@pytest.mark.parametrize("image", [1.5, 2.0**54, " ", True, None])
def test_detections_of_images_without_an_exact_id_are_refused(tmp_path, image):
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([detection(image, 1)]))
    with pytest.raises(ValueError, match="detection 0: image_id must be an integer"):
        coco_crops(tmp_path, write(tmp_path, regular()), tmp_path, boxes=str(boxes))


# ---- regular files have the official numbers ----


def official(path: Path, results: list[dict]) -> dict[str, float]:
    """pycocotools' numbers of the file itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(STATS, evaluation.stats.tolist(), strict=True))


def noisy(path: Path, noise: float) -> list[dict]:
    """Every annotated person moved, some found twice, and some of the crowds and of those without points found as well."""
    content, rng = json.loads(path.read_text()), np.random.default_rng(1)
    results = []
    for record in content["annotations"]:
        joints = np.array(record["keypoints"], float).reshape(17, 3)
        x, y, w, h = record["bbox"]
        joints[joints[:, 2] == 0, :2] = np.array([x, y]) + rng.random(((joints[:, 2] == 0).sum(), 2)) * [w, h]
        for _ in range(rng.integers(1, 3)):
            moved = joints + [1, 1, 0] * rng.normal(0, noise, (17, 3))
            results += coco_results([record["image_id"]], moved[None], [round(rng.random(), 1)], [w * h])
    return results


def with_crowds(path: Path) -> None:
    content = json.loads(path.read_text())
    content["images"].reverse()  # between equal scores the order of the ids decides
    for i, record in enumerate(content["annotations"]):
        if i % 4 == 0:
            record |= {"iscrowd": int(i % 8 == 0), "keypoints": [0] * 51, "num_keypoints": 0}
    path.write_text(json.dumps(content))


def test_regular_files_have_the_official_numbers(tmp_path):
    write_synthetic_coco(tmp_path / "coco", 1, 24, seed=2, pairs=0.8)
    files = [tmp_path / "coco" / "annotations" / "person_keypoints_val2017.json"]
    with_crowds(files[0])
    if REAL is not None:
        files.append(Path(REAL) / "coco" / "annotations" / "person_keypoints_val2017.json")
    for path in files:
        for noise in (0.0, 2.0, 6.0):
            results = noisy(path, noise)
            theirs = official(path, results)
            assert evaluate_coco(read_annotations(path), results) == theirs and 0 < theirs["AP"] < 1


# ---- a file is parsed once ----


@pytest.mark.written_memory
@pytest.mark.parametrize("task", ["coco", "associative"])
def test_a_run_parses_each_split_once(task, tmp_path, monkeypatch):
    """Two epochs with a validation each, through the real command."""
    parsed, loads = Counter(), json.loads

    def counted(text, *args, **options):
        content = loads(text, *args, **options)
        if isinstance(content, dict) and "annotations" in content:
            parsed[len(content["images"])] += 1
        return content

    monkeypatch.setattr(json, "loads", counted)
    small = ("--data.synthetic_train=4", "--data.synthetic_val=2", "--data.batch_size=2", "--trainer.max_epochs=2")
    assert runs.main(["fit", *runs.small(task, tmp_path / "data", tmp_path / "run", *small)]) == 0
    assert parsed == {4: 1, 2: 1}
