"""Synthetic people as MPII's annotation files (COCO's structure, 16 joints, boxes of heads)."""

from pathlib import Path

from ...trainers.synthetic import write_data_set
from ..h36m.synthetic import write_flat


def write_synthetic_mpii(root: str | Path, num_train: int, num_val: int, files: tuple[str, str], image_size: int = 192,
                         seed: int = 0) -> None:  # fmt: skip
    """Write synthetic people under ``root``; ``files`` are the annotations' names (see :func:`.write_data_set`)."""

    def write(folder: Path) -> None:
        write_flat(folder, files[0], num_train, image_size, (seed, 0), "train")
        write_flat(folder, files[1], num_val, image_size, (seed, 1), "valid")

    settings = {"task": "mpii", "num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed,
                "files": list(files)}  # fmt: skip
    write_data_set(root, settings, write)
