"""COCO's metrics against pycocotools' own similarity, NMS by hand, and files nobody can evaluate."""

import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sampling_argmax_cuda.tasks.coco import OKS_SIGMAS
from sampling_argmax_cuda.tasks.data import CocoData
from sampling_argmax_cuda.tasks.evaluation import CocoEvaluation
from sampling_argmax_cuda.tasks.metrics import STATS, coco_results, evaluate_coco, oks, oks_nms, rescore
from sampling_argmax_cuda.tasks.synthetic import write_synthetic_coco


def annotations(people: int = 12, images: int = 3) -> dict:
    """People of random joints, a third of them unlabelled."""
    rng, records = np.random.default_rng(4), []
    for i in range(people):
        box = [float(v) for v in (*rng.uniform(0, 200, 2), *rng.uniform(60, 250, 2))]
        keypoints = np.concatenate([box[:2] + rng.random((17, 2)) * box[2:], rng.integers(0, 3, (17, 1))], 1)
        count = int((keypoints[:, 2] > 0).sum())
        keypoints[keypoints[:, 2] == 0] = 0
        records.append(
            {"id": i + 1, "image_id": i % images + 1, "category_id": 1, "iscrowd": 0, "bbox": box,
             "area": box[2] * box[3] * 0.6, "num_keypoints": count,
             "keypoints": keypoints.reshape(-1).tolist()}
        )  # fmt: skip
    return {"images": [{"id": i + 1} for i in range(images)], "annotations": records,
            "categories": [{"id": 1, "name": "person"}]}  # fmt: skip


def noisy_results(content: dict, noise: float) -> list[dict]:
    rng, people = np.random.default_rng(5), content["annotations"]
    points = np.array([p["keypoints"] for p in people]).reshape(-1, 17, 3)
    points[..., :2] += rng.normal(0, noise, points[..., :2].shape)
    return coco_results([p["image_id"] for p in people], points, rng.random(len(people)), [p["area"] for p in people])


def write(folder: Path, content) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def test_oks_equals_pycocotools(tmp_path):
    content = annotations()
    results = noisy_results(content, 8.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(write(tmp_path, content)))
        theirs = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
        theirs.evaluate()
    pairs = 0
    for (image, category), matrix in theirs.ious.items():
        found = sorted((r for r in results if r["image_id"] == image), key=lambda r: -r["score"])
        for column, person in enumerate(theirs._gts[image, category]):
            target = np.array(person["keypoints"]).reshape(1, 17, 3)
            for row, result in enumerate(found):
                ours = oks(np.array(result["keypoints"]).reshape(1, 17, 3), target, np.array([person["area"]]))[0]
                assert ours == pytest.approx(matrix[row, column], abs=1e-12)
                pairs += 1
    assert pairs == 48


def test_ap_falls_with_noise_and_is_1_without(tmp_path):
    content = annotations()
    path = write(tmp_path, content)
    scores = [evaluate_coco(path, noisy_results(content, noise))["AP"] for noise in (0.0, 10.0, 30.0, 200.0)]
    assert scores[0] == pytest.approx(1.0) and scores == sorted(scores, reverse=True) and scores[-1] < 0.05
    assert evaluate_coco(path, []) == dict.fromkeys(STATS, 0.0)


def test_evaluation_prints_nothing_and_leaves_results_alone(tmp_path, capsys):
    content = annotations()
    results = noisy_results(content, 3.0)
    before = copy.deepcopy(results)
    first = evaluate_coco(write(tmp_path, content), results)
    assert capsys.readouterr().out == "" and results == before
    assert first == evaluate_coco(tmp_path / "annotations.json", results)


@pytest.mark.parametrize("field", ["area", "iscrowd", "num_keypoints", "category_id"])
def test_missing_fields_are_named(tmp_path, field):
    content = annotations()
    results = noisy_results(content, 1.0)
    del content["annotations"][3][field]
    with pytest.raises(ValueError, match=f"annotation 4: field '{field}' is missing"):
        evaluate_coco(write(tmp_path, content), results)


def test_unknown_image_is_named(tmp_path):
    content = annotations()
    results = noisy_results(content, 1.0)
    with pytest.raises(ValueError, match="evaluate: results on image 99, which .* does not have"):
        evaluate_coco(write(tmp_path, content), [*results, {**results[0], "image_id": 99}])
    with pytest.raises(FileNotFoundError, match="annotation file .* does not exist"):
        evaluate_coco(tmp_path / "none.json", results)


def moved(person: dict, similarity: float, score: float) -> dict:
    """The person with every joint moved so far that its OKS to the original is ``similarity``."""
    points = np.array(person["keypoints"]).reshape(17, 3).copy()
    points[:, 0] += 2 * OKS_SIGMAS * np.sqrt(-2 * person["area"] * np.log(similarity))
    return {**person, "keypoints": points.reshape(-1).tolist(), "score": score}


def test_nms_suppresses_above_its_threshold_only():
    best = coco_results([1], np.random.default_rng(0).random((1, 17, 3)) * 90, [0.9], [4000.0])[0]
    above, below = moved(best, 0.91, 0.8), moved(best, 0.89, 0.7)
    assert oks_nms([above, best]) == [best]
    assert oks_nms([below, best]) == [best, below]
    kept = [r["score"] for r in oks_nms([above, best], soft=True)]
    assert kept[0] == 0.9 and kept[-1] == pytest.approx(0.8 * (1 - 0.91), abs=1e-6)
    assert oks_nms([]) == []


def test_nms_compares_with_kept_results_only():
    """b is near a, c is near b but not near a: suppressing b keeps c."""
    a = coco_results([1], np.random.default_rng(0).random((1, 17, 3)) * 90, [0.9], [4000.0])[0]
    b, c = moved(a, 0.92, 0.8), moved(a, 0.75, 0.7)
    assert oks_nms([b, c], 0.9)[0] == b
    assert [r["score"] for r in oks_nms([a, b, c])] == [0.9, 0.7]


def test_rescoring_by_hand():
    scores = np.array([0.2, 0.4, 0.6, 0.0])
    assert rescore(1.0, scores, "sum") == pytest.approx(1.0 + 0.3 + 0.6)
    assert rescore(0.8, scores, "product") == pytest.approx(0.8 * 0.5)  # 0.2 itself does not count


def detection_batch(people, rng):
    """Predictions near the people of image 1, as crops of detections that have no truth, peaks larger where they fit."""
    n, shifts = len(people), rng.permutation(len(people)) * 12.0
    pixels = torch.tensor(np.array([p["keypoints"] for p in people]).reshape(n, 17, 3)[..., :2] + shifts[:, None, None])
    peak = torch.tensor(1 / (1 + shifts))[:, None].expand(n, 17)
    zeros = torch.zeros(n, 17)
    batch = {"index": torch.arange(n), "image_id": torch.tensor([p["image_id"] for p in people]),
             "area": torch.tensor([p["area"] for p in people]), "score": torch.ones(n),
             "target": torch.zeros(n, 17, 2), "weight": zeros}  # fmt: skip
    return batch, torch.zeros(n, 17, 2), peak, pixels, torch.zeros(n, 17, 3)


def test_detections_are_calibrated_against_the_people_they_fit(tmp_path):
    write_synthetic_coco(tmp_path / "drawn", 1, 12)
    file = tmp_path / "drawn" / "annotations" / "person_keypoints_val2017.json"
    people = json.loads(file.read_text())["annotations"]
    evaluation = CocoEvaluation()
    evaluation.add(*detection_batch(people, np.random.default_rng(0)))
    scores = evaluation.compute(file, list)
    assert "error" not in scores and scores["pearson"] > 0.5
    assert not any(value == -1 or np.isnan(value) for value in scores.values())
    areas = [p["area"] for p in people]
    assert ("APl" in scores) == (max(areas) > 96**2) and ("APm" in scores) == any(32**2 < a < 96**2 for a in areas)


def test_the_drawn_detector_has_false_alarms_of_low_score(tmp_path):
    write_synthetic_coco(tmp_path / "drawn", 1, 40)
    people = json.loads((tmp_path / "drawn" / "annotations" / "person_keypoints_val2017.json").read_text())[
        "annotations"
    ]
    boxes = json.loads((tmp_path / "drawn" / "detections_val.json").read_text())
    assert 3 <= len(boxes) - len(people) <= 25
    assert sorted(b["score"] for b in boxes)[len(boxes) - len(people) - 1] <= 0.4 < 0.6
    assert all(b["bbox"][2] > 0 and b["bbox"][0] + b["bbox"][2] <= 161 for b in boxes if b["score"] <= 0.4)


@pytest.mark.parametrize("name, value", [
    ("image_size", (0, 0)), ("image_size", (100, 96)), ("batch_size", 0), ("num_workers", -1), ("scale", 1.0),
    ("rotation", -1.0), ("flip", 1.5), ("half_body", -0.1), ("color", 2.0), ("synthetic_train", 0), ("seed", -1),
])  # fmt: skip
def test_data_arguments_are_checked(name, value):
    with pytest.raises(ValueError, match=f"data: {name} must be"):
        CocoData(**{name: value})
