"""Synthetic people: stable by seed and place, true visibility, told-apart sides, written whole or not at all."""

import hashlib
import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from sampling_argmax_cuda.tasks.coco import synthetic
from sampling_argmax_cuda.tasks.coco.reader import PERSON
from sampling_argmax_cuda.tasks.coco.synthetic import cover, draw_image, paint_figure, write_synthetic_coco
from sampling_argmax_cuda.trainers.synthetic import LEFT, RIGHT


def pixels(root: Path, split: str) -> list[str]:
    files = sorted((root / f"{split}2017").iterdir())
    return [hashlib.sha256(cv2.imread(str(file)).tobytes()).hexdigest() for file in files]


def content(root: Path, split: str) -> dict:
    return json.loads((root / "annotations" / f"person_keypoints_{split}2017.json").read_text())


def test_an_image_depends_on_seed_split_and_number_only(tmp_path):
    few, many, other = tmp_path / "few", tmp_path / "many", tmp_path / "other"
    write_synthetic_coco(few, 4, 3, seed=1)
    write_synthetic_coco(many, 9, 3, seed=1)
    write_synthetic_coco(other, 4, 3, seed=2)
    assert pixels(few, "train") == pixels(many, "train")[:4] and pixels(few, "val") == pixels(many, "val")
    everything = [h for root in (many, other) for split in ("train", "val") for h in pixels(root, split)]
    assert len(set(everything)) == len(everything) == 19


def test_files_have_cocos_fields(tmp_path):
    write_synthetic_coco(tmp_path / "d", 6, 6, image_size=96)
    data = content(tmp_path / "d", "val")
    assert data["categories"][0]["keypoints"] == list(PERSON.names) and len(data["images"]) == 6
    for record in data["annotations"]:
        points = np.array(record["keypoints"]).reshape(17, 3)
        assert {"id", "image_id", "category_id", "iscrowd", "bbox", "area", "num_keypoints"} <= record.keys()
        assert record["num_keypoints"] == (points[:, 2] > 0).sum() and set(points[:, 2]) <= {0, 1, 2}
        assert (points[points[:, 2] == 0] == 0).all() and record["area"] > 0
        x, y, w, h = record["bbox"]
        seen = points[points[:, 2] > 0, :2]
        assert (seen >= (x, y)).all() and (seen <= (x + w, y + h)).all()
        assert (seen >= 0).all() and (seen <= 95).all()
    boxes = json.loads((tmp_path / "d" / "detections_val.json").read_text())
    assert all(0 < box["score"] <= 1 for box in boxes)
    assert sum(box["score"] > 0.5 for box in boxes) == len(data["annotations"])


def test_files_are_stable_and_whole(tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    for root in (first, again):
        write_synthetic_coco(root, 12, 6, seed=3)
    names = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(names) == 12 + 6 + 5 and all((first / n).read_bytes() == (again / n).read_bytes() for n in names)
    with pytest.raises(ValueError, match="holds other files"):
        write_synthetic_coco(again, 13, 6, seed=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "first"]
    points = [r["keypoints"] for split in ("train", "val") for r in content(first, split)["annotations"]]
    visibility = np.array(points).reshape(-1, 3)[:, 2]
    assert (visibility == 2).mean() > 0.8 and (visibility == 1).any()


def test_the_detector_has_false_alarms_of_low_score(tmp_path):
    """Each is the one box of its image that is on nobody, and scores less than every person."""
    write_synthetic_coco(tmp_path / "d", 1, 60, seed=1)
    people = content(tmp_path / "d", "val")["annotations"]
    boxes = json.loads((tmp_path / "d" / "detections_val.json").read_text())
    alarms = [box for box in boxes if box["score"] < 0.5]
    assert len(boxes) - len(alarms) == len(people) and 8 <= len(alarms) <= 40
    assert all(0 < alarm["score"] <= 0.4 for alarm in alarms)
    assert len({alarm["image_id"] for alarm in alarms}) == len(alarms)
    for alarm in alarms:
        x, y, w, h = alarm["bbox"]
        assert x >= 0 and y >= 0 and w > 0 and h > 0 and max(x + w, y + h) <= 160.01
        for person in people:
            if person["image_id"] == alarm["image_id"]:
                assert iou(alarm["bbox"], person["bbox"]) < 0.3


def iou(a, b) -> float:
    """Intersection over union of two boxes x, y, w, h."""
    common = [max(0.0, min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    return common[0] * common[1] / (a[2] * a[3] + b[2] * b[3] - common[0] * common[1])


def test_heads_have_the_colour_of_skin():
    """In the file as a viewer sees it: red over green over blue, at the brow, above the eyes' markers."""
    for i in range(20):
        image = np.zeros((200, 200, 3), np.uint8)
        joints = np.full((17, 2), 190.0)
        joints[:5] = [[100, 60], [106, 56], [94, 56], [112, 60], [88, 60]]
        paint_figure(image, joints, 160.0, np.random.default_rng(i))
        red, green, blue = (int(v) for v in cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[51, 100])
        assert red > 195 and red > green - 20 and red > blue + 10, (red, green, blue)


def test_sides_have_their_colours():
    """The colour under a visible joint says its side, so a mirror must swap the pairs."""
    right_answers = []
    for i in range(40):
        image, people = draw_image(160, np.random.default_rng(i))
        for joint in (joint for pair in PERSON.pairs[2:] for joint in pair):
            x, y, v = people[-1][joint]
            if v == 2:
                color = image[int(round(y)), int(round(x))].astype(float)
                left = np.abs(color - LEFT).sum() < np.abs(color - RIGHT).sum()
                right_answers.append(left == PERSON.names[joint].startswith("left"))
    assert len(right_answers) > 300 and np.mean(right_answers) > 0.97


def test_covered_joints_become_occluded():
    joints = np.array([[2.0, 3.0, 2.0], [7.0, 7.0, 2.0], [2.0, 3.0, 0.0]])
    mask = np.zeros((10, 10), bool)
    mask[3, 2] = True
    cover([joints], mask)
    assert joints[:, 2].tolist() == [1, 2, 0]


def test_a_person_in_front_hides_the_one_behind():
    """A joint that counts as visible shows its own marker, also where two people overlap."""
    overlaps, wrong = 0, 0
    for i in range(300):
        image, people = draw_image(160, np.random.default_rng(i))
        if len(people) == 1:
            continue
        overlaps += (people[0][:, 2] == 1).any()
        for x, y, v in people[0][5:]:
            if v == 2:
                color = image[int(round(y)), int(round(x))].astype(float)
                wrong += min(np.abs(color - side).max() for side in (LEFT, RIGHT)) > 60
    assert overlaps > 10 and wrong <= 5


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)
    with pytest.raises(OSError, match="synthetic data: cannot write 000000000001.png of train2017"):
        write_synthetic_coco(tmp_path / "d", 2, 2)
    assert list(tmp_path.iterdir()) == []


def test_the_same_data_written_twice_at_once_is_kept(tmp_path, monkeypatch):
    replace, root = os.replace, tmp_path / "d"

    def late(source, target):
        monkeypatch.setattr(os, "replace", replace)
        write_synthetic_coco(root, 2, 2)
        replace(source, target)

    monkeypatch.setattr(os, "replace", late)
    write_synthetic_coco(root, 2, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["d"] and len(pixels(root, "train")) == 2


def test_finished_data_is_reused(tmp_path, monkeypatch):
    write_synthetic_coco(tmp_path / "d", 2, 2)
    monkeypatch.setattr(synthetic, "draw_image", None)
    write_synthetic_coco(tmp_path / "d", 2, 2)
    (tmp_path / "d" / "synthetic.json").write_text("{")
    with pytest.raises(ValueError, match="synthetic data file .*synthetic.json is not valid JSON"):
        write_synthetic_coco(tmp_path / "d", 2, 2)
    with pytest.raises(ValueError, match="needs images of each split and image_size >= 64"):
        write_synthetic_coco(tmp_path / "e", 0, 2)


def test_drawing_is_fast():
    times = []
    for i in range(30):
        start = time.perf_counter()
        draw_image(160, np.random.default_rng(i))
        times.append(time.perf_counter() - start)
    assert sorted(times)[15] < 0.010
