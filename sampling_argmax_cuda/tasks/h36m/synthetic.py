"""Synthetic figures in space, seen by cameras, as Human3.6M's and MPII's annotation files."""

import json
from pathlib import Path

import cv2
import numpy as np

from ...trainers.synthetic import LEFT, MIDDLE, RIGHT, background, distract, write_data_set, write_image
from .camera import Camera, project
from .skeletons import BODY, MPII, THORAX, with_thorax

HEAD, HEAD_MM = 10, 110  # the joint that is drawn as a head, and its radius

# Lengths in mm.
_HIP, _THIGH, _SHIN, _TORSO, _CHEST, _NECK, _HEAD = 133.0, 443.0, 454.0, 233.0, 257.0, 121.0, 115.0
_SHOULDER, _UPPER_ARM, _FOREARM = 151.0, 279.0, 252.0


def _turn(axis: str, angle: float) -> np.ndarray:
    """The rotation by ``angle`` radians around an axis."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    out = np.eye(3)
    out[i, i], out[j, j], out[i, j], out[j, i] = c, c, -s, s
    return out


def draw_body(facing: float, rng: np.random.Generator) -> np.ndarray:
    """17 joints ``[17, 3]`` in mm of a world whose z points up: a random pose of a person of random size.

    The person looks roughly in the direction ``facing`` (radians from the x axis).
    """
    joints, size = np.zeros((17, 3)), rng.uniform(0.94, 1.06)
    body = _turn("z", facing + np.pi / 2 + rng.uniform(-1.2, 1.2))  # faces -y before it turns; its left is +x
    trunk = body @ _turn("x", rng.uniform(-0.1, 0.5)) @ _turn("y", rng.uniform(-0.2, 0.2))
    up, left = trunk @ [0, 0, 1.0], trunk @ [1.0, 0, 0]
    joints[7] = _TORSO * up
    thorax = joints[7] + _CHEST * up
    joints[8] = thorax + 0.5 * _NECK * up
    head = trunk @ _turn("z", rng.uniform(-0.6, 0.6)) @ _turn("x", rng.uniform(-0.3, 0.4))
    joints[9] = joints[8] + head @ [0, -0.6 * _HEAD, 0.6 * _NECK]
    joints[10] = joints[8] + head @ [0, 0, 0.5 * _NECK + _HEAD]
    for sign, hip, shoulder in ((1, 4, 11), (-1, 1, 14)):
        joints[hip] = sign * _HIP * (body @ [1.0, 0, 0])
        thigh = body @ _turn("x", rng.uniform(-1.0, 0.3)) @ _turn("y", -sign * rng.uniform(-0.05, 0.35))
        joints[hip + 1] = joints[hip] + thigh @ [0, 0, -_THIGH]
        joints[hip + 2] = joints[hip + 1] + thigh @ _turn("x", rng.uniform(0.0, 1.2)) @ [0, 0, -_SHIN]
        joints[shoulder] = thorax + sign * _SHOULDER * left
        arm = trunk @ _turn("x", rng.uniform(-2.0, 0.5)) @ _turn("y", -sign * rng.uniform(0.0, 1.2))
        joints[shoulder + 1] = joints[shoulder] + arm @ [0, 0, -_UPPER_ARM]
        joints[shoulder + 2] = joints[shoulder + 1] + arm @ _turn("x", rng.uniform(-1.6, 0.0)) @ [0, 0, -_FOREARM]
    joints *= size
    joints[:, 2] -= joints[:, 2].min() - 60  # the lowest joint is an ankle over the floor
    return joints + [*rng.uniform(-600, 600, 2), 0]


def draw_camera(size: int, rng: np.random.Generator) -> Camera:
    """A camera 4 to 5.5 m away that looks at the middle of the room, as Human3.6M's four do."""
    angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(4000, 5500)
    place = np.array([distance * np.cos(angle), distance * np.sin(angle), rng.uniform(1300, 1700)])
    forward = np.array([0, 0, 900.0]) - place
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Camera(rotation, place, size * rng.uniform(1.13, 1.16, 2), size * rng.uniform(0.49, 0.53, 2))


def _side_color(joint: int) -> tuple[int, int, int]:
    name = BODY.names[joint]
    return LEFT if name.startswith("left") else RIGHT if name.startswith("right") else MIDDLE


def paint_body(image: np.ndarray, seen: np.ndarray, focal: float, rng: np.random.Generator) -> None:
    """Draw 18 joints ``[18, 3]`` (pixels and depth in mm): far bones first, thinner and darker the farther they are."""
    tint, middle = rng.integers(-20, 21, 3), seen[:, 2].mean()
    thick = rng.uniform(80, 110)

    def shade(color, depth: float) -> tuple[int, ...]:
        light = np.clip(1 - (depth - middle) / 1500, 0.45, 1.4)
        return tuple(int(v) for v in np.clip((np.array(color) + tint) * light, 0, 255))

    def fixed(point: np.ndarray) -> tuple[int, ...]:
        return tuple(int(v) for v in np.rint(point[:2] * 16))

    for a, b in sorted(BODY.bones, key=lambda bone: -seen[list(bone), 2].mean()):
        depth = seen[[a, b], 2].mean()
        color = _side_color(b) if _side_color(a) in (_side_color(b), MIDDLE) else _side_color(a)
        cv2.line(image, fixed(seen[a]), fixed(seen[b]), shade(color, depth), max(1, round(thick * focal / depth)),
                 cv2.LINE_AA, 4)  # fmt: skip
    for joint in np.argsort(-seen[:, 2]):
        if joint != THORAX:
            radius = int((HEAD_MM if joint == HEAD else 60) * focal / seen[joint, 2] * 16)
            cv2.circle(image, fixed(seen[joint]), radius, shade(_side_color(joint), seen[joint, 2]), -1, cv2.LINE_AA, 4)


def _box(points: np.ndarray) -> list[float]:
    low, high = points.min(0), points.max(0)
    margin = 0.08 * (high - low).max()
    return [round(float(v), 3) for v in (*(low - margin), *(high - low + 2 * margin))]


def draw_view(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, Camera]:
    """An image ``[size, size, 3]`` (BGR), pixels with depths ``[18, 3]``, the world's joints ``[17, 3]``, a camera."""
    image, camera = background(size, rng), draw_camera(size, rng)
    world = draw_body(np.arctan2(camera.translation[1], camera.translation[0]), rng)
    distract(image, int(rng.integers(0, 4)), rng)
    seen = project(with_thorax(camera.from_world(world)), camera.focal, camera.center)
    paint_body(image, seen, float(camera.focal.mean()), rng)
    return image, seen, world, camera


def _write_poses(folder: Path, file: str, subjects: tuple[int, ...], count: int, size: int, seed: tuple) -> None:
    images, annotations = [], []
    for i in range(count):
        rng = np.random.default_rng((*seed, i))
        image, seen, world, camera = draw_view(size, rng)
        take = f"s_{subjects[i % len(subjects)]:02d}_act_{2 + i % 15:02d}_subact_01_ca_{1 + i % 4:02d}"
        name = f"{take}/{take}_{i:06d}.jpg"
        write_image(folder / "images" / name, image)
        images.append({"id": i, "file_name": name, "width": size, "height": size})
        parameters = {"R": camera.rotation.tolist(), "t": camera.translation.tolist(), "f": camera.focal.tolist(),
                      "c": camera.center.tolist()}  # fmt: skip
        annotations.append({"id": i, "image_id": i, "bbox": _box(seen[:, :2]), "cam_param": parameters,
                            "keypoints_world": world.tolist()})  # fmt: skip
    _write_json(folder, file, {"images": images, "annotations": annotations})


def write_flat(folder: Path, file: str, count: int, size: int, seed: tuple, prefix: str = "") -> None:
    """Write ``count`` synthetic people as MPII's 16 joints in COCO's structure, with boxes of their heads."""
    images, annotations = [], []
    for i in range(count):
        rng = np.random.default_rng((*seed, i))
        image, seen, _, camera = draw_view(size, rng)
        name, joints = f"{prefix}{i:09d}.jpg", np.zeros((16, 3))
        for joint, other in enumerate(MPII):
            if other >= 0:
                joints[other] = [*seen[joint, :2], 2]
        write_image(folder / "images" / name, image)
        images.append({"id": i, "file_name": name, "width": size, "height": size})
        radius = HEAD_MM * camera.focal.mean() / seen[HEAD, 2]
        head = np.concatenate([seen[HEAD, :2] - radius, seen[HEAD, :2] + radius])
        annotations.append({"id": i, "image_id": i, "bbox": _box(seen[:, :2]), "category_id": 1, "iscrowd": 0,
                            "keypoints": joints.reshape(-1).tolist(), "num_keypoints": 16,
                            "head_box": head.tolist()})  # fmt: skip
    _write_json(folder, file, {"images": images, "annotations": annotations})


def _write_json(folder: Path, file: str, content: dict) -> None:
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / file).write_text(json.dumps(content))


def write_synthetic_h36m(root: str | Path, num_train: int, num_val: int, files: tuple[str, str, str],
                         image_size: int = 192, seed: int = 0) -> None:  # fmt: skip
    """Write synthetic poses in Human3.6M's layout, and as many flat ones in MPII's, under ``root``.

    ``files`` are the annotation files of training, validation and MPII; see :func:`.write_data_set`.
    """
    train, val, flat = files

    def write(folder: Path) -> None:
        _write_poses(folder, train, (1, 5, 6, 7, 8), num_train, image_size, (seed, 0))
        _write_poses(folder, val, (9, 11), num_val, image_size, (seed, 1))
        write_flat(folder / "mpii", flat, num_train, image_size, (seed, 2))

    settings = {"task": "h36m", "num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed,
                "files": list(files)}  # fmt: skip
    write_data_set(root, settings, write)
