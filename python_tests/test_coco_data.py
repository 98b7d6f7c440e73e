"""COCO's reader end to end: joints follow pixels, draws belong to samples, detections find people."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from crops import coco_crops
from torch.utils.data import DataLoader

from sampling_argmax_cuda.tasks.coco.reader import PERSON as POINTS
from sampling_argmax_cuda.tasks.coco.synthetic import write_synthetic_coco
from sampling_argmax_cuda.tasks.keypoints.crops import KeypointCrops, box_iou, match_people
from sampling_argmax_cuda.tasks.keypoints.oks import coco_results, evaluate_coco
from sampling_argmax_cuda.trainers.transforms import MEAN, STD, Augment, apply, box_to_center_scale, crop_matrix, invert

REAL = os.environ.get("SAMPLING_ARGMAX_DATA")
PERSON = {
    "id": 5, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [60, 40, 90, 120], "area": 5000,
    "num_keypoints": 17, "keypoints": [70.0, 60.0, 2.0] * 17,
}  # fmt: skip
IMAGE = {"id": 1, "file_name": "a.png", "width": 240, "height": 200}
DETECTION = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}


def write(folder: Path, annotations=(PERSON,), images=(IMAGE,), picture: np.ndarray | None = None) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": list(images), "annotations": list(annotations)}))
    if picture is not None:
        cv2.imwrite(str(folder / "a.png"), picture)
    return path


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "coco"
    write_synthetic_coco(root, 12, 6, seed=3)
    return root


def reader(root: Path, split: str = "train", **options) -> KeypointCrops:
    file = root / "annotations" / f"person_keypoints_{split}2017.json"
    return coco_crops(root, file, root / f"{split}2017", **options)


def with_joint(joint: int, x: float, y: float) -> dict:
    keypoints = np.zeros((17, 3))
    keypoints[joint] = x, y, 2
    return {**PERSON, "id": joint + 1, "keypoints": keypoints.reshape(-1).tolist()}


def picture_of(item: dict) -> np.ndarray:
    return item["image"].transpose(1, 2, 0) * STD + MEAN


def test_crop_and_inverse():
    rng = np.random.default_rng(0)
    for _ in range(50):
        center, scale = box_to_center_scale(rng.random(4) * 200 + 5, 0.75)
        matrix = crop_matrix(center, scale, rng.uniform(-180, 180), (192, 256))
        points = rng.random((20, 2)) * 300
        assert np.abs(apply(invert(matrix), apply(matrix, points)) - points).max() <= 1e-9
        assert np.allclose(apply(matrix, center), (96, 128))
    center, scale = box_to_center_scale((10, 20, 30, 80), 0.75)
    assert np.allclose(center, (25, 60)) and np.allclose(scale, (75, 100))


@pytest.mark.parametrize("joint", [0, 5, 16])
def test_target_follows_the_pixels_through_every_augmentation(tmp_path, joint):
    """A dot drawn at the joint is found at its target, under the other side's name in a mirrored crop."""
    picture = np.zeros((200, 240, 3), np.uint8)
    cv2.circle(picture, (100, 90), 5, (255, 255, 255), -1, cv2.LINE_AA)
    path = write(tmp_path, [with_joint(joint, 100, 90)], picture=picture)
    data = coco_crops(tmp_path, path, tmp_path, augment=Augment(0.3, 180, 0.5, 0.5, 0.2), seed=1)
    other = {a: b for pair in POINTS.pairs for a, b in (pair, pair[::-1])}.get(joint, joint)
    y, x = np.mgrid[:256, :192]
    found_at = set()
    for epoch in range(16):
        data.set_epoch(epoch)
        item, light = data[0], picture_of(data[0]).sum(-1).clip(0)
        light[light < 1e-3] = 0
        found = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
        (seen,) = np.flatnonzero(item["weight"])
        assert np.abs(item["target"][seen] * 4 - found).max() < 0.2
        assert np.abs(apply(item["inverse"], item["target"][seen] * 4) - (100, 90)).max() < 1e-3
        found_at.add(int(seen))
    assert found_at == {joint, other}


def test_a_mirrored_crop_swaps_sides(synthetic):
    """The mirror takes crop pixel x to 191 - x, hence cell c to 191 / 4 - c."""
    plain, mirrored = reader(synthetic)[0], reader(synthetic, augment=Augment(0, 0, 1.0, 0, 0))[0]
    order = np.arange(17)
    for left, right in POINTS.pairs:
        order[[left, right]] = right, left
    seen = (plain["weight"] > 0) & (mirrored["weight"][order] > 0)
    assert seen.sum() > 10
    assert np.allclose(mirrored["target"][order][seen, 0], 191 / 4 - plain["target"][seen, 0], atol=1e-3)
    assert np.allclose(mirrored["target"][order][seen, 1], plain["target"][seen, 1], atol=1e-3)


def test_joints_outside_the_crop_have_weight_0(synthetic):
    data, hidden = reader(synthetic, augment=Augment(scale=0.7, rotation=40, flip=0.5)), 0
    for i in range(len(data)):
        item, truth = data[i], data.records[i]["keypoints"]
        seen = item["weight"] > 0
        hidden += (~seen & (truth[:, 2] > 0)).sum()
        back = apply(item["inverse"].astype(float), item["target"] * 4.0)
        assert np.abs(back[:, None] - truth[None, :, :2]).max(-1).min(1)[seen].max() < 1e-3
        assert (item["target"][~seen] == 0).all()
    assert hidden > 0


def test_float32_inverse_is_exact_over_a_whole_image(tmp_path):
    path = write(tmp_path, picture=np.zeros((200, 240, 3), np.uint8))
    data = coco_crops(tmp_path, path, tmp_path, augment=Augment())
    points = np.random.default_rng(0).random((100, 2)) * 640
    for epoch in range(20):
        data.set_epoch(epoch)
        inverse = data[0]["inverse"].astype(np.float64)
        crop = (points - inverse[:, 2]) @ np.linalg.inv(inverse[:, :2]).T
        assert np.abs(apply(data[0]["inverse"], crop.astype(np.float32)) - points).max() <= 1e-3


def test_normalisation_is_red_green_blue(tmp_path):
    picture = np.zeros((200, 240, 3), np.uint8)
    picture[...] = (0, 0, 255)  # OpenCV writes blue, green, red
    item = coco_crops(tmp_path, write(tmp_path, picture=picture), tmp_path)[0]
    assert np.allclose(item["image"][:, 128, 96], (np.array([1, 0, 0]) - MEAN) / STD, atol=1e-6)


def test_draws_depend_on_seed_epoch_and_index_alone(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (200, 240, 3), np.uint8)
    path = write(tmp_path, [{**PERSON, "id": i} for i in range(6)], picture=picture)
    data = coco_crops(tmp_path, path, tmp_path, image_size=(48, 64), heatmap_size=(12, 16), augment=Augment())
    data.set_epoch(3)
    backwards = {i: data[i]["image"] for i in reversed(range(6))}
    for workers in (0, 2):
        for batch in DataLoader(data, batch_size=2, num_workers=workers):
            for index, image in zip(batch["index"].tolist(), batch["image"].numpy(), strict=True):
                assert np.array_equal(image, backwards[index])
    images = {image.tobytes() for image in backwards.values()}
    for seed, epoch in ((0, 2), (1, 3)):
        data.seed = seed
        data.set_epoch(epoch)
        images |= {data[i]["image"].tobytes() for i in range(6)}
    assert len(images) == 18


def test_lasting_loaders_follow_the_epoch(synthetic):
    """The processes of a loader that outlive an epoch draw the next one's augmentation."""
    data = reader(synthetic, augment=Augment())
    loader = DataLoader(data, batch_size=2, num_workers=2, persistent_workers=True)
    for epoch in (0, 1, 4):
        data.set_epoch(epoch)
        seen = np.concatenate([batch["inverse"] for batch in loader])
        assert np.array_equal(seen, [data[i]["inverse"] for i in range(len(data))])


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


def test_one_flag_moves_no_other_draw():
    settings = {"scale": 0.3, "rotation": 40.0, "flip": 0.5, "half_body": 0.4, "color": 0.2}
    names = {
        "scale": "scale",
        "rotation": "rotation",
        "flip": "flip",
        "half_body": "half_body",
        "color": "gain",
    }
    for off in settings:
        a, b = Augment(**settings), Augment(**{**settings, off: 0.0})
        for i in range(50):
            x, y = (augment.draw(np.random.default_rng(i)) for augment in (a, b))
            assert all(getattr(x, name) == getattr(y, name) for key, name in names.items() if key != off)


def test_half_body_crops_the_drawn_half(tmp_path):
    keypoints = np.array([[100, 20 + 10 * i, 2] for i in range(17)], float)
    person = {**PERSON, "keypoints": keypoints.reshape(-1).tolist()}
    path = write(tmp_path, [person], picture=np.zeros((200, 240, 3), np.uint8))
    data = coco_crops(tmp_path, path, tmp_path, augment=Augment(0, 0, 0, 1.0, 0))
    kept = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        kept.add(tuple(np.flatnonzero(data[0]["weight"])))
    upper, lower = sorted(kept)
    assert set(range(11)) <= set(upper) and 16 not in upper
    assert set(range(11, 17)) <= set(lower) and 0 not in lower


def test_image_is_found_by_its_address(tmp_path):
    (tmp_path / "val2017").mkdir()
    image = {"id": 1, "coco_url": "http://images.cocodataset.org/val2017/b.png", "width": 240, "height": 200}
    cv2.imwrite(str(tmp_path / "val2017" / "b.png"), np.zeros((200, 240, 3), np.uint8))
    data = coco_crops(tmp_path, write(tmp_path, images=[image]), tmp_path / "elsewhere")
    assert data.image_path(1) == tmp_path / "val2017" / "b.png" and data[0]["image"].shape == (3, 256, 192)


def test_box_iou_by_hand():
    boxes, others = np.array([[0, 0, 4, 2], [10, 10, 1, 1.0]]), np.array([[2, 1, 4, 2], [0, 0, 4, 2], [4, 0, 3, 3.0]])
    assert np.allclose(box_iou(boxes, others), [[2 / 14, 1, 0], [0, 0, 0]])


def record(image: int, x: float, number: int = -1, score: float = 1.0) -> dict:
    """A person or a detection of 10 x 10 pixels at ``x``; the keypoints hold its number."""
    return {"image_id": image, "annotation_id": number, "box": np.array([x, 0, 10, 10.0]), "area": 100.0,
            "truth_area": 60.0 if number > 0 else 100.0, "score": score,
            "keypoints": np.full((17, 3), max(number, 0.0))}  # fmt: skip


def test_a_detection_finds_one_free_person_of_its_image():
    people = [record(1, 0, 11), record(1, 30, 12), record(2, 0, 21)]
    detections = [
        record(1, 3, score=0.5),  # IoU 7 / 13 with person 11, whom a better detection takes
        record(1, 1, score=0.9),
        record(1, 34, score=0.8),  # IoU 6 / 14 < 1 / 2 with person 12
        record(2, 2, score=0.1),
        record(3, 0, score=0.9),  # nobody is annotated there
    ]
    matched = match_people(detections, people)
    assert [m["annotation_id"] for m in matched] == [-1, 11, -1, 21, -1]
    assert [m["keypoints"].max() for m in matched] == [0, 11, 0, 21, 0]
    assert [m["truth_area"] for m in matched] == [100, 60, 100, 60, 100]
    for before, after in zip(detections, matched, strict=True):
        assert after["box"] is before["box"] and (after["area"], after["score"]) == (100, before["score"])
    assert [m["annotation_id"] for m in match_people(detections[:1], people)] == [11]


def test_crops_of_detections_have_the_truth_of_the_person_they_match(synthetic):
    truth, data = reader(synthetic, "val"), reader(synthetic, "val", boxes=str(synthetic / "detections_val.json"))
    found = [i for i, p in enumerate(data.records) if p["annotation_id"] >= 0]
    assert [data.records[i]["annotation_id"] for i in found] == [p["annotation_id"] for p in truth.records]
    for i, person in zip(found, truth.records, strict=True):
        item, detected = data[i], data.records[i]
        seen = item["weight"] > 0
        assert (seen == (person["keypoints"][:, 2] > 0)).mean() > 0.8 and detected["score"] < 1
        assert detected["truth_area"] == person["area"] != detected["area"]
        assert np.abs(apply(item["inverse"], item["target"][seen] * 4) - person["keypoints"][seen, :2]).max() <= 1e-3
    for i in set(range(len(data))) - set(found):
        assert (data[i]["weight"] == 0).all() and (data[i]["target"] == 0).all()


@pytest.mark.skipif(REAL is None, reason="SAMPLING_ARGMAX_DATA is not set")
def test_real_files_return_to_their_annotations():
    root = Path(REAL) / "coco"
    file = root / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    assert tuple(content["categories"][0]["keypoints"]) == POINTS.names and len(content["annotations"]) == 14
    data = coco_crops(root, file, root / "val2017")
    assert len(data) == 12 and {p["image_id"] for p in data.records} == {785, 40083, 196141, 197388}
    for i, person in enumerate(data.records):
        item, truth = data[i], person["keypoints"]
        seen = item["weight"] > 0
        assert (seen == (truth[:, 2] > 0)).mean() > 0.8
        assert np.abs(apply(item["inverse"], item["target"][seen] * 4) - truth[seen, :2]).max() <= 1e-3
    boxes = coco_crops(root, file, root / "val2017", boxes=str(root / "detections.json"))
    assert len(boxes) == 118 and all(0 < boxes.records[i]["score"] <= 1 for i in range(118))
    numbers = [person["annotation_id"] for person in boxes.records if person["annotation_id"] >= 0]
    assert len(numbers) == len(set(numbers)) >= 8
    assert evaluate_coco(data.truth, perfect(data))["AP"] == pytest.approx(1.0)


def perfect(data: KeypointCrops) -> list[dict]:
    """The annotations themselves as results."""
    people = data.records
    points = np.array([p["keypoints"] for p in people])
    return coco_results([p["image_id"] for p in people], points, [1.0] * len(people), [p["area"] for p in people])


def test_synthetic_annotations_can_be_evaluated(synthetic):
    data = reader(synthetic, "val")
    results = perfect(data)
    assert evaluate_coco(data.truth, results)["AP"] == pytest.approx(1.0)
    moved = [{**r, "keypoints": [v + 8 * (i % 3 < 2) for i, v in enumerate(r["keypoints"])]} for r in results]
    assert evaluate_coco(data.truth, moved)["AP"] < 0.7
