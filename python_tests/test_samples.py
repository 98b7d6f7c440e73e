"""The samples of a seed are what they were when they were written down here: boxes, augmentations, points, and what is read."""

from pathlib import Path

import numpy as np
import pytest

from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.tasks.associative.reader import CocoImages
from sampling_argmax_cuda.tasks.keypoints.crops import KeypointCrops
from sampling_argmax_cuda.tasks.keypoints.data import AnnotatedData
from sampling_argmax_cuda.trainers.landmark_module import LandmarkModule

AUGMENTED = {"scale": 0.3, "rotation": 40.0, "flip": 1.0, "color": 0.2, "seed": 5}
HALF = {"half_body": 1.0}
# Task, training, options; the affine to the image, known points, the sum of their coordinates in cells, the mean of the pixels.
SAMPLES = [
    ("coco", True, HALF, [-1.2683, -0.1009, 133.6098, -0.1009, 1.2683, -14.8118], 16, 418.464, -0.311),
    ("coco", False, {"boxes": "detections"}, [1.1867, 0.0, 16.325, 0.0, 1.1867, 22.62], 17, 399.715, -0.115),
    ("mpii", True, HALF, [-0.8022, -0.0638, 110.7623, -0.0638, 0.8022, 26.8846], 14, 362.853, -0.085),
    ("mpii", False, {}, [1.1036, 0.0, 81.7739, 0.0, 1.1036, 34.4072], 16, 337.087, 0.048),
    ("mtfl", True, {}, [-2.4832, -0.2487, 156.8964, -0.2487, 2.4832, -87.2185], 5, 129.999, -1.318),
    ("mtfl", False, {}, [2.0, 0.0, 0.0, 0.0, 2.0, -64.0], 5, 132.104, -0.9),
    ("keypoints", True, {}, [-0.9976, -0.0793, 113.1944, -0.0793, 0.9976, 19.312], 4, 93.029, -0.331),
    ("keypoints", False, {"boxes": "points"}, [0.9688, 0.0, 80.4369, 0.0, 0.9688, -12.0813], 4, 84.613, -0.559),
    ("keypoints", True, {"boxes": "image"}, [-2.3473, -0.1867, 148.7161, -0.1867, 2.3473, -80.4423], 4, 94.642, -1.371),
    ("associative", True, {}, [-2.9342, -0.2334, 185.8952, -0.2334, 2.9342, -100.5529], 17, 388.254, -1.339),
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("samples")


def data_of(root: Path, task: str, **options) -> AnnotatedData:
    sizes = {"synthetic": True, "synthetic_train": 3, "synthetic_val": 2, "image_size": (64, 128)}
    data = TASKS[task][1](root=str(root / task), **sizes, **AUGMENTED, **options)
    data.prepare_data()
    return data


@pytest.mark.parametrize("task, train, options, inverse, known, cells, mean", SAMPLES)
def test_a_sample_stays_what_it_is(task, train, options, inverse, known, cells, mean, root):
    """Within what other machines round otherwise: thousandths of a pixel, and hundredths of a deviation of colours."""
    if options.get("boxes") == "detections":
        data_of(root, task)
        options = {"boxes": str(root / task / "detections_val.json")}
    sample = data_of(root, task, **options).dataset(train).sample(1, 2)
    assert sample["inverse"].ravel() == pytest.approx(np.array(inverse), abs=1e-3)
    assert sample["weight"].sum() == known and sample["target"].sum() == pytest.approx(cells, abs=0.02)
    assert sample["image"].mean() == pytest.approx(mean, abs=0.01) and sample["index"] == 1


@pytest.mark.parametrize("task", ["coco", "keypoints", "mpii", "mtfl", "associative"])
def test_one_data_set_crops_the_annotations_of_every_file(task, root):
    data = data_of(root, task)
    for train in (True, False):
        assert type(data.dataset(train)) is (CocoImages if task == "associative" else KeypointCrops)
    assert TASKS[task][1].crops is AnnotatedData.crops
    assert task == "associative" or issubclass(TASKS[task][0], LandmarkModule)
