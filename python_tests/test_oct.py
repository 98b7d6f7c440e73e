"""Retinal surfaces: volumes and delineations, flattening and back, order, errors by hand, and the command line."""

import json
import os
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import runs
import task_runs
import torch
from runs import fitting, logged, options_without_images, run, two_processes_equal
from scipy.io import savemat
from task_runs import NO_FIGURES, Trained, from_last, resumed

from sampling_argmax_cuda import sample, soft_argmax
from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.objectives.targets import Target
from sampling_argmax_cuda.tasks.oct.delineation import SURFACES, read_delineation, write_delineation
from sampling_argmax_cuda.tasks.oct.metrics import SurfaceEvaluation, layer_dice, surface_errors
from sampling_argmax_cuda.tasks.oct.model import SurfaceNet
from sampling_argmax_cuda.tasks.oct.preprocess import Flattening, find_bruch, normalise
from sampling_argmax_cuda.tasks.oct.reader import FlatScans, find_volumes
from sampling_argmax_cuda.tasks.oct.synthetic import SCALE_MM, draw_scan, write_synthetic_oct
from sampling_argmax_cuda.tasks.oct.task import TEST, TRAIN, VAL, OctData, RetinalSurfaces, rows_of
from sampling_argmax_cuda.tasks.oct.volume import read_volume, write_volume

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

REAL = Path(os.environ.get("SAMPLING_ARGMAX_DATA", "/nowhere")) / "oct" / "test_volume.vol"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "oct"
    write_synthetic_oct(path, ["hc10", "ms15_a"], ["hc09"], scans=3, rows=96, columns=72, seed=4)
    return path


# ---- volumes ----


@pytest.mark.skipif(not REAL.is_file(), reason="SAMPLING_ARGMAX_DATA has no OCT volume")
def test_real_volume():
    """Against the file's published numbers and its own bytes; its header's BScanHdrSize is not that of its B-scans."""
    volume, data = read_volume(REAL), REAL.read_bytes()
    assert volume.version == "ep-v0.6.8" and volume.position == "OD" and volume.fundus.shape == (50, 50)
    assert volume.shape == (10, 40, 50) and volume.scale_mm == (0.011819, 0.03144444444444448, 0.003872)
    assert volume.um_per_row == pytest.approx(3.872)
    assert struct.unpack_from("<i", data, 100)[0] == 61440 and struct.unpack_from("<i", data, 4548 + 12)[0] == 3656
    for scan in range(10):
        start = 2048 + 50 * 50 + scan * (3656 + 4 * 40 * 50) + 3656
        assert np.array_equal(volume.scan(scan).reshape(-1), np.frombuffer(data, "<f4", 2000, start))
    assert volume.fundus.tobytes() == data[2048:4548]
    sample = FlatScans([REAL], rows=32)[3]
    assert sample["image"].shape == (1, 32, 64) and (sample["weight"] == 0).all() and np.isfinite(sample["image"]).all()


def test_written_volumes_are_read_back(tmp_path):
    scans = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    scans[1, 2, 3] = 3.4028235e38  # no measurement
    write_volume(tmp_path / "a.vol", scans, (0.01, 0.2, 0.004), "OS")
    volume = read_volume(tmp_path / "a.vol")
    assert volume.scale_mm == (0.01, 0.2, 0.004) and volume.position == "OS" and volume.version == "HSF-OCT-103"
    assert volume.shape == (3, 5, 7) and (volume.fundus == np.zeros((8, 8))).all()
    assert volume.scan(1)[2, 3] == 0 and all(np.array_equal(volume.scan(k), scans[k]) for k in (0, 2))


def test_predictions_have_the_columns_of_their_scan(tmp_path):
    item = {"found": torch.ones(1, 9, 16), "offset": torch.arange(16)[None], "columns": torch.tensor([5]),
            "scan": torch.tensor([2]), "file_name": "a.vol"}  # fmt: skip
    record = RetinalSurfaces(width=4).write_prediction(item, tmp_path, maps=False)
    assert record == {"file_name": "a.vol", "scan": 2, "surfaces": [[1, 2, 3, 4, 5]] * 9}


@pytest.mark.parametrize("grid", [0, 1])
def test_thicknesses_of_the_device_may_follow(tmp_path, grid):
    """Either of the header's two grids, where it says that they are; what no header tells of is an error."""
    scans = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    write_volume(tmp_path / "a.vol", scans, SCALE_MM)
    data = bytearray((tmp_path / "a.vol").read_bytes())
    end = len(data)
    data += bytes(100)
    for place, accepted in ((end, True), (end + 96, True), (end - 1, False), (end + 100, False)):
        struct.pack_into("<2i", data, 208 + 8 * grid, 3, place)
        (tmp_path / "b.VOL").write_bytes(data)
        if accepted:
            assert np.array_equal(read_volume(tmp_path / "b.VOL").scan(2), scans[2])
        else:
            with pytest.raises(ValueError, match="expected 3 B-scans of 7 x 5, got a file of"):
                read_volume(tmp_path / "b.VOL")
    assert find_volumes(tmp_path, ["a", "b"]) == [tmp_path / "a.vol", tmp_path / "b.VOL"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: b[:100], "100 bytes are no header of 2048"),
        (lambda b: b[:-4], "expected 3 B-scans of 7 x 5, got a file of"),
        (lambda b: b + b"\0", "expected 3 B-scans of 7 x 5, got a file of"),
        (lambda b: b[:12] + struct.pack("<i", 0) + b[16:], "sizes must be >= 1, got 0 columns"),
        (lambda b: b[:2112], "expected 3 B-scans"),
    ],
)
def test_malformed_volumes_are_named(tmp_path, change, message):
    write_volume(tmp_path / "a.vol", np.zeros((3, 5, 7), np.float32), SCALE_MM)
    (tmp_path / "b.vol").write_bytes(change((tmp_path / "a.vol").read_bytes()))
    with pytest.raises(ValueError, match=f"volume .*b.vol: {message}"):
        read_volume(tmp_path / "b.vol")
    with pytest.raises(FileNotFoundError, match="volume .*none.vol does not exist"):
        read_volume(tmp_path / "none.vol")


# ---- delineations ----


def cells(points: dict[tuple[int, int], list], scans: int = 2) -> np.ndarray:
    out = np.empty((scans, 11), object)
    for place in np.ndindex(out.shape):
        out[place] = np.array(points.get(place, np.zeros((0, 0))), float)
    return out


def test_control_points_count_from_one_and_skip_two_columns(tmp_path):
    """Natural splines of straight lines are the lines; columns 2 and 10 are empty; outside of the points nothing is known."""
    line = [[3, 11], [5, 13], [9, 17]]
    points = {(0, column): [[x, y + 10 * column] for x, y in line] for column in range(11) if column not in (2, 10)}
    savemat(tmp_path / "a.mat", {"control_pts": cells(points)})
    found = read_delineation(tmp_path / "a.mat", 2, 12)
    assert found.shape == (2, 9, 12) and np.isnan(found[1]).all()
    for surface, column in enumerate((0, 1, 3, 4, 5, 6, 7, 8, 9)):
        assert np.allclose(found[0, surface, 2:9], np.arange(2, 9) + 8 + 10 * column)
    assert np.isnan(found[0, :, :2]).all() and np.isnan(found[0, :, 9:]).all()


def test_lower_surfaces_are_never_above(tmp_path):
    points = {(0, 0): [[1, 21], [9, 21]], (0, 3): [[1, 11], [9, 31]]}
    savemat(tmp_path / "a.mat", {"control_pts": cells(points, 1)})
    found = read_delineation(tmp_path / "a.mat", 1, 9)[0]
    assert np.allclose(found[0], 20) and np.isnan(found[1]).all()  # an unknown surface between them stays unknown
    assert np.allclose(found[2], np.maximum(20, 10 + 2.5 * np.arange(9)))


def test_written_delineations_are_read_back(tmp_path):
    _, surfaces = draw_scan(96, 72, 0.7, np.random.default_rng(0))
    write_delineation(tmp_path / "a.mat", surfaces[None])
    assert np.abs(read_delineation(tmp_path / "a.mat", 1, 72)[0] - surfaces).max() < 0.6  # between control points
    assert np.abs((read_delineation(tmp_path / "a.mat", 1, 72)[0] - surfaces)[:, ::8]).max() < 1e-9


@pytest.mark.parametrize(
    "content, message",
    [
        ({"points": 1}, "field 'control_pts' is missing"),
        ({"control_pts": np.zeros((2, 11))}, r"control_pts must be a cell of 2 x 11, got \[2, 11\]"),
        ({"control_pts": cells({}, 3)}, r"control_pts must be a cell of 2 x 11, got \[3, 11\]"),
        ({"control_pts": cells({(1, 3): [[1, 2, 3]]})}, r"B-scan 1, IPL-INL: control points must be n x 2 numbers"),
        (
            {"control_pts": cells({(0, 0): [[1, float("nan")]]})},
            "B-scan 0, ILM: control points hold a number that is not",
        ),
    ],
)
def test_malformed_delineations_are_named(tmp_path, content, message):
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=f"delineation .*a.mat: {message}"):
        read_delineation(tmp_path / "a.mat", 2, 9)
    (tmp_path / "b.mat").write_bytes(b"MATLAB 5.0" + bytes(90))
    with pytest.raises(ValueError, match="delineation .*b.mat cannot be read"):
        read_delineation(tmp_path / "b.mat", 2, 9)
    with pytest.raises(FileNotFoundError, match="delineation .*none.mat does not exist"):
        read_delineation(tmp_path / "none.mat", 2, 9)


# ---- before the network ----


def test_bruchs_membrane_is_found():
    far = []
    for i in range(12):
        scan, surfaces = draw_scan(160, 128, i / 11, np.random.default_rng((7, i)))
        far.append(np.abs(find_bruch(normalise(scan)) - surfaces[-1]))
    assert np.mean(far) < 0.8 and np.max(far) < 4


def test_flattening_and_back():
    scan, surfaces = draw_scan(160, 128, 0.5, np.random.default_rng(1))
    picture = normalise(scan)
    assert (
        picture.min() == 0
        and picture.max() == 1
        and np.allclose(normalise((picture * 255).round()), picture, atol=0.02)
    )
    flattening = Flattening.around(find_bruch(picture), 128)
    flat = flattening.flatten(surfaces)
    assert np.array_equal(flattening.restore(flat), surfaces)  # exactly
    assert np.ptp(flat[-1]) < 6 < np.ptp(surfaces[-1])
    crop = flattening.crop(picture)
    rows = np.arange(128)[:, None] + flattening.offset
    inside = (rows >= 0) & (rows < 160)
    assert np.array_equal(crop[inside], picture[rows[inside], np.nonzero(inside)[1]]) and (crop[~inside] == 0).all()
    above = Flattening(np.full(128, -20), 64).crop(picture)
    assert (above[:20] == 0).all() and np.array_equal(above[20:], picture[:44])


def test_flat_scans_say_where_they_come_from(root):
    data = FlatScans(find_volumes(root / "volumes", ["hc10", "ms15"]), 64, root / "delineations")
    assert len(data) == 6 and data.places[4] == (1, 1)
    sample = data[4]
    truth = data.surfaces[1][1]
    assert sample["image"].shape == (1, 64, 80) and sample["um_per_row"] == pytest.approx(3.87)
    known = sample["weight"][:, :72] > 0
    back = sample["target"][:, :72] + sample["offset"][:72]
    assert known.mean() > 0.8 and np.abs(back - truth)[known].max() < 1e-5
    assert (sample["weight"][:, 72:] == 0).all() and (sample["image"][0, :, 72:] == sample["image"][0, :, 71:72]).all()
    flipped = FlatScans(find_volumes(root / "volumes", ["hc10", "ms15"]), 64, root / "delineations", flip=1.0)[4]
    assert np.array_equal(flipped["image"][0, :, :72], sample["image"][0, :, 71::-1])
    assert np.array_equal(flipped["target"][:, :72], sample["target"][:, 71::-1])


def test_splits_do_not_overlap():
    assert len({*TRAIN, *VAL, *TEST}) == len(TRAIN) + len(VAL) + len(TEST) == 35


# ---- order ----


def test_order_is_a_running_maximum():
    """``s_i = s_{i-1} + relu(s_i - s_{i-1})``, in values and gradients, for positions and for samples."""
    position = torch.randn(
        2, 9 * 5, 4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    surfaces, expected = position.unflatten(1, (9, 5)), []
    for k in range(9):
        last = surfaces[:, k] if k == 0 else expected[-1] + (surfaces[:, k] - expected[-1]).relu()
        expected.append(last)
    expected = torch.stack(expected, 1).flatten(1, 2)
    found = RetinalSurfaces.in_order(position)
    assert torch.allclose(found, expected) and (found.unflatten(1, (9, 5)).diff(dim=1) >= 0).all()
    factor = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((x * factor).sum(), position)[0] for x in (found, expected))
    assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("objective", ["soft", "sampling", "cross_entropy"])
def test_surfaces_of_a_random_network_are_in_order(objective):
    torch.manual_seed(0)
    module = RetinalSurfaces(width=4, objective=objective).eval()
    output, found = module.surfaces(torch.rand(2, 1, 32, 48))
    assert output.shape == (2, 9 * 48, 32) and found.shape == (2, 9, 48) and (found.diff(dim=1) >= 0).all()
    free = RetinalSurfaces(width=4, objective=objective, ordered=False).eval()
    free.load_state_dict(module.state_dict())
    _, other = free.surfaces(torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(0)))
    assert (other.diff(dim=1) < 0).any()


def test_samples_are_in_order_in_training():
    """The loss of samples under the constraint, by hand."""
    module = RetinalSurfaces(width=4, objective={"name": "sampling", "num_samples": 3, "metric": "l1"}).train()
    z = torch.randn(2, 9 * 4, 16, generator=torch.Generator().manual_seed(0))
    target = Target(torch.rand(2, 36, 1) * 15, torch.ones(2, 36), (16,))
    target.weight[0, 5] = 0
    seed = torch.tensor([3, 0])
    samples = (
        sample(z, num_samples=3, tau=1.0, basis="triangular", seed=seed)
        .unflatten(1, (9, 4))
        .cummax(1)
        .values.flatten(1, 2)
    )
    expected = (samples - target.position.unsqueeze(2)).abs().mean((2, 3)) * target.weight
    torch.testing.assert_close(module.objective.loss(z, target, seed=seed), expected)


def test_a_surface_without_target_keeps_its_place():
    """Masking its map would put it in the middle, above which no later surface could lie."""
    module = RetinalSurfaces(width=4, objective={"name": "soft", "metric": "l1"}).train()
    z = torch.full((1, 9, 32), -30.0)
    z[0, torch.arange(9), torch.arange(9)] = 30.0
    target = Target(torch.arange(9.0).view(1, 9, 1), torch.ones(1, 9), (32,))
    target.weight[0, 2] = 0
    assert module.objective.loss(z, target, seed=torch.tensor([0, 0])).abs().max() < 1e-4


def test_columns_are_rows_of_the_operator():
    maps = torch.randn(2, 9, 16, 5, generator=torch.Generator().manual_seed(0))
    found = soft_argmax(rows_of(maps)).unflatten(1, (9, 5)).squeeze(-1)
    expected = (maps.softmax(2) * torch.arange(16.0)[:, None]).sum(2)
    torch.testing.assert_close(found, expected)


def test_cross_entropy_of_the_true_row():
    z, target = torch.randn(1, 9, 8), Target(torch.full((1, 9, 1), 2.6), torch.ones(1, 9), (8,))
    target.weight[0, 3] = 0
    plain, more = (RetinalSurfaces(width=4, objective="soft", ce_weight=w) for w in (0.0, 2.0))
    expected = -2 * z.log_softmax(-1)[..., 3] * target.weight
    torch.testing.assert_close(more.extra_loss(z, target), expected)
    assert plain.extra_loss(z, target) == 0


def test_the_network_sees_its_place():
    torch.manual_seed(0)
    net = SurfaceNet(9, 4).eval()
    maps = net(torch.zeros(1, 1, 32, 48))
    assert maps.shape == (1, 9, 32, 48) and maps.std(dim=(2, 3)).min() > 0
    with pytest.raises(ValueError, match="model: width must be >= 2, got 1"):
        SurfaceNet(9, 1)


# ---- errors ----


def test_errors_by_hand():
    truth = np.zeros((2, 3, 4))
    error = np.zeros_like(truth)
    error[:, 0] = [[1, -1, 1, -1], [3, 1, 3, 1]]
    error[:, 1] = 2.0
    known = np.ones_like(truth, bool)
    known[:, 2] = False
    known[1, 0] = False
    errors = surface_errors(error, known)
    assert errors["mad"][:2].tolist() == [1, 2] and np.isnan(errors["mad"][2])
    assert errors["signed"][:2].tolist() == [0, 2] and errors["std"][:2].tolist() == [1, 0]
    assert errors["rmse"][:2].tolist() == [1, 2]


def test_dice_by_hand():
    truth = np.array([0.0, 4.0, 6.0])[None, :, None] + np.zeros((1, 3, 2))
    moved = truth + np.array([1.0, 1.0, 0.0])[None, :, None]
    known = np.ones_like(truth, bool)
    assert layer_dice(truth, truth, known).tolist() == [1, 1]
    assert layer_dice(moved, truth, known) == pytest.approx([2 * 3 / 8, 2 * 1 / 3])
    known[0, 0] = False
    assert np.isnan(layer_dice(moved, truth, known)[0]) and layer_dice(moved, truth, known)[1] == pytest.approx(2 / 3)


def batch_of(surfaces: np.ndarray, volumes: list[int], um: list[float]) -> dict[str, torch.Tensor]:
    count, _, width = surfaces.shape
    target = torch.tensor(surfaces)
    return {"index": torch.arange(count), "volume": torch.tensor(volumes), "scan": torch.arange(count),
            "um_per_row": torch.tensor(um), "offset": torch.full((count, width), 7), "target": target,
            "columns": torch.full((count,), width - 1),
            "weight": torch.ones_like(target)}  # fmt: skip


def test_volumes_count_equally_and_units_are_named():
    """Volume 0 has two B-scans with an error of 1 row of 4 um, volume 1 has one with 3 rows of 2 um."""
    truth = np.arange(9.0)[None, :, None] * 10 + np.zeros((3, 9, 6))
    batch, evaluation = batch_of(truth, [0, 0, 1], [4.0, 4.0, 2.0]), SurfaceEvaluation()
    evaluation.add(batch, batch["target"] + torch.tensor([1.0, 1.0, 3.0])[:, None, None])
    scores = evaluation.compute(list)
    assert scores["mad_px"] == pytest.approx(2) and scores["mad_um"] == pytest.approx(5)
    assert scores["signed_px"] == pytest.approx(2) and scores["std_px"] == pytest.approx(0, abs=1e-9)
    assert scores["rmse_um"] == pytest.approx(5) and scores["order_violations"] == 0
    assert scores["mad_ILM_um"] == scores["mad_BM_um"] == pytest.approx(5)
    assert scores["dice_RNFL"] == pytest.approx((2 * 9 / 20 + 2 * 7 / 20) / 2)
    assert evaluation.results[2]["surfaces"][1][0] == pytest.approx(10 + 3 + 7)
    assert np.shape(evaluation.results[2]["surfaces"]) == (9, 5)  # the last column is padding
    evaluation.add(batch, batch["target"].flip(1))
    assert evaluation.compute(list)["order_violations"] == 3 * 8 * 6
    assert evaluation.compute(list) == {}


# ---- the command line ----


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data") / "oct"


def options(data: Path, run: Path, *more: str, config: str = "oct") -> list[str]:
    own = [
        "--data.synthetic_train=2",
        "--data.synthetic_val=1",
        "--data.batch_size=4",
        "--data.rows=64",
        "--model.width=4",
    ]
    return fitting(options_without_images(data, run, config, [*own, *more]))


fit = partial(runs.fit, config="oct", options=options)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Trained:
    return task_runs.trained(fit, data, tmp_path_factory.mktemp("runs"), "--model.norm=group")


SHORT = ["--model.width=8", "--objective.num_samples=8", "--model.lr=0.01", "--model.milestones=[5]"]
LONG = ["--model.width=16", "--objective.num_samples=30", "--model.lr=0.002", "--model.milestones=[7]"]


@pytest.mark.parametrize(
    "own, epochs, mad, dice", [(SHORT, 6, 1.9, 0.8), pytest.param(LONG, 8, 0.8, 0.9, marks=pytest.mark.long)]
)
def test_training_reaches_a_stated_error(own, epochs, mad, dice, tmp_path):
    """Below 0.8 pixels and never out of order. Nothing but the mean surfaces of the training set is 3 pixels off."""
    more = ["--data.synthetic_train=6", "--data.synthetic_val=2", "--data.batch_size=2", "--data.rows=128",
            "--data.flip=0.5", *own, f"--trainer.max_epochs={epochs}", f"--trainer.check_val_every_n_epoch={epochs}"]  # fmt: skip
    fit(tmp_path / "data", tmp_path / "run", *more)
    module = OctData(root=str(tmp_path / "data"), synthetic=True, synthetic_train=6, synthetic_val=2)
    train, val = ([dict(sample) for sample in module.dataset(train)] for train in (True, False))
    mean = np.mean([sample["target"] for sample in train], 0)
    assert np.mean([np.abs(sample["target"] - mean)[sample["weight"] > 0].mean() for sample in val]) > 2
    scores = logged(tmp_path / "run")
    assert scores["val/mad_px"][-1] < mad and scores["val/order_violations"][-1] == 0 and scores["val/dice"][-1] > dice
    assert scores["val/mad_um"][-1] == pytest.approx(3.87 * scores["val/mad_px"][-1], rel=1e-4)


def test_resumed_run_equals_an_uninterrupted_one(trained):
    assert resumed(trained)["global_step"] == 6
    assert list(trained.whole.rglob("epoch_0001_surfaces.png"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    """Two volumes of two B-scans each to predict on, whose columns are no multiple of 16."""
    path = tmp_path_factory.mktemp("predict") / "oct"
    write_synthetic_oct(path, ["hc10"], ["hc09"], scans=2, rows=96, columns=72, seed=4)
    return path / "volumes"


@pytest.mark.parametrize("config", ["oct_released", "soft", "soft_dr", "gaussian", "cross_entropy"])
def test_objectives_take_a_step_and_predict(config, data, volumes, tmp_path):
    own = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    own += [] if config.startswith("oct") else ["--config", config]
    task = config if config.startswith("oct") else "oct"
    fit(data, tmp_path / "run", *own, config=task)
    checkpoint = from_last(tmp_path / "run", "best")
    assert run("validate", *options(data, tmp_path / "val", checkpoint, NO_FIGURES, config=task)) == 0
    (file,) = (tmp_path / "val").rglob("results.json")
    assert len(json.loads(file.read_text())) == 6
    folder = f"--data.volumes={volumes}"
    assert run("visualize", *options(data, tmp_path / "out", folder, checkpoint, config=task)) == 0
    (file,) = (tmp_path / "out").rglob("predictions.json")
    records = json.loads(file.read_text())
    assert len(records) == 4 and np.array(records[0]["surfaces"]).shape == (len(SURFACES), 72)
    assert (np.diff(np.array(records[0]["surfaces"]), axis=0) >= 0).all()
    assert len(list((tmp_path / "out").rglob("*_maps.png"))) == 4


@pytest.mark.long
def test_two_processes_equal_one(trained, data, tmp_path):
    two_processes_equal(trained.first, data, tmp_path, "--model.norm=group", half=2, config="oct", options=options,
                        last_bias="model.head.1.bias")  # fmt: skip


@pytest.mark.parametrize(
    "more, message",
    [
        (["--data.synthetic=false", "--data.root=/nowhere"], "data: /nowhere/volumes is not a folder"),
        (["--data.rows=60"], "data: rows must be a positive multiple of 16, got 60"),
        (["--model.ce_weight=-1"], "model: ce_weight must be >= 0, got -1"),
        (["--objective=direct"], "model: task oct needs an objective with maps alone, got direct"),
    ],
)
def test_error_messages(data, tmp_path, capfd, more, message):
    assert main(["fit", *options(data, tmp_path, *more)]) == 1
    assert message in capfd.readouterr().err


def test_missing_volumes_are_named(root, tmp_path, data, capfd):
    with pytest.raises(FileNotFoundError, match=r"has no volume of hc11 \(hc11\*.vol\)"):
        find_volumes(root / "volumes", ["hc10", "hc11"])
    assert run("predict", *options(data, tmp_path)) == 1
    assert "predict: --data.volumes must name a folder of .vol files" in capfd.readouterr().err
    assert run("predict", *options(data, tmp_path, f"--data.volumes={tmp_path}")) == 1
    assert "holds no .vol file" in capfd.readouterr().err
