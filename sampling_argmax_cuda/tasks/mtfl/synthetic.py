"""Synthetic faces in MTFL's own format: annotation text as the original, images in the folders that it names."""

from pathlib import Path

import cv2
import numpy as np

from ...trainers.synthetic import background, distract, write_data_set, write_image

# A frontal face in units of its height, x to the right, y down, its centre at the origin.
_EYE, _NOSE, _MOUTH = (0.18, -0.12), (0.0, 0.07), (0.13, 0.24)


def draw_face(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image ``[size, size, 3]`` (BGR) and the landmarks ``[5, 2]`` of its face, all of them inside."""
    image = background(size, rng)
    distract(image, int(rng.integers(1, 5)), rng)
    height, angle = size * rng.uniform(0.4, 0.65), rng.uniform(-0.5, 0.5)
    turn, narrow = rng.uniform(-0.06, 0.06), rng.uniform(0.85, 1.1)
    shape = np.array([(-_EYE[0], _EYE[1]), _EYE, _NOSE, (-_MOUTH[0], _MOUTH[1]), _MOUTH])
    shape = (
        shape * [narrow, 1.0]
        + rng.normal(0, 0.012, shape.shape)
        + [[turn, 0], [turn, 0], [2 * turn, 0], [turn, 0], [turn, 0]]
    )
    rotate = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    center = size / 2 + rng.uniform(-0.5, 0.5, 2) * (size - height) * 0.8
    points = center + height * shape @ rotate
    skin = np.array([150, 180, 215]) + rng.integers(-40, 41, 3)
    _paint(image, points, center, height, np.degrees(-angle), skin, rng)
    return image, points


def _paint(image: np.ndarray, points: np.ndarray, center: np.ndarray, height: float, degrees: float, skin: np.ndarray,
           rng: np.random.Generator) -> None:  # fmt: skip
    def color(values) -> tuple[int, ...]:
        return tuple(int(v) for v in np.clip(values, 0, 255))

    def fixed(point) -> tuple[int, ...]:
        return tuple(int(v) for v in np.rint(np.asarray(point) * 16))

    axes = fixed([height * 0.37, height * 0.5])
    cv2.ellipse(image, fixed(center), axes, degrees, 0, 360, color(skin), -1, cv2.LINE_AA, 4)
    for eye in points[:2]:
        cv2.ellipse(
            image,
            fixed(eye),
            fixed([height * 0.06, height * 0.035]),
            degrees,
            0,
            360,
            (245, 245, 245),
            -1,
            cv2.LINE_AA,
            4,
        )
        cv2.circle(image, fixed(eye), int(height * 0.025 * 16), color(rng.integers(0, 90, 3)), -1, cv2.LINE_AA, 4)
    top = (points[0] + points[1]) / 2
    cv2.line(image, fixed(top * 0.4 + points[2] * 0.6), fixed(points[2]), color(skin * 0.7), 2, cv2.LINE_AA, 4)
    cv2.circle(image, fixed(points[2]), int(height * 0.02 * 16), color(skin * 0.6), -1, cv2.LINE_AA, 4)
    low = (points[3] + points[4]) / 2 + (points[3] + points[4] - 2 * top) * rng.uniform(0.0, 0.04)
    curve = np.array([fixed(p) for p in (points[3], low, points[4])])
    cv2.polylines(image, [curve], False, color(skin * [0.5, 0.45, 0.8]), max(2, int(height * 0.03)), cv2.LINE_AA, 4)


def _write_split(root: Path, file: str, folder: str, count: int, size: int, seed: int) -> None:
    separator, lines = ("\\" if file == "training.txt" else "/"), []  # as in the original files
    for i in range(count):
        rng = np.random.default_rng((seed, file == "testing.txt", i))
        image, points = draw_face(size, rng)
        name = f"face_{i:05d}.png"
        write_image(root / folder / name, image)
        numbers = " ".join(f"{x:.6f}" for x in points.T.reshape(-1))
        lines.append(f" {folder}{separator}{name} {numbers} 1 1 2 3\r\n")
    (root / file).write_bytes("".join(lines).encode())


def write_synthetic_mtfl(root: str | Path, num_train: int, num_val: int, image_size: int = 128, seed: int = 0) -> None:
    """Write synthetic faces in MTFL's layout under ``root`` (see :func:`.write_data_set`)."""

    def write(folder: Path) -> None:
        _write_split(folder, "training.txt", "drawn_train", num_train, image_size, seed)
        _write_split(folder, "testing.txt", "drawn_test", num_val, image_size, seed)

    settings = {"task": "mtfl", "num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed}
    write_data_set(root, settings, write)
