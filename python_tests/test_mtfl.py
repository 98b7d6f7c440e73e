"""MTFL: both annotation formats, synthetic faces, errors in closed form, and training through the command line."""

import json
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import runs
import task_runs
from runs import logged, run, two_processes_equal
from task_runs import Trained, from_last, resumed

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.tasks.mtfl.metrics import landmark_errors
from sampling_argmax_cuda.tasks.mtfl.reader import read_faces
from sampling_argmax_cuda.tasks.mtfl.synthetic import draw_face, write_synthetic_mtfl
from sampling_argmax_cuda.tasks.mtfl.task import MtflData
from sampling_argmax_cuda.trainers.transforms import Augment

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

REAL = Path(os.environ.get("SAMPLING_ARGMAX_DATA", "/nowhere")) / "mtfl" / "training_head.txt"
LINE = " folder\\one.jpg 10 20 15 12 18 30 31 40 50.5 51.25 1 2 2 3\r\n"
POINTS = [[10, 30], [20, 31], [15, 40], [12, 50.5], [18, 51.25]]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data") / "mtfl"


options, fit = partial(runs.options, config="mtfl"), partial(runs.fit, config="mtfl")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Trained:
    return task_runs.trained(fit, data, tmp_path_factory.mktemp("runs"))


# ---- formats ----


@pytest.mark.skipif(not REAL.is_file(), reason="SAMPLING_ARGMAX_DATA has no MTFL lines")
def test_real_lines():
    faces = read_faces(REAL).records
    assert len(faces) == len([line for line in REAL.read_text().splitlines() if line.strip()])
    assert faces[0]["image_id"] == "lfw_5590/Aaron_Eckhart_0001.jpg"
    assert faces[0]["keypoints"][:, 0].tolist() == [107.25, 147.75, 126.25, 106.25, 140.75]
    assert faces[0]["keypoints"][:, 1].tolist() == [108.75, 113.25, 143.75, 158.75, 162.75]


def test_text_and_json_are_the_same(tmp_path):
    text, other = tmp_path / "training.txt", tmp_path / "training.json"
    text.write_bytes((LINE + "\r\n").encode())
    other.write_text(json.dumps([{"image_name": "folder/one.jpg", "landmarks": POINTS}]))
    for path in (text, other):
        (face,) = read_faces(path).records
        assert face["image_id"] == "folder/one.jpg" and face["keypoints"][:, :2].tolist() == POINTS


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", LINE.replace(" 3\r", "\r"), r"a.txt: line 1: expected an image, 10 coordinates .* got 14 fields"),
        ("a.txt", LINE + LINE.replace("20", "x"), r"a.txt: line 2: coordinates must be numbers, got 10 x 15"),
        ("a.txt", LINE.replace("20", "nan"), r"a.txt: line 1: landmarks holds a number that is not finite"),
        ("a.txt", "\r\n", r"a.txt: no faces"),
        ("a.json", "[{", r"a.json is not valid JSON"),
        ("a.json", "{}", r"a.json: annotations must be a list, got dict"),
        ("a.json", '[{"image_name": "b.jpg"}]', r"a.json: record 0: field 'landmarks' is missing"),
        (
            "a.json",
            '[{"image_name": "b.jpg", "landmarks": [[1, 2]]}]',
            r"record 0: landmarks must be 5 x 2 numbers, got shape",
        ),
        (
            "a.json",
            '[{"image_name": "b.jpg", "landmarks": "five"}]',
            r"record 0: landmarks must be 5 x 2 numbers, got 'five'",
        ),
    ],
)
def test_malformed_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode())
    with pytest.raises(ValueError, match=message):
        read_faces(tmp_path / name)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="annotation file .*none.txt does not exist"):
        read_faces(tmp_path / "none.txt")
    (tmp_path / "a.txt").write_bytes(LINE.encode())
    with pytest.raises(FileNotFoundError, match=r"folder/one.jpg does not exist \(.*a.txt: line 1\)"):
        MtflData(root=str(tmp_path), val_file="a.txt").dataset(train=False)[0]


def test_images_may_lie_where_the_released_code_has_them(tmp_path):
    """Under AFLW/, which annotations do not name; an image in the place that they name goes before it."""
    line = LINE.replace("folder\\", "")
    (tmp_path / "a.txt").write_bytes(line.encode())
    (tmp_path / "AFLW").mkdir()
    data = MtflData(root=str(tmp_path), val_file="a.txt").dataset(train=False)
    for folder, shade in ((tmp_path / "AFLW", 200), (tmp_path, 100)):
        cv2.imwrite(str(folder / "one.jpg"), np.full((48, 64, 3), shade, np.uint8))
        assert abs(data.read(data.records[0]).astype(int) - shade).max() <= 1


# ---- samples ----


def test_synthetic_faces_are_read_as_they_were_drawn(tmp_path):
    root = tmp_path / "faces"
    write_synthetic_mtfl(root, 3, 2, image_size=96, seed=5)
    assert (root / "training.txt").read_bytes().startswith(b" drawn_train\\face_00000.png ")
    for file, test, count in (("training.txt", False, 3), ("testing.txt", True, 2)):
        faces = MtflData(root=str(root), val_file=file, image_size=(96, 96)).dataset(train=False)
        assert len(faces) == count
        for i in range(count):
            image, points = draw_face(96, np.random.default_rng((5, test, i)))
            sample = faces[i]
            assert np.allclose(sample["target"] * 4, points, atol=1e-3) and (sample["weight"] == 1).all()
            assert np.abs(faces.read(faces.records[i])[..., ::-1].astype(int) - image).max() == 0
    write_synthetic_mtfl(root, 3, 2, image_size=96, seed=5)  # left as it is
    with pytest.raises(ValueError, match="holds other files"):
        write_synthetic_mtfl(root, 3, 2, image_size=96, seed=6)


def test_a_mirrored_face_has_its_eyes_swapped(tmp_path):
    write_synthetic_mtfl(tmp_path / "faces", 4, 1, image_size=96)
    own = {"val_file": "training.txt", "image_size": (96, 96), "scale": 0, "rotation": 0, "flip": 1}
    faces = [MtflData(root=str(tmp_path / "faces"), **own).dataset(train) for train in (False, True)]
    for plain, mirrored in zip(*faces, strict=True):
        assert np.allclose(mirrored["image"], plain["image"][:, :, ::-1], atol=0.02)
        expected = plain["target"][[1, 0, 2, 4, 3]] * [-1, 1] + [95 / 4, 0]
        assert np.allclose(mirrored["target"], expected, atol=1e-3)


def test_released_augmentation():
    """Clipped normals: a third of the scales at each end of 1 +- 0.3, four in ten images not turned."""
    augment, draws = Augment(0.3, 40.0, normal=True), []
    for i in range(4000):
        draws.append(augment.draw(np.random.default_rng((1, i))))
    scale, rotation = np.array([d.scale for d in draws]), np.array([d.rotation for d in draws])
    assert scale.min() == pytest.approx(0.7) and scale.max() == pytest.approx(1.3)
    assert abs((scale > 1.3 - 1e-9).mean() - 0.1587) < 4 * 0.0058 and abs((rotation == 0).mean() - 0.4) < 4 * 0.0078
    turned = rotation[rotation != 0]
    assert np.abs(turned).max() == pytest.approx(80) and abs(turned.std() - 40 * 0.9595) < 4 * 40 / np.sqrt(
        2 * len(turned)
    )


# ---- errors ----


def test_errors_in_closed_form():
    truth = np.tile(np.array([[0.0, 0], [40, 0], [20, 20], [5, 40], [35, 40]]), (3, 1, 1))
    truth[2, 1] = truth[2, 0]  # eyes on each other: no relative error
    prediction = truth + np.array([[[3.0, 4.0]], [[0.0, 0.0]], [[6.0, 8.0]]])
    errors = landmark_errors(prediction, truth)
    assert errors["abs_px"] == pytest.approx((5 + 0 + 10) / 3) and errors["rel_percent"] == pytest.approx(
        100 * 5 / 40 / 2
    )
    assert "rel_percent" not in landmark_errors(prediction[2:], truth[2:])


# ---- the command line ----


SHORT = ["--data.synthetic_train=80", "--data.synthetic_val=16", "--data.batch_size=8", "--model.milestones=[4]"]
LONG = ["--data.synthetic_train=256", "--data.synthetic_val=32", "--data.batch_size=16", "--model.milestones=[8]"]


@pytest.mark.parametrize("own, epochs, bound", [(SHORT, 5, 18), pytest.param(LONG, 10, 8, marks=pytest.mark.long)])
def test_training_reaches_a_stated_error(own, epochs, bound, tmp_path):
    """Below 8 pixels of 128. A network that has learnt nothing answers with the middle, 20 pixels off."""
    run = tmp_path / "run"
    fit(tmp_path / "data", run, *own, "--data.rotation=0", "--data.scale=0", "--data.flip=0", "--model.head_channels=32",
        "--model.norm=batch", "--objective.num_samples=10", "--objective.tau=1.0", "--model.lr=0.002",
        f"--trainer.max_epochs={epochs}", f"--trainer.check_val_every_n_epoch={epochs}")  # fmt: skip
    truth = np.stack([face["keypoints"][:, :2] for face in read_faces(tmp_path / "data" / "testing.txt").records])
    assert landmark_errors(np.full_like(truth, 64), truth)["abs_px"] > 20
    assert logged(run)["val/abs_px"][-1] < bound
    assert list(run.rglob("epoch_*.png")) and (run / "checkpoints" / "best.ckpt").is_file()


def test_resumed_run_equals_an_uninterrupted_one(trained):
    assert resumed(trained)["global_step"] == 6


@pytest.mark.long
def test_two_processes_equal_one(trained, data, tmp_path):
    two_processes_equal(trained.first, data, tmp_path, config="mtfl")
    for name in ("val/abs_px", "val/crps", "val/spread"):  # of the samples of both ranks
        assert logged(trained.first)[name] == pytest.approx(logged(tmp_path)[name], rel=2e-3)


def test_predict_and_validate(trained, data, tmp_path):
    checkpoint = from_last(trained.first, "best")
    assert run("validate", *options(data, tmp_path / "again", checkpoint)) == 0
    images = f"--data.images={data / 'drawn_test'}"
    assert run("predict", *options(data, tmp_path / "out", images, checkpoint)) == 0
    (file,) = (tmp_path / "out").rglob("predictions.json")
    records = json.loads(file.read_text())
    assert len(records) == 6 and all(len(r["keypoints"]) == 15 and "category_id" not in r for r in records)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--data.synthetic=false", "--data.root=/nowhere"], "annotation file /nowhere/training.txt does not exist"),
        (
            ["--task=hands"],
            "--task must be one of associative, coco, h36m, keypointnet, keypoints, mpii, mtfl, oct, skeleton, got 'hands'",
        ),
    ],
)
def test_error_messages(data, tmp_path, capfd, more, message):
    assert main(["fit", *options(data, tmp_path, *more)]) == 1
    assert message in capfd.readouterr().err
