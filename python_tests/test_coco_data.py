"""COCO's reader end to end: joints follow pixels, draws belong to samples, bad records are named."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from sampling_argmax_cuda.tasks.coco import FLIP_PAIRS, KEYPOINT_NAMES, CocoKeypoints
from sampling_argmax_cuda.tasks.transforms import MEAN, STD, Augment, apply

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


def with_joint(joint: int, x: float, y: float) -> dict:
    keypoints = np.zeros((17, 3))
    keypoints[joint] = x, y, 2
    return {**PERSON, "id": joint + 1, "keypoints": keypoints.reshape(-1).tolist()}


def picture_of(item: dict) -> np.ndarray:
    return item["image"].transpose(1, 2, 0) * STD + MEAN


@pytest.mark.parametrize("joint", [0, 5, 16])
def test_target_follows_the_pixels_through_every_augmentation(tmp_path, joint):
    """A dot drawn at the joint is found at its target, under the other side's name in a mirrored crop."""
    picture = np.zeros((200, 240, 3), np.uint8)
    cv2.circle(picture, (100, 90), 5, (255, 255, 255), -1, cv2.LINE_AA)
    path = write(tmp_path, [with_joint(joint, 100, 90)], picture=picture)
    data = CocoKeypoints(tmp_path, path, tmp_path, augment=Augment(0.3, 40, 0.5, 0.5, 0.2), seed=1)
    other = {a: b for pair in FLIP_PAIRS for a, b in (pair, pair[::-1])}.get(joint, joint)
    y, x = np.mgrid[:256, :192]
    found_at = set()
    for epoch in range(16):
        data.set_epoch(epoch)
        item, light = data[0], picture_of(data[0]).sum(-1).clip(0)
        light[light < 1e-3] = 0
        found = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
        (seen,) = np.flatnonzero(item["weight"])
        assert np.abs(item["target"][seen] * 4 - found).max() < 0.3
        assert np.abs(apply(item["inverse"], item["target"][seen] * 4) - (100, 90)).max() < 1e-3
        found_at.add(int(seen))
    assert found_at == {joint, other}


def test_float32_inverse_is_exact_over_a_whole_image(tmp_path):
    path = write(tmp_path, picture=np.zeros((200, 240, 3), np.uint8))
    data = CocoKeypoints(tmp_path, path, tmp_path, augment=Augment())
    points = np.random.default_rng(0).random((100, 2)) * 640
    for epoch in range(20):
        data.set_epoch(epoch)
        inverse = data[0]["inverse"].astype(np.float64)
        crop = (points - inverse[:, 2]) @ np.linalg.inv(inverse[:, :2]).T
        assert np.abs(apply(data[0]["inverse"], crop.astype(np.float32)) - points).max() <= 1e-3


def test_normalisation_is_red_green_blue(tmp_path):
    picture = np.zeros((200, 240, 3), np.uint8)
    picture[...] = (0, 0, 255)  # OpenCV writes blue, green, red
    item = CocoKeypoints(tmp_path, write(tmp_path, picture=picture), tmp_path)[0]
    assert np.allclose(item["image"][:, 128, 96], (np.array([1, 0, 0]) - MEAN) / STD, atol=1e-6)


def test_draws_depend_on_neither_worker_nor_order(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (200, 240, 3), np.uint8)
    path = write(tmp_path, [{**PERSON, "id": i} for i in range(6)], picture=picture)
    data = CocoKeypoints(tmp_path, path, tmp_path, image_size=(48, 64), heatmap_size=(12, 16), augment=Augment())
    data.set_epoch(3)
    backwards = {i: data[i]["image"] for i in reversed(range(6))}
    for workers in (0, 2):
        for batch in DataLoader(data, batch_size=2, num_workers=workers):
            for index, image in zip(batch["index"].tolist(), batch["image"].numpy(), strict=True):
                assert np.array_equal(image, backwards[index])
    assert len({image.tobytes() for image in backwards.values()}) == 6


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
    data = CocoKeypoints(tmp_path, path, tmp_path, augment=Augment(0, 0, 0, 1.0, 0))
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
    data = CocoKeypoints(tmp_path, write(tmp_path, images=[image]), tmp_path / "elsewhere")
    assert data.image_path(1) == tmp_path / "val2017" / "b.png" and data[0]["image_id"] == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"area": None}, "annotation 5: area must be a finite number, got None"),
        ({"area": float("nan")}, "annotation 5: area must be a finite number, got nan"),
        ({"image_id": [1]}, r"annotation 5: image_id must be an integer, got \[1\]"),
        ({"id": "five"}, "id must be an integer, got 'five'"),
        ({"keypoints": [1.0, 1.0, 7.0] * 17}, "annotation 5: visibility must be 0, 1 or 2"),
    ],
)
def test_malformed_people_are_named(tmp_path, change, message):
    path = write(tmp_path, [{**PERSON, **change}])
    with pytest.raises(ValueError, match=message) as error:
        CocoKeypoints(tmp_path, path, tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"images": [IMAGE], "annotations": 3}, "annotations must be a list, got int"),
        ({"images": {"id": 1}, "annotations": [PERSON]}, "images must be a list, got dict"),
        ({"images": [{"id": [1]}], "annotations": [PERSON]}, "an image: id must be an integer"),
        ([1], "field 'images' is missing"),
    ],
)
def test_malformed_structure_is_named(tmp_path, content, message):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        CocoKeypoints(tmp_path, path, tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"score": None}, "detection 0: score must be a finite number, got None"),
        ({"score": float("nan")}, "detection 0: score must be a finite number, got nan"),
        ({"image_id": [1]}, "detection 0: image_id must be an integer"),
        ({"bbox": [1, 2, float("inf"), 3]}, "detection 0: bbox holds a number that is not finite"),
    ],
)
def test_malformed_detections_are_named(tmp_path, change, message):
    boxes = tmp_path / "detections.json"
    boxes.write_text(json.dumps([{**DETECTION, **change}]))
    with pytest.raises(ValueError, match=message) as error:
        CocoKeypoints(tmp_path, write(tmp_path), tmp_path, boxes=str(boxes), train=False)
    assert str(boxes) in str(error.value)


def test_bad_images_are_named_with_their_record(tmp_path):
    path = write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"a.png does not exist \(image 1 of .*annotations.json\)"):
        CocoKeypoints(tmp_path, path, tmp_path)[0]
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a.png cannot be read \(image 1 of .*annotations.json\)"):
        CocoKeypoints(tmp_path, path, tmp_path)[0]
    write(tmp_path, picture=np.zeros((100, 120, 3), np.uint8))
    with pytest.raises(ValueError, match="a.png is 120x100, but image 1 of .* is 240x200"):
        CocoKeypoints(tmp_path, path, tmp_path)[0]
    with pytest.raises(ValueError, match="image 1: fields 'file_name' and 'coco_url' are missing"):
        CocoKeypoints(tmp_path, write(tmp_path, images=[{"id": 1}]), tmp_path)[0]
    with pytest.raises(ValueError, match="data: seed must be >= 0, got -1"):
        CocoKeypoints(tmp_path, path, tmp_path, seed=-1)


@pytest.mark.skipif(REAL is None, reason="SAMPLING_ARGMAX_DATA is not set")
def test_real_files_return_to_their_annotations():
    root = Path(REAL) / "coco"
    file = root / "annotations" / "person_keypoints_val2017.json"
    assert tuple(json.loads(file.read_text())["categories"][0]["keypoints"]) == KEYPOINT_NAMES
    data = CocoKeypoints(root, file, root / "val2017", train=False)
    for i, person in enumerate(data.people):
        item, truth = data[i], person["keypoints"]
        seen = item["weight"] > 0
        assert (seen == (truth[:, 2] > 0)).mean() > 0.8
        assert np.abs(apply(item["inverse"], item["target"][seen] * 4) - truth[seen, :2]).max() <= 1e-3
    boxes = CocoKeypoints(root, file, root / "val2017", boxes=str(root / "detections.json"), train=False)
    assert len(boxes) == 118 and all(0 < boxes.people[i]["score"] <= 1 for i in range(118))
