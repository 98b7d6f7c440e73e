"""Task keypoints: scores in closed form, and training, validation and prediction of drawn tools by the real command."""

import csv
import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import runs
import task_runs
import torch
from runs import logged, two_processes_equal
from task_runs import NO_FIGURES, Trained, from_last, resumed
from test_keypoint_files import ANIMAL, NAMES, data_of, of_points, tool, write
from torch.utils.data import default_collate

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.tasks.keypoints.metrics import KeypointEvaluation, point_errors, summary
from sampling_argmax_cuda.tasks.keypoints.oks import coco_results, evaluate_coco
from sampling_argmax_cuda.tasks.keypoints.synthetic import draw_tool
from sampling_argmax_cuda.tasks.keypoints.task import KeypointPose
from sampling_argmax_cuda.trainers.landmarks import Landmarks
from sampling_argmax_cuda.trainers.points import package_points
from sampling_argmax_cuda.trainers.transforms import apply, invert

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

FACES = Path(os.environ.get("SAMPLING_ARGMAX_DATA", "/nowhere")) / "faces"
TOOL = Landmarks(("handle", "jaw_left", "jaw_right"), ((1, 2),), ())
options, fit = partial(runs.options, config="keypoints"), partial(runs.fit, config="keypoints")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data") / "keypoints"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Trained:
    return task_runs.trained(fit, data, tmp_path_factory.mktemp("runs"))


# ---- scores ----


def test_errors_in_closed_form():
    """Off by 5 pixels in a box of 30 by 40: a tenth of its diagonal, an eighth of its longer side."""
    truth = np.array([[[10.0, 10, 2], [20, 10, 1], [0, 0, 0]], [[50, 50, 2], [50, 50, 2], [10, 60, 2]]])
    pixels = truth[..., :2] + np.array([3.0, 4.0])
    pixels[0, 2] = np.nan  # where nothing is labelled, nothing counts
    boxes = np.array([[0.0, 0, 30, 40], [0, 0, 40, 30]])
    errors = point_errors(pixels, truth, boxes)
    assert np.isnan(errors["px"]).tolist() == [[False, False, True], [False] * 3]
    assert np.nanmax(np.abs(errors["px"] - 5)) < 1e-12 and np.nanmax(np.abs(errors["nme"] - 0.1)) < 1e-12
    assert np.nanmax(np.abs(errors["pck"] - 0.125)) < 1e-12
    found = summary(errors)
    assert found == pytest.approx({"mean_px": 5, "median_px": 5, "nme": 0.1, "pck_0.05": 0, "pck_0.1": 0, "pck_0.2": 1})
    # Over the distance of two points: 10 for the first; the second has them in one place, and so no length.
    by_pair = point_errors(pixels, truth, boxes, (0, 1))
    assert np.nanmean(by_pair["nme"]) == pytest.approx(0.5) and np.isnan(by_pair["nme"][1]).all()
    assert np.isnan(point_errors(pixels, truth, boxes, (0, 2))["nme"][0]).all()
    assert summary(point_errors(pixels[:1], 0 * truth[:1], boxes[:1])) == {}


def test_the_median_and_the_shares_are_of_points():
    truth = np.full((1, 5, 3), 2.0)
    pixels = truth[..., :2] + np.array([[0, 0], [1, 0], [0, 5], [10, 0], [0, 100]])
    found = summary(point_errors(pixels, truth, np.array([[0, 0, 60.0, 100]])))
    assert found["median_px"] == 5 and found["mean_px"] == pytest.approx(116 / 5)
    assert [found[f"pck_{t}"] for t in (0.05, 0.1, 0.2)] == [0.6, 0.8, 0.8]


@pytest.mark.parametrize("sigma, ap", [(0.05, 0.3), (0.08, 0.7), (0.03, 0.0)])
def test_average_precision_of_given_sigmas(sigma, ap, tmp_path):
    """One tool whose points are all off by the same: OKS is exp(-d^2 / (8 area sigma^2)), and AP the share of thresholds below."""

    def one(content: dict) -> None:
        content["annotations"] = content["annotations"][:1]

    write(tmp_path, change=one)
    points = {"names": NAMES, "pairs": [], "skeleton": [], "sigmas": [sigma] * 3}
    truth = data_of(tmp_path, points=points).train_split[0]
    area = truth.people[0]["area"]
    shift = np.sqrt(-8 * area * 0.05**2 * np.log(0.62))  # OKS 0.62 of sigma 0.05
    similarity = np.exp(-(shift**2) / (8 * area * sigma**2))
    assert ap == pytest.approx(np.mean(np.arange(0.5, 1, 0.05) <= similarity))
    moved = truth.people[0]["keypoints"] + [shift, 0, 0]
    assert evaluate_coco(truth, coco_results([1], moved[None], [1.0], [area]))["AP"] == pytest.approx(ap)


def validated(root: Path, shift: float, **more) -> tuple[KeypointEvaluation, dict]:
    """Evaluation and scores of a network that finds every point ``shift`` pixels too far right."""
    data, evaluation = data_of(root).dataset(train=False), KeypointEvaluation(TOOL, **more)

    def decode(_, law: bool) -> dict[str, torch.Tensor]:
        people = [data.records[i]["keypoints"][:, :2] + [shift, 0] for i in batch["index"].tolist()]
        places = [apply(invert(m), p) / 4 for m, p in zip(batch["inverse"].double().numpy(), people, strict=True)]
        return {"position": torch.tensor(np.stack(places), dtype=torch.float32), "peak": torch.ones(len(places), 3)}

    module = SimpleNamespace(
        decode=decode, to_image=lambda *given: KeypointPose.to_image(module, *given), evaluation=evaluation,
        has_laws=False, validates_laws=False, hparams=SimpleNamespace(stride=4),
    )  # fmt: skip
    batch = default_collate(list(data))
    KeypointPose.validation_step(module, batch, 1)
    return evaluation, evaluation.compute(list, data)


def test_scores_of_a_validation(tmp_path):
    """In pixels of the images; perfect positions have AP 1, and the table is of the same numbers by point."""
    write(tmp_path, "train.json")
    write(tmp_path, "val.json", lambda content: content["annotations"][0]["keypoints"].__setitem__(2, 0))
    evaluation, scores = validated(tmp_path, 0.0)
    assert (
        scores["AP"] == pytest.approx(1) and scores["mean_px"] == pytest.approx(0, abs=1e-3) and scores["pck_0.05"] == 1
    )
    evaluation, scores = validated(tmp_path, 3.0)
    assert scores["mean_px"] == pytest.approx(3, abs=1e-3) and scores["nme"] == pytest.approx(3 / 50, abs=1e-4)
    assert scores["pck_0.05"] == 0 and scores["pck_0.1"] == 1 and scores["AP"] < 1
    assert [row["point"] for row in evaluation.table] == NAMES and [row["labelled"] for row in evaluation.table] == [
        2,
        3,
        3,
    ]
    assert all(row["mean_px"] == pytest.approx(3, abs=1e-3) for row in evaluation.table)
    pair = validated(tmp_path, 3.0, pair=("jaw_left", "jaw_right"))[1]
    assert pair["nme"] == pytest.approx(3 / np.hypot(10, 10), abs=1e-4)


@pytest.mark.parametrize("pair", [("handle", "blade"), ("handle", "handle")])
def test_a_wrong_pair_is_named(pair):
    with pytest.raises(ValueError, match="model: nme_pair must be two names of handle, jaw_left, jaw_right, got"):
        KeypointEvaluation(TOOL, pair)


# ---- the module ----


def test_without_pairs_no_image_is_mirrored():
    points = {"names": ["a", "b"], "pairs": None}
    small = {"depth": 18, "head_channels": 16}
    assert not KeypointPose(points=points, **small).tta.flip
    assert KeypointPose(points={**points, "pairs": []}, **small).tta.flip
    with pytest.raises(ValueError, match="model: points: names are missing"):
        KeypointPose(**small)


# ---- the command line ----


@pytest.mark.long
def test_training_reaches_a_stated_error(data, tmp_path):
    """Below a third of 0.3, the NME of a network that has learnt nothing: it answers with the middle of the crop."""
    fit(tmp_path / "data", tmp_path / "run", "--data.synthetic_train=96", "--data.synthetic_val=16", "--data.rotation=0",
        "--data.scale=0", "--data.flip=0", "--data.color=0", "--model.norm=batch", "--model.head_channels=32",
        "--objective.num_samples=10", "--objective.tau=1.0", "--model.lr=0.002", "--model.milestones=[6]",
        "--trainer.max_epochs=7", "--trainer.check_val_every_n_epoch=7")  # fmt: skip
    assert logged(tmp_path / "run")["val/nme"][-1] < 0.1


def test_resumed_run_equals_an_uninterrupted_one(trained):
    assert resumed(trained)["global_step"] == 6


@pytest.mark.long
def test_two_processes_equal_one(trained, data, tmp_path):
    two_processes_equal(trained.first, data, tmp_path, config="keypoints")
    assert logged(trained.first)["val/mean_px"] == pytest.approx(logged(tmp_path)["val/mean_px"], rel=2e-3)


def test_a_checkpoint_brings_its_points(trained, data, tmp_path, capfd):
    """validate needs the validation annotations, predict the images alone."""
    checkpoint = from_last(trained.first, "best")
    content = torch.load(trained.first / "checkpoints" / "best.ckpt", weights_only=False)
    assert content["hyper_parameters"]["points"] == content["datamodule_hyper_parameters"]["points"]
    assert content["hyper_parameters"]["points"]["names"] == ["handle", "joint", "jaw_left", "jaw_right"]
    command = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--data.num_workers=0", checkpoint]
    val = f"--data.val_file={data / 'annotations' / 'val.json'}"
    assert main(["validate", *command, f"--data.root={data}", val, f"--trainer.default_root_dir={tmp_path / 'a'}"]) == 0
    (table,), (figure,) = (list((tmp_path / "a").rglob(name)) for name in ("points.csv", "points.png"))
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["point"] for row in rows] == [
        "handle",
        "joint",
        "jaw_left",
        "jaw_right",
    ] and figure.stat().st_size > 1000
    expected = logged(trained.first)["val/mean_px"][0]
    assert np.mean([float(row["mean_px"]) for row in rows]) == pytest.approx(expected, rel=1e-4)
    assert "handle            6" in capfd.readouterr().out
    results = json.loads(next((tmp_path / "a").rglob("results.json")).read_text())
    assert len(results) == 6 and all(len(r["keypoints"]) == 12 for r in results)
    images = f"--data.images={data / 'images' / 'val'}"
    assert main(["predict", *command, images, f"--trainer.default_root_dir={tmp_path / 'b'}"]) == 0
    records = json.loads(next((tmp_path / "b").rglob("predictions.json")).read_text())
    assert len(records) == 6 and all(len(r["keypoints"]) == 12 for r in records)


def test_another_files_points_are_refused_by_a_checkpoint(trained, tmp_path, capfd):
    write(tmp_path, "val.json")
    given = [
        f"--data.root={tmp_path}",
        "--data.val_file=val.json",
        "--trainer.accelerator=cpu",
        NO_FIGURES,
        "--data.num_workers=0",
    ]
    assert main(["validate", from_last(trained.first), *given, f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 1
    error = capfd.readouterr().err
    assert (
        "val.json: category tool has 3 keypoints (handle, jaw_left, jaw_right), but expected are 4 (handle, joint,"
        in error
    )


@pytest.mark.parametrize("names, title", [(list(package_points("face_68").names), "face"), (ANIMAL, "antelope")])
def test_other_points_are_refused_by_coco(names, title, tmp_path, capfd):
    """Through the real command: it says both lists, and what to run."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(of_points(names, title)))
    given = runs.options(tmp_path, tmp_path / "run", "--data.synthetic=false")
    assert main(["fit", *given]) == 1
    error = capfd.readouterr().err
    assert "--config keypoints" in error and ", ".join(names) in error and "left_ankle, right_ankle" in error
    assert len(error.strip().splitlines()) == 1 and not list((tmp_path / "run").rglob("*.ckpt"))


@pytest.mark.parametrize(
    "change, more, message",
    [
        (lambda content: content["categories"][0].update(keypoints=["a", "a", "b"]), [], "'a' is there twice"),
        (lambda content: content["annotations"].append(tool(8, 1, keypoints=[1, 2])), [], "8: keypoints must be 9 numbers"),
        (lambda content: None, ["--data.points=hands"], "--data.points hands: no file, and no point set of the package"),
        (lambda content: None, ["--data.points=mtfl"], "has 3 keypoints (handle, jaw_left, jaw_right), but expected are 5"),
        (lambda content: None, ["--data.category=saw"], "one category must be named saw"),
        (lambda content: None, ["--model.nme_pair=[a,b]"], "model: nme_pair must be two names of handle"),
        (lambda content: None, ["--data.boxes=boxes.json", "--data.val_file=train.json"], "boxes.json does not exist"),
    ],
)  # fmt: skip
def test_faults_are_one_line(change, more, message, tmp_path, capfd):
    write(tmp_path, change=change)
    given = options(tmp_path, tmp_path / "run", "--data.synthetic=false", "--data.batch_size=1", *more)
    assert main(["fit", *given]) == 1
    error = capfd.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.ckpt"))


# ---- data ----


def test_drawn_tools_are_read_as_they_were_drawn(data, trained):
    found = data_of(data).dataset(train=False)
    assert len(found) == 6
    for number, record in enumerate(found.records, 1):
        image, points = draw_tool(128, np.random.default_rng((0, True, number)))
        assert np.abs(record["keypoints"][:, :2] - points).max() <= 0.006
        assert (found.read(record)[..., ::-1] == image).all()


@pytest.mark.skipif(not FACES.is_dir(), reason="SAMPLING_ARGMAX_DATA has no faces")
def test_real_faces_need_no_option():
    data = data_of(FACES)
    train, val = data.dataset(train=True), data.dataset(train=False)
    assert (len(train), len(val)) == (2000, 500) and data.landmarks.pairs == package_points("face_68").pairs
    assert train.image_path(1) == FACES / "train" / "000001.jpg" and val.image_path(1) == FACES / "test" / "000001.jpg"
    item = val[0]
    assert item["weight"].sum() == 68
    assert np.allclose(apply(item["inverse"], item["target"] * 4), val.records[0]["keypoints"][:, :2], atol=1e-3)
    assert "off by 7.17 px" in val.notes[-1]
