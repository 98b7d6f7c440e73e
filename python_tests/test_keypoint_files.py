"""COCO-like files as tools write them: points, boxes, splits and images are found, or one line says why not."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from sampling_argmax_cuda.tasks.coco.reader import read_annotations
from sampling_argmax_cuda.tasks.keypoints.boxes import read_boxes
from sampling_argmax_cuda.tasks.keypoints.crops import KeypointCrops
from sampling_argmax_cuda.tasks.keypoints.dialects import points_box
from sampling_argmax_cuda.tasks.keypoints.files import ImageFinder, annotation_files, only_file, parts_of
from sampling_argmax_cuda.tasks.keypoints.reader import mean_shape_errors
from sampling_argmax_cuda.tasks.keypoints.task import KeypointData
from sampling_argmax_cuda.tasks.mpii.reader import read_people
from sampling_argmax_cuda.trainers.points import package_points
from sampling_argmax_cuda.trainers.transforms import apply

NAMES = ["handle", "jaw_left", "jaw_right"]
CATEGORY = {"id": 1, "name": "tool", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}
SIZE = (80, 60)


def tool(number: int, image: int, **more) -> dict:
    x, y = 10.0 + 3 * number, 12.0 + 2 * number
    return {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": [x - 5, y - 5, 40, 30], "area": 900.0,
            "keypoints": [x, y, 2, x + 10, y + 5, 2, x + 20, y + 15, 1], **more}  # fmt: skip


def regular() -> dict:
    images = [{"id": i, "file_name": f"{i}.png", "width": SIZE[0], "height": SIZE[1]} for i in (1, 2, 3)]
    return {
        "images": images,
        "annotations": [tool(1, 1), tool(2, 1), tool(3, 2)],
        "categories": [copy.deepcopy(CATEGORY)],
    }


def write(
    root: Path, name: str = "train.json", change: Callable[[dict], None] | None = None, pixels: bool = True
) -> dict:
    """An annotation file with its images beside it."""
    content = regular()
    if change is not None:
        change(content)
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    for i in (1, 2, 3) if pixels else ():
        cv2.imwrite(str(path.parent / f"{i}.png"), np.full((SIZE[1], SIZE[0], 3), 40 * i, np.uint8))
    return content


def data_of(root: Path, **options) -> KeypointData:
    return KeypointData(**{"root": str(root), "image_size": (64, 64), **options})


def train_of(root: Path, **options) -> KeypointCrops:
    return data_of(root, **options).dataset(train=True)


def of_all(key: str, value) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for record in content["annotations"]:
            record[key] = value

    return change


def without(*keys: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for record in content["annotations"]:
            for key in keys:
                record.pop(key, None)

    return change


def of_images(key: str, value) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for image in content["images"]:
            image[key] = value(image) if callable(value) else value

    return change


def all_of(*changes: Callable[[dict], None]) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for each in changes:
            each(content)

    return change


def ids(new: Callable) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for record in content["annotations"]:
            record["image_id"], record["id"] = new(record["image_id"]), new(record["id"])
        for image in content["images"]:
            image["id"] = new(image["id"])

    return change


def another_category(content: dict) -> None:
    """As Roboflow has it: a category above all, without points."""
    content["categories"].insert(0, {"id": 0, "name": "tools", "supercategory": "none"})


# ---- dialects: the same people with the same points ----

SAME = {
    "regular": lambda content: None,
    "ids are texts": ids(str), "ids are names": ids("id-{}".format), "ids are floats": ids(float),
    "ids are large": ids(lambda i: 2**60 + i),
    "no area, iscrowd, num_keypoints, category_id": without("area", "iscrowd", "num_keypoints", "category_id"),
    "area and iscrowd are null": all_of(of_all("area", None), of_all("iscrowd", None)),
    "no width": lambda content: [image.pop("width") for image in content["images"]],
    "width and height are 0": all_of(of_images("width", 0), of_images("height", None)),
    "a category without points": another_category,
    "names in other capitals": lambda content: content["categories"][0].update(keypoints=["Handle", "jaw left", "JAW-RIGHT"]),
    "nobody on an image, points are null": lambda content: content["annotations"].append(
        tool(9, 3, keypoints=None, bbox=[1, 1, 5, 5])),
    "a path": of_images("file_name", lambda image: f"C:\\photos\\day 1\\{image['file_name']}"),
    "a folder that is not there": of_images("file_name", lambda image: f"./export/images/{image['file_name']}"),
    "a URL": of_images("file_name", lambda image: f"https://host/bucket/{image['file_name']}?signature=x%2F1"),
    "a tool's path": of_images("file_name", lambda image: f"/data/local-files/?d=photos/{image['file_name']}"),
    "another case": of_images("file_name", lambda image: image["file_name"].replace("png", "PNG")),
    "only a URL": lambda content: [image.update(coco_url=f"http://h/a/{image.pop('file_name')}") for image in content["images"]],
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_dialects_are_read_alike(name, tmp_path):
    write(tmp_path / "plain")
    write(tmp_path / "own", change=SAME[name])
    expected, found = train_of(tmp_path / "plain"), train_of(tmp_path / "own")
    assert len(found) == len(expected) == 3
    for own, other in zip(found, expected, strict=True):
        assert all(np.array_equal(own[key], other[key]) for key in ("image", "target", "weight", "inverse"))


def test_a_made_box_has_a_margin(tmp_path):
    """A quarter of the longer side on every side; of one point the whole image is shown."""
    for number, box in enumerate(([], None, [0, 0, 0, 0], [3, 4, 0, 9])):
        write(tmp_path / str(number), change=of_all("bbox", box))
        record = train_of(tmp_path / str(number)).records[0]
        assert record["box"].tolist() == [13 - 5, 14 - 5, 30, 25]
    write(tmp_path / "none", change=without("bbox"))
    assert train_of(tmp_path / "none").records[0]["box"].tolist() == [8, 9, 30, 25]
    single = of_all("keypoints", [20, 30, 2, 0, 0, 0, 0, 0, 0])
    write(tmp_path / "one", change=all_of(single, without("bbox")))
    assert train_of(tmp_path / "one").records[0]["box"].tolist() == [0, 0, *SIZE]


def test_what_is_labelled(tmp_path, capsys):
    """Visibility says so, but for a point at (0, 0); a point outside its image counts where the crop holds it. It is told."""
    odd = [[15.0, 14, 0, 25, 19, 2, 35, 29, 1], [0, 0, 2, 25, 19, 2, 35, 29, 1], [-2, 14, 2, None, None, 0, 35, 29, 1]]

    def change(content: dict) -> None:
        for record, points in zip(content["annotations"], odd, strict=True):
            record["keypoints"] = points

    write(tmp_path, change=change)
    data = train_of(tmp_path, margin=2.0)
    assert [item["weight"].tolist() for item in data] == [[0, 1, 1], [0, 1, 1], [1, 0, 1]]
    place = apply(data[2]["inverse"], data[2]["target"] * 4)
    assert np.allclose(place[[0, 2]], [[-2, 14], [35, 29]], atol=1e-3)
    told = "\n".join(data.notes)
    for count, why in (
        (1, "with coordinates and visibility 0"),
        (1, r"at \(0, 0\) whatever"),
        (1, "outside their images"),
    ):
        assert f"{count} points are {why}".replace("\\", "") in told


def test_boxes(tmp_path):
    """Of the annotation, of the points, or the whole image; crops are so many times as large."""
    write(tmp_path)

    def shown(**options) -> np.ndarray:
        """The corners of the crop in the image."""
        plain = {"scale": 0, "rotation": 0, "flip": 0}
        return apply(train_of(tmp_path, **plain, **options)[0]["inverse"], np.array([[0.0, 0], [64, 64]]))

    assert np.allclose(shown(margin=1.0), [[8, 4], [48, 44]], atol=1e-3)  # the box 8, 9, 40, 30 grown to a square
    assert np.allclose(shown(margin=1.5), [[-2, -6], [58, 54]], atol=1e-3)
    assert np.allclose(shown(boxes="points", margin=1.0), [[8, 6.5], [38, 36.5]], atol=1e-3)
    assert np.allclose(shown(boxes="image", margin=1.5), [[0, -10], [80, 70]], atol=1e-3)
    assert points_box(np.array([[1.0, 2], [5, 4]])).tolist() == [0, 1, 6, 4]


def test_boxes_of_a_detector(tmp_path):
    """They are validated on, with the points of whom they match; a detection of nobody has none."""
    write(tmp_path)
    write(tmp_path, "val.json")
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [9, 10, 39, 29], "score": 0.9},
             {"image_id": 3, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.2}]  # fmt: skip
    (tmp_path / "boxes").mkdir()
    path = tmp_path / "boxes" / "found.json"
    path.write_text(json.dumps(boxes))
    data = data_of(tmp_path, boxes=str(path))
    assert len(data.dataset(train=True)) == 3
    found = data.dataset(train=False).records
    assert [r["box"].tolist() for r in found] == [[9, 10, 39, 29], [1, 1, 9, 9]]
    assert found[0]["truth_box"].tolist() == [8, 9, 40, 30] and "truth_box" not in found[1]
    assert found[0]["keypoints"].tolist() == [[13, 14, 2], [23, 19, 2], [33, 29, 1]] and not found[1]["keypoints"].any()


# ---- points ----


def test_points_are_those_of_the_file(tmp_path):
    write(tmp_path)
    data = data_of(tmp_path)
    assert data.points["names"] == NAMES and data.points["pairs"] == [["jaw_left", "jaw_right"]]
    assert data.points["skeleton"] == [["handle", "jaw_left"], ["handle", "jaw_right"]] and set(
        data.points["sigmas"]
    ) == {0.05}
    assert data.hparams.points is not None and data.dataset(train=True).notes[:3] == [
        "3 points: handle, jaw_left, jaw_right", "mirrored pairs: jaw_left | jaw_right", "their own mirrors: handle"]  # fmt: skip


def test_a_skeleton_may_be_counted_from_0(tmp_path):
    write(tmp_path, change=lambda content: content["categories"][0].update(skeleton=[[0, 1], [1, 2]]))
    assert data_of(tmp_path).points["skeleton"] == [["handle", "jaw_left"], ["jaw_left", "jaw_right"]]


def test_points_without_names_have_numbers_and_no_mirror(tmp_path):
    """So images are not mirrored, in training or evaluation."""
    write(tmp_path, change=lambda content: content["categories"][0].pop("keypoints"))
    data = data_of(tmp_path, flip=1.0, scale=0, rotation=0)
    assert data.points["names"] == ["point_1", "point_2", "point_3"] and data.points["pairs"] is None
    train = data.dataset(train=True)
    assert train.augment.flip == 0 and "the names tell none, so images are not mirrored" in train.notes[1]
    assert train[0]["inverse"][0, 0] > 0


def test_names_of_a_known_set_bring_what_the_file_has_not(tmp_path):
    points = package_points("mtfl")
    five = [x for i in range(5) for x in (10 + 5 * i, 20 + i, 2)]
    names = {"keypoints": [name.title() for name in points.names], "skeleton": []}
    write(tmp_path, change=all_of(lambda content: content["categories"][0].update(names), of_all("keypoints", five)))
    data = data_of(tmp_path)
    assert data.landmarks.pairs == points.pairs and data.landmarks.bones == points.bones
    assert data.landmarks.names[0] == "Left_Eye" and data.dataset(train=True).notes[0].startswith(
        "5 points (point set mtfl)"
    )


def test_a_point_file_says_otherwise(tmp_path):
    """Every part of it alone; names that the annotations call otherwise need aliases."""
    write(tmp_path)
    own = tmp_path / "points.yaml"
    own.write_text("pairs: []\nsigmas: [0.1, 0.2, 0.3]\n")
    points = data_of(tmp_path, points=str(own)).points
    assert points["pairs"] == [] and points["sigmas"] == [0.1, 0.2, 0.3] and len(points["skeleton"]) == 2
    own.write_text("names: [a, b, c]\nskeleton: []\n")
    with pytest.raises(
        ValueError, match=r"category tool has 3 keypoints \(handle, .*\), but expected are 3 \(a, b, c\); aliases"
    ):
        data_of(tmp_path, points=str(own)).points  # noqa: B018
    own.write_text(f"names: [a, b_l, b_r]\naliases: [{', '.join(NAMES)}]\nupper: [a]\n")
    data = data_of(tmp_path, points=str(own))
    assert data.points["names"] == ["a", "b_l", "b_r"] and data.points["pairs"] == [["b_l", "b_r"]]
    assert data.landmarks.upper == (0,) and len(data.dataset(train=True)) == 3
    again = data_of(tmp_path, points=data.points)  # as a checkpoint has them
    assert again.landmarks == data.landmarks and len(again.dataset(train=True)) == 3


def test_points_on_one_side_without_a_partner_are_told(tmp_path):
    """As those of a jaw, whose names do not say left and right."""

    def faces(content: dict) -> None:
        content["categories"] = [{"id": 1, "name": "face", "keypoints": ["jaw_0", "chin", "jaw_1", "brow_l", "brow_r"]}]
        points = [10, 30, 2, 30, 50, 2, 50, 30, 2, 20, 10, 2, 40, 10, 2]
        content["annotations"] = [tool(i, 1, keypoints=points) for i in range(20)]

    write(tmp_path, change=faces)
    (told,) = (note for note in train_of(tmp_path).notes if note.startswith("warning"))
    assert "images are mirrored, but jaw_0, jaw_1 are on one side" in told and "--data.flip 0" in told
    assert not [note for note in train_of(tmp_path, flip=0.0).notes if note.startswith("warning")]
    (tmp_path / "own.yaml").write_text("pairs: [[jaw_0, jaw_1], [brow_l, brow_r]]")
    found = train_of(tmp_path, points=str(tmp_path / "own.yaml")).notes
    assert not [note for note in found if note.startswith("warning")]


def test_points_of_a_checkpoint_need_no_file(tmp_path):
    points = package_points("coco").as_mapping()
    assert data_of(tmp_path / "none", points=points).landmarks == package_points("coco")
    assert len(data_of(tmp_path / "none", points="face_68").landmarks) == 68


def test_validation_has_the_same_points(tmp_path):
    write(tmp_path)
    write(tmp_path, "val.json", lambda content: content["categories"][0].update(keypoints=[*NAMES[::-1]]))
    with pytest.raises(
        ValueError, match=r"val.json: category tool has 3 keypoints \(jaw_right, .*\), but expected are 3 \(handle"
    ):
        data_of(tmp_path).dataset(train=False)


# ---- refusals ----

ANIMAL = ["left_eye", "right_eye", "nose", "neck", "root_of_tail", *(f"{side}_{part}" for side in ("left", "right") for part in (
    "shoulder", "elbow", "front_paw", "hip", "knee", "back_paw"))]  # fmt: skip


def of_points(names: list[str], title: str, listed: bool = True) -> dict:
    content, points = regular(), [x for i in range(len(names)) for x in (10 + i % 40, 20 + i % 30, 2)]
    content["categories"] = [{"id": 1, "name": title} | ({"keypoints": names} if listed else {})]
    of_all("keypoints", points)(content)
    return content


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("read, own", [(read_annotations, 17), (read_people, 16)])
def test_other_points_are_refused_by_the_papers_tasks(read, own, listed, tmp_path):
    """68 of a face, AP-10K's animals: with both lists and the way out."""
    path = tmp_path / "a.json"
    cases = [(list(package_points("face_68").names), "face"), (ANIMAL, "antelope")]
    for names, title in cases if listed else cases[: 2 if own == 16 else 1]:
        path.write_text(json.dumps(of_points(names, title, listed)))
        with pytest.raises(ValueError, match="--config keypoints trains any key points") as error:
            read(path)
        assert str(path) in str(error.value) and f"has {len(names)} keypoints" in str(error.value)
        assert ", ".join(package_points("coco" if own == 17 else "mpii").names) in str(error.value)
        assert not listed or ", ".join(names) in str(error.value)


def test_several_animals_are_refused_by_the_papers_tasks(tmp_path):
    content = of_points(ANIMAL, "antelope")
    content["categories"].append({"id": 2, "name": "dog", "keypoints": ANIMAL})
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"got 1 \(antelope, 17 keypoints\), 2 \(dog, 17 keypoints\); --config keypoints"
    ):
        read_annotations(tmp_path / "a.json")


def two_categories(content: dict) -> None:
    content["categories"].append({"id": 2, "name": "Clamp", "keypoints": ["a", "b"]})
    content["annotations"].append({**tool(8, 3), "category_id": 2, "keypoints": [5, 5, 2, 25, 25, 2]})


def test_one_of_several_categories_is_chosen_by_name(tmp_path):
    write(tmp_path, change=two_categories)
    with pytest.raises(ValueError, match=r"one category must have keypoints, got 1 \(tool, 3 keypoints\), 2 \(Clamp, 2 keypoints\)"
                       "; --data.category names it"):  # fmt: skip
        train_of(tmp_path)
    with pytest.raises(ValueError, match="one category must be named saw, got 1"):
        train_of(tmp_path, category="saw")
    assert len(train_of(tmp_path, category="tool")) == 3 and len(train_of(tmp_path, category="clamp")) == 1
    assert len(train_of(tmp_path, category="2")[0]["weight"]) == 2
    images = {
        "points": "mtfl",
        "images": str(tmp_path),
        "boxes": str(tmp_path / "train.json"),
    }  # and boxes to predict on
    assert [len(data_of(tmp_path / "none", **images, category=name).to_predict()) for name in ("tool", "clamp")] == [
        3,
        1,
    ]
    with pytest.raises(ValueError, match="one category must have keypoints, got 1"):
        data_of(tmp_path / "none", **images).to_predict()


REFUSED = [
    (of_all("keypoints", [1, 2, 2]), r"annotation 1: keypoints must be 9 numbers, x, y and visibility by turns, got 3"),
    (of_all("keypoints", [[1, 2, 2]] * 3), r"annotation 1: keypoints must be 9 numbers, .* got shape \[3, 3\]"),
    (of_all("keypoints", ["x"] * 9), "annotation 1: keypoints must be numbers, got"),
    (of_all("keypoints", [None, 3, 2] * 3), "annotation 1: keypoints holds a number that is not finite"),
    (of_all("keypoints", [4, 3, 5] * 3), r"annotation 1: visibility must be 0, 1 or 2, got \[5.0, 5.0, 5.0\]"),
    (of_all("keypoints", [4, 3, 0] * 3), "no annotation has keypoints"),
    (of_all("bbox", [1, 2, 3]), "annotation 1: bbox must be 4 numbers, got 3"),
    (of_all("bbox", "all"), "annotation 1: bbox must be 4 numbers, got 'all'"),
    (of_all("area", "big"), "annotation 1: area must be a finite number, got 'big'"),
    (of_all("image_id", 77), "annotation 1: no image 77"),
    (of_all("image_id", [1]), r"annotation 1: image_id must be an integer, got \[1\]"),
    (of_all("iscrowd", 2), "annotation 1: iscrowd must be 0 or 1, got 2"),
    (of_images("file_name", None), "image 1: fields 'file_name' and 'coco_url' are missing"),
    (of_images("file_name", "gone.png"), "image 1: image gone.png is not below"),
    (lambda content: content["categories"][0].update(skeleton=[[1, 9]]), r"skeleton must join points 1 to 3, got \[\[1, 9\]\]"),
    (lambda content: content["categories"][0].update(keypoints=["a", "a", "b"]), "names: 'a' is there twice"),
    (lambda content: content.update(annotations=3), "annotations must be a list, got int"),
    (lambda content: content.update(images={}), "images must be a list, got dict"),
    (lambda content: content["images"].append({"id": 1, "file_name": "other.png"}), "two images have the id 1"),
    (lambda content: content.update(annotations=[]), "no annotation has keypoints"),
]  # fmt: skip


@pytest.mark.parametrize("change, message", REFUSED)
def test_malformed_files_are_named(change, message, tmp_path):
    write(tmp_path, change=change)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        train_of(tmp_path)
    assert str(tmp_path / "train.json") in str(error.value)


def test_an_image_of_another_size_is_named(tmp_path):
    """And that it would fit if it were not turned as its EXIF says."""
    write(tmp_path, change=all_of(of_images("width", SIZE[1]), of_images("height", SIZE[0])))
    with pytest.raises(ValueError, match=r"1.png is 80x60, but image 1 of .*train.json is 60x80 \(a photo that lies on its side is "
                       "turned as its EXIF says, as browsers show it"):  # fmt: skip
        train_of(tmp_path)[0]


WRONG = [
    ({"val_fraction": 1.0}, r"data: val_fraction must be in \[0, 1\), got 1.0"),
    ({"val_fraction": 0.2, "val_file": "a.json"}, "val_fraction and val_file are two ways to the same"),
    ({"margin": 0.5}, "data: margin must be >= 1, got 0.5"), ({"margin": float("nan")}, "data: margin must be >= 1, got nan"),
    ({"points": {"joints": ["a"]}}, "data: points: unknown key 'joints'"), ({"train_file": ""}, "train_file must be a path"),
    ({"image_size": (60, 64)}, "image_size must be two positive multiples of 32"),
]  # fmt: skip


@pytest.mark.parametrize("options, message", WRONG)
def test_wrong_options_are_named_at_once(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        data_of(tmp_path, **options)


# ---- splits and files ----

LAYOUTS = {
    "COCO's": ("annotations/person_keypoints_train2017.json", "annotations/person_keypoints_val2017.json"),
    "test": ("annotations/person_keypoints_train.json", "annotations/person_keypoints_test.json"),
    "Roboflow's": ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
    "plain": ("training.json", "validation.json"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_splits_are_found(name, tmp_path):
    train, val = LAYOUTS[name]
    write(tmp_path, train)
    write(tmp_path, val, lambda content: content["annotations"].pop(), pixels=name == "Roboflow's")
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "captions_train2017.json").write_text(
        '{"images": [], "annotations": [{"caption": "a"}]}'
    )
    data = data_of(tmp_path)
    assert [len(data.dataset(train=part)) for part in (True, False)] == [3, 2]
    assert any(str(tmp_path / train) in note for note in data.dataset(train=True).notes)
    assert any(str(tmp_path / val) in note for note in data.dataset(train=False).notes)


def test_val_comes_before_test(tmp_path):
    for name in ("train", "val", "test"):
        write(tmp_path, f"{name}.json")
    found = annotation_files(tmp_path)
    assert only_file(found, "val", tmp_path) == tmp_path / "val.json"


def test_files_that_are_not_one_of_each_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="data: root .*none is not a folder"):
        train_of(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no annotations of key points"):
        train_of(tmp_path)
    write(tmp_path, "labels.json")
    assert (
        len(train_of(tmp_path)) == 3 and data_of(tmp_path).dataset(train=False) is None
    )  # the only file is training's
    write(tmp_path, "more.json")
    with pytest.raises(
        ValueError, match=r"must be of split train, got 0 of 2 \(labels.json, more.json\); --data.train_file names it"
    ):
        train_of(tmp_path)
    assert len(train_of(tmp_path, train_file="labels.json")) == 3
    write(tmp_path, "a/train.json")
    write(tmp_path, "b/train.json")
    with pytest.raises(ValueError, match=r"must be of split train, got 2 of 4"):
        train_of(tmp_path)
    with pytest.raises(FileNotFoundError, match="train_file c.json is no file, nor one under"):
        train_of(tmp_path, train_file="c.json")


def test_a_share_of_the_images_is_the_same_every_time(tmp_path):
    def many(content: dict) -> None:
        content["images"] = [{"id": i, "file_name": "1.png", "width": SIZE[0], "height": SIZE[1]} for i in range(20)]
        content["annotations"] = [tool(1, i // 2, id=i) for i in range(40)]

    write(tmp_path, change=many)
    splits = [[{r["image_id"] for r in data_of(tmp_path, val_fraction=0.2, seed=seed).dataset(train=part).records}
               for part in (True, False)] for seed in (0, 0, 1)]  # fmt: skip
    train, val = splits[0]
    assert len(train) == 16 and len(val) == 4 and not train & val and splits[0] == splits[1] != splits[2]
    assert len(data_of(tmp_path, val_fraction=0.001).dataset(train=False)) == 2  # at least one image
    write(
        tmp_path / "one",
        change=lambda content: content.update(images=content["images"][:1], annotations=content["annotations"][:1]),
    )
    with pytest.raises(ValueError, match="val_fraction needs two images or more with key points, got 1"):
        train_of(tmp_path / "one", val_fraction=0.5)


@pytest.mark.parametrize(
    "name, parts",
    [("a/b.png", ["a", "b.png"]), ("C:\\x y\\b.png", ["C:", "x y", "b.png"]), ("./b.png", ["b.png"]),
     ("https://h/a%20b/c.png?x=1", ["a b", "c.png"]), ("/data/local-files/?d=a/b.png", ["a", "b.png"]),
     ("s3://b/k/c.png", ["k", "c.png"])],
)  # fmt: skip
def test_parts_of_a_file_name(name, parts):
    assert parts_of(name) == parts


def touched(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, annotations: str, name: str) -> Path:
    return ImageFinder(root, root / annotations).find({"file_name": name}, "here")


def test_an_image_of_a_name_that_is_there_twice(tmp_path):
    """The folders before the name decide, then the annotations' own folder, then the split in both names."""
    touched(tmp_path, "train/1.jpg", "test/1.jpg", "annotations/train.json")
    for split in ("train", "test"):
        own = f"annotations/person_keypoints_{split}.json"
        assert found(tmp_path, own, "1.jpg") == tmp_path / split / "1.jpg"
        assert found(tmp_path, own, "test/1.JPG") == tmp_path / "test" / "1.jpg"
    assert found(tmp_path, "train/test.json", "1.jpg") == tmp_path / "train" / "1.jpg"
    with pytest.raises(ValueError, match=r"here: image 1.jpg may be .*1.jpg or .*1.jpg; --data.train_images"):
        found(tmp_path, "all.json", "1.jpg")
    with pytest.raises(FileNotFoundError, match="here: image 2.jpg is not below"):
        found(tmp_path, "all.json", "2.jpg")


def test_names_of_other_systems(tmp_path):
    touched(tmp_path, "images/u\u0308ber \u732b.JPG")
    assert found(tmp_path, "a.json", "\u00fcber \u732b.jpg").name == "u\u0308ber \u732b.JPG"
    assert found(tmp_path, "a.json", str(tmp_path / "images" / "u\u0308ber \u732b.JPG")).is_file()


def test_a_folder_of_images_is_named(tmp_path):
    write(tmp_path, pixels=False)
    write(tmp_path, "a/train.json")
    (tmp_path / "a" / "train.json").unlink()
    touched(tmp_path, "b/1.png", "b/2.png")
    with pytest.raises(ValueError, match="may be"):
        train_of(tmp_path)
    data = train_of(tmp_path, train_images=str(tmp_path / "a"))
    assert {data.image_path(record["image_id"]).parent.name for record in data.records} == {"a"}


def test_the_mean_shape(tmp_path):
    """Tools of one shape in their boxes are where the mean is; of another shape they are off by what they differ."""
    write(tmp_path)
    data = data_of(tmp_path)
    truth = data.train_split[0]
    assert np.allclose(mean_shape_errors(truth, truth), 0)
    write(tmp_path / "other", change=of_all("keypoints", [10, 10, 2, 30, 30, 2, 0, 0, 0]))
    other = data_of(tmp_path / "other").train_split[0]
    first = mean_shape_errors(truth, other)[:2]
    assert np.allclose(first, [np.hypot(10 - 13, 10 - 14), np.hypot(30 - 23, 30 - 19)])


def test_boxes_to_predict_on(tmp_path):
    write(tmp_path)
    (tmp_path / "boxes.json").write_text(json.dumps([{"file_name": "1.png", "bbox": [1, 2, 30, 40]}]))
    points = {"points": "mtfl", "images": str(tmp_path)}
    boxes = str(tmp_path / "boxes.json")
    data = data_of(tmp_path / "none", **points, boxes=boxes, margin=1.5).to_predict()
    assert len(data) == 1 and len(read_boxes(boxes, tmp_path, 5)) == 1
    corners = apply(data[0]["inverse"], np.array([[0.0, 0], [64, 64]]))
    assert np.allclose(
        corners, [[16 - 30, 22 - 30], [16 + 30, 22 + 30]], atol=1e-3
    )  # 1.5 times the square around the box
    assert len(data_of(tmp_path / "none", **points).to_predict()) == 3
