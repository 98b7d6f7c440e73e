"""Synthetic people as COCO files: articulated people with distractors and occluders, for the real reader."""

import json
from pathlib import Path

import cv2
import numpy as np

from ...trainers.synthetic import LEFT, MIDDLE, RIGHT, background, distract, write_data_set, write_image
from ..keypoints.crops import box_iou
from .reader import PERSON

# Rest pose in units of the figure's height, x to the right of the image, y down, the pelvis at the origin.
_TORSO, _UPPER_ARM, _FOREARM, _THIGH, _SHIN = 0.30, 0.17, 0.16, 0.24, 0.23
# Blue, green, red, as OpenCV writes them.
SKIN, SHIRT = (160, 190, 225), (120, 180, 110)


def draw_pose(rng: np.random.Generator) -> np.ndarray:
    """Joints ``[17, 2]`` of a random pose of height about 1."""

    def limb(start: np.ndarray, angle: float, length: float) -> np.ndarray:
        return start + length * np.array([np.sin(angle), np.cos(angle)])

    joints, lean = np.zeros((17, 2)), rng.uniform(-0.3, 0.3)
    neck = limb(np.zeros(2), np.pi + lean, _TORSO)
    across = np.array([np.cos(lean), -np.sin(lean)]) * rng.uniform(0.7, 1.0)
    joints[5], joints[6] = (
        neck + 0.10 * across,
        neck - 0.10 * across,
    )  # a person facing us has left on our right
    joints[11], joints[12] = 0.07 * across, -0.07 * across
    for side, sign in ((0, 1), (1, -1)):
        shoulder = sign * rng.uniform(-0.3, 2.4)
        joints[7 + side] = limb(joints[5 + side], shoulder, _UPPER_ARM)
        joints[9 + side] = limb(joints[7 + side], shoulder + sign * rng.uniform(-0.2, 2.0), _FOREARM)
        hip = sign * rng.uniform(-0.25, 0.8)
        joints[13 + side] = limb(joints[11 + side], hip, _THIGH)
        joints[15 + side] = limb(joints[13 + side], hip - sign * rng.uniform(0, 0.7), _SHIN)
    turn, head = rng.uniform(-0.03, 0.03), limb(neck, np.pi + lean + rng.uniform(-0.2, 0.2), 0.13)
    face = across / np.linalg.norm(across)
    down = np.array([-face[1], face[0]])
    joints[0] = head + turn * face
    joints[1], joints[2] = (head + (turn + s * 0.028) * face - 0.025 * down for s in (1, -1))
    joints[3], joints[4] = (head + s * 0.062 * face for s in (1, -1))
    return joints


def side_color(joint: int) -> tuple[int, int, int]:
    name = PERSON.names[joint]
    return LEFT if name.startswith("left") else RIGHT if name.startswith("right") else MIDDLE


def paint_figure(image: np.ndarray, joints: np.ndarray, height: float, rng: np.random.Generator) -> None:
    """Draw a figure whose joints are in pixels; left and right have their own colours."""
    width = max(2, int(height * rng.uniform(0.035, 0.055)))
    points = [tuple(int(v) for v in np.rint(joint * 16)) for joint in joints]
    tint = rng.integers(-25, 26, 3)

    def shade(color) -> tuple[int, ...]:
        return tuple(int(v) for v in np.clip(np.array(color) + tint, 0, 255))

    trunk = np.array([points[i] for i in (5, 6, 12, 11)])
    cv2.fillPoly(image, [trunk], shade(SHIRT), cv2.LINE_AA, 4)
    for a, b in PERSON.bones:
        if a > 4 and b > 4 and {a, b} not in ({5, 6}, {11, 12}):
            color = side_color(a) if side_color(a) == side_color(b) else MIDDLE
            cv2.line(image, points[a], points[b], shade(color), width, cv2.LINE_AA, 4)
    center = tuple(int(v) for v in np.rint((joints[3] + joints[4]) * 8))
    cv2.circle(image, center, int(height * 0.075 * 16), shade(SKIN), -1, cv2.LINE_AA, 4)
    for joint in range(17):
        radius = height * (0.022 if joint > 4 else 0.014)
        cv2.circle(image, points[joint], int(radius * 16), side_color(joint), -1, cv2.LINE_AA, 4)


def cover(people: list[np.ndarray], mask: np.ndarray) -> None:
    """Turn the joints under a newly painted ``mask [size, size]`` from visible into occluded, v = 1."""
    for joints in people:
        x, y = np.clip(np.rint(joints[:, :2]).astype(int), 0, mask.shape[0] - 1).T
        joints[mask[y, x] & (joints[:, 2] == 2), 2] = 1


def occlude(image: np.ndarray, people: list[np.ndarray], rng: np.random.Generator) -> None:
    """A rectangle in front of everything; the joints behind it become v = 1."""
    size = image.shape[0]
    w, h = rng.integers(size // 10, size // 4, 2)
    x, y = rng.integers(0, size - w), rng.integers(0, size - h)
    image[y : y + h, x : x + w] = rng.integers(30, 220, 3)
    mask = np.zeros((size, size), bool)
    mask[y : y + h, x : x + w] = True
    cover(people, mask)


def draw_image(size: int, rng: np.random.Generator, pairs: float = 0.2) -> tuple[np.ndarray, list[np.ndarray]]:
    """An image ``[size, size, 3]`` (BGR) and the joints ``[17, 3]`` (x, y, v) of its people: two with chance ``pairs``."""
    image, people = background(size, rng), []
    distract(image, int(rng.integers(2, 6)), rng)
    for _ in range(2 if rng.random() < pairs else 1):
        height = size * rng.uniform(0.5, 0.8)
        pose = draw_pose(rng) * height
        low, high = pose.min(0), pose.max(0)
        room = np.maximum(size - (high - low) - 12, 1)
        pose += 6 - low + rng.random(2) * room
        inside = ((pose >= 0) & (pose <= size - 1)).all(1)
        behind = image.copy()
        paint_figure(image, pose, height, rng)
        cover(people, (image != behind).any(-1))
        people.append(np.concatenate([pose, np.where(inside, 2, 0)[:, None]], 1))
        people[-1][~inside, :2] = 0
    if rng.random() < 0.4:
        occlude(image, people, rng)
    return image, people


def _annotation(joints: np.ndarray, number: int, image_id: int) -> dict:
    seen = joints[joints[:, 2] > 0, :2]
    low, high = seen.min(0) - 4, seen.max(0) + 4
    box = [round(float(v), 2) for v in (*low, *(high - low))]
    return {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0, "bbox": box,
            "area": round(box[2] * box[3] * 0.6, 2), "num_keypoints": len(seen),
            "keypoints": [round(float(v), 2) for v in joints.reshape(-1)]}  # fmt: skip


def _false_alarms(image_id: int, people: list, size: int, rng: np.random.Generator) -> list[dict]:
    """At most one box of low score, as a detector makes them, that is on none of the boxes ``people``."""
    if rng.random() >= 0.5:
        return []
    width, height = rng.uniform(0.15, 0.5, 2) * size
    corner = rng.random(2) * (size - np.array([width, height]))
    box = [round(float(v), 2) for v in (*corner, width, height)]
    if box_iou(np.array([box]), np.array(people)).max() >= 0.3:
        return []
    return [{"image_id": image_id, "category_id": 1, "bbox": box, "score": round(float(rng.uniform(0.02, 0.4)), 3)}]


def _write_split(folder: Path, split: str, count: int, size: int, seed: int, pairs: float) -> None:
    images, annotations, detections = [], [], []
    for i in range(count):
        rng = np.random.default_rng((seed, split == "val", i))
        image, people = draw_image(size, rng, pairs)
        image_id = i + 1 + 1_000_000 * (split == "val")
        name = f"{image_id:012d}.png"
        write_image(folder / f"{split}2017" / name, image)
        images.append({"id": image_id, "file_name": name, "width": size, "height": size})
        for joints in people:
            annotations.append(_annotation(joints, len(annotations) + 1, image_id))
            jitter = np.array(annotations[-1]["bbox"]) + rng.normal(0, 2, 4)
            box, score = [round(float(v), 2) for v in jitter], round(float(rng.uniform(0.6, 1)), 3)
            detections.append({"image_id": image_id, "category_id": 1, "bbox": box, "score": score})
        boxes = [annotation["bbox"] for annotation in annotations[-len(people) :]]
        detections += _false_alarms(image_id, boxes, size, rng)
    category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(PERSON.names),
                "skeleton": [[a + 1, b + 1] for a, b in PERSON.bones]}  # fmt: skip
    content = {"info": {"description": "drawn figures"}, "images": images, "annotations": annotations,
               "categories": [category]}  # fmt: skip
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"person_keypoints_{split}2017.json").write_text(json.dumps(content))
    (folder / f"detections_{split}.json").write_text(json.dumps(detections))


def write_synthetic_coco(root: str | Path, num_train: int, num_val: int, image_size: int = 160, seed: int = 0,
                         pairs: float = 0.2) -> None:  # fmt: skip
    """Write synthetic people in COCO's layout under ``root`` (see :func:`.write_data_set`).

    ``pairs`` is the chance that an image has two people.
    """

    def write(folder: Path) -> None:
        _write_split(folder, "train", num_train, image_size, seed, pairs)
        _write_split(folder, "val", num_val, image_size, seed, pairs)

    settings = {"num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed,
                "pairs": pairs}  # fmt: skip
    write_data_set(root, settings, write)
