"""Synthetic retinas: layered B-scans with speckle and shadows of vessels, as Heidelberg's and MSHC's files."""

from pathlib import Path

import numpy as np

from ...trainers.synthetic import write_data_set
from .delineation import write_delineation
from .volume import write_volume

SCALE_MM = (0.0059, 0.125, 0.00387)
# Of the eight layers: thickness in rows, its share that the fovea takes away, brightness; then vitreous and choroid.
_LAYERS = np.array([(11, 1.0, 0.72), (19, 0.95, 0.48), (11, 0.9, 0.33), (8, 0.7, 0.55), (17, -0.35, 0.25), (7, 0.0, 0.42),
                    (7, -0.1, 0.7), (8, 0.0, 0.95)])  # fmt: skip
_VITREOUS, _CHOROID = 0.06, 0.42


def _smooth(columns: int, waves: int, rng: np.random.Generator) -> np.ndarray:
    """A curve ``[columns]`` of a few slow waves with amplitudes of about 1."""
    x = np.linspace(0, 2 * np.pi, columns)
    return sum(rng.normal() / (k + 1) * np.cos((k + 1) * x / 2 + rng.uniform(0, 6.28)) for k in range(waves))


def draw_scan(rows: int, columns: int, fovea: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Raw intensities ``[rows, columns]`` in [0, 1] and surfaces ``[9, columns]``; ``fovea`` in [0, 1] is its depth."""
    x = np.linspace(-1, 1, columns)
    bruch = (
        rows * 0.72 + rng.uniform(-0.06, 0.06) * rows * x + rng.uniform(2, 7) * x**2 + 1.5 * _smooth(columns, 3, rng)
    )
    pit = fovea * np.exp(-np.square((x - rng.uniform(-0.1, 0.1)) / rng.uniform(0.22, 0.3)))
    scale = rows / 160
    thickness = [scale * mean * (1 - share * pit) * (1 + 0.08 * _smooth(columns, 4, rng)) for mean, share, _ in _LAYERS]
    surfaces = bruch - np.cumsum(np.maximum(thickness, 0.4)[::-1], 0)[::-1]
    surfaces = np.concatenate([surfaces, bruch[None]])
    place = np.arange(rows)[:, None] + np.zeros(columns)
    layer = (place[None] >= surfaces[:, None]).sum(0)
    scan = np.concatenate([[_VITREOUS], _LAYERS[:, 2], [_CHOROID]])[layer]
    scan = np.where(layer == 9, scan * np.exp(-(place - bruch) / (0.25 * rows)), scan)
    for _ in range(rng.integers(1, 4)):
        middle, width = rng.uniform(0, columns), rng.uniform(1.5, 4)
        shadow = 1 - rng.uniform(0.35, 0.7) * np.exp(-np.square((np.arange(columns) - middle) / width))
        scan = np.where(layer >= 2, scan * shadow, scan)
    speckle = rng.gamma(9.0, 1 / 9.0, scan.shape) ** 0.5
    return np.clip(scan * speckle + rng.normal(0, 0.02, scan.shape), 0.001, 1) ** 4, surfaces


def write_synthetic_oct(root: str | Path, train: list[str], val: list[str], scans: int = 6, rows: int = 160,
                        columns: int = 128, seed: int = 0) -> None:  # fmt: skip
    """Write synthetic volumes of these names under ``root`` (see :func:`.write_data_set`)."""

    def write(folder: Path) -> None:
        (folder / "volumes").mkdir()
        (folder / "delineations").mkdir()
        for i, name in enumerate([*train, *val]):
            rng = np.random.default_rng((seed, i))
            depth = 1 - np.abs(np.linspace(-1.2, 1.2, scans))
            drawn = [draw_scan(rows, columns, max(0.0, d), rng) for d in depth]
            write_volume(folder / "volumes" / f"{name}.vol", np.stack([scan for scan, _ in drawn]), SCALE_MM)
            write_delineation(folder / "delineations" / f"{name}.mat", np.stack([s for _, s in drawn]))

    settings = {"task": "oct", "num_train": len(train), "num_val": len(val), "image_size": max(rows, columns),
                "names": [*train, *val], "shape": [scans, rows, columns], "seed": seed}  # fmt: skip
    write_data_set(root, settings, write)
