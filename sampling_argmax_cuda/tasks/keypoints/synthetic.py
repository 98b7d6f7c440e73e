"""Synthetic key points: a drawn wrench of four points, as a labelling tool exports them in COCO's form."""

import json
from pathlib import Path

import cv2
import numpy as np

from ...trainers.synthetic import LEFT, MIDDLE, RIGHT, background, distract, write_data_set, write_image

NAMES = ("handle", "joint", "jaw_left", "jaw_right")
BONES = ((0, 1), (1, 2), (1, 3))


def draw_tool(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image ``[size, size, 3]`` (BGR) and the points ``[4, 2]`` of its tool, all of them inside."""
    image = background(size, rng)
    distract(image, int(rng.integers(1, 4)), rng)
    length, angle, spread = size * rng.uniform(0.35, 0.55), rng.uniform(-0.8, 0.8), rng.uniform(0.25, 0.6)
    up = np.array([np.sin(angle), -np.cos(angle)])
    side = np.array([np.cos(angle), np.sin(angle)])
    handle, joint = -0.5 * length * up, 0.2 * length * up
    jaws = [joint + 0.35 * length * (np.cos(spread) * up + sign * np.sin(spread) * side) for sign in (-1, 1)]
    points = np.array([handle, joint, *jaws])
    low, high = points.min(0), points.max(0)
    points = points - low + 6 + rng.random(2) * (size - 12 - (high - low))
    places, width = [tuple(int(v) for v in np.rint(point * 16)) for point in points], max(2, int(size * 0.03))
    for (a, b), color in zip(BONES, (MIDDLE, LEFT, RIGHT), strict=True):
        cv2.line(image, places[a], places[b], color, width, cv2.LINE_AA, 4)
    for place, color in zip(places, ((40, 40, 40), MIDDLE, LEFT, RIGHT), strict=True):
        cv2.circle(image, place, int(size * 0.025 * 16), color, -1, cv2.LINE_AA, 4)
    return image, points


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    images, annotations = [], []
    for i in range(1, count + 1):
        image, points = draw_tool(size, np.random.default_rng((seed, split == "val", i)))
        name = f"{split}_{i:05d}.png"
        write_image(root / "images" / split / name, image)
        images.append({"id": i, "file_name": f"{split}/{name}", "width": size, "height": size})
        low, high = points.min(0) - 4, points.max(0) + 4
        box = [round(float(v), 2) for v in (*low, *(high - low))]
        keypoints = np.concatenate([points, np.full((4, 1), 2)], 1).ravel()
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": round(box[2] * box[3], 2),
                            "iscrowd": 0, "num_keypoints": 4, "keypoints": [round(float(v), 2) for v in keypoints]})  # fmt: skip
    category = {"id": 1, "name": "tool", "keypoints": list(NAMES), "skeleton": [[a + 1, b + 1] for a, b in BONES]}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


def write_synthetic_keypoints(
    root: str | Path, num_train: int, num_val: int, image_size: int = 128, seed: int = 0
) -> None:
    """Write drawn tools under ``root``, with annotations/train.json and val.json (see :func:`.write_data_set`)."""

    def write(folder: Path) -> None:
        _write_split(folder, "train", num_train, image_size, seed)
        _write_split(folder, "val", num_val, image_size, seed)

    settings = {"task": "keypoints", "num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed}
    write_data_set(root, settings, write)
