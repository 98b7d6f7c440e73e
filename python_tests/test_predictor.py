"""``load`` gives what the command predicts, from the checkpoint alone and without Lightning."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from deployed import BOXES, PEAKS, checkpoint, predicted, write_boxes, write_images

from sampling_argmax_cuda import load
from sampling_argmax_cuda.trainers.reading import covariance_to_image

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

TASKS = {"coco": (PEAKS,), "mtfl": (PEAKS, "--objective=soft"),
         "keypoints": (PEAKS,), "mpii": (PEAKS, "--model.stacks=null", "--objective=sampling_rle")}  # fmt: skip


@pytest.fixture(scope="module", params=TASKS)
def trained(request, tmp_path_factory) -> Path:
    return checkpoint(request.param, tmp_path_factory.mktemp(request.param), *TASKS[request.param])


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("images") / "photos"
    return folder, write_images(folder)


def check(found, records: list[dict]) -> None:
    """A predictor's answer is that of a prediction file."""
    points = np.array([record["keypoints"] for record in records]).reshape(len(records), -1, 3)
    spread = np.sqrt(np.trace(found.covariance, axis1=2, axis2=3))
    assert found.positions.shape == points[..., :2].shape
    assert np.abs(found.positions - points[..., :2]).max() <= 1e-4
    assert np.abs(found.confidence - points[..., 2]).max() <= 1e-6
    assert np.allclose(spread, [record["spread"] for record in records], rtol=1e-4, atol=0) and spread.max() > 0.1


@pytest.mark.parametrize("flip", [True, False])
def test_a_predictor_answers_as_the_command(trained, images, flip, tmp_path):
    """Images whole, one at a time or many at once, of several sizes; with a mirror or without."""
    folder, arrays = images
    more = () if flip else ("--model.flip_test=false",)
    records = predicted(tmp_path, f"--ckpt_path={trained}", f"--data.images={folder}", "--data.batch_size=2", *more)
    assert [Path(record["file_name"]).name for record in records] == list(arrays)
    assert [record["box"] for record in records] == [[0, 0, a.shape[1], a.shape[0]] for a in arrays.values()]
    predictor = load(trained, device="cpu", batch_size=2, flip_test=None if flip else False)
    assert records[0]["names"] == list(predictor.names)
    check(predictor(list(arrays.values())), records)
    alone = load(trained, device="cpu", batch_size=1, flip_test=flip)
    check(alone(list(arrays.values())), records)


def test_a_predictor_has_the_boxes_of_the_command(images, tmp_path, tmp_path_factory):
    """Several on an image, cropped with the task's margin."""
    (folder, arrays), trained = images, checkpoint("coco", tmp_path / "coco", PEAKS)
    boxes = write_boxes(tmp_path / "boxes.json")
    records = predicted(tmp_path, f"--ckpt_path={trained}", f"--data.images={folder}", f"--data.boxes={boxes}")
    assert [(r["image_id"], r["instance"]) for r in records] == [(0, 0), (0, 1), (1, 0)]
    predictor = load(trained, device="cpu")
    check(predictor([arrays[name] for name in BOXES], list(BOXES.values())), records)
    one = predictor([arrays["b.png"], arrays["a.png"]], [BOXES["b.png"][0], []])
    check(one, records[2:])
    empty = predictor([arrays["a.png"]], [[]])
    assert [x.shape for x in empty] == [(0, 17, 2), (0, 17), (0, 17, 2, 2)]
    assert [len(x) for x in predictor([])] == [0, 0, 0]


@pytest.mark.parametrize("trained", ["coco"], indirect=True)
def test_a_predictor_needs_its_checkpoint_alone(trained, tmp_path):
    """And of the packages torch, NumPy and OpenCV."""
    shutil.copy(trained, tmp_path / "alone.ckpt")
    code = (
        "import sys, numpy as np\n"
        "for name in ('lightning', 'matplotlib', 'jsonargparse', 'yaml', 'scipy', 'pycocotools'): sys.modules[name] = None\n"
        "from sampling_argmax_cuda import load\n"
        "found = load('alone.ckpt', device='cpu')([np.zeros((50, 40, 3), np.uint8)] * 2)\n"
        "assert np.isfinite(found.positions).all()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_covariances_go_through_the_affine():
    """As those of the points themselves do, for turned and sheared affines."""
    rng = np.random.default_rng(0)
    points, linear = rng.normal(size=(50, 2)) * [3, 1], rng.normal(size=(2, 2, 3))
    own = torch.from_numpy(np.cov(points.T)).expand(2, 4, 2, 2)
    found = covariance_to_image(own, torch.from_numpy(linear))
    for i in range(2):
        assert np.allclose(found[i, 3], np.cov((points @ linear[i, :, :2].T + linear[i, :, 2]).T))


@pytest.mark.parametrize(
    "images, boxes, message",
    [
        ([np.zeros((4, 5), np.uint8)], None, r"image 0 must be uint8 \[H, W, 3\], got uint8 \[4, 5\]"),
        ([np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 3))], None, "image 1 must be uint8 .*, got float64"),
        (["a.png"], None, "image 0 must be an array .*, got str"),
        ([np.zeros((4, 5, 3), np.uint8)], [[[1, 2, 3]]], r"boxes of image 0 must be \[m, 4\] or \[4\], got \[1, 3\]"),
        ([np.zeros((4, 5, 3), np.uint8)], [[1, 2, 3, 0]], "boxes of image 0 must be finite, with a width and a height > 0"),
        ([np.zeros((4, 5, 3), np.uint8)], [[1, 2, np.nan, 1]], "boxes of image 0 must be finite"),
        ([np.zeros((4, 5, 3), np.uint8)], [], "expected boxes of each of 1 images, got 0"),
    ],
)  # fmt: skip
def test_what_is_no_image_and_no_box(images, boxes, message):
    predictor = load(Path(__file__).parent / "checkpoints" / "mpii_sampling_0.1.0.ckpt", device="cpu")
    with pytest.raises(ValueError, match=f"^Predictor: {message}"):
        predictor(images, boxes)


def test_what_is_no_checkpoint_for_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="load: checkpoint .*none.ckpt does not exist"):
        load(tmp_path / "none.ckpt")
    trained = checkpoint("oct", tmp_path)
    with pytest.raises(ValueError, match="is of task oct, which does not find points in boxes of images"):
        load(trained)
    trained = checkpoint("h36m", tmp_path / "h36m")
    with pytest.raises(ValueError, match="is of task h36m, which does not find points in boxes of images"):
        load(trained)


def test_checkpoints_of_the_version_before():
    """They do not say what their points are; their task does."""
    predictor = load(Path(__file__).parent / "checkpoints" / "mpii_sampling_0.1.0.ckpt", device="cpu")
    found = predictor([np.full((40, 50, 3), 90, np.uint8)] * 2)
    assert found.positions.shape == (2, 16, 2) and predictor.names[9] == "head_top"
