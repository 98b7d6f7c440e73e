"""COCO's metrics against pycocotools' own similarity, NMS by hand, and files nobody can evaluate."""

import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from crops import coco_crops
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sampling_argmax_cuda.tasks.coco.reader import PERSON, read_annotations
from sampling_argmax_cuda.tasks.keypoints.oks import (
    STATS,
    CocoEvaluation,
    coco_results,
    evaluate_coco,
    oks,
    oks_nms,
    pearson,
    rescore,
)


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
    assert oks(np.ones((2, 17, 2)), np.zeros((2, 17, 3)), np.full(2, 9.0)).tolist() == [0, 0]


def test_oks_of_an_area_of_0():
    """Nothing is near enough but the truth itself, and nothing divides by 0."""
    found, truth = np.zeros((3, 17, 2)), np.concatenate([np.zeros((3, 17, 2)), np.ones((3, 17, 1))], -1)
    found[1, 0], found[2] = 1e-3, 1e5
    assert oks(found, truth, np.zeros(3)).tolist() == [1, 16 / 17, 0]


def test_ap_falls_with_noise_and_is_1_without(tmp_path):
    content = annotations()
    truth = read_annotations(write(tmp_path, content))
    scores = [evaluate_coco(truth, noisy_results(content, noise))["AP"] for noise in (0.0, 10.0, 30.0, 200.0)]
    assert scores[0] == pytest.approx(1.0) and scores == sorted(scores, reverse=True) and scores[-1] < 0.05
    assert evaluate_coco(truth, []) == dict.fromkeys(STATS, 0.0)


def test_evaluation_prints_nothing_and_leaves_results_alone(tmp_path, capsys):
    content = annotations()
    results = noisy_results(content, 3.0)
    before, truth = copy.deepcopy(results), read_annotations(write(tmp_path, content))
    first = evaluate_coco(truth, results)
    assert capsys.readouterr().out == "" and results == before
    assert first == evaluate_coco(truth, results)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_id": 99}, "evaluate: results on image 99, which .* does not have"),
        ({"score": np.nan}, "evaluate: a result on image 1 holds a number that is not finite"),
        ({"keypoints": [np.inf] * 51}, "evaluate: a result on image 1 holds a number that is not finite"),
    ],
)
def test_results_that_pycocotools_would_misread_are_named(tmp_path, change, message):
    content = annotations()
    results = noisy_results(content, 1.0)
    with pytest.raises(ValueError, match=message):
        evaluate_coco(read_annotations(write(tmp_path, content)), [*results, {**results[0], **change}])


def test_what_is_not_finite_is_no_result():
    keypoints = np.ones((3, 17, 3))
    keypoints[1, 5, 0] = np.nan
    assert [r["image_id"] for r in coco_results([1, 2, 3], keypoints, [1.0, 1.0, np.nan], np.ones(3))] == [1]


def moved(person: dict, similarity: float, score: float) -> dict:
    """The person with every joint moved so far that its OKS to the original is ``similarity``."""
    points = np.array(person["keypoints"]).reshape(17, 3).copy()
    points[:, 0] += 2 * np.array(PERSON.sigmas) * np.sqrt(-2 * person["area"] * np.log(similarity))
    return {**person, "keypoints": points.reshape(-1).tolist(), "score": score}


def test_nms_suppresses_above_its_threshold_only():
    best = coco_results([1], np.random.default_rng(0).random((1, 17, 3)) * 90, [0.9], [4000.0])[0]
    above, below = moved(best, 0.91, 0.8), moved(best, 0.89, 0.7)
    assert oks_nms([above, best]) == [best]
    assert oks_nms([below, best]) == [best, below]
    kept = [r["score"] for r in oks_nms([above, best], soft=True)]
    assert kept == [0.9, pytest.approx(0.8 * (1 - 0.91), abs=1e-6)] and above["score"] == 0.8
    assert oks_nms([below, best], soft=True) == [best, below]
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
    assert rescore(0.5, np.array([0.1, 0.2]), "product") == 0
    with pytest.raises(ValueError, match="rule must be sum or product"):
        rescore(0.5, np.array([0.1]), "mean")


def test_pearson():
    a, b = np.random.default_rng(0).normal(size=(2, 100_000))
    assert pearson(a, 0.6 * a + 0.8 * b) == pytest.approx(0.6, abs=0.01)
    assert np.isnan(pearson(np.ones(3), np.arange(3))) and np.isnan(pearson([1.0], [1.0]))


def batch_of(content: dict, shift: np.ndarray, truth: np.ndarray):
    """The arguments of ``CocoEvaluation.add``: people moved by ``shift [n]`` pixels, of which ``truth [n]`` have a truth.

    A cell is 4 pixels; peaks are larger where predictions fit. Boxes are larger than the annotated areas.
    """
    points = torch.tensor([p["keypoints"] for p in content["annotations"]]).view(-1, 17, 3)
    moved, n = points[..., :2] + torch.tensor(shift)[:, None, None], len(points)
    weight = (points[..., 2] > 0) & torch.tensor(truth)[:, None]
    peak = torch.tensor(1 / (1 + shift))[:, None].expand(n, 17)
    batch = {"index": torch.arange(n), "target": points[..., :2] / 4, "weight": weight}
    return batch, moved / 4, peak, moved, torch.cat([points[..., :2], weight[..., None]], -1)


def evaluate(content: dict, folder: Path, shift: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    evaluation = CocoEvaluation()
    evaluation.add(*batch_of(content, shift, truth))
    data = coco_crops(folder, write(folder, content), folder)
    data.records = [{**person, "area": person["area"] / 0.6} for person in data.records]
    return evaluation.compute(list, data)


def test_error_and_correlation_are_over_the_people_with_a_truth(tmp_path):
    content, shift = annotations(), np.linspace(0, 22, 12)
    truth = np.arange(12) % 3 > 0
    scores = evaluate(content, tmp_path, shift, truth)
    assert scores["error"] == pytest.approx(np.sqrt(2) / 4 * shift[truth].mean())
    weight = batch_of(content, shift, truth)[0]["weight"].numpy()
    assert scores["bias"] == pytest.approx(np.sqrt(2) / 4 * np.median(np.repeat(shift, weight.sum(1))))
    points = np.array([p["keypoints"] for p in content["annotations"]]).reshape(-1, 17, 3)
    moved, areas = points + shift[:, None, None] * [1, 1, 0], np.array([p["area"] for p in content["annotations"]])
    similarity = oks(moved[truth], points[truth], areas[truth])
    assert scores["pearson"] == pytest.approx(np.corrcoef(1 / (1 + shift[truth]), similarity)[0, 1])


@pytest.mark.parametrize("known, logged", [(0, set()), (1, {"error", "bias"}), (2, {"error", "bias", "pearson"})])
def test_what_nobody_matches_is_left_out(tmp_path, known, logged):
    scores = evaluate(annotations(), tmp_path, np.linspace(0, 22, 12), np.arange(12) < known)
    assert scores.keys() & {"error", "bias", "pearson"} == logged and np.isfinite(list(scores.values())).all()


@pytest.mark.parametrize("areas, absent", [
    ((40.0**2, 90.0**2), {"APl", "ARl"}), ((100.0**2, 200.0**2), {"APm", "ARm"}), ((40.0**2, 100.0**2), set()),
])  # fmt: skip
def test_sizes_that_nobody_has_are_left_out(tmp_path, areas, absent):
    content = annotations()
    for i, person in enumerate(content["annotations"]):
        person["area"] = areas[i % 2]
    scores = evaluate(content, tmp_path, np.zeros(12), np.ones(12, bool))
    assert scores.keys() == {*STATS, "error", "bias", "pearson"} - absent - {"pearson"}  # a constant has no correlation
    assert min(scores.values()) >= 0
