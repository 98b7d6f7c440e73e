"""Small trained checkpoints, images and boxes, for the tests of what is done with a checkpoint."""

import json
from pathlib import Path

import cv2
import numpy as np
import runs

PEAKS = "--model.gain=1000"  # a network that has learnt nothing has flat maps
BOXES = {"a.png": [[4, 6, 40.5, 50], [20, 3, 30, 33.25]], "b.png": [[0, 0, 56, 40]]}


def checkpoint(task: str, folder: Path, *more: str) -> Path:
    """The checkpoint of one step of a task."""
    short = ("--trainer.max_steps=1", "--trainer.limit_val_batches=0")
    runs.fit(folder / "data", folder / "run", *short, *more, config=task, options=_small)
    return folder / "run" / "checkpoints" / "last.ckpt"


def _small(data: Path, run: Path, *more: str, config: str) -> list[str]:
    return runs.small(config, data, run, *more)


def write_images(folder: Path) -> dict[str, np.ndarray]:
    """Images of several sizes, one of them grey in its file; RGB, by their names."""
    folder.mkdir()
    rng, images = np.random.default_rng(3), {}
    for name, size in (("a.png", (60, 64, 3)), ("b.png", (40, 56, 3)), ("grey.png", (33, 71))):
        image = cv2.GaussianBlur(rng.integers(0, 256, size, dtype=np.uint8), (0, 0), 1.5)
        cv2.imwrite(str(folder / name), image)
        images[name] = cv2.imread(str(folder / name))[..., ::-1]
    return images


def write_boxes(path: Path) -> Path:
    listed = [{"file_name": name, "bbox": box} for name, boxes in BOXES.items() for box in boxes]
    path.write_text(json.dumps(listed))
    return path


def predicted(run: Path, *more: str, command: str = "predict") -> list[dict]:
    """The records of a command's prediction file."""
    common = ("--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false",
              "--data.num_workers=0", f"--trainer.default_root_dir={run}")  # fmt: skip
    assert runs.main([command, *common, *more]) == 0
    return json.loads((run / "predictions.json").read_text())
