"""COCO's data and metrics: geometry, augmentation, malformed files, drawn figures, OKS, NMS and AP."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from sampling_argmax_cuda.tasks.coco import FLIP_PAIRS, OKS_SIGMAS, CocoKeypoints, ImageFolder
from sampling_argmax_cuda.tasks.metrics import coco_results, evaluate_coco, oks, oks_nms, pearson, rescore
from sampling_argmax_cuda.tasks.synthetic import write_synthetic_coco
from sampling_argmax_cuda.tasks.transforms import (
    Augment,
    apply,
    box_to_center_scale,
    crop_matrix,
    invert,
    mirror,
)

REAL = os.environ.get("SAMPLING_ARGMAX_DATA")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "coco"
    write_synthetic_coco(root, 12, 6, seed=3)
    return root


def reader(root: Path, split: str = "train", **options) -> CocoKeypoints:
    file = root / "annotations" / f"person_keypoints_{split}2017.json"
    return CocoKeypoints(root, file, root / f"{split}2017", **{"train": split == "train", **options})


def test_crop_and_inverse():
    rng = np.random.default_rng(0)
    for _ in range(50):
        center, scale = box_to_center_scale(rng.random(4) * 200 + 5, 0.75)
        matrix = crop_matrix(center, scale, rng.uniform(-180, 180), (192, 256))
        points = rng.random((20, 2)) * 300
        assert np.abs(apply(invert(matrix), apply(matrix, points)) - points).max() <= 1e-3
        assert np.allclose(apply(matrix, center), (96, 128))
    center, scale = box_to_center_scale((10, 20, 30, 80), 0.75)
    assert np.allclose(center, (25, 60)) and np.allclose(scale, (75, 100))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotation", [0.0, 33.0, -90.0])
def test_a_drawn_dot_follows_its_joint(rotation, flip):
    image, dot = np.zeros((200, 300, 3), np.uint8), np.array([140.0, 90.0])
    cv2.circle(image, (140, 90), 3, (255, 255, 255), -1)
    matrix = crop_matrix((150, 100), (150, 200), rotation, (192, 256))
    matrix = mirror(matrix, 192) if flip else matrix
    crop = cv2.warpAffine(image, matrix, (192, 256))[..., 0].astype(float)
    y, x = np.mgrid[:256, :192]
    found = np.array([(crop * x).sum(), (crop * y).sum()]) / crop.sum()
    assert np.abs(found - apply(matrix, dot)).max() < 0.2


def test_augmentation_is_a_function_of_seed_epoch_and_index(drawn):
    def item(seed, epoch, index):
        data = reader(drawn, augment=Augment(), seed=seed)
        data.set_epoch(epoch)
        return data[index]["image"]

    assert np.array_equal(item(0, 1, 2), item(0, 1, 2))
    assert not np.array_equal(item(0, 1, 2), item(0, 2, 2))
    assert not np.array_equal(item(0, 1, 2), item(1, 1, 2))


def test_each_augmentation_obeys_its_number():
    rng = np.random.default_rng(0)
    still = [Augment(0, 0, 0, 0, 0).draw(rng) for _ in range(100)]
    assert all(
        d.scale == 1 and d.rotation == 0 and not d.flip and not d.half_body and d.gain == (1, 1, 1) for d in still
    )
    draws = [Augment(0.3, 40, 0.5, 0.3, 0.2).draw(rng) for _ in range(4000)]
    assert 0.7 <= min(d.scale for d in draws) < 0.71 and 1.29 < max(d.scale for d in draws) <= 1.3
    assert 39 < max(abs(d.rotation) for d in draws) <= 40
    for got, probability in ((np.mean([d.flip for d in draws]), 0.5), (np.mean([d.half_body for d in draws]), 0.3),
                             (np.mean([d.rotation != 0 for d in draws]), 0.5)):  # fmt: skip
        assert abs(got - probability) < 5 * np.sqrt(probability * (1 - probability) / 4000)
    with pytest.raises(ValueError, match="data: flip must be in"):
        Augment(flip=1.5)


def test_flip_swaps_pairs(drawn):
    plain, flipped = reader(drawn), reader(drawn, augment=Augment(0, 0, 1.0, 0, 0))
    a, b = plain[0], flipped[0]
    order = np.arange(17)
    for left, right in FLIP_PAIRS:
        order[[left, right]] = right, left
    seen = (a["weight"] > 0) & (b["weight"][order] > 0)
    assert seen.sum() > 10
    # The mirror takes crop pixel x to 191 - x, hence cell c to 191 / 4 - c.
    assert np.allclose(b["target"][order][seen, 0], 191 / 4 - a["target"][seen, 0], atol=1e-3)
    assert np.allclose(b["target"][order][seen, 1], a["target"][seen, 1], atol=1e-3)


def test_targets_return_to_the_image_and_leave_the_crop_with_weight_0(drawn):
    data = reader(drawn, augment=Augment(scale=0.7, rotation=40, flip=0.5))
    hidden = 0
    for i in range(len(data)):
        item, truth = data[i], data.people[i]["keypoints"]
        seen = item["weight"] > 0
        hidden += (~seen & (truth[:, 2] > 0)).sum()
        back = apply(item["inverse"].astype(float), item["target"] * 4.0)
        nearest = np.abs(back[:, None] - truth[None, :, :2]).max(-1).min(1)
        assert nearest[seen].max() < 1e-2
        assert (item["target"][~seen] == 0).all()
    assert hidden > 0


GOOD = {"id": 5, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [1, 1, 20, 30], "area": 300,
        "keypoints": [5.0, 5.0, 2.0] * 17}  # fmt: skip
IMAGES = [{"id": 1, "file_name": "a.png", "width": 40, "height": 40}]


def coco_file(folder: Path, annotations, images=IMAGES) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


@pytest.mark.parametrize(
    "annotation, message",
    [
        ({**GOOD, "keypoints": [1.0] * 50}, "annotation 5: keypoints must be 51 numbers, got 50"),
        (
            {**GOOD, "keypoints": [float("nan")] * 51},
            "annotation 5: keypoints holds a number that is not finite",
        ),
        ({**GOOD, "bbox": [1, 2, 3]}, "annotation 5: bbox must be 4 numbers, got 3"),
        ({**GOOD, "bbox": "box"}, "annotation 5: bbox must be 4 numbers, got 'box'"),
        ({k: v for k, v in GOOD.items() if k != "keypoints"}, "annotation 5: field 'keypoints' is missing"),
        ({**GOOD, "image_id": 9}, "annotation 5: no image 9"),
        ({**GOOD, "keypoints": [0.0] * 51}, "no annotation has keypoints"),
        ({**GOOD, "iscrowd": 1}, "no annotation has keypoints"),
    ],
)
def test_malformed_annotations(tmp_path, annotation, message):
    path = coco_file(tmp_path, [annotation])
    with pytest.raises(ValueError, match=message) as error:
        CocoKeypoints(tmp_path, path, tmp_path)
    assert str(path) in str(error.value)


def test_malformed_files(tmp_path):
    path = coco_file(tmp_path, [GOOD])
    with pytest.raises(FileNotFoundError, match="annotation file .*none.json does not exist"):
        CocoKeypoints(tmp_path, tmp_path / "none.json", tmp_path)
    data = CocoKeypoints(tmp_path, path, tmp_path)
    with pytest.raises(FileNotFoundError, match="image .*a.png does not exist"):
        data[0]
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="image .*a.png cannot be read"):
        data[0]
    path.write_text(path.read_text()[:-10])
    with pytest.raises(ValueError, match="annotations.json is not valid JSON"):
        CocoKeypoints(tmp_path, path, tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        ImageFolder(tmp_path / "none", (64, 64), (16, 16))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        ImageFolder(tmp_path / "empty", (64, 64), (16, 16))


def test_detections(drawn, tmp_path):
    data = reader(drawn, "val", boxes=str(drawn / "detections_val.json"))
    assert len(data) >= len(reader(drawn, "val")) and (data[0]["weight"] == 0).all() and data[0]["score"] < 1
    bad = tmp_path / "d.json"
    for content, message in (("{}", "must be a list"), ("[]", "no detection of a person"),
                             ('[{"category_id": 1, "image_id": 1000001, "bbox": [1, 2]}]', "detection 0: bbox")):  # fmt: skip
        bad.write_text(content)
        with pytest.raises(ValueError, match=message):
            reader(drawn, "val", boxes=str(bad))


@pytest.mark.skipif(REAL is None, reason="SAMPLING_ARGMAX_DATA is not set")
def test_real_files():
    root = Path(REAL) / "coco"
    file = root / "annotations" / "person_keypoints_val2017.json"
    assert len(json.loads(file.read_text())["annotations"]) == 14
    data = CocoKeypoints(root, file, root / "val2017", train=False)
    assert len(data) == 12 and {data[i]["image_id"] for i in range(12)} == {785, 40083, 196141, 197388}
    boxes = CocoKeypoints(root, file, root / "val2017", boxes=str(root / "detections.json"), train=False)
    assert 0 < len(boxes) <= 118
    results = perfect(data)
    assert evaluate_coco(file, results)["AP"] == pytest.approx(1.0)


def perfect(data: CocoKeypoints) -> list[dict]:
    points = np.array([p["keypoints"] for p in data.people])
    return coco_results(
        [p["image_id"] for p in data.people], points, [1.0] * len(points), [p["area"] for p in data.people]
    )


def test_perfect_predictions(drawn):
    file = drawn / "annotations" / "person_keypoints_val2017.json"
    results = perfect(reader(drawn, "val"))
    assert evaluate_coco(file, results)["AP"] == pytest.approx(1.0)
    assert evaluate_coco(file, [])["AP"] == 0
    moved = [{**r, "keypoints": [v + 8 * (i % 3 < 2) for i, v in enumerate(r["keypoints"])]} for r in results]
    assert evaluate_coco(file, moved)["AP"] < 0.7


def test_oks_equals_a_loop():
    rng = np.random.default_rng(0)
    prediction, truth = rng.random((5, 17, 2)) * 50, rng.random((5, 17, 3)) * 50
    truth[..., 2] = rng.integers(0, 3, (5, 17))
    area = rng.random(5) * 3000 + 100
    for i, value in enumerate(oks(prediction, truth, area)):
        terms = []
        for j in range(17):
            if truth[i, j, 2] > 0:
                d2 = (prediction[i, j, 0] - truth[i, j, 0]) ** 2 + (prediction[i, j, 1] - truth[i, j, 1]) ** 2
                terms.append(np.exp(-d2 / (2 * area[i] * (2 * OKS_SIGMAS[j]) ** 2)))
        assert value == pytest.approx(np.mean(terms), abs=1e-9)


def test_nms_and_scores():
    points = np.random.default_rng(1).random((1, 17, 3)) * 60
    person = coco_results([1], points, [0.9], [2000.0])[0]
    near = {**person, "score": 0.8, "keypoints": [v + 0.3 for v in person["keypoints"]]}
    far = {**person, "score": 0.7, "keypoints": [v + 90 for v in person["keypoints"]]}
    assert [r["score"] for r in oks_nms([near, far, person])] == [0.9, 0.7]
    soft = oks_nms([near, far, person], soft=True)
    assert len(soft) == 3 and soft[-1]["score"] < 0.1 and near["score"] == 0.8
    assert rescore(0.5, np.array([0.1, 0.3, 0.5]), "sum") == pytest.approx(0.5 + 0.3 + 0.5)
    assert rescore(0.5, np.array([0.1, 0.3, 0.5]), "product") == pytest.approx(0.5 * 0.4)
    assert rescore(0.5, np.array([0.1, 0.2]), "product") == 0
    with pytest.raises(ValueError, match="rule must be sum or product"):
        rescore(0.5, np.array([0.1]), "mean")


def test_pearson():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 100_000))
    assert pearson(a, 0.6 * a + 0.8 * b) == pytest.approx(0.6, abs=0.01)
    assert np.isnan(pearson(np.ones(3), np.arange(3)))


def test_drawn_data_is_stable_and_whole(drawn, tmp_path):
    again = tmp_path / "again"
    write_synthetic_coco(again, 12, 6, seed=3)
    for file in sorted(p.relative_to(drawn) for p in drawn.rglob("*") if p.is_file()):
        assert (drawn / file).read_bytes() == (again / file).read_bytes()
    write_synthetic_coco(again, 12, 6, seed=3)
    with pytest.raises(ValueError, match="holds other files"):
        write_synthetic_coco(again, 13, 6, seed=3)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    people = reader(drawn).people + reader(drawn, "val").people
    visibility = np.array([p["keypoints"][:, 2] for p in people])
    assert (visibility == 2).mean() > 0.8 and (visibility == 1).any()
