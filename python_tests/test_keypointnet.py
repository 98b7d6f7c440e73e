"""KeypointNet: files, symmetries, PointNet++'s parts against slow references, PCK by hand, and the command line."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import runs
import task_runs
import torch
from runs import fitting, logged, losses_of, one_and_two, options_without_images, run
from task_runs import NO_FIGURES, Trained, from_last, resumed, some_of

from sampling_argmax_cuda import expected_error
from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.tasks.keypointnet.metrics import (
    THRESHOLDS,
    KeypointEvaluation,
    best_copy,
    geodesic_distances,
    iou,
    nearest,
    pck,
)
from sampling_argmax_cuda.tasks.keypointnet.pointnet import FeaturePropagation, PointNet, SetAbstraction
from sampling_argmax_cuda.tasks.keypointnet.reader import (
    CloudFolder,
    KeypointClouds,
    read_models,
    read_pcd,
    rotated_copies,
    spacing,
)
from sampling_argmax_cuda.tasks.keypointnet.synthetic import SHAPES, draw_model, write_synthetic_keypointnet
from sampling_argmax_cuda.tasks.keypointnet.task import PointCloudKeypoints, nearest_copy

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

REAL = Path(os.environ.get("SAMPLING_ARGMAX_DATA", "/nowhere")) / "keypointnet"
NAME = "88382b877be91b2a572f8e1c1caad99e"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "point_clouds"
    write_synthetic_keypointnet(path, "chair", 4, 2, points=256, seed=3)
    return path


# ---- files ----


@pytest.mark.skipif(not REAL.is_dir(), reason="SAMPLING_ARGMAX_DATA has no KeypointNet model")
def test_real_keypoints_lie_on_their_points():
    cloud = read_pcd(REAL / "pcds" / "03001627" / f"{NAME}.pcd")
    content = json.loads((REAL / "annotations" / "chair.json").read_text())
    models = read_models(REAL / "annotations" / "chair.json")
    assert cloud.shape == (2048, 3) and len(models) == 3 and models[0]["model_id"] == NAME
    assert cloud[0].tolist() == [-0.166991, -0.169660, 0.113135]
    index = [keypoint["pcd_info"]["point_index"] for keypoint in content[0]["keypoints"]]
    assert np.abs(cloud[index] - models[0]["points"]).max() < 1e-6
    assert models[0]["labels"] == [0, 1, 2, 3, 4, 5, 17, 18, 19, 20]
    assert models[0]["reflections"] == [[0, 1], [2, 3], [4, 5], [6, 9], [7, 8]] and models[0]["rotations"] == []
    assert [group["members"] for group in models[1]["rotations"]] == [[10, 11, 12, 13, 14]]
    copies = rotated_copies(models[1]["points"], models[1]["rotations"])
    assert copies.shape == (5, 17, 3) and np.array_equal(
        copies[:, :10], np.repeat(models[1]["points"][None, :10], 5, 0)
    )
    # The feet of a swivel chair: turned by one place each lies near where the next one was.
    assert np.array_equal(copies[1, 10], models[1]["points"][11]) and np.array_equal(
        copies[1, 14], models[1]["points"][10]
    )


PCD = "VERSION .7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nPOINTS 2\nDATA ascii\n1 2 3 9\n4 5 6.5 9\n"


def test_point_clouds_with_other_fields(tmp_path):
    (tmp_path / "a.pcd").write_text("# .PCD\n" + PCD)
    assert read_pcd(tmp_path / "a.pcd").tolist() == [[1, 2, 3], [4, 5, 6.5]]
    (tmp_path / "b.pcd").write_text("FIELDS n z x y\nPOINTS 1\nDATA ascii\n7 3 1 2\n")
    assert read_pcd(tmp_path / "b.pcd").tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    "change, message",
    [
        (("DATA ascii", "DATA binary"), "DATA must be ascii, got binary"),
        (("FIELDS x y z rgb", "FIELDS x y w rgb"), "FIELDS must have x, y and z, got x y w rgb"),
        (("POINTS 2\n", ""), "line POINTS is missing"),
        (("POINTS 2", "POINTS 3"), "POINTS says 3, got 2"),
        (("4 5 6.5 9", "4 5 9"), "line 8 must have 4 numbers, got 3"),
        (("4 5 6.5", "4 nan 6.5"), "line 8: x, y and z must be finite numbers, got 4 nan 6.5"),
        (("4 5 6.5", "4 five 6.5"), "line 8: x, y and z must be finite numbers, got 4 five 6.5"),
        (("4 5 6.5", "4 \xfc 6.5"), r"line 8 is not UTF-8 \(byte 0xfc\)"),
        ((PCD, ""), "line DATA is missing"),
    ],
)
def test_malformed_point_clouds_are_named(tmp_path, change, message):
    (tmp_path / "a.pcd").write_text(PCD.replace(*change), encoding="latin-1")
    with pytest.raises(ValueError, match=f"point cloud .*a.pcd: {message}"):
        read_pcd(tmp_path / "a.pcd")
    with pytest.raises(FileNotFoundError, match="point cloud .*none.pcd does not exist"):
        read_pcd(tmp_path / "none.pcd")


def model(**fields) -> dict:
    keypoints = [{"xyz": [float(i), 0, 0], "semantic_id": i} for i in range(3)]
    record = {
        "class_id": "1",
        "model_id": "m",
        "keypoints": keypoints,
        "symmetries": {"rotation": [], "reflection": []},
    }
    return {**record, **fields}


@pytest.mark.parametrize(
    "content, message",
    [
        ([], "annotations must be a list of models that is not empty"),
        ({}, "annotations must be a list of models that is not empty"),
        ([{"class_id": "1"}], "model 0: field 'model_id' is missing"),
        ([model(keypoints=[])], r"model 0 \(m\): no keypoints"),
        ([model(keypoints=[{"xyz": [1, 2], "semantic_id": 0}])], "keypoint 0: xyz must be 3 numbers, got 2"),
        ([model(keypoints=[{"xyz": [1, 2, float("nan")], "semantic_id": 0}])], "xyz holds a number that is not finite"),
        ([model(keypoints=[{"xyz": [1, 2, 3], "semantic_id": 1}] * 2)], "keypoint 1: semantic_id must be a number >= 0 that no"),
        ([model(symmetries={"rotation": [{"kp_indexes": [0, 3]}]})], "rotation: kp_indexes must be numbers of keypoints below 3"),
        ([model(symmetries={"rotation": [{"kp_indexes": [0], "is_circle": True, "circle": {}}]})], "field 'center' is missing"),
        ([model(symmetries={"rotation": [{"kp_indexes": [0], "is_circle": True,
                                          "circle": {"center": [0, 0, 0], "normal": [0, 0, 0]}}]})], "normal must not be 0"),
    ],
)  # fmt: skip
def test_malformed_models_are_named(tmp_path, content, message):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        read_models(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(error.value)


def test_synthetic_models_are_read_as_they_were_drawn(root):
    data = KeypointClouds(root, "chair", "train")
    assert len(data) == 4 and data.count == 10 and data.copies == 1
    for i in range(4):
        cloud, keypoints, there, _ = draw_model("chair", 256, np.random.default_rng((3, i)))
        sample = data[i]
        assert np.abs(sample["points"] - cloud).max() < 1e-6 and np.flatnonzero(sample["weight"]).tolist() == there
        assert np.abs(sample["copies"][0, there] - keypoints[there]).max() < 1e-6
        assert sample["sigma"] == pytest.approx(spacing(cloud), rel=1e-3)
    assert len(KeypointClouds(root, "chair", "val")) == 2


@pytest.mark.parametrize("category", SHAPES)
def test_synthetic_keypoints_lie_on_their_shapes(category):
    for i in range(6):
        cloud, keypoints, _, symmetries = draw_model(category, 2048, np.random.default_rng((1, i)))
        assert cloud.shape == (2048, 3) and np.abs(cloud).max() < 0.7
        distance = np.linalg.norm(cloud[None] - keypoints[:, None], axis=-1).min(1)
        assert np.median(distance) < 0.03 and distance.max() < 0.12
        groups = [{**g, "members": g["kp_indexes"]} for g in symmetries["rotation"]]
        for group in groups:
            if group["is_circle"]:
                group |= {"center": np.zeros(3), "axis": np.array([0.0, 1, 0])}
        copies = rotated_copies(keypoints, groups)
        assert len(copies) == {"chair": 1, "table": 4, "bottle": 36}[category]
        off = np.linalg.norm(cloud[None, None] - copies[:, :, None], axis=-1).min(2)
        assert off.max() < 0.12  # every copy lies on the shape too


def test_copies_of_a_circle_turn_around_its_axis():
    points = np.array([[2.0, 1, 0], [0, 5, 0]])
    group = {"members": [0], "center": np.array([1.0, 0, 0]), "axis": np.array([0.0, 1, 0])}
    copies = rotated_copies(points, [group])
    assert copies.shape == (36, 2, 3) and (copies[:, 1] == points[1]).all() and np.array_equal(copies[0], points)
    assert np.allclose(copies[18, 0], [0, 1, 0]) and np.allclose(copies[9, 0], [1, 1, -1])
    assert np.allclose(np.linalg.norm(copies[:, 0] - [1, 1, 0], axis=1), 1)


def test_augmentation_moves_cloud_and_keypoints_together(root):
    plain, moved = (KeypointClouds(root, "chair", "train", 0.0, shift, seed=1)[2] for shift in (0.0, 0.02))
    move = (moved["points"] - plain["points"]).mean(0)
    assert 0 < np.abs(move).max() <= 0.02 and np.allclose(moved["points"], plain["points"] + move, atol=1e-6)
    known = plain["weight"] > 0
    assert np.allclose(moved["copies"][:, known], plain["copies"][:, known] + move, atol=1e-6)
    noisy = KeypointClouds(root, "chair", "train", 0.004, 0.0, seed=1)[2]
    assert np.abs(noisy["points"] - plain["points"]).max() <= 0.01 + 1e-6
    again = KeypointClouds(root, "chair", "train", 0.004, 0.0, seed=1)
    assert np.array_equal(again[2]["points"], noisy["points"])
    again.set_epoch(1)
    assert not np.array_equal(again[2]["points"], noisy["points"])


# ---- PointNet++ ----


def point_clouds(batch: int = 2, count: int = 60, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(seed))


def test_features_between_centres_by_a_loop():
    torch.manual_seed(0)
    layer = FeaturePropagation(4, [4]).eval()
    points, centers, coarse = point_clouds(1, 10), point_clouds(1, 5, seed=1), torch.randn(1, 5, 4)
    spread = torch.empty(1, 10, 4)
    for i in range(10):
        distance = (points[0, i] - centers[0]).norm(dim=1)
        three = distance.argsort()[:3]
        weight = 1 / (distance[three].square() + 1e-8)
        spread[0, i] = (coarse[0, three] * (weight / weight.sum())[:, None]).sum(0)
    expected = layer.mlp(spread.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2)
    torch.testing.assert_close(layer(points, None, centers, coarse), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grouping", ["ssg", "msg"])
def test_maps_move_with_the_points(grouping):
    """A network over sets: permuted points have permuted maps, and the same cloud has the same answer."""
    torch.manual_seed(0)
    net = PointNet(4, grouping, (32, 16, 8, 4), width=0.25).eval()
    points, order = point_clouds(2, 64), torch.randperm(64)
    maps, coarse = net(points)
    again, other = net(points[:, order])
    assert maps.shape == (2, 4, 64) and coarse.shape == (2, 4, net.coarse)
    torch.testing.assert_close(again, maps[:, :, order], rtol=1e-4, atol=1e-5)
    assert torch.equal(net(points)[0], maps) and maps.std() > 0


def test_full_networks_have_the_published_channels():
    net = PointNet(10)
    assert [layer.outputs for layer in net.down] == [64, 128, 256, 512]
    assert [layer.outputs for layer in PointNet(10, "msg").down] == [96, 256, 512, 1024]
    assert isinstance(net.down[0], SetAbstraction) and net.down[0].shapes == [(0.1, 32)]


def gaussian(**more) -> dict:
    return {"name": "sampling", "basis": "gaussian", **more}


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(grouping="all"), "grouping must be one of ssg, msg, got 'all'"),
        (dict(centers=(4, 3, 2)), r"centers must be 4 falling numbers >= 1, got \[4, 3, 2\]"),
        (dict(centers=(4, 4, 2, 1)), "centers must be 4 falling numbers"),
        (dict(width=0.0), "width must be > 0, got 0.0"),
        (dict(spacing=0.0), "spacing must be > 0, got 0.0"),
        (
            dict(objective=gaussian(basis="triangular")),
            "point clouds have basis none or gaussian and estimator cell, got triangular and cell",
        ),
        (
            dict(objective=gaussian(estimator="axis")),
            "point clouds have basis none or gaussian and estimator cell, got gaussian and axis",
        ),
        (dict(objective="heatmap"), "objective heatmap needs a grid"),
    ],
)
def test_wrong_options_are_named(wrong, message):
    with pytest.raises(ValueError, match=f"model: {message}"):
        PointCloudKeypoints(**{"objective": gaussian(), **wrong})


# ---- what is trained ----


def test_the_loss_is_that_of_the_nearest_copy():
    torch.manual_seed(0)
    objective = gaussian(tau=1.0, metric="euclidean")
    module = PointCloudKeypoints(
        keypoints=3, centers=(16, 8, 4, 2), width=0.1, objective=objective, dropout=0.0
    ).train()
    copies = torch.rand(2, 4, 3, 3)
    batch = {"points": point_clouds(2, 32), "copies": copies, "weight": torch.tensor([[1.0, 1, 0], [1, 1, 1]]),
             "sigma": torch.tensor([0.02, 0.05])}  # fmt: skip
    output, target = module.rows(batch)
    mean = (output.softmax(-1) @ batch["points"]).detach()
    for b in range(2):
        distance = ((copies[b] - mean[b]).norm(dim=-1) * batch["weight"][b]).sum(-1)
        assert torch.equal(target.position[b], copies[b, distance.argmin()])
    seed = torch.tensor([7, 0])
    expected = expected_error(output, target.position, batch["weight"], num_samples=30, tau=1.0, basis="gaussian",
                              sigma=batch["sigma"].unsqueeze(1), metric="euclidean", points=batch["points"], seed=seed)  # fmt: skip
    torch.testing.assert_close(module.objective.loss(output, target, seed=seed), expected)
    assert not torch.equal(nearest_copy(copies[:, 2], copies, batch["weight"]), copies[:, 0])


# ---- errors ----


def test_geodesics_of_a_line():
    cloud = np.stack([np.arange(50) * 0.01, np.zeros(50), np.zeros(50)], 1)
    found = geodesic_distances(cloud, np.array([0, 10]))
    assert np.allclose(found[0], np.arange(50) * 0.01) and np.allclose(found[1], np.abs(np.arange(50) - 10) * 0.01)
    two = np.concatenate([cloud, cloud + [0, 5, 0]])
    assert np.isinf(geodesic_distances(two, np.array([0]), neighbours=5)[0, 50:]).all()


def test_geodesics_go_around():
    """On a half circle the way along it is pi / 2 times the straight one."""
    angle = np.linspace(0, np.pi, 400)
    cloud = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    assert geodesic_distances(cloud, np.array([0]))[0, -1] == pytest.approx(np.pi, rel=0.01)


def test_pck_and_iou_by_hand():
    assert pck(np.array([0.0, 0.015, 0.05, 0.2])).tolist() == [0.25, 0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75]
    assert THRESHOLDS[0] == 0.01 and THRESHOLDS[-1] == 0.1
    between = np.array([[0.0, 0.5], [0.5, 0.045], [0.3, 0.3]])  # 3 found, 2 true
    assert iou(between)[[0, 3, 4, 9]] == pytest.approx([(2 - 1) / (2 + 2), 1 / 4, 2 / 3, 2 / 3])


def test_scores_of_perfect_and_turned_answers():
    cloud, keypoints, _, _ = draw_model("table", 512, np.random.default_rng(0))
    groups = [{"members": [0, 1, 2, 3]}, {"members": [4, 5, 6, 7]}]
    copies = rotated_copies(keypoints, groups)
    batch = {"index": torch.arange(2), "points": torch.tensor(cloud).expand(2, -1, -1),
             "copies": torch.tensor(copies).expand(2, -1, -1, -1), "weight": torch.ones(2, 8)}  # fmt: skip
    evaluation = KeypointEvaluation()
    evaluation.add(batch, torch.tensor(copies[[0, 3]]))
    scores = evaluation.compute(list)
    assert scores["pck_0.01"] == scores["pck_euclidean_0.01"] == scores["miou_0.01"] == 1 and scores["error"] == 0
    mixed = copies[0].copy()
    mixed[[0, 1]] = mixed[[1, 0]]  # no turn does that
    assert not np.allclose(best_copy(mixed, copies), mixed)
    evaluation.add(batch, torch.tensor(mixed).expand(2, -1, -1))
    scores = evaluation.compute(list)
    assert scores["pck_0.10"] == pytest.approx(6 / 8) and scores["miou_0.10"] == 1
    assert evaluation.compute(list) == {}
    assert np.array_equal(nearest(cloud, cloud[[5, 9]]), [5, 9])


# ---- the command line ----


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data") / "point_clouds"


def options(data: Path, run: Path, *more: str, config: str = "keypointnet") -> list[str]:
    own = ["--data.synthetic_train=8", "--data.synthetic_val=4", "--data.batch_size=4", "--data.points=128",
           "--model.keypoints=10", "--model.centers=[32,16,8,4]", "--model.width=0.1"]  # fmt: skip
    return fitting(options_without_images(data, run, config, [*own, *more]))


fit = partial(runs.fit, config="keypointnet", options=options)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Trained:
    return task_runs.trained(fit, data, tmp_path_factory.mktemp("runs"))


SHORT = ["--data.synthetic_train=64", "--data.synthetic_val=8", "--data.points=256", "--model.centers=[64,32,16,8]",
         "--model.width=0.25", "--model.lr=0.004", "--objective.num_samples=10"]  # fmt: skip
LONG = ["--data.synthetic_train=128", "--data.synthetic_val=16", "--data.points=768", "--model.centers=[192,64,24,8]",
        "--model.width=0.5", "--model.lr=0.003", "--objective.num_samples=30"]  # fmt: skip


@pytest.mark.parametrize("own, bound", [(SHORT, 0.2), pytest.param(LONG, 0.9, marks=pytest.mark.long)])
def test_training_reaches_a_stated_score(own, bound, tmp_path):
    """PCK@0.05 above 0.9, geodesic; a network that has learnt nothing has none."""
    more = [*own, "--data.batch_size=8", "--model.dropout=0.0", "--model.milestones=[9]"]
    assert run("validate", *options(tmp_path / "data", tmp_path / "random", *more)) == 0
    assert logged(tmp_path / "random")["val/pck_0.05"][0] < 0.05
    fit(tmp_path / "data", tmp_path / "run", *more, "--trainer.max_epochs=12", "--trainer.check_val_every_n_epoch=12")
    assert logged(tmp_path / "run")["val/pck_0.05"][-1] > bound


def test_resumed_run_equals_an_uninterrupted_one(trained):
    assert resumed(trained)["global_step"] == 4
    assert list(trained.whole.rglob("epoch_0001_point_clouds.png"))
    assert list(trained.whole.rglob("epoch_0001_thresholds.png"))


@pytest.mark.parametrize("objective", ["soft", "soft_vr", "soft_dr", "discrete", "cross_entropy", "sampling"])
def test_objectives_take_a_step(objective, data, tmp_path):
    basis = "--objective.basis=none" if objective == "sampling" else "--model.grouping=msg"
    fit(data, tmp_path, f"--objective={objective}", basis, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    assert np.isfinite(losses_of(tmp_path)).all()
    assert run("validate", *options(data, tmp_path / "val", from_last(tmp_path), NO_FIGURES)) == 0
    (file,) = (tmp_path / "val").rglob("results.json")
    assert [len(record["keypoints"]) for record in json.loads(file.read_text())] == [10] * 4


def check_predictions(task: str, fields: int, trained: Path, data: Path, folder: Path, capfd) -> None:
    """Of a folder of point clouds, which has to be named, by the last checkpoint of a run."""
    checkpoint, files = from_last(trained), some_of(data / "pcds" / "03001627", folder / "files", 5)
    given = f"--data.point_clouds={files}"
    assert run("predict", *options(data, folder / "out", given, checkpoint, config=task)) == 0
    (file,) = (folder / "out").rglob("predictions.json")
    records = json.loads(file.read_text())
    assert len(records) == 5 and all(np.shape(r["keypoints"]) == (10, 3) and len(r) == fields for r in records)
    assert np.abs([r["keypoints"] for r in records]).max() < 1
    assert len(list((folder / "out").rglob("predictions/drawn*.png"))) == 5
    assert run("predict", *options(data, folder, checkpoint, config=task)) == 1
    assert "predict: --data.point_clouds must name a folder of .pcd files" in capfd.readouterr().err


def test_predict_on_a_folder_of_point_clouds(trained, data, tmp_path, capfd):
    check_predictions("keypointnet", 2, trained.first, data, tmp_path, capfd)


@pytest.mark.parametrize("task, keypoints", [("keypointnet", 12), ("skeleton", 5)])
def test_number_of_keypoints_may_differ_from_the_category(task, keypoints, data, tmp_path):
    """Rows that no model of the category has are trained on nothing; without labels there may be fewer."""
    fit(data, tmp_path / "run", f"--model.keypoints={keypoints}", "--trainer.max_epochs=1", config=task)
    given = options(data, tmp_path / "val", from_last(tmp_path / "run"), NO_FIGURES, config=task)
    assert main(["validate", *(option for option in given if not option.startswith("--model.keyp"))]) == 0
    (file,) = (tmp_path / "val").rglob("results.json")
    assert [len(record["keypoints"]) for record in json.loads(file.read_text())] == [keypoints] * 4


def test_folders_of_unequal_point_clouds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no .pcd file"):
        CloudFolder(tmp_path)
    (tmp_path / "a.pcd").write_text(PCD)
    (tmp_path / "b.pcd").write_text("FIELDS x y z\nPOINTS 1\nDATA ascii\n3 1 2\n")
    with pytest.raises(ValueError, match=r"must have equally many points, got \[1, 2\]"):
        CloudFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="none is not a folder"):
        CloudFolder(tmp_path / "none")


@pytest.mark.long
def test_two_processes_equal_one(data, tmp_path):
    one_and_two(data, tmp_path, "--model.norm=group", "--model.dropout=0.0", half=2, config="keypointnet", options=options,
                last_bias="model.head.2.bias")  # fmt: skip


@pytest.mark.parametrize(
    "more, message",
    [
        (["--data.category=spoon"], "category must be one of"),
        (["--data.noise=-1"], "data: noise must be >= 0, got -1"),
        (["--model.keypoints=4"], "data: chair has 10 semantic keypoints, but --model.keypoints is 4"),
        (
            ["--data.synthetic=false", "--data.root=/nowhere"],
            "annotation file /nowhere/annotations/chair.json does not exist",
        ),
    ],
)
def test_error_messages(data, tmp_path, capfd, more, message):
    root = tmp_path / "other" if "spoon" in more[0] else data
    assert main(["fit", *options(root, tmp_path, *more)]) == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / "other").exists()


def test_missing_point_clouds_are_named(root, tmp_path):
    data = KeypointClouds(root, "chair", "train")
    data.root = tmp_path
    with pytest.raises(
        FileNotFoundError, match=r"drawn00000.pcd does not exist \(.*chair.json: model 0 \(drawn00000\)\)"
    ):
        data[0]
