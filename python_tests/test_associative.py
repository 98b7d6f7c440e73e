"""Associative embedding: losses against loops, grouping of planted people, COCO's images whole, and the command line."""

import json
import math
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import runs
import task_runs
import torch
from pycocotools import mask as coco_mask
from runs import logged, losses_of, options_without_images, run, two_processes_equal
from task_runs import Trained, from_last, resumed

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.objectives.targets import person_maps
from sampling_argmax_cuda.tasks.associative.grouping import Grouping
from sampling_argmax_cuda.tasks.associative.losses import detection_loss, tag_loss
from sampling_argmax_cuda.tasks.associative.reader import CocoImages, ignored_mask, to_image
from sampling_argmax_cuda.tasks.associative.task import BottomUpPose
from sampling_argmax_cuda.tasks.coco.synthetic import draw_image, write_synthetic_coco
from sampling_argmax_cuda.trainers.hourglass import HourglassNet
from sampling_argmax_cuda.trainers.transforms import Augment, apply

REAL = Path(os.environ.get("SAMPLING_ARGMAX_DATA", "/nowhere")) / "coco"
pytestmark = pytest.mark.written_memory

# ---- losses ----


def tagged(people: int, seed: int = 0, shape=(2, 5, 6, 7)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tags, cells and visibility of ``people`` in each of two images; the second image lacks one of them."""
    generator = torch.Generator().manual_seed(seed)
    batch, joints, height, width = shape
    tags = torch.randn(shape, generator=generator)
    place = torch.randint(height * width, (batch, people, joints), generator=generator)
    visible = (torch.rand(batch, people, joints, generator=generator) > 0.3).float()
    if people:
        visible[1, 0] = 0
    return tags, place, visible


def loop(tags: torch.Tensor, place: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """pull and push of one image, a person and a joint at a time."""
    means, pull, push = [], tags.new_zeros(()), tags.new_zeros(())
    for cells, seen in zip(place, visible, strict=True):
        own = [tags[k].flatten()[cells[k]] for k in range(len(tags)) if seen[k] > 0]
        if own:
            mean = sum(own) / len(own)
            pull = pull + sum((t - mean) ** 2 for t in own) / len(own)
            means.append(mean)
    for i in range(len(means)):
        for j in range(i):
            push = push + torch.exp(-((means[i] - means[j]) ** 2))
    count = len(means)
    return pull / max(count, 1), 0.5 * push / (count * (count - 1) / 2) if count > 1 else push


@pytest.mark.parametrize("people", [0, 1, 2, 31])
def test_tag_loss_by_a_loop(people):
    tags, place, visible = tagged(people)
    inputs = tags.clone().requires_grad_(), tags.clone().requires_grad_()
    ours = tag_loss(inputs[0], place, visible)
    theirs = [torch.stack(x) for x in zip(*map(loop, inputs[1], place, visible), strict=True)]
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-6
    assert people < 3 or (ours.push > 0).all()
    if people:
        a, b = (torch.autograd.grad(2 * x[0].sum() + 3 * x[1].sum(), z, retain_graph=True)[0]
                for x, z in zip((ours, theirs), inputs, strict=True))  # fmt: skip
        assert (a - b).abs().max() <= 1e-6 and a.abs().max() > 0.01


def test_tag_loss_gradcheck_and_masks():
    tags, place, visible = tagged(3, shape=(2, 4, 3, 3))
    wide = tags.double().requires_grad_()
    pushed = lambda z: sum(x.sum() for x in tag_loss(z, place, visible))  # noqa: E731
    exact = torch.autograd.functional.jacobian(pushed, wide)
    step = 1e-3  # in float32, which the loss is computed in
    for index in torch.nonzero(exact)[:20]:
        moved = [tags.double().clone() for _ in range(2)]
        for z, sign in zip(moved, (1, -1), strict=True):
            z[tuple(index)] += sign * step
        slope = (pushed(moved[0]) - pushed(moved[1])) / (2 * step)
        assert slope.item() == pytest.approx(exact[tuple(index)].item(), abs=2e-3)
    hidden = torch.where(visible > 0, place, -(10**9))  # a place without a joint may be anything
    for a, b in zip(tag_loss(tags, hidden, visible), tag_loss(tags, place, visible), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match=r"tag_loss: needs tags \[B, K, H, W\]"):
        tag_loss(tags, place, visible[:, :2])


def test_tag_loss_waits_for_nothing():
    """Traced with tensors that hold no numbers: nothing asks for one."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(x) for x in tagged(4)]
        assert tag_loss(*fake).pull.shape == (2,)


def test_maps_of_people():
    """The largest over people; a joint that is not visible is on no map, wherever it is."""
    position = torch.tensor([[[[2.0, 3.0]], [[5.5, 1.25]], [[torch.nan, 0.0]]]])
    visible = torch.tensor([[[1.0], [1.0], [0.0]]])
    maps = person_maps(position, visible, (8, 6), 1.3)
    for y in range(6):
        for x in range(8):
            near = [(a, b) for a, b in ((2, 3), (6, 1)) if max(abs(x - a), abs(y - b)) <= 3 * 1.3]
            expected = max([math.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * 1.3**2)) for a, b in near], default=0)
            assert maps[0, 0, y, x].item() == pytest.approx(expected, rel=1e-5)
    assert person_maps(position[:, :0], visible[:, :0], (8, 6), 1.0).abs().sum() == 0


def test_detection_loss_where_nobody_knows():
    maps, truth, mask = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5), torch.ones(2, 4, 5)
    torch.testing.assert_close(detection_loss(maps, truth, mask), (maps - truth).square().mean((1, 2, 3)))
    mask[0, 1:3] = 0
    spoilt = maps.clone()
    spoilt[0, :, 1:3] = torch.nan
    spoilt.requires_grad_()
    loss = detection_loss(spoilt, truth, mask)
    loss.sum().backward()
    expected = ((maps - truth).square() * mask[:, None]).mean((1, 2, 3))
    torch.testing.assert_close(loss.detach(), expected)
    assert (spoilt.grad[0, :, 1:3] == 0).all() and spoilt.grad.isfinite().all()


# ---- grouping ----


def planted(
    people: np.ndarray, tags: list[float], size=(48, 40), noise: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps and tags ``[17, H, W(, 1)]`` of people ``[n, 17, 3]`` whose joints are at whole cells."""
    rng, (width, height) = np.random.default_rng(0), size
    place = torch.tensor(people[None, :, :, :2], dtype=torch.float32)
    maps = person_maps(place, torch.tensor(people[None, :, :, 2]), size, 1.0)[0]
    embedding = rng.normal(50, 5, (17, height, width))
    for person, tag in zip(people, tags, strict=True):
        for k, (x, y, seen) in enumerate(person):
            if seen:
                embedding[k, int(y), int(x)] = tag + rng.normal(0, noise)
    return maps, torch.tensor(embedding[..., None], dtype=torch.float32)


def people_at(*corners: tuple[int, int]) -> np.ndarray:
    """People of 17 joints on a lattice, each from a corner."""
    shape = np.array([(3 * (k % 4), 4 * (k // 4)) for k in range(17)], float)
    return np.stack([np.concatenate([shape + corner, np.ones((17, 1))], 1) for corner in corners])


def matched(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The found person of each true one."""
    apart = [[np.abs(a[:, :2] - b[:, :2])[b[:, 2] > 0].max() for a in found] for b in truth]
    return found[np.argmin(apart, 1)]


@pytest.mark.parametrize(
    "corners", [((2, 3), (28, 15)), ((5, 5), (8, 9)), ((5, 5), (6, 6))], ids=["apart", "overlapping", "close"]
)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_two_planted_people_are_found(corners, noise):
    truth = people_at(*corners)
    found, scores = Grouping(refine=False).people(*planted(truth, [1.0, 4.0], noise=noise))
    kept = found[scores > 0.5]
    assert len(kept) == 2
    if corners[1] != (6, 6):  # neighbouring cells are one peak
        assert np.abs(matched(kept, truth)[..., :2] - truth[..., :2]).max() <= 0.26


def test_missing_joints_are_missing_until_refined():
    truth = people_at((4, 4), (28, 10))
    truth[0, [9, 16], 2] = 0
    maps, tags = planted(truth, [0.0, 3.0])
    found, scores = Grouping(refine=False).people(maps, tags)
    first = matched(found, truth)[0]
    assert (
        (first[[9, 16], 2] == 0).all() and scores.max() == pytest.approx(1) and scores.min() == pytest.approx(15 / 17)
    )
    x, y = int(truth[0, 9, 0]), int(truth[0, 9, 1])
    maps[9, y, x], tags[9, y, x] = 0.06, 0.1  # too faint to join, but its tag fits
    found, again = Grouping().people(maps, tags)
    refined = matched(found, truth)[0]
    assert np.allclose(refined[9], [x, y, 0.06], atol=0.3) and np.array_equal(scores, again)


def test_more_people_than_can_be():
    """35 people of one joint: the 30 best are kept, and no array is too short."""
    place = [(x, y) for x in range(3, 31, 4) for y in range(3, 22, 4)]
    people = np.zeros((35, 17, 3))
    people[:, 0] = [(x, y, 1) for x, y in place]
    maps, tags = planted(people, [10.0 * n for n in range(35)])
    maps[0] *= torch.linspace(1, 0.5, maps.shape[2])  # the left ones are better
    found, scores = Grouping(refine=False).people(maps, tags)
    assert len(found) == 30 and found[:, 0, 0].max() <= 30 and scores.min() > 0
    none, empty = Grouping().people(torch.zeros(17, 8, 8), torch.zeros(17, 8, 8, 1))
    assert none.shape == (0, 17, 3) and empty.shape == (0,)


def test_equal_tags_do_not_merge_people():
    """Two people of nearly one tag: a joint is given to one person only, and the other one is new or keeps its own."""
    truth = people_at((2, 3), (28, 15))
    found, scores = Grouping(refine=False).people(*planted(truth, [1.0, 1.0]))
    assert len(found) == 2 and (scores > 0.9).all()


def test_grouping_arguments():
    with pytest.raises(ValueError, match="tag_distance must be > 0"):
        Grouping(distance=0.0)


# ---- files ----


def test_regions_that_do_not_count():
    outline = np.zeros((20, 30), np.uint8, order="F")
    outline[2:5, 3:9] = 1
    packed = coco_mask.encode(outline)
    regions = [{"segmentation": packed}, {"segmentation": [[20, 10, 25, 10, 25, 15, 20, 15]]}, {"box": [0, 18, 4, 9]},
               {"box": [-5, -9, 7, 12]}, {"box": [-9, 0, 5, 20]}]  # fmt: skip
    mask = ignored_mask(regions, (30, 20))
    expected = 1 - outline.astype(float)
    expected[10:16, 20:26] = 0
    expected[18:, :4] = 0
    expected[:3, :2] = 0  # what of a box is in the image; the last one is not
    assert np.array_equal(mask, expected)
    listed = {"size": [20, 30], "counts": [0, 600]}
    assert ignored_mask([{"segmentation": listed}], (30, 20)).sum() == 0


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "coco"
    write_synthetic_coco(root, 6, 4, image_size=128, pairs=1.0)
    return root


def images(root: Path, train: bool, **more) -> CocoImages:
    path = root / "annotations" / f"person_keypoints_{'train' if train else 'val'}2017.json"
    return CocoImages(root, path, root / f"{'train' if train else 'val'}2017", train, (128, 64), (32, 16), **more)


def test_samples_have_all_people(synthetic):
    data = images(synthetic, train=True)
    assert len(data) == 6
    for sample, record in zip(data, data.records, strict=True):
        assert sample["target"].shape == (30, 17, 2) and sample["mask"].min() == 1
        count = len(record["keypoints"])
        assert count >= 1 and sample["weight"][count:].sum() == 0
        seen = sample["weight"][:count] > 0
        back = to_image(sample["target"][:count], sample["inverse"])
        assert np.abs(back - record["keypoints"][..., :2])[seen].max() < 1e-3 and seen.any()


def test_mirrored_samples_swap_sides(synthetic):
    plain = images(synthetic, train=True)[0]
    data = images(synthetic, train=True, augment=Augment(0.0, 0.0, 1.0, 0.0, 0.0))
    turned, order = data[0], data.landmarks.mirrored()
    seen = (plain["weight"] > 0) & (turned["weight"][:, order] > 0)
    x = (127 - 4 * plain["target"][..., 0]) / 4
    assert np.abs(turned["target"][:, order, 0] - x)[seen].max() < 1e-3 and seen.sum() > 10


def test_crowds_are_masked_and_people_are_cut_to_the_largest(synthetic, tmp_path):
    path = synthetic / "annotations" / "person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    first = content["images"][0]["id"]
    content["annotations"].append({"id": 999, "image_id": first, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 128, 64],
                                   "area": 1.0, "keypoints": [0] * 51, "num_keypoints": 0})  # fmt: skip
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / path.name).write_text(json.dumps(content))
    data = CocoImages(
        synthetic, tmp_path / "annotations" / path.name, synthetic / "train2017", True, (64, 64), (16, 16), most=1
    )
    sample = data[0]
    assert data.records[0]["image_id"] == first and (sample["mask"][:7] == 0).all() and (sample["mask"][9:] == 1).all()
    areas = [(a["area"], a["keypoints"]) for a in content["annotations"] if a["image_id"] == first]
    largest = np.array(max(areas)[1]).reshape(17, 3)
    seen = sample["weight"][0] > 0
    assert np.abs(apply(sample["inverse"], sample["target"][0] * 4) - largest[:, :2])[seen].max() < 1e-3


def test_validation_has_images_without_people(synthetic, tmp_path):
    path = synthetic / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(path.read_text())
    name = "000000000077.png"
    content["images"].append({"id": 77, "file_name": name, "width": 10, "height": 10})
    path.write_text(json.dumps(content))
    cv2.imwrite(str(synthetic / "val2017" / name), np.zeros((10, 10, 3), np.uint8))
    data = images(synthetic, train=False)
    assert len(data) == 5 and data.records[0]["image_id"] == 77 and data[0]["weight"].sum() == 0


def test_pairs_are_drawn_as_often_as_asked():
    counts = [len(draw_image(96, np.random.default_rng(i), 1.0)[1]) for i in range(5)]
    assert counts == [2] * 5 and len(draw_image(96, np.random.default_rng(0), 0.0)[1]) == 1


# ---- the network and the command line ----


def test_plain_hourglasses_grow_without_norms():
    net = HourglassNet(6, 2, 16, plain=True)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())
    assert net.features[0][0].inner.inner.inner.inner[0].in_channels == 16 + 4 * 8
    assert [x.shape for x in net(torch.zeros(1, 3, 64, 128))] == [(1, 6, 16, 32)] * 2


def test_tags_are_trained_at_the_peak_of_their_map():
    """Halfway between two cells, too: grouping reads a tag where the map is largest."""
    module = BottomUpPose(stacks=1, channels=8)
    module.model = torch.nn.Linear(1, 1)
    answer = torch.randn(1, 34, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    module.forward = lambda images: [answer]
    place = torch.tensor([[2.5, 3.5], [4.5, 9.5], [12.49, 6.51]]).view(1, 3, 1, 2).expand(1, 3, 17, 2)
    batch = {
        "image": torch.zeros(1, 3, 64, 64),
        "target": place,
        "weight": torch.ones(1, 3, 17),
        "mask": torch.ones(1, 16, 16),
    }
    tags = torch.autograd.grad(module.step_loss(batch), answer)[0][:, 17:]
    peaks = person_maps(place, batch["weight"], (16, 16), 2.0) == 1
    assert peaks.sum() == 3 * 17 and torch.equal(tags != 0, peaks)


def test_flip_test_of_a_symmetric_image():
    """The mirror's maps are those of the image itself, moved by the quarter cell that the stride leaves; tags are two."""
    torch.manual_seed(0)
    module = BottomUpPose(stacks=1, channels=8, flip_test=True).eval()

    class Left(torch.nn.Module):
        def forward(self, x):
            out = torch.zeros(1, 34, 16, 16)
            column = 4 if x[0, 0, 0, 0] == 0 else 12
            out[:, 5 if column == 4 else 6, 8, column] = 1
            out[:, 17 + (5 if column == 4 else 6), 8, column] = 3 if column == 4 else 7
            return out

    module.model = Left()
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., -1] = 1
    maps, tags = module.maps(picture)
    # Cell 12 of the mirrored maps lies at 16 - 1/4 - 12 = 3.75.
    assert maps[0, 5, 8, 3:5].tolist() == [0.125, 0.875] and maps.sum() == 1
    assert tags[0, 5, 8, 3:5].tolist() == [[0, 1.75], [3, 5.25]]
    assert BottomUpPose(stacks=1, channels=8, flip_test=False, scales=(1.0, 0.5)).eval().maps(picture)[1].shape[-1] == 1


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(target_sigma=0.0), "target_sigma must be > 0, got 0.0"),
        (dict(push_weight=-1.0), "detection_weight, pull_weight and push_weight must be >= 0"),
        (dict(scales=()), r"scales must be numbers > 0, got \[\]"),
        (dict(tag_distance=0.0), "tag_distance must be > 0 and most >= 1, got 0.0 and 30"),
    ],
)
def test_wrong_options_are_named(wrong, message):
    with pytest.raises(ValueError, match=f"model: {message}"):
        BottomUpPose(**{"stacks": 1, "channels": 8, **wrong})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data") / "people"


def options(data: Path, run: Path, *more: str, config: str = "associative") -> list[str]:
    own = ["--data.synthetic_train=8", "--data.synthetic_val=4", "--data.batch_size=4", "--data.image_size=[64,64]",
           "--model.stacks=2", "--model.channels=16", "--model.plain=false", "--model.norm=group"]  # fmt: skip
    return options_without_images(data, run, config, [*own, *more])


fit = partial(runs.fit, config="associative", options=options)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Trained:
    return task_runs.trained(fit, data, tmp_path_factory.mktemp("runs"), "--model.threshold=0.0")


LONG = ["--data.synthetic_train=448", "--data.synthetic_val=64", "--data.batch_size=8", "--model.channels=32",
        "--model.lr=0.002", "--model.milestones=[10]"]  # fmt: skip
SAME = ["--data.synthetic=false", "--data.train_split=val2017", "--data.val_split=val2017", "--data.batch_size=2",
        "--data.flip=0", "--model.stacks=1", "--model.channels=24", "--model.lr=0.004", "--model.milestones=[]"]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("own, epochs", [(SAME, 60), (LONG, 12)])
def test_training_finds_people(own, epochs, tmp_path):
    """AR at an OKS of 0.5 above 0.3 without any box, on new images, or on the four of training; untrained it finds nobody."""
    more = [*own, "--data.image_size=[128,128]", "--data.scale=0", "--data.rotation=0", "--data.color=0",
            "--model.norm=batch", "--model.target_sigma=1.5", "--model.pull_weight=0.01", "--model.push_weight=0.01",
            "--model.flip_test=false"]  # fmt: skip
    if own is SAME:
        write_synthetic_coco(tmp_path / "data", 1, 4, image_size=128, pairs=0.7)
    assert run("validate", *options(tmp_path / "data", tmp_path / "random", *more)) == 0
    assert logged(tmp_path / "random")["val/AR50"][0] < 0.05
    more += [f"--trainer.max_epochs={epochs}", f"--trainer.check_val_every_n_epoch={epochs}"]
    fit(tmp_path / "data", tmp_path / "run", *more)
    assert logged(tmp_path / "run")["val/AR50"][-1] > 0.3


def test_resumed_run_equals_an_uninterrupted_one(trained):
    assert resumed(trained)["global_step"] == 4
    assert list(trained.whole.rglob("epoch_0001_people.png"))


@pytest.mark.long
def test_two_processes_equal_one(trained, data, tmp_path):
    two_processes_equal(trained.first, data, tmp_path, "--model.threshold=0.0", half=2, config="associative", options=options,
                        least_dims=4)  # fmt: skip


@pytest.mark.skipif(not REAL.is_dir(), reason="SAMPLING_ARGMAX_DATA has no COCO images")
def test_real_images(tmp_path):
    """Steps of the configuration that finds all twelve people after 800: the loss falls, every image is scored."""
    assert main(["fit", "--config", "associative_overfit", f"--data.root={REAL}", "--data.train_split=val2017",
                 "--data.val_split=val2017", "--data.image_size=[128,128]", "--trainer.max_epochs=8",
                 "--trainer.check_val_every_n_epoch=8", "--trainer.accelerator=cpu", "--trainer.devices=1",
                 "--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={tmp_path}"]) == 0  # fmt: skip
    losses = losses_of(tmp_path)
    assert len(losses) == 8 and losses[-1] < 0.5 * losses[0]
    assert len(logged(tmp_path)["val/people"]) == 1


def test_figures_leave_out_people_of_low_scores():
    module = BottomUpPose(stacks=1, channels=8, shown_score=0.5)
    module.preview = {
        "image": torch.zeros(1, 3, 64, 64),
        "maps": torch.rand(1, 17, 16, 16),
        "tags": torch.rand(1, 17, 16, 16),
    }
    module.people = [(np.ones((3, 17, 3)), np.array([0.4, 0.5, 0.6]))]
    ((_, figure),) = module.figures()
    assert figure.axes[0].get_title() == "2 people"


def test_validate_and_predict(trained, data, tmp_path, capfd):
    checkpoint = from_last(trained.first)
    assert run("validate", *options(data, tmp_path / "val", "--model.scales=[1.0,2.0]", checkpoint)) == 0
    assert {"val/AP", "val/people"} <= logged(tmp_path / "val").keys()
    folder = f"--data.images={data / 'val2017'}"
    assert run("visualize", *options(data, tmp_path / "out", folder, checkpoint)) == 0
    (file,) = (tmp_path / "out").rglob("predictions.json")
    records = json.loads(file.read_text())
    assert len(records) == 4 and all(len(p["keypoints"]) == 51 for r in records for p in r["people"])
    assert len(list((tmp_path / "out").rglob("*_maps.png"))) == 4
    assert main(["fit", *options(data, tmp_path, "--data.image_size=[96,64]")]) == 1
    assert "data: image_size must be two multiples of 64, got [96, 64]" in capfd.readouterr().err
