"""Single-person pose: annotation files, the hourglass, PCKh by hand, and the command line."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import runs
import task_runs
import torch
from runs import SAMPLES, fitting, logged, options_without_images, run, two_processes_equal
from scipy.io import savemat
from task_runs import NO_FIGURES, Trained, from_last, resumed, some_of

from sampling_argmax_cuda.tasks.mpii.metrics import GROUPS, PckhEvaluation, pckh
from sampling_argmax_cuda.tasks.mpii.reader import FIGURE, LSP, read_lsp, read_people
from sampling_argmax_cuda.tasks.mpii.task import MpiiData, MpiiPose
from sampling_argmax_cuda.trainers.hourglass import HourglassNet
from sampling_argmax_cuda.trainers.trained_module import OPTIMIZERS
from sampling_argmax_cuda.trainers.weights import load_weights

pytestmark = pytest.mark.written_memory

# ---- files ----


def record(**more) -> dict:
    joints = [[10.0 + i, 20.0 + 2 * i] for i in range(16)]
    return {"image": "a.jpg", "joints": joints, "joints_vis": [1] * 16, "center": [51.0, 61.0], "scale": 0.5, **more}


def test_the_list_form(tmp_path):
    """Counted from 1; heads are the box's or, without one, as long as the neck is from the top."""
    (tmp_path / "a.json").write_text(json.dumps([record(), record(head_box=[10, 10, 40, 50])]))
    plain, boxed = read_people(tmp_path / "a.json").people
    assert plain["keypoints"][3].tolist() == [12, 25, 1] and plain["box"].tolist() == [0, 17.5, 100, 100]
    assert plain["head"] == pytest.approx(5**0.5) and boxed["head"] == pytest.approx(0.6 * 50)
    assert not plain["head_boxed"] and boxed["head_boxed"]


def test_people_without_a_place_are_left_out(tmp_path):
    """MPII's own mark of them is a scale of -1; a box without an area is none either, nor is one joint's."""
    (tmp_path / "a.json").write_text(
        json.dumps([record(scale=-1.0), record(image="b.jpg"), record(joints_vis=[0] * 16)])
    )
    assert [person["image_id"] for person in read_people(tmp_path / "a.json").people] == ["b.jpg"]
    (tmp_path / "b.json").write_text(json.dumps(coco(bbox=[1, 2, 0, 40])))
    with pytest.raises(ValueError, match="no person has joints"):
        read_people(tmp_path / "b.json")
    people = np.zeros((3, 14, 2))
    people[:2, 3, 0], people[:2, :, 1] = 20, 10 + np.arange(14)
    savemat(tmp_path / "joints.mat", {"joints": people})
    assert [person["image_id"] for person in read_people(tmp_path / "joints.mat").people] == ["im0002.jpg"]


@pytest.mark.parametrize("shape, digits", [((3, 14, 3), 4), ((14, 3, 3), 5)], ids=str)
def test_lsp(shape, digits, tmp_path):
    """Both layouts; joints at 0 are not labelled, and pelvis and thorax are nobody's."""
    people = np.zeros((3, 14, 3))
    people[:2, :, 0], people[:2, :, 1] = 10 + np.arange(14), 30 - np.arange(14)
    people[1, 4] = 0
    savemat(
        tmp_path / "joints.mat", {"joints": people.transpose(2, 1, 0) if shape[0] == 3 else people.transpose(1, 2, 0)}
    )
    first, second, nobody = read_lsp(tmp_path / "joints.mat")
    assert first["image_id"] == f"im{1:0{digits}d}.jpg" and first["box"].tolist() == [9, 16, 13, 13]
    assert first["keypoints"][8].tolist() == [21, 17, 1]  # LSP's neck is its joint 12
    assert first["keypoints"][:, 2].sum() == 14 and (first["keypoints"][[6, 7], 2] == 0).all()
    assert second["keypoints"][4, 2] == 0 and second["keypoints"][:, 2].sum() == 13
    assert first["head"] == pytest.approx(2**0.5) and nobody["keypoints"][:, 2].sum() == 0
    assert len(read_people(tmp_path / "joints.mat").people) == 2


def test_joints_agree_with_their_names():
    lsp = ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
           "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "upper_neck", "head_top")  # fmt: skip
    assert tuple(FIGURE.names[k] for k in LSP) == lsp and {k for bone in FIGURE.bones for k in bone} == set(range(16))
    mirrored = [name.replace("left", "?").replace("right", "left").replace("?", "right") for name in FIGURE.names]
    assert [FIGURE.names[k] for k in FIGURE.mirrored()] == mirrored
    for name, group in GROUPS.items():
        assert all(name in FIGURE.names[k] for k in group)


def coco(**more) -> dict:
    person = {"id": 0, "image_id": 7, "bbox": [1, 2, 30, 40], "keypoints": [5.0, 6.0, 2.0] * 16, **more}
    return {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [person]}


@pytest.mark.parametrize(
    "content, message",
    [
        (coco(keypoints=[1.0] * 51), "annotation 0: keypoints must be 48 numbers, got 51"),
        (coco(keypoints=[float("nan")] * 48), "annotation 0: keypoints holds a number that is not finite"),
        (coco(image_id=8), "annotation 0: no image 8"),
        (coco(keypoints=[0.0] * 48), "no person has joints"),
        (
            coco() | {"images": [{"id": 7, "file_name": name} for name in "ab"]},
            "two images have the id 7: file_name 'a' and 'b'",
        ),
        (
            coco() | {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]},
            "one category must be named person",
        ),
        (coco(head_box=[1, 2]), "annotation 0: head_box must be 4 numbers, got 2"),
        ([record(joints=[[1.0, 2.0]])], "record 0: joints must be 16 x 2 numbers"),
        ([], "no person has joints"),
    ],
)
def test_malformed_annotations_name_file_and_record(content, message, tmp_path):
    path = tmp_path / "people.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        read_people(path)
    assert str(path) in str(error.value)


def test_people_are_one_category(tmp_path):
    """Dogs of 16 points, of which nobody says that they are people, are none."""
    content = coco(category_id=0)
    content["categories"] = [{"id": 0, "name": "person"}, {"id": 1, "name": "dog"}]
    content["annotations"] += [{**content["annotations"][0], "id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    (person,) = read_people(tmp_path / "a.json").people
    assert person["box"].tolist() == [1, 2, 30, 40]


def test_malformed_lsp(tmp_path):
    path = tmp_path / "joints.mat"
    with pytest.raises(FileNotFoundError, match="joints.mat does not exist"):
        read_lsp(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="joints.mat cannot be read"):
        read_lsp(path)
    for content, got in ((np.zeros((4, 14, 2)), r"\(4, 14, 2\)"), (np.zeros((3, 14)), r"\(3, 14\)")):
        savemat(path, {"joints": content})
        with pytest.raises(ValueError, match=f"joints must be 3 x 14 x n or 14 x 3 x n numbers, got {got}"):
            read_lsp(path)
    savemat(path, {"joints": np.full((3, 14, 2), np.nan)})
    with pytest.raises(ValueError, match="person 0: joints holds a number that is not finite"):
        read_lsp(path)


def test_a_missing_image_is_named(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.json").write_text(json.dumps([record()]))
    data = MpiiData(root=str(tmp_path)).dataset(train=True)
    with pytest.raises(FileNotFoundError, match=r"a\.jpg does not exist .*record 0"):
        data[0]


def test_synthetic_people_are_read_back(tmp_path):
    data = MpiiData(
        root=str(tmp_path / "data"), synthetic=True, synthetic_train=3, synthetic_val=2, image_size=(64, 64)
    )
    data.prepare_data()
    train, val = data.dataset(True), data.dataset(False)
    assert (len(train), len(val)) == (3, 2) and train.image_path(0) != val.image_path(0)
    for sample in val:
        assert sample["weight"].sum() == 16 and sample["target"].shape == (16, 2) and 5 < sample["head"] < 60
    same = MpiiData(root=str(tmp_path / "data"), synthetic=False, train_file="train.json", val_file="train.json")
    assert [len(same.dataset(part)) for part in (True, False)] == [1, 2]


# ---- the network ----


def test_hourglass_shapes_and_supervision():
    """In training the maps of every stack, and a loss of one reaches its own stack and those before it."""
    torch.manual_seed(0)
    net, images = HourglassNet(5, 3, 16, "group"), torch.randn(2, 3, 96, 64)
    maps = net(images)
    assert [x.shape for x in maps] == [(2, 5, 24, 16)] * 3 and net.eval()(images).shape == (2, 5, 24, 16)
    torch.testing.assert_close(net(images), maps[-1])
    for i in range(3):
        net.zero_grad()
        net.train()(images)[i].square().mean().backward()
        reached = [
            any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters()) for part in net.features
        ]
        assert reached == [k <= i for k in range(3)]
        assert all(p.grad is not None for p in net.stem.parameters())


def test_parameters_are_those_of_the_published_shape():
    """8 stacks: each 13 residuals in an hourglass of depth 4 and one behind it, two 1 x 1 convolutions, two that merge."""

    def residual(a: int, b: int) -> int:
        half = b // 2
        body = 2 * a + a * half + half + 2 * half + 9 * half**2 + half + 2 * half + half * b + b
        return body + (0 if a == b else a * b + b)

    stem = 3 * 64 * 49 + 64 + 2 * 64 + residual(64, 128) + residual(128, 128) + residual(128, 256)
    stack = 14 * residual(256, 256) + 256**2 + 256 + 2 * 256 + 256 * 16 + 16
    merge = 256**2 + 256 + 16 * 256 + 256
    assert sum(p.numel() for p in HourglassNet(16).parameters()) == stem + 8 * stack + 7 * merge


def test_every_stack_is_trained_alike(tmp_path):
    module = MpiiPose(stacks=2, channels=8, norm="group", objective="soft", reduction="mean", loss_scale=2.0)
    batch = {"image": torch.randn(2, 3, 64, 64), "target": torch.rand(2, 16, 2) * 15, "weight": torch.ones(2, 16)}
    maps = module.train()(batch["image"])
    _, target = module.rows(batch)
    expected = 2 * sum(module.objective.loss(x, target, seed=torch.tensor([0])).mean() for x in maps)
    module.row_seed = lambda output: torch.tensor([0])
    torch.testing.assert_close(module.step_loss(batch), expected)
    torch.save(module.state_dict(), tmp_path / "a.ckpt")
    report = load_weights(HourglassNet(16, 2, 8, "group"), tmp_path / "a.ckpt", strict=False)
    assert not report["mismatched"] and not report["missing"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(stacks=0), "stacks must be >= 1, got 0"),
        (dict(channels=12), "channels must be a multiple of 8, got 12"),
        (dict(objective="direct"), "hourglasses need an objective with maps alone, got direct"),
        (dict(objective="soft_rle"), "hourglasses need an objective with maps alone, got soft_rle"),
        (dict(optimizer="lion"), "optimizer must be one of adam, adamw, rmsprop, sgd, got 'lion'"),
    ],
)
def test_wrong_options_are_named(wrong, message):
    with pytest.raises(ValueError, match=f"model: {message}"):
        MpiiPose(**{"stacks": 1, "channels": 8, **wrong})


# ---- PCKh ----


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_have_their_names(name):
    module = MpiiPose(stacks=1, channels=8, objective="heatmap", optimizer=name, lr=0.01)
    optimizer, before = module.configure_optimizers(), [p.detach().clone() for p in module.parameters()]
    sum(p.sum() for p in module.parameters()).backward()
    optimizer.step()
    assert type(optimizer).__name__.lower() == name
    assert all((p < old).all() for p, old in zip(module.parameters(), before, strict=True))


def test_pckh_by_hand():
    distance, visible = np.full((2, 16), 5.0), np.ones((2, 16), bool)
    head = np.array([10.0, 9.9])  # half a head is 5 and 4.95
    assert pckh(distance, visible, head) == {"": 0.5, **{f"_{name}": 0.5 for name in GROUPS}}
    visible[1] = False
    visible[0, 9] = False
    scores = pckh(distance, visible, head)
    assert scores[""] == 1 and "_head" not in scores and scores["_wrist"] == 1
    distance[0, 10] = 6
    scores = pckh(distance, visible, head)
    assert scores[""] == pytest.approx(12 / 13) and scores["_wrist"] == 0.5
    distance[0, [6, 7]] = 100  # pelvis and thorax are not scored
    assert pckh(distance, visible, head)[""] == pytest.approx(12 / 13)
    assert pckh(distance, visible, np.array([np.nan, 10.0])) == {}
    assert pckh(distance, visible, head, 0.1) == {"": 0, **{f"_{name}": 0 for name in GROUPS if name != "head"}}


def test_evaluation_merges_and_empties_itself():
    evaluation, truth = PckhEvaluation(), torch.rand(3, 16, 3) * 50
    truth[..., 2] = 1
    truth[1, :, 2] = 0
    batch = {"index": torch.tensor([2, 0, 1]), "head": torch.full((3,), 20.0), "head_boxed": torch.ones(3),
             "target": truth[..., :2] / 4, "joints": truth.clone()}  # fmt: skip
    pixels = truth[..., :2] + torch.tensor([3.0, 0])
    evaluation.add(batch, pixels / 4, torch.ones(3, 16), pixels, truth)
    scores = evaluation.compute(list)
    assert scores["pckh"] == scores["pck"] == 1 and scores["pckh_0.1"] == 0 and scores["error"] == pytest.approx(0.75)
    assert [r["index"] for r in evaluation.results] == [0, 1, 2]
    assert evaluation.compute(list) == {}


def test_a_head_without_a_box_has_a_name_of_its_own():
    """And a joint that lies outside the crop, where nothing is trained, is scored."""
    truth = torch.rand(3, 16, 3, generator=torch.Generator().manual_seed(0)) * 50
    truth[..., 2] = 1
    batch = {"index": torch.arange(3), "head": torch.full((3,), 20.0), "head_boxed": torch.tensor([True, False, False]),
             "target": truth[..., :2] / 4, "joints": truth.clone()}  # fmt: skip
    pixels = truth[..., :2] + torch.tensor([0.0, 11.0, 0.0])[:, None, None]
    truth[2, 10, 2], pixels[2, 10] = 0, 999
    evaluation = PckhEvaluation()
    evaluation.add(batch, pixels / 4, torch.ones(3, 16), pixels, truth)
    scores = evaluation.compute(list)
    assert scores["pckh"] == scores["pckh_wrist"] == 1 and scores["pck_neck_head"] == pytest.approx(13 / 28)
    assert scores["pck"] == pytest.approx(27 / 42) and scores["pck_neck_head_wrist"] == 0.25
    evaluation.add({**batch, "head_boxed": torch.zeros(3)}, pixels / 4, torch.ones(3, 16), pixels, truth)
    scores = evaluation.compute(list)
    assert not [name for name in scores if name.startswith("pckh")] and scores["pck"] == scores["pck_neck_head"]


# ---- the command line ----


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data") / "mpii"


def options(data: Path, run: Path, *more: str, config: str = "mpii") -> list[str]:
    own = ["--data.synthetic_train=8", "--data.synthetic_val=4", "--data.batch_size=4", "--data.image_size=[64,64]",
           "--model.stacks=2", "--model.channels=16", "--model.norm=group", SAMPLES]  # fmt: skip
    return fitting(options_without_images(data, run, config, [*own, *more]))


fit = partial(runs.fit, config="mpii", options=options)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Trained:
    return task_runs.trained(fit, data, tmp_path_factory.mktemp("runs"), "--config=triangular")


@pytest.mark.long
@pytest.mark.parametrize(
    "adversary", [[], ["--config", "adversarial", "--adversary.stacks=1", "--adversary.channels=8"]],
    ids=["alone", "adversary"],
)  # fmt: skip
def test_training_reaches_a_stated_score(adversary, data, tmp_path):
    """PCKh above 0.25 on maps of 16 x 16 cells, where half a head is less than a cell; a network that has learnt nothing is
    below 0.1.
    """
    more = ["--data.synthetic_train=128", "--data.synthetic_val=16", "--data.batch_size=8", "--model.channels=32",
            "--model.stacks=1", "--model.norm=batch", "--model.lr=0.002", "--data.scale=0", "--data.rotation=0",
            "--data.flip=0", "--data.color=0", *adversary]  # fmt: skip
    root = data.parent / "scored"
    if not adversary:
        assert run("validate", *options(root, tmp_path / "random", *more)) == 0
        assert logged(tmp_path / "random")["val/pckh"][0] < 0.1
    fit(root, tmp_path / "run", *more, "--trainer.max_epochs=8", "--trainer.check_val_every_n_epoch=8")
    assert logged(tmp_path / "run")["val/pckh"][-1] > 0.25


def test_resumed_run_equals_an_uninterrupted_one(trained):
    assert resumed(trained)["global_step"] == 4


@pytest.mark.long
def test_two_processes_equal_one(trained, data, tmp_path):
    more = {"half": 2, "config": "mpii", "options": options, "least_dims": 4}
    two_processes_equal(trained.first, data, tmp_path, "--config=triangular", **more)


@pytest.mark.parametrize(
    "more", [["--config=triangular"], ["--model.stacks=null", "--model.depth=18", "--config=rle"]], ids=str
)
def test_other_objectives_and_networks(more, trained, data, tmp_path):
    folder = trained.first
    if len(more) > 1:
        folder = tmp_path / "run"
        fit(data, folder, *more, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    checkpoint = from_last(folder)
    assert run("validate", *options(data, tmp_path / "val", *more, checkpoint, NO_FIGURES)) == 0
    (file,) = (tmp_path / "val").rglob("results.json")
    assert [np.shape(r["joints"]) for r in json.loads(file.read_text())] == [(16, 2)] * 4
    images = f"--data.images={some_of(data / 'images', tmp_path / 'images', 3)}"
    assert run("predict", *options(data, tmp_path / "out", images, *more, checkpoint)) == 0
    (file,) = (tmp_path / "out").rglob("predictions.json")
    names = [Path(record["file_name"]).name for record in json.loads(file.read_text())]
    assert len(names) == 3 and names == sorted(path.name for path in (tmp_path / "images").iterdir())
