"""Skeleton Merger: the composite chamfer distance against the published loop, alignment by hand, and the command line."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import runs
import task_runs
import test_keypointnet
import torch
from runs import logged, losses_of, run, run_two
from task_runs import NO_FIGURES, Trained, from_last, resumed

from sampling_argmax_cuda.commands.naive import looped_chamfer
from sampling_argmax_cuda.tasks.keypointnet.reader import KeypointClouds
from sampling_argmax_cuda.tasks.skeleton.chamfer import composite_chamfer, nearest_pairs, smooth_distance
from sampling_argmax_cuda.tasks.skeleton.metrics import agreement, alignment
from sampling_argmax_cuda.tasks.skeleton.model import Merger
from sampling_argmax_cuda.tasks.skeleton.reader import PlainClouds
from sampling_argmax_cuda.tasks.skeleton.task import SkeletonMerger, normalised

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write


def problem(batch: int = 2, count: int = 40, edges: int = 6, points: int = 9, dtype=torch.float64):
    rng = torch.Generator().manual_seed(1)
    cloud, parts = (
        torch.rand(*shape, 3, generator=rng, dtype=dtype) * 2 - 1 for shape in ((batch, count), (batch, edges, points))
    )
    used = torch.arange(points) < torch.randint(3, points + 1, (edges, 1), generator=rng)
    return cloud, parts, used, torch.rand(batch, edges, generator=rng, dtype=dtype)


# ---- the loss ----


def test_chamfer_equals_the_published_loop():
    """In values, and in the gradients of points and strengths."""
    cloud, parts, used, strength = problem()
    results = []
    for function in (composite_chamfer, looped_chamfer):
        leaves = [x.clone().requires_grad_() for x in (parts, strength)]
        loss = function(cloud, leaves[0], used, leaves[1])
        results.append((loss, *torch.autograd.grad((loss * torch.tensor([1.0, 3.0])).sum(), leaves)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_chamfer_of_no_strength_is_twenty():
    cloud, parts, used, strength = problem()
    assert composite_chamfer(cloud, parts, used, 0 * strength).tolist() == [20, 20]
    assert looped_chamfer(cloud, parts, used, 0 * strength).tolist() == [20, 20]


def test_chamfer_by_hand():
    """One point, two parts of one point at distances 3 and 4: strengths 1/4 and 1 spend 1/4 on the nearer one."""
    cloud = torch.zeros(1, 1, 3, dtype=torch.float64)
    parts = torch.tensor([[[[3.0, 0, 0]], [[0, 4.0, 0]]]], dtype=torch.float64)
    near, far = ((1e-4 + d**2) ** 0.5 for d in (3, 4))
    found = composite_chamfer(cloud, parts, torch.ones(2, 1, dtype=torch.bool), torch.tensor([[0.25, 1.0]]).double())
    assert found.item() == pytest.approx((0.25 * near + far) / 2 + 0.25 * near + 0.75 * far)
    half = composite_chamfer(cloud, parts, torch.ones(2, 1, dtype=torch.bool), torch.tensor([[0.25, 0.5]]).double())
    assert half.item() == pytest.approx((0.25 * near + 0.5 * far) / 2 + 0.25 * near + 0.5 * far + 0.25 * 20)


def test_unused_points_reach_nothing():
    cloud, parts, used, strength = problem()
    other = torch.where(used[None, :, :, None], parts, 1e3)
    parts.requires_grad_()
    loss = composite_chamfer(cloud, parts, used, strength)
    assert torch.equal(loss, composite_chamfer(cloud, other, used, strength))
    (gradient,) = torch.autograd.grad(loss.sum(), parts)
    assert (gradient[:, ~used] == 0).all() and (gradient[:, used] != 0).any()


def test_nearest_pairs_do_not_depend_on_how_many_are_held():
    cloud, parts, used, _ = problem(edges=7)
    every = nearest_pairs(cloud, parts, used, at_once=7)
    assert all(
        torch.equal(a, b)
        for at_once in (1, 3)
        for a, b in zip(every, nearest_pairs(cloud, parts, used, at_once), strict=True)
    )
    distance = (cloud[:, :, None, None] - parts[:, None]).norm(dim=-1)
    assert torch.equal(every[0].where(used, 0), distance.argmin(1).where(used, 0))
    assert torch.equal(every[1], distance.masked_fill(~used, torch.inf).argmin(3))
    assert smooth_distance(cloud, cloud).unique().item() == pytest.approx(0.01)


def test_memory_is_linear_in_the_points():
    """Autograd keeps no tensor of all pairs: what it saves grows with N + E P, not with N E P."""

    def saved(count: int) -> int:
        cloud, parts, used, strength = problem(1, count, 4, count)
        parts.requires_grad_()
        sizes: dict[int, int] = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = composite_chamfer(cloud, parts, used, strength)
        assert loss.isfinite().all()
        return sum(sizes.values())

    assert saved(400) < 2.2 * saved(200) < 2.2 * 200 * 200 * 8


# ---- the model ----


def test_edges_have_a_point_every_hundredth():
    merger = Merger(3, "ssg", (16, 8, 4, 2), width=0.1)
    with torch.no_grad():
        merger.offsets.zero_()
    keypoints = torch.tensor([[[0.0, 0, 0], [0.5, 0, 0], [0, 0.03, 0]], [[0.0, 0, 0], [0.7, 0, 0], [0, 0.05, 0]]])
    parts, used = merger.skeleton(keypoints, merger.lengths(keypoints))
    assert merger.pairs.T.tolist() == [[0, 1], [0, 2], [1, 2]]
    # Mean lengths 0.6, 0.04 (but 15 at least) and about 0.6.
    assert used.sum(1).tolist()[1] == 15 and used.sum(1)[0] in (59, 60) and parts.shape[2] == used.sum(1).max()
    assert torch.allclose(parts[1, 0, 0], keypoints[1, 1]) and torch.allclose(parts[1, 0, used[0]][-1], keypoints[1, 0])
    line = parts[0, 0, used[0], 0]
    assert torch.allclose(line.diff(), line.diff().mean().expand(len(line) - 1), atol=1e-6)
    _, used = merger.skeleton(10 * keypoints, 10 * merger.lengths(keypoints))
    assert used.sum(1).max() == 200


def test_normalising_uses_one_number_a_cloud():
    cloud = torch.rand(3, 20, 3) * torch.tensor([4.0, 1, 1]) + 3
    inside, middle, scale = normalised(cloud)
    assert inside.amax((1, 2)).tolist() == pytest.approx([1] * 3) and inside.amin((1, 2)).tolist() == pytest.approx(
        [-1] * 3
    )
    assert torch.allclose(inside * scale + middle, cloud, atol=1e-5)
    assert torch.allclose(cloud.std(1) / cloud.std(1)[:, :1], inside.std(1) / inside.std(1)[:, :1], rtol=1e-3)


def test_every_sample_is_a_skeleton():
    """The expectation over samples is the mean of single ones."""
    torch.manual_seed(0)
    module = SkeletonMerger(keypoints=3, centers=(16, 8, 4, 2), width=0.1, norm="group", offset_weight=0.0,
                            objective=test_keypointnet.gaussian(tau=1.0, num_samples=3)).train()  # fmt: skip
    batch = {"points": torch.rand(2, 40, 3), "sigma": torch.tensor([0.05, 0.02])}
    seed = torch.tensor([5, 0])
    module.row_seed = lambda logits: seed
    cloud, _, scale = normalised(batch["points"])
    logits, strength = module(cloud)
    sigma = batch["sigma"].unsqueeze(1) / scale.squeeze(-1)
    draws = module.objective.samples(logits, cloud, sigma=sigma, seed=seed)
    assert draws.shape == (2, 3, 3, 3)
    keypoints = draws.transpose(1, 2).flatten(0, 1)
    parts, used = module.model.skeleton(keypoints, module.model.lengths(keypoints))
    single = [composite_chamfer(cloud[b : b + 1], parts[3 * b + s][None], used, strength[b : b + 1])
              for b in range(2) for s in range(3)]  # fmt: skip
    torch.testing.assert_close(module.step_loss(batch), torch.cat(single).mean())


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(objective="heatmap"), "task skeleton has objectives soft, soft_vr, soft_dr, sampling, got heatmap"),
        (dict(objective=test_keypointnet.gaussian(spread=0.5)), "task skeleton compares point clouds and no samples"),
        (dict(objective=test_keypointnet.gaussian(basis="uniform")), "point clouds have basis none or gaussian"),
        (dict(keypoints=1), "keypoints must be >= 2, got 1"),
        (dict(spacing=0.0), "spacing must be > 0, got 0.0"),
        (dict(offset_weight=-1.0), "offset_weight must be >= 0, got -1.0"),
    ],
)
def test_wrong_options_are_named(wrong, message):
    with pytest.raises(ValueError, match=f"model: {message}"):
        SkeletonMerger(**{"objective": test_keypointnet.gaussian(), **wrong})


# ---- scores ----


def test_agreement_by_hand():
    assert agreement([4, 4, 4]) == 1 and agreement([1, 2, 3]) == 0
    assert agreement([1, 1, 2]) == pytest.approx(2 / 6) and agreement([1, 1, 2], self_pairs=True) == pytest.approx(
        5 / 9
    )
    assert np.isnan(agreement([1])) and agreement([1], self_pairs=True) == 1


def shapes(models: int = 6, labels: int = 5) -> tuple[np.ndarray, list[dict[int, np.ndarray]]]:
    rng = np.random.default_rng(0)
    base = rng.random((labels, 3)) * 4
    truth = [{k: base[k] + rng.normal(size=3) * 0.01 for k in range(labels)} for _ in range(models)]
    return np.stack([np.stack(list(t.values())) for t in truth]), truth


def test_perfect_keypoints_score_one_and_permuted_ones_fall():
    found, truth = shapes()
    assert alignment(found, truth) == {"das_forward": 1, "das_backward": 1, "das": 1}
    renamed = found[:, [3, 1, 4, 0, 2]]  # the same names for all models: nothing is lost
    assert alignment(renamed, truth)["das"] == 1
    rng = np.random.default_rng(1)
    permuted = np.stack([pose[rng.permutation(5)] for pose in found])
    scores = [alignment(np.concatenate([permuted[:k], found[k:]]), truth)["das"] for k in (0, 1, 6)]
    assert scores == sorted(scores, reverse=True) and scores[1] < 0.9 and scores[2] < 0.4
    assert alignment(permuted, truth, self_pairs=True)["das"] > alignment(permuted, truth)["das"]


def test_alignment_by_loops():
    rng = np.random.default_rng(2)
    found, truth = rng.random((5, 3, 3)), [{k: rng.random(3) for k in range(4) if (i + k) % 5} for i in range(5)]
    forward, pairs = 0, 0
    for a in range(5):
        for b in range(5):
            for k in range(3):
                if a != b:
                    names = [
                        min(truth[m], key=lambda n, m=m: np.linalg.norm(truth[m][n] - found[m, k])) for m in (a, b)
                    ]
                    forward, pairs = forward + (names[0] == names[1]), pairs + 1
    backward = []
    for number in range(4):
        own = [m for m in range(5) if number in truth[m]]
        index = {m: np.linalg.norm(found[m] - truth[m][number], axis=1).argmin() for m in own}
        backward.append(np.mean([index[a] == index[b] for a in own for b in own if a != b]))
    scores = alignment(found, truth)
    assert scores["das_forward"] == pytest.approx(forward / pairs)
    assert scores["das_backward"] == pytest.approx(np.mean(backward))


# ---- the command line ----

options = partial(test_keypointnet.options, config="skeleton")
fit = partial(runs.fit, options=options, config="skeleton")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data") / "point_clouds"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Trained:
    return task_runs.trained(fit, data, tmp_path_factory.mktemp("runs"))


def random_score(data: Path) -> float:
    """The alignment of points of each cloud drawn at random, mean of 20 draws."""
    clouds, rng, scores = list(KeypointClouds(data, "chair", "val")), np.random.default_rng(0), []
    truth = [{int(k): sample["copies"][0, k] for k in np.flatnonzero(sample["weight"])} for sample in clouds]
    for _ in range(20):
        found = np.stack([sample["points"][rng.choice(len(sample["points"]), 10)] for sample in clouds])
        scores.append(alignment(found, truth)["das"])
    return float(np.mean(scores))


LONG = [pytest.param(seed, 15, marks=pytest.mark.long) for seed in (0, 1, 2)]


@pytest.mark.parametrize("seed, epochs", [(0, 6), *LONG])
def test_training_beats_random_keypoints(seed, epochs, tmp_path_factory):
    """Above 0.2 where points drawn at random have 0.12, for each of three seeds; and clouds are covered better and better."""
    root = tmp_path_factory.getbasetemp() / "skeleton"
    more = ["--data.synthetic_train=64", "--data.synthetic_val=16", "--data.batch_size=8", "--data.points=256",
            "--model.centers=[64,32,16,8]", "--model.width=0.25", "--objective.num_samples=1", "--objective.tau=0.5",
            "--model.lr=0.004", "--model.milestones=[12]", f"--model.seed={seed}", f"--seed_everything={seed}"]  # fmt: skip
    more += [f"--trainer.max_epochs={epochs}", f"--trainer.check_val_every_n_epoch={epochs}"]
    run = root / f"run{seed}_{epochs}"
    fit(root / "data", run, *more)
    assert random_score(root / "data") < 0.15 and logged(run)["val/das"][-1] > 0.2
    assert 0 < losses_of(run)[-1] < 0.95 * losses_of(run)[0]


def test_resumed_run_equals_an_uninterrupted_one(trained):
    resumed(trained)
    assert list(trained.whole.rglob("epoch_0001_skeletons.png"))


def test_predict_on_a_folder_of_point_clouds(trained, data, tmp_path, capfd):
    test_keypointnet.check_predictions("skeleton", 3, trained.first, data, tmp_path, capfd)


def test_point_clouds_alone_are_enough(trained, data, tmp_path, capfd):
    """Neither annotations nor splits: a run trains, says that it has no scores, and its checkpoint is the last one."""
    shutil.copytree(data / "pcds", tmp_path / "point_clouds" / "pcds")
    plain = ("--data.synthetic=false", "--trainer.limit_train_batches=1")
    capfd.readouterr()
    fit(tmp_path / "point_clouds", tmp_path / "run", *plain, "--trainer.max_epochs=2")
    text = capfd.readouterr().out
    assert text.count("so validation has no scores\n") == 1 and text.count("has all 12 clouds of ") == 2
    assert text.count("validation has no val/das, so there is no best.ckpt; last.ckpt is the newest\n") == 1
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]
    assert not [name for name in logged(tmp_path / "run") if name.startswith("val/")]
    given = options(tmp_path / "point_clouds", tmp_path / "val", *plain, from_last(tmp_path / "run"), NO_FIGURES)
    assert run("validate", *given) == 0
    assert capfd.readouterr().out.count("so validation has no scores\n") == 1
    (file,) = (tmp_path / "val").rglob("results.json")
    assert len(json.loads(file.read_text())) == 12
    with pytest.raises(ValueError, match="no cloud of class 04379243 is in "):
        PlainClouds(tmp_path / "point_clouds", "table", "train", annotated=False)


def test_no_training_reads_annotations(trained, data, tmp_path):
    """Training has the clouds of the split, annotated or not; validation scores those that are."""
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "annotations" / "chair.json"
    train, val = (PlainClouds(tmp_path, "chair", split, split == "val", seed=1) for split in ("train", "val"))
    labelled = [KeypointClouds(tmp_path, "chair", split) for split in ("train", "val")]
    assert (len(train), len(val)) == (len(labelled[0]), len(labelled[1]))
    known = {str(sample["points"].tobytes()): sample for sample in labelled[1]}
    for sample in val:
        same = known[str(sample["points"].tobytes())]
        assert np.array_equal(sample["weight"], same["weight"]) and np.allclose(sample["copies"][0], same["copies"][0])
    path.write_text(json.dumps(json.loads(path.read_text())[-1:]))
    (tmp_path / "splits" / "val.txt").write_text((tmp_path / "splits" / "train.txt").read_text() + "03001627-other\n")
    val = PlainClouds(tmp_path, "chair", "val", annotated=True)
    assert len(val) == len(train) + 1 and "other.pcd" in [file.name for file in val.files]
    path.write_text("broken")
    train = PlainClouds(tmp_path, "chair", "train", annotated=False, noise=0.1, shift=0.2, seed=1)
    assert train[0]["weight"].tolist() == [0] and train.notes == []
    with pytest.raises(ValueError, match="chair.json is not valid JSON"):
        PlainClouds(tmp_path, "chair", "train", annotated=True)
    with pytest.raises(FileNotFoundError, match="split .*nowhere.txt does not exist"):
        PlainClouds(tmp_path, "chair", "nowhere", annotated=False)


@pytest.mark.parametrize("objective", ["soft", "soft_vr", "soft_dr"])
def test_objectives_take_a_step(objective, data, tmp_path):
    fit(data, tmp_path, f"--objective={objective}", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1")
    assert run("validate", *options(data, tmp_path / "val", from_last(tmp_path))) == 0
    before, after = ({name: value for name, value in logged(run).items() if name.startswith("val/")}
                     for run in (tmp_path, tmp_path / "val"))  # fmt: skip
    # Evaluation is a function of the weights and the point clouds, whichever command it is a part of.
    assert before == after and "val/miou_euclidean_0.05" in after
    (file,) = (tmp_path / "val").rglob("results.json")
    assert [np.shape(record["keypoints"]) for record in json.loads(file.read_text())] == [(10, 3)] * 4


@pytest.mark.long
def test_two_processes_equal_one(data, tmp_path):
    one = fit(data, tmp_path / "one", "--trainer.max_epochs=1", "--model.norm=group", "--trainer.limit_train_batches=1")
    two = run_two(data, tmp_path / "two", "--data.batch_size=2", "--model.norm=group", "--trainer.limit_train_batches=1",
                  options=test_keypointnet.options, config="skeleton")  # fmt: skip
    assert one["global_step"] == two["global_step"] == 1
    assert losses_of(tmp_path / "one") == pytest.approx(losses_of(tmp_path / "two"), rel=1e-4)
