"""Exporters' dialects of COCO's files: predictions equal to the annotations have AP 1, or the file is refused by name."""

import copy
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from crops import coco_crops
from torch.utils.data import default_collate

from sampling_argmax_cuda.tasks.associative.metrics import BottomUpEvaluation
from sampling_argmax_cuda.tasks.associative.reader import CocoImages
from sampling_argmax_cuda.tasks.coco.reader import PERSON as POINTS
from sampling_argmax_cuda.tasks.coco.reader import read_annotations
from sampling_argmax_cuda.tasks.coco.task import CocoPose
from sampling_argmax_cuda.tasks.keypoints.crops import KeypointCrops
from sampling_argmax_cuda.tasks.keypoints.oks import CocoEvaluation, coco_results, evaluate_coco
from sampling_argmax_cuda.trainers.transforms import apply, invert

REAL = os.environ.get("SAMPLING_ARGMAX_DATA")
PERSON = {"id": 1, "name": "person", "keypoints": list(POINTS.names)}
SIZE = (240, 200)


def person(number: int, image: int, **more) -> dict:
    """Somebody with 16 labelled joints, an area that is not the box's, and a joint that nobody labelled."""
    rng = np.random.default_rng(number)
    box = np.array([*rng.uniform(5, 90, 2), *rng.uniform(60, 100, 2)])
    joints = np.concatenate([box[:2] + rng.random((17, 2)) * box[2:], rng.integers(1, 3, (17, 1))], 1)
    joints[number % 17] = 0
    return {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": box.tolist(), "num_keypoints": 16,
            "area": float(box[2] * box[3] * 0.6), "keypoints": joints.ravel().tolist(), **more}  # fmt: skip


def regular() -> dict:
    """Six people on three of four images, a crowd, and a person without points."""
    images = [{"id": i, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]} for i in (1, 2, 3, 4)]
    unknown = {"keypoints": [0] * 51, "num_keypoints": 0}
    people = [person(n, (n + 1) // 2) for n in range(1, 7)]
    more = [person(7, 1, **unknown, iscrowd=1), person(8, 2, **unknown)]
    return {"images": images, "annotations": people + more, "categories": [copy.deepcopy(PERSON)]}


def annotation_ids(new: Callable[[int], float]) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for record in content["annotations"]:
            record["id"] = new(record["id"])

    return change


def image_ids(new: Callable[[int], float]) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for record in content["annotations"]:
            record["image_id"] = new(record["image_id"])
        for image in content["images"]:
            image["id"] = new(image["id"])

    return change


def texts_of_images(content: dict) -> None:
    for record in content["annotations"]:
        record["image_id"] = str(record["image_id"])


def listed_again(content: dict) -> None:
    content["images"].append(copy.deepcopy(content["images"][0]))


def category(key: int, *others: dict, **more) -> Callable[[dict], None]:
    """People as category ``key``, beside ``others``, of each of which there is somebody on the first image."""

    def change(content: dict) -> None:
        content["categories"] = [*others, {**PERSON, "id": key, **more}]
        for record in content["annotations"]:
            record["category_id"] = key
        first = content["images"][0]["id"]
        content["annotations"][:0] = [person(20 + i, first, category_id=c["id"]) for i, c in enumerate(others)]

    return change


def no_categories(content: dict) -> None:
    del content["categories"]


def no_category_ids(content: dict) -> None:
    for record in content["annotations"]:
        del record["category_id"]


def unnamed_points(content: dict) -> None:
    content["categories"] = [{"id": 1, "name": "human"}]


def of_all(key: str, value) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for record in content["annotations"]:
            record[key] = value

    return change


def without(key: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for record in content["annotations"]:
            record.pop(key, None)

    return change


def of_one(key: str, value=None) -> Callable[[dict], None]:
    """Another value for the first person of the third image, or none."""

    def change(content: dict) -> None:
        third = str(content["images"][2]["id"])
        (record, _) = (r for r in content["annotations"] if str(r["image_id"]) == third)
        record.pop(key)
        if value is not None:
            record[key] = value

    return change


def no_crowds(content: dict) -> None:
    content["annotations"] = [record for record in content["annotations"] if not record["iscrowd"]]
    without("iscrowd")(content)


def booleans(content: dict) -> None:
    for record in content["annotations"]:
        record["iscrowd"] = bool(record["iscrowd"])


def twice(content: dict) -> None:
    content["annotations"].append(copy.deepcopy(content["annotations"][0]))


DOG = {"id": 1, "name": "dog", "keypoints": [f"p{i}" for i in range(17)]}
CAR = {"id": 1, "name": "car", "keypoints": [f"p{i}" for i in range(20)]}
DIALECTS = {
    "annotation ids": {
        "from 0": annotation_ids(lambda i: i - 1), "all alike": annotation_ids(lambda i: 7),
        "negative": annotation_ids(int.__neg__), "large": annotation_ids(lambda i: 2**53 + i),
        "larger than int64": annotation_ids(lambda i: 2**64 + i), "floats": annotation_ids(float),
        "texts": annotation_ids(str), "names": annotation_ids("a{}".format), "one annotation twice": twice,
    },
    "image ids": {
        "from 0": image_ids(lambda i: i - 1), "negative": image_ids(int.__neg__), "large": image_ids(lambda i: 2**53 + i),
        "larger than int64": image_ids(lambda i: 2**64 + i), "floats": image_ids(float), "texts": image_ids(str),
        "names": image_ids("a{}".format), "one kind here, another there": texts_of_images, "an image twice": listed_again,
    },
    "category": {
        "0": category(0), "2": category(2), "2, dogs have 17 points": category(2, DOG), "Person": category(2, DOG, name="Person"),
        "the only one of 17": category(3, CAR, name="human"), "the only one": category(5, name="human"),
        "without points": unnamed_points, "none": no_categories, "no ids": no_category_ids, "as a text": category("3"),
    },
    "num_keypoints": {"missing": without("num_keypoints"), "0": of_all("num_keypoints", 0), "1": of_all("num_keypoints", 1)},
    "area": {"missing": without("area"), "0": of_all("area", 0), "-1": of_all("area", -1.0), "one 0": of_one("area", 0)},
    "bbox": {"one empty": of_one("bbox", [0, 0, 0, 0]), "one missing": of_one("bbox"), "one flat": of_one("bbox", [9, 9, 50, 0])},
    "iscrowd": {"missing": no_crowds, "booleans": booleans},
}  # fmt: skip
SINGLE = [(axis, name) for axis, names in DIALECTS.items() for name in names]


def write(folder: Path, content: dict) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def exported(folder: Path, *dialects: tuple[str, str]) -> tuple[Path, dict]:
    content = regular()
    for axis, name in dialects:
        DIALECTS[axis][name](content)
    return write(folder, content), content


def assert_perfect(scores: dict[str, float]) -> None:
    assert {name: scores[name] for name in ("AP", "AP50", "AP75", "AR", "AR50")} == pytest.approx(
        dict.fromkeys(("AP", "AP50", "AP75", "AR", "AR50"), 1.0)
    )


def ids_of(content: dict) -> list[int | str]:
    """The images' ids as they are read: a number that a tool wrote as a text is a number."""
    return [int(image["id"]) if str(image["id"]).isdecimal() else image["id"] for image in content["images"]]


def category_of(content: dict) -> int:
    return int(content["annotations"][-1].get("category_id", 1))


def validated(data: KeypointCrops) -> CocoEvaluation:
    """The records of a validation by a network that finds every joint, in batches of two, as :class:`CocoPose` adds them."""
    evaluation = CocoEvaluation()

    def decode(_, law: bool) -> dict[str, torch.Tensor]:
        people = [data.records[i]["keypoints"] for i in batch["index"].tolist()]
        places = [
            apply(invert(m), p[:, :2]) / 4 for m, p in zip(batch["inverse"].double().numpy(), people, strict=True)
        ]
        return {"position": torch.tensor(np.stack(places), dtype=torch.float32), "peak": torch.ones(len(places), 17)}

    module = SimpleNamespace(
        decode=decode, to_image=lambda *given: CocoPose.to_image(module, *given), evaluation=evaluation,
        has_laws=False, validates_laws=False, hparams=SimpleNamespace(stride=4),
    )  # fmt: skip
    for start in range(0, len(data), 2):
        batch = default_collate([data[i] for i in range(start, min(start + 2, len(data)))])
        CocoPose.validation_step(module, batch, 1)
    return evaluation


@pytest.mark.parametrize("axis, name", SINGLE)
def test_perfect_people_have_ap_1(tmp_path, axis, name):
    """Through the crops, and in the file's own ids."""
    path, content = exported(tmp_path, (axis, name))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    data = coco_crops(tmp_path, path, tmp_path, image_size=(48, 64), heatmap_size=(12, 16))
    evaluation = validated(data)
    assert_perfect(evaluation.compute(list, data))
    assert Counter(r["image_id"] for r in evaluation.results) == dict.fromkeys(ids_of(content)[:3], 2)
    assert {type(r["image_id"]) for r in evaluation.results} == {str if (axis, name) == ("image ids", "names") else int}
    assert {r["category_id"] for r in evaluation.results} == {category_of(content)}


@pytest.mark.parametrize("axis, name", SINGLE)
def test_perfect_images_have_ap_1(tmp_path, axis, name):
    """The same of whole images, of which the fourth has nobody."""
    path, content = exported(tmp_path, (axis, name))
    data = CocoImages(tmp_path, path, tmp_path, False, (64, 64), (16, 16))
    assert [len(record["keypoints"]) for record in data.records] in ([2, 2, 2, 0], [0, 2, 2, 2])
    evaluation, inverse = BottomUpEvaluation(), np.array([[2.0, 0, 3], [0, 2, 5]])
    people = [np.concatenate([apply(invert(inverse), r["keypoints"][..., :2]) / 4, np.ones((len(r["keypoints"]), 17, 1))], -1)
              for r in data.records]  # fmt: skip
    batch = {"index": torch.arange(len(data)), "inverse": torch.tensor(inverse).expand(len(data), 2, 3)}
    evaluation.add(batch, [(points, np.ones(len(points))) for points in people])
    assert_perfect(evaluation.compute(list, data))
    assert {r["image_id"] for r in evaluation.results} == set(ids_of(content)[:3])
    assert {r["category_id"] for r in evaluation.results} == {category_of(content)}


def perfect(path: Path) -> dict[str, float]:
    truth = read_annotations(path)
    people = truth.people
    assert len(people) == 6 and all((p["box"][2:] > 0).all() and p["area"] > 0 for p in people)
    points = np.stack([p["keypoints"] for p in people])
    found = coco_results([p["image_id"] for p in people], points, np.ones(6), np.ones(6), truth.category)
    return evaluate_coco(truth, found)


@pytest.mark.parametrize("axes", list(itertools.combinations(DIALECTS, 2)), ids=" and ".join)
def test_two_dialects_at_once(tmp_path, axes):
    for names in itertools.product(*(DIALECTS[axis] for axis in axes)):
        assert_perfect(perfect(exported(tmp_path, *zip(axes, names, strict=True))[0]))


def test_an_error_moves_the_same_numbers_in_every_dialect(tmp_path):
    """AP 1 alone would be had by a scorer that is blind: of regular files and of others a moved pose is as wrong."""

    def moved(path: Path) -> dict[str, float]:
        truth = read_annotations(path)
        people = sorted(truth.people, key=lambda p: p["keypoints"][0, 0])
        points = np.stack([p["keypoints"] for p in people])
        points[:, :, 0] += np.arange(0, 18, 3)[:, None]
        scores = np.linspace(1, 0.5, 6)  # between equal ones the images' order decides
        return evaluate_coco(truth, coco_results([p["image_id"] for p in people], points, scores, np.ones(6)))

    expected = moved(exported(tmp_path)[0])
    assert 0.2 < expected["AP"] < 0.9
    for axis, name in SINGLE:
        if axis not in ("area", "bbox"):  # those say where the numbers come from instead
            assert moved(exported(tmp_path, (axis, name))[0]) == expected, (axis, name)
