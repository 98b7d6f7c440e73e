"""Volumes with their delineations as samples: flat B-scans, and nine surfaces in rows of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...trainers.epochs import EpochDataset
from .delineation import SURFACES, read_delineation
from .preprocess import Flattening, find_bruch, normalise
from .volume import Volume, read_volume

_MULTIPLE = 16  # of columns and rows, which the network halves four times


def is_volume(path: Path) -> bool:
    """Whether a file is a volume, by its name."""
    return path.suffix.lower() == ".vol"


def find_volumes(folder: Path, subjects: Sequence[str]) -> list[Path]:
    """The volumes of a folder whose names begin with one of ``subjects``, in their order; each subject has one at least."""
    if not folder.is_dir():
        raise FileNotFoundError(f"data: {folder} is not a folder")
    files, found = sorted(filter(is_volume, folder.iterdir())), []
    for subject in subjects:
        own = [file for file in files if file.stem == subject or file.stem.startswith(f"{subject}_")]
        if not own:
            raise FileNotFoundError(f"data: {folder} has no volume of {subject} ({subject}*.vol)")
        found += own
    return found


class FlatScans(EpochDataset):
    """The B-scans of volumes, flattened to Bruch's membrane: ``image`` ``[1, rows, columns]`` in [0, 1].

    ``offset`` ``[columns]`` takes rows of it to rows of the B-scan. Columns are padded to a multiple of 16 by repeating the
    last; ``columns`` is their number before. With ``delineations`` a sample has ``target`` ``[9, columns]`` in rows of the
    image and ``weight``, 0 where a surface is not known, not in the image, or in the padding.
    """

    def __init__(self, volumes: Sequence[Path], rows: int, delineations: Path | None = None, flip: float = 0.0,
                 seed: int = 0) -> None:  # fmt: skip
        super().__init__(seed)
        if rows < _MULTIPLE or rows % _MULTIPLE:
            raise ValueError(f"data: rows must be a positive multiple of {_MULTIPLE}, got {rows}")
        self.rows, self.flip = rows, flip
        self.volumes: list[Volume] = [read_volume(path) for path in volumes]
        sizes = {volume.shape[2] for volume in self.volumes}
        if len(sizes) > 1:
            raise ValueError(f"data: volumes must have the same number of columns, got {sorted(sizes)}")
        self.surfaces = None
        if delineations is not None:
            self.surfaces = [read_delineation(delineations / f"{v.path.stem}.mat", v.shape[0], v.shape[2])
                             for v in self.volumes]  # fmt: skip
        self.places = [(k, scan) for k, volume in enumerate(self.volumes) for scan in range(volume.shape[0])]

    def __len__(self) -> int:
        return len(self.places)

    def sample(self, index: int, epoch: int) -> dict:
        number, scan = self.places[index]
        volume = self.volumes[number]
        whole = normalise(volume.scan(scan))
        flattening = Flattening.around(find_bruch(whole), self.rows)
        image, offset = flattening.crop(whole), flattening.offset
        target = weight = np.zeros((len(SURFACES), image.shape[1]))
        if self.surfaces is not None:
            target = flattening.flatten(self.surfaces[number][scan])
            weight = np.isfinite(target) & (target >= 0) & (target <= self.rows - 1)
            target = np.where(weight, target, 0)
        if self.flip and self.generator(index, epoch).random() < self.flip:
            image, offset, target, weight = (x[..., ::-1] for x in (image, offset, target, weight))
        pad = -image.shape[1] % _MULTIPLE
        widths = [(0, 0), (0, pad)]
        return {"image": np.pad(image, widths, "edge")[None].astype(np.float32),
                "offset": np.pad(offset, (0, pad), "edge"), "um_per_row": volume.um_per_row,
                "target": np.pad(target, widths).astype(np.float32), "index": index, "volume": number, "scan": scan,
                "columns": volume.shape[2], "file_name": str(volume.path), "overlay": f"{volume.path.name}_{scan:03d}",
                "weight": np.pad(weight, widths).astype(np.float32)}  # fmt: skip
