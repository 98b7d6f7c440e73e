"""What the synthetic data sets share: backgrounds, distractors, and folders that are written whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from .files import read_json

# Colours are blue, green, red, as OpenCV writes them.
LEFT, RIGHT, MIDDLE = (235, 90, 60), (60, 120, 235), (235, 215, 80)


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random colours with noise."""
    coarse = rng.integers(30, 200, (rng.integers(3, 8), rng.integers(3, 8), 3), dtype=np.uint8)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(image + rng.integers(-18, 19, image.shape), 0, 255).astype(np.uint8)


def distract(image: np.ndarray, count: int, rng: np.random.Generator) -> None:
    """Stray limbs and discs that belong to nobody."""
    size = image.shape[0]
    for _ in range(count):
        a, b = rng.integers(0, size, (2, 2))
        b = a + (b - a) // 3
        color = tuple(int(v) for v in (LEFT, RIGHT, MIDDLE)[rng.integers(3)])
        if rng.random() < 0.5:
            cv2.line(image, tuple(map(int, a)), tuple(map(int, b)), color, int(rng.integers(2, 6)), cv2.LINE_AA)
        else:
            cv2.circle(image, tuple(map(int, a)), int(rng.integers(2, 7)), color, -1, cv2.LINE_AA)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a BGR image; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"synthetic data: cannot write {path.name} of {path.parent.name}")


def _is_written(root: Path, settings: dict) -> bool:
    marker = root / "synthetic.json"
    return marker.is_file() and read_json(marker, "synthetic data") == settings


def write_data_set(root: str | Path, settings: dict, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder that becomes ``root``, whole or not at all.

    A folder that already holds the data set of these settings is left as it is; one that holds anything else is a
    ValueError.
    """
    root = Path(root)
    if settings["num_train"] < 1 or settings["num_val"] < 1 or settings["image_size"] < 64:
        raise ValueError(f"synthetic data: needs images of each split and image_size >= 64, got {settings}")
    if root.exists() and any(root.iterdir()):
        if _is_written(root, settings):
            return
        raise ValueError(f"synthetic data: {root} holds other files; choose another --data.root or remove it")
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        write(temporary)
        (temporary / "synthetic.json").write_text(json.dumps(settings))
        try:
            os.replace(temporary, root)
        except OSError:  # another process finished the same folder first
            if not _is_written(root, settings):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
