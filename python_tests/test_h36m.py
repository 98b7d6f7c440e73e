"""Human3.6M and MPII: files, cameras, joint sets, errors in closed form and against SciPy, and the command line."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import runs
import task_runs
import torch
from runs import logged, run, two_processes_equal
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation
from task_runs import NO_FIGURES, Trained, from_last, resumed, some_of

from sampling_argmax_cuda.tasks.coco.reader import PERSON
from sampling_argmax_cuda.tasks.h36m.camera import back_project, pixels_per_mm, project
from sampling_argmax_cuda.tasks.h36m.metrics import PoseEvaluation, align, lift_by_bones, mpjpe, pose_errors
from sampling_argmax_cuda.tasks.h36m.reader import H36mPoses, HalfAndHalf, MpiiPeople, read_mpii, read_poses
from sampling_argmax_cuda.tasks.h36m.skeletons import (
    BODY,
    BONES,
    COCO,
    MPII,
    NAMES,
    PELVIS,
    bone_length,
    from_joints,
    with_thorax,
)
from sampling_argmax_cuda.tasks.h36m.synthetic import draw_body, draw_camera, draw_view, write_synthetic_h36m
from sampling_argmax_cuda.tasks.h36m.task import H36mData, H36mPose
from sampling_argmax_cuda.tasks.mpii.reader import FIGURE
from sampling_argmax_cuda.trainers.epochs import EpochOrder, GlobalBatches
from sampling_argmax_cuda.trainers.transforms import Augment, apply

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

TRAIN, VAL, FLAT = "train.json", "val.json", "flat.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "h36m"
    write_synthetic_h36m(path, 6, 4, (TRAIN, VAL, FLAT), image_size=96, seed=5)
    return path


def poses(root: Path, file: str = VAL, volume: int = 16, **more) -> H36mPoses:
    return H36mPoses(root, root / "annotations" / file, (64, 64), (16, 16), volume, train=False, **more)


def people(count: int, seed: int = 0) -> np.ndarray:
    """Poses ``[count, 17, 3]`` relative to the pelvis."""
    rng = np.random.default_rng(seed)
    bodies = np.stack([draw_body(rng.uniform(-3, 3), rng) for _ in range(count)])
    return bodies - bodies[:, :1]


# ---- cameras and joints ----


def test_camera_round_trip():
    rng = np.random.default_rng(0)
    for _ in range(20):
        camera, world = draw_camera(1000, rng), draw_body(0.0, rng)
        pose = camera.from_world(world)
        seen = project(pose, camera.focal, camera.center)
        assert (seen[:, 2] > 2000).all() and (seen[:, :2] > 0).all() and (seen[:, :2] < 1000).all()
        back = back_project(seen, camera.focal, camera.center)
        assert np.abs(back - pose).max() < 1e-9 and np.abs(camera.to_world(back) - world).max() < 1e-9
        again = project(camera.from_world(camera.to_world(back)), camera.focal, camera.center)
        assert np.abs(again - seen).max() < 1e-3  # pixels
        assert np.linalg.det(camera.rotation) == pytest.approx(1)
        assert pose[:, 1].argmax() != pose[:, 1].argmin() and pose[10, 1] < pose[3, 1]  # y points down


def test_weak_perspective_of_a_flat_pose_is_exact():
    points = np.random.default_rng(0).normal(size=(18, 3)) * [500, 500, 0] + [100, 50, 4000]
    pixels = project(points, np.array([1145.0, 1145.0]), np.array([512.0, 500.0]))[:, :2]
    assert pixels_per_mm(points, pixels) == pytest.approx(1145 / 4000)


def test_joint_sets_agree_with_their_names():
    mpii = ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax", "neck",
            "head", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist")  # fmt: skip
    for order, names in ((MPII, mpii), (COCO, PERSON.names)):
        for joint, other in enumerate(order):
            assert other < 0 or NAMES[joint] == names[other]
    assert sorted(i for i in MPII if i >= 0) == list(range(16)) and len(set(COCO)) == 14
    assert set(map(frozenset, FIGURE.pairs)) == {frozenset(mpii.index(NAMES[j]) for j in pair) for pair in BODY.pairs}
    assert len(BONES) == 17 and {j for bone in BONES for j in bone} == set(range(18))


def test_conversion_commutes_with_the_mirror():
    """Swapping a set's pairs and converting is converting and swapping ours."""

    rng = np.random.default_rng(0)
    swapped = list(range(16))
    for a, b in FIGURE.pairs:
        swapped[a], swapped[b] = b, a
    for order, count, other in ((MPII, 16, swapped), (COCO, 17, PERSON.mirrored())):
        points = np.concatenate([rng.random((count, 2)), np.full((count, 1), 2.0)], 1)
        assert np.allclose(from_joints(points[other], order), from_joints(points, order)[BODY.mirrored()])
    points[11, 2] = 0
    found = from_joints(points, COCO)
    assert found[[PELVIS, 4, 7, 8, 10], 2].tolist() == [0] * 5 and found[17, 2] == 2
    assert np.allclose(found[17, :2], points[[5, 6], :2].mean(0))


# ---- errors ----


def moved(poses: np.ndarray, scale: float = 1.0, reflect: bool = False, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turn = Rotation.random(len(poses), rng=rng).as_matrix()
    mirror = np.diag([-1.0, 1, 1]) if reflect else np.eye(3)
    return scale * poses @ mirror @ turn + rng.normal(size=(len(poses), 1, 3)) * 300


def test_errors_are_zero_under_their_transformations():
    truth = people(10)
    similar, rigid, mirrored = moved(truth, 1.3), moved(truth), moved(truth, reflect=True)
    assert pose_errors(similar, truth)["pa_mpjpe_mm"] < 1e-9 < 10 < pose_errors(similar, truth)["rigid_mpjpe_mm"]
    assert pose_errors(rigid, truth)["rigid_mpjpe_mm"] < 1e-9 and pose_errors(rigid, truth)["mpjpe_mm"] > 50
    assert pose_errors(mirrored, truth)["pa_mpjpe_mm"] > 30  # a reflection is no answer
    assert pose_errors(truth, truth) == pytest.approx(dict.fromkeys(pose_errors(truth, truth), 0), abs=1e-9)


def test_alignment_against_scipy():
    """SciPy's procrustes standardises both sides; its disparity is the squared residual over the truth's."""
    rng, truth = np.random.default_rng(2), people(8)
    noisy = moved(truth + rng.normal(size=truth.shape) * 30, 0.8)
    found = align(noisy, truth)
    for prediction, pose, aligned in zip(noisy, truth, found, strict=True):
        _, _, disparity = procrustes(pose, prediction)
        residual = np.square(aligned - pose).sum() / np.square(pose - pose.mean(0)).sum()
        assert residual == pytest.approx(disparity, rel=1e-9)
        rotation, _ = orthogonal_procrustes(prediction - prediction.mean(0), pose - pose.mean(0))
        assert np.linalg.det(rotation) > 0  # so SciPy's best is a rotation here
        rigid = (prediction - prediction.mean(0)) @ rotation + pose.mean(0)
        assert np.allclose(align(prediction[None], pose[None], scale=False)[0], rigid)


def test_alignment_with_reflection_is_the_best_rotation():
    truth = people(1)
    mirrored = moved(truth, reflect=True)
    found = np.square(align(mirrored, truth, scale=False) - truth).sum()
    rng = np.random.default_rng(0)
    centred = mirrored - mirrored.mean(1, keepdims=True)
    tries = [np.square(centred @ turn + truth.mean(1, keepdims=True) - truth).sum()
             for turn in Rotation.random(4000, rng=rng).as_matrix()]  # fmt: skip
    assert found <= min(tries) and min(tries) < 1.3 * found


def test_errors_by_hand():
    truth, prediction = np.zeros((1, 17, 3)), np.zeros((1, 17, 3))
    prediction[0, 4], prediction[0, 7] = [3, 4, 0], [0, 0, 34]
    errors = pose_errors(prediction, truth)
    assert errors["mpjpe_mm"] == pytest.approx((5 + 34) / 17) and mpjpe(prediction, truth).shape == (1,)
    assert [errors[f"{a}_mm"] for a in "xyz"] == pytest.approx([3 / 17, 4 / 17, 2])


def test_bones_give_back_the_pose():
    pose = with_thorax(people(1)[0])
    assert np.allclose(lift_by_bones(0.37 * pose + 100, bone_length(pose)), pose)
    assert np.isfinite(lift_by_bones(np.zeros((18, 3)), 4500.0)).all()


# ---- files ----


def test_synthetic_poses_are_read_as_they_were_drawn(root):
    for file, part, count in ((TRAIN, 0, 6), (VAL, 1, 4)):
        data = poses(root, file)
        assert len(data) == count
        for i, sample in enumerate(data):
            image, seen, world, camera = draw_view(96, np.random.default_rng((5, part, i)))
            assert np.abs(data.read(data.records[i])[..., ::-1].astype(int) - image).mean() < 12  # JPEG
            assert np.allclose(data.points(data.records[i])[:, :2], seen[:, :2], atol=1e-6)
            pixels = apply(sample["inverse"].astype(float), sample["target"][:, :2] * 4.0)
            assert np.abs(pixels - seen[:, :2]).max() < 1e-3 and (sample["weight"] == 1).all()
            depth = (sample["target"][:, 2] / 16 - 0.5) * 2000
            assert np.abs(depth - (seen[:, 2] - seen[PELVIS, 2])).max() < 1e-3 and (sample["axes"] == 1).all()
            assert np.allclose(sample["pose"], with_thorax(camera.from_world(world))) and sample["action"] == i % 15
    assert all(re.search(r"s_(09|11)_act_\d\d_subact_01_ca_0\d/", record["name"]) for record in poses(root).records)


def test_perfect_cells_have_no_error(root):
    """From targets in cells back to mm: cameras without error, bones up to the perspective that they leave out."""
    data = poses(root)
    batch = torch.utils.data.default_collate(list(data))
    module = H36mPose(depth=18, head_channels=16, volume=16)
    pixels = module.to_image(batch["target"], batch)
    module.evaluation.add(batch, batch["target"], batch["weight"], pixels, pixels)
    scores = module.evaluation.compute(list)
    assert scores["mpjpe_mm"] < 0.05 and scores["pa_mpjpe_mm"] < 0.05 and scores["error"] == 0
    assert {"mpjpe_directions_mm", "mpjpe_greeting_mm"} <= scores.keys() and "mpjpe_walking_mm" not in scores
    assert [len(r["xyz_17"]) for r in module.evaluation.results] == [17] * 4

    length = float(np.mean([bone_length(data.in_camera(record)) for record in data.records]))
    batch = torch.utils.data.default_collate(list(poses(root, lift="bones")))
    module = H36mPose(depth=18, head_channels=16, volume=16, lift="bones", bones_mm=length)
    pixels = module.to_image(batch["target"], batch)
    module.evaluation.add(batch, batch["target"], batch["weight"], pixels, pixels)
    scores = module.evaluation.compute(list)
    assert 1 < scores["mpjpe_mm"] < 60 and scores["pa_mpjpe_mm"] < 40


def test_bones_do_not_depend_on_the_crop(root):
    """Depth in pixels of the image is the same whatever the augmentation: it comes back through the inverse."""
    module = H36mPose(depth=18, head_channels=16, volume=16, lift="bones")
    found = []
    for augment in (None, Augment(0.3, 40, 0, normal=True)):
        batch = torch.utils.data.default_collate(list(poses(root, lift="bones", augment=augment)))
        image = module.to_image(batch["target"], batch)
        image[..., 2] *= batch["weight"] * batch["axes"][..., 2]
        found.append(image[..., 2] * batch["weight"])
    both = (found[0] != 0) & (found[1] != 0)
    assert both.sum() > 30 and (found[0] - found[1])[both].abs().max() < 1e-2


def test_a_mirrored_pose_has_its_sides_swapped(root):
    plain, mirrored = poses(root), poses(root, augment=Augment(0, 0, flip=1, normal=True))
    for a, b in zip(plain, mirrored, strict=True):
        expected = a["target"][BODY.mirrored()] * [-1, 1, 1] + [63 / 4, 0, 0]
        assert np.allclose(b["target"], expected, atol=1e-3)
        assert np.allclose(b["image"], a["image"][:, :, ::-1], atol=0.02)


def test_flat_people_have_no_depth(root):
    data = MpiiPeople(root / "mpii", root / "mpii" / "annotations" / FLAT, (64, 64), (16, 16), 16)
    sample = data[0]
    known = np.array([i >= 0 for i in MPII])
    assert (
        (sample["weight"] == known).all() and (sample["axes"][:, 2] == 0).all() and (sample["axes"][:, :2] == 1).all()
    )
    _, seen, _, _ = draw_view(96, np.random.default_rng((5, 2, 0)))
    pixels = apply(sample["inverse"].astype(float), sample["target"][:, :2] * 4.0)
    assert np.abs(pixels - seen[:, :2])[known].max() < 1e-3


def test_joints_outside_the_volume_have_no_depth(root):
    data = poses(root)
    data.records = [{**data.records[0], "world": data.records[0]["world"] * [3, 3, 1]}]
    sample = data[0]
    far = np.abs(data.depth(data.records[0], 1.0)) > 0.5
    assert far.any() and ((sample["axes"][:, 2] == 0) == far).all() and np.isfinite(sample["target"]).all()


def half_and_half(root, size: int) -> HalfAndHalf:
    first = poses(root, TRAIN, augment=Augment(0.3, 30.0, 0.5))
    first.train = True
    flat = MpiiPeople(root / "mpii", root / "mpii" / "annotations" / FLAT, (64, 64), (16, 16), 16, first.augment)
    return HalfAndHalf(first, flat, seed=3, size=size)


def test_every_pose_comes_equally_often(root):
    """After three epochs of 4 each of 6 poses came twice, with loader processes too."""
    data, draws = half_and_half(root, 4), []
    loader = torch.utils.data.DataLoader(data, batch_size=2, num_workers=2, persistent_workers=True)
    for epoch in range(3):
        data.set_epoch(epoch)
        batches = list(loader)
        assert torch.cat([b["index"] for b in batches]).tolist() == list(range(8))
        again = half_and_half(root, 4)
        images = torch.cat([b["image"] for b in batches])
        assert all(np.array_equal(image, again.sample(i, epoch)["image"]) for i, image in enumerate(images))
        draws += [data.draw(i, epoch) for i in range(8)]
    for part in range(2):
        assert np.bincount([own for k, own, _ in draws if k == part]).tolist() == [2] * 6
    orders = [[own for k, own, _ in draws[8 * e : 8 * e + 8] if k == part] for e in range(3) for part in range(2)]
    assert len({tuple(order) for order in orders}) == 6


def test_no_two_crops_of_a_run_are_alike(root):
    """An epoch that has each of 6 poses five times has 60 crops, and the next one 60 others."""
    data, seen = half_and_half(root, 30), set()
    for epoch in range(2):
        seen |= {data.sample(i, epoch)["image"].tobytes() for i in range(60)}
    assert len(seen) == 120


@pytest.mark.parametrize("batch, world, accumulate", [(4, 1, 1), (2, 2, 1), (2, 1, 3), (6, 2, 2)])
def test_every_batch_has_as_many_of_each_half(root, batch, world, accumulate):
    data = half_and_half(root, 29)
    for epoch in range(2):
        order = EpochOrder(data, True, 0)
        order.set_epoch(epoch)
        for rank in range(world):
            batches = list(GlobalBatches(order, batch, rank, world, accumulate))
            assert len(batches) == 58 // (batch * world * accumulate) * accumulate
            assert all(sum(data.draw(i, epoch)[0] for i in b) == batch // 2 == len(b) // 2 for b in batches)


def test_the_list_form_of_mpii(tmp_path):
    """Counted from 1, scale in units of 200 pixels, the middle 15 pixels a scale lower than the torso's."""
    joints = [[10.0 + i, 20.0 + 2 * i] for i in range(16)]
    joints[3] = [0.0, 0.0]
    record = {"image": "a.jpg", "joints": joints, "joints_vis": [1] * 15 + [0], "center": [51.0, 61.0], "scale": 0.5}
    (tmp_path / "a.json").write_text(json.dumps([record]))
    (person,) = read_mpii(tmp_path / "a.json")
    assert person["box"].tolist() == [0, 17.5, 100, 100]
    ours = person["keypoints"]
    assert ours[3].tolist() == [9, 19, 1]  # the right ankle is MPII's joint 0
    assert ours[4, 2] == 0 and ours[13, 2] == 0 and ours[7, 2] == 0 and ours[:, 2].sum() == 14


# ---- malformed files ----


def change(content: dict, part: str, **fields) -> dict:
    record = {key: value for key, value in {**content[part][0], **fields}.items() if value != "gone"}
    return {**content, part: [record, *content[part][1:]]}


CAMERA = {"R": np.eye(3).tolist(), "t": [0.0, 0, 0], "f": [1.0, 1], "c": [0.0, 0]}


@pytest.mark.parametrize(
    "fault, message",
    [
        (lambda c: {"images": c["images"]}, "field 'annotations' is missing"),
        (lambda c: {**c, "images": 3}, "images must be a list, got int"),
        (lambda c: {**c, "images": c["images"][1:]}, "3 images but 4 annotations, which go together"),
        (lambda c: {"images": [], "annotations": []}, "no poses"),
        (lambda c: change(c, "images", file_name="gone"), "annotation 0: field 'file_name' is missing"),
        (lambda c: change(c, "annotations", keypoints_world=[[0, 0, 1]] * 16),
         r"annotation 0 \(s_09.*jpg\): keypoints_world must be 17 x 3 numbers, got shape \[16, 3\]"),
        (lambda c: change(c, "annotations", keypoints_world=[[0, 0, float("nan")]] * 17), "holds a number that is not finite"),
        (lambda c: change(c, "annotations", cam_param="gone"), "field 'cam_param' is missing"),
        (lambda c: change(c, "annotations", cam_param={"R": np.eye(3).tolist()}), "cam_param: field 't' is missing"),
        (lambda c: change(c, "annotations", cam_param={**CAMERA, "R": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]}), "R is no rotation"),
        (lambda c: change(c, "annotations", cam_param=CAMERA, keypoints_world=[[0, 0, -1]] * 17), "lie behind the camera"),
        (lambda c: change(c, "annotations", bbox=[1, 2, 0, 3]), "bbox must have a width and a height > 0"),
    ],
)  # fmt: skip
def test_malformed_poses_are_named(root, tmp_path, fault, message):
    content = json.loads((root / "annotations" / VAL).read_text())
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(fault(content)))
    with pytest.raises(ValueError, match=message) as error:
        read_poses(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content, message",
    [
        ([], "no person has joints"),
        ([{"image": "a"}], "record 0: field 'joints' is missing"),
        ([{"image": "a", "joints": [[1, 1]] * 15}], "record 0: joints must be 16 x 2 numbers"),
        ({"images": [{"id": 1}], "annotations": []}, "image 1: field 'file_name' is missing"),
        ({"images": [], "annotations": [{"keypoints": [1] * 48, "bbox": [0, 0, 1, 1], "image_id": 7}]},
         "annotation 0: no image 7"),
        ({"images": [], "annotations": [{"keypoints": [1] * 51, "bbox": [0, 0, 1, 1], "image_id": 7}]},
         "annotation 0: keypoints must be 48 numbers, got 51"),
    ],
)  # fmt: skip
def test_malformed_flat_people_are_named(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        read_mpii(path)
    assert str(path) in str(error.value)
    path.write_text("[{")
    with pytest.raises(ValueError, match="bad.json is not valid JSON"):
        read_mpii(path)


def test_blocked_recordings_are_left_out(root, tmp_path):
    content = json.loads((root / "annotations" / VAL).read_text())
    content = change(content, "images", file_name="s_09_act_05_subact_02_ca_01/a.jpg")
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert len(read_poses(tmp_path / "a.json")) == 3


def test_missing_images_are_named(root, tmp_path):
    data = H36mPoses(tmp_path, root / "annotations" / VAL, (64, 64), (16, 16), 16)
    with pytest.raises(FileNotFoundError, match=r"jpg does not exist \(.*val.json: annotation 0"):
        data[0]


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(volume=0), "data: volume must be an integer >= 1, got 0"),
        (dict(epoch_size=0), "data: epoch_size must be an integer >= 1, got 0"),
        (dict(occlusion=2.0), r"data: occlusion must be a number in \[0, 1\], got 2.0"),
        (dict(mpii_file=" "), "data: mpii_file must be a path or name that is not empty"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        H36mData(**wrong)
    with pytest.raises(ValueError, match="model: lift must be one of camera, bones, got 'eyes'"):
        H36mPose(depth=18, head_channels=16, lift="eyes")
    with pytest.raises(ValueError, match="model: bones_mm must be > 0, got 0"):
        PoseEvaluation("bones", H36mPose(depth=18, head_channels=16, bones_mm=0).hparams.bones_mm)


# ---- augmentation ----


def test_occlusion_follows_its_law():
    """Areas uniform on 0 to 70 % of the crop, before the border cuts the narrowest ones; noise, and only inside."""
    areas, shapes = [], []
    for i in range(400):
        crop = np.full((100, 100, 3), 7, np.uint8)
        hole = Augment(0, 0, 0, occlusion=1.0).draw(np.random.default_rng((1, i))).hole
        hole.paint(crop)
        changed = (crop != 7).any(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        areas.append(hole.area)
        shapes.append(hole.shape)
        if len(rows):
            box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            assert changed.sum() == pytest.approx(box, rel=0.02) and changed.mean() <= hole.area + 1e-9
    assert 0 < min(areas) and max(areas) < 0.7 and abs(np.mean(areas) - 0.35) < 4 * 0.7 / np.sqrt(12 * 400)
    assert 0.3 <= min(shapes) and max(shapes) <= 3.33
    assert Augment(0, 0, 0).draw(np.random.default_rng(0)).hole is None
    half = [Augment(occlusion=0.5).draw(np.random.default_rng((2, i))).hole is None for i in range(400)]
    assert abs(np.mean(half) - 0.5) < 4 * 0.5 / 20


# ---- the command line ----

options, fit = partial(runs.options, config="h36m"), partial(runs.fit, config="h36m")
SMALL = ("--model.volume=8", "--data.occlusion=0.5")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data") / "h36m"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Trained:
    return task_runs.trained(fit, data, tmp_path_factory.mktemp("runs"), *SMALL, "--data.epoch_size=8")


def test_resumed_run_equals_an_uninterrupted_one(trained):
    assert resumed(trained)["global_step"] == 4
    assert list(trained.whole.rglob("epoch_0001_in_space.png"))


@pytest.mark.long
def test_two_processes_equal_one(trained, data, tmp_path):
    two_processes_equal(trained.first, data, tmp_path, *SMALL, "--data.epoch_size=8", config="h36m")
    assert logged(trained.first)["val/mpjpe_mm"] == pytest.approx(logged(tmp_path)["val/mpjpe_mm"], rel=2e-3)


SHORT = ["--data.synthetic_train=64", "--data.synthetic_val=16", "--data.batch_size=8", "--data.epoch_size=32",
         "--model.volume=8", "--objective.num_samples=4"]  # fmt: skip
LONG = ["--data.synthetic_train=256", "--data.synthetic_val=32", "--data.batch_size=16", "--model.volume=16",
        "--objective.num_samples=10"]  # fmt: skip


@pytest.mark.parametrize(
    "own, bound, aligned", [(SHORT, 320, 240), pytest.param(LONG, 240, 160, marks=pytest.mark.long)]
)
def test_training_reaches_a_stated_error(own, bound, aligned, tmp_path):
    """Below 240 mm. A network that has learnt nothing answers with the middle of the volume, 400 mm off and more."""
    more = [*own, "--data.rotation=0", "--data.scale=0", "--data.flip=0", "--data.color=0", "--data.occlusion=0",
            "--model.head_channels=32", "--model.norm=batch", "--objective.beta=tau", "--objective.tau=4.0",
            "--model.lr=0.002", "--model.milestones=[4]", "--model.flip_test=false"]  # fmt: skip
    assert run("validate", *options(tmp_path / "data", tmp_path / "random", *more)) == 0
    assert logged(tmp_path / "random")["val/mpjpe_mm"][0] > 400
    fit(tmp_path / "data", tmp_path / "run", *more, "--trainer.max_epochs=5", "--trainer.check_val_every_n_epoch=5")
    scores = logged(tmp_path / "run")
    assert scores["val/mpjpe_mm"][-1] < bound and scores["val/pa_mpjpe_mm"][-1] < aligned


@pytest.mark.parametrize("config", ["h36m_released", "h36m_challenge", "h36m_rle"])
def test_recipes_take_a_step_and_are_scored(config, data, tmp_path):
    short = (
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1",
        "--model.head_channels=16",
        "--model.depth=18",
    )
    fit(data, tmp_path / "run", *SMALL, *short, config=config)
    assert np.isfinite(logged(tmp_path / "run")["val/pa_mpjpe_mm"]).all()
    checkpoint = from_last(tmp_path / "run", "best")
    assert run("validate", *options(data, tmp_path / "again", *SMALL, checkpoint, NO_FIGURES, config=config)) == 0
    (file,) = (tmp_path / "again").rglob("results.json")
    assert len(json.loads(file.read_text())) == 6
    images = some_of(data / "mpii" / "images", tmp_path / "images", 2)
    given = [*SMALL, f"--data.images={images}", checkpoint]
    assert run("visualize", *options(data, tmp_path / "out", *given, config=config)) == 0
    (file,) = (tmp_path / "out").rglob("predictions.json")
    records = json.loads(file.read_text())
    assert len(records) == 2 and all(len(r["keypoints"]) == 54 and len(r["depth"]) == 18 for r in records)
    figures = 0 if config == "h36m_rle" else 2  # it has no maps
    assert records[0]["depth"][0] == 0 and len(list((tmp_path / "out").rglob("*_maps.png"))) == figures
