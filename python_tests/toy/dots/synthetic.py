"""Synthetic dots in the task's own format."""

from pathlib import Path

import cv2
import numpy as np

from ...trainers.files import write_json
from ...trainers.synthetic import background, write_data_set, write_image


def write_synthetic_dots(root: str | Path, num_train: int, num_val: int, image_size: int = 96, seed: int = 0) -> None:
    """Write synthetic dots under ``root`` (see :func:`.write_data_set`)."""

    def write(folder: Path) -> None:
        for split, count, first in (("train", num_train, 0), ("val", num_val, num_train)):
            records = []
            for i in range(count):
                rng = np.random.default_rng((seed, first + i))
                image, (x, y) = (
                    background(image_size, rng),
                    rng.integers(image_size // 8, 7 * image_size // 8, 2).tolist(),
                )
                cv2.circle(image, (x, y), 4, (255, 255, 255), -1, cv2.LINE_AA)
                write_image(folder / f"{split}{i:03d}.png", image)
                records.append({"image": f"{split}{i:03d}.png", "x": x, "y": y})
            write_json(folder / f"{split}.json", records)

    write_data_set(root, {"task": "dots", "num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed},
                   write)  # fmt: skip
