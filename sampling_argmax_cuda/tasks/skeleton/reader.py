"""Point clouds of a category, whose annotations no training reads: they are there to be scored against."""

from pathlib import Path

import numpy as np

from ...trainers.epochs import EpochDataset
from ..keypointnet.reader import CATEGORIES, check_augmentation, moved, read_models, read_pcd, read_split, spacing


class PlainClouds(EpochDataset):
    """Point clouds ``points`` ``[N, 3]`` of a category, those of a split or, where there are no splits, all of them.

    With ``annotated``, and where there is a file of annotations, a sample has its keypoints by semantic number too, as
    ``copies`` ``[1, K, 3]`` with ``weight`` ``[K]``, 0 for one that is not annotated. ``sigma`` is the mean distance of
    neighbours; ``noise`` and ``shift`` are those of :class:`..keypointnet.reader.KeypointClouds`.
    """

    def __init__(self, root, category: str, split: str, annotated: bool, noise: float = 0.0, shift: float = 0.0,
                 seed: int = 0) -> None:  # fmt: skip
        super().__init__(seed)
        check_augmentation(category, noise, shift)
        self.root, self.noise, self.shift, self.notes = Path(root), noise, shift, []
        self.files = self._files(CATEGORIES[category], split)
        self.truth = self._truth(category) if annotated else {}
        self.count = 1 + max((number for truth in self.truth.values() for number in truth), default=0)

    def _files(self, class_id: str, split: str) -> list[Path]:
        folder, splits = self.root / "pcds" / class_id, self.root / "splits"
        if splits.is_dir():
            path = splits / f"{split}.txt"
            names = sorted(name for name in read_split(path) if name.startswith(f"{class_id}-"))
            files, where = [folder / f"{name.removeprefix(f'{class_id}-')}.pcd" for name in names], path
        else:
            files, where = sorted(folder.glob("*.pcd")), folder
            self.notes.append(f"data: there is no {splits}, so {split} has all {len(files)} clouds of {folder}")
        if not files:
            raise ValueError(f"data: no cloud of class {class_id} is in {where}")
        return files

    def _truth(self, category: str) -> dict[str, dict[int, np.ndarray]]:
        """Keypoints by semantic number, of the models that are annotated."""
        path = self.root / "annotations" / f"{category}.json"
        if not path.is_file():
            self.notes.append(f"data: there is no {path}, so validation has no scores")
            return {}
        models = read_models(path)
        return {model["model_id"]: dict(zip(model["labels"], model["points"], strict=True)) for model in models}

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, epoch: int) -> dict:
        path = self.files[index]
        points = read_pcd(path)
        sigma, copies, weight = spacing(points), np.zeros((1, self.count, 3)), np.zeros(self.count, np.float32)
        for number, place in self.truth.get(path.stem, {}).items():
            copies[0, number], weight[number] = place, 1
        if self.noise or self.shift:
            points, move = moved(points, self.noise, self.shift, self.generator(index, epoch))
            copies = np.where(weight[:, None] > 0, copies + move, 0)
        return {"points": points.astype(np.float32), "copies": copies.astype(np.float32), "weight": weight,
                "sigma": np.float32(sigma), "index": index}  # fmt: skip
