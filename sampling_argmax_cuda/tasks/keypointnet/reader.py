"""KeypointNet's files (You et al., CVPR 2020): coloured point clouds, semantic keypoints, symmetries and splits; as samples."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from torch.utils.data import Dataset

from ...trainers.epochs import EpochDataset
from ...trainers.files import field, files_of, finite_numbers, read_json, read_text, records

CIRCLE_STEPS = 36  # turns of a group of keypoints that lie on a circle
CATEGORIES = {
    "airplane": "02691156", "bathtub": "02808440", "bed": "02818832", "bottle": "02876657", "cap": "02954340",
    "car": "02958343", "chair": "03001627", "guitar": "03467517", "helmet": "03513137", "knife": "03624134",
    "laptop": "03642806", "motorcycle": "03790512", "mug": "03797390", "skateboard": "04225987", "table": "04379243",
    "vessel": "04530566",
}  # fmt: skip


def _pcd_head(lines: Iterable[str], path: Path) -> dict[str, list[str]]:
    """The header of a ``.pcd`` file by its lines' first words, which ``DATA`` ends."""
    head = {}
    for line in lines:
        key, *values = line.split() or [""]
        head[key] = values
        if key == "DATA":
            break
    missing = {"FIELDS", "POINTS", "DATA"} - head.keys()
    if missing:
        raise ValueError(f"point cloud {path}: line {min(missing)} is missing")
    if head["DATA"] != ["ascii"]:
        raise ValueError(f"point cloud {path}: DATA must be ascii, got {' '.join(head['DATA'])}")
    if not {"x", "y", "z"} <= set(head["FIELDS"]):
        raise ValueError(f"point cloud {path}: FIELDS must have x, y and z, got {' '.join(head['FIELDS'])}")
    return head


def count_pcd(path: Path) -> int:
    """The number of points that the header of a ``.pcd`` file says."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        points = _pcd_head(lines, path)["POINTS"]
    if len(points) != 1 or not points[0].isdecimal():
        raise ValueError(f"point cloud {path}: POINTS must be a number, got {' '.join(points)}")
    return int(points[0])


def read_pcd(path: str | Path) -> np.ndarray:
    """Points ``[N, 3]`` of an ASCII ``.pcd`` file, whatever other fields it has. Raises ValueError that names the line."""
    path = Path(path)
    lines = read_text(path, "point cloud").split("\n")
    head = _pcd_head(lines, path)
    start = next(i for i, line in enumerate(lines, 1) if line.split()[:1] == ["DATA"])
    rows = [(number, line.split()) for number, line in enumerate(lines[start:], start + 1) if line.strip()]
    if [str(len(rows))] != head["POINTS"] or not rows:
        raise ValueError(f"point cloud {path}: POINTS says {' '.join(head['POINTS'])}, got {len(rows)}")
    columns, points = [head["FIELDS"].index(axis) for axis in "xyz"], np.empty((len(rows), 3))
    for point, (number, row) in zip(points, rows, strict=True):
        where = f"point cloud {path}: line {number}"
        if len(row) != len(head["FIELDS"]):
            raise ValueError(f"{where} must have {len(head['FIELDS'])} numbers, got {len(row)}")
        values = [row[column] for column in columns]
        try:
            point[:] = values
        except ValueError:
            point[:] = np.nan
        if not np.isfinite(point).all():
            raise ValueError(f"{where}: x, y and z must be finite numbers, got {' '.join(values)}")
    return points


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' rotation ``[3, 3]`` by ``angle`` around a unit axis."""
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def _group(record: dict, count: int, where: str) -> dict:
    members = field(record, "kp_indexes", where)
    if not isinstance(members, list) or not all(isinstance(i, int) and 0 <= i < count for i in members):
        raise ValueError(f"{where}: kp_indexes must be numbers of keypoints below {count}, got {members!r}")
    if not record.get("is_circle"):
        return {"members": members}
    circle = field(record, "circle", where)
    center, normal = (finite_numbers(field(circle, key, where), (3,), where, key) for key in ("center", "normal"))
    if not np.linalg.norm(normal) > 0:
        raise ValueError(f"{where}: normal must not be 0")
    return {"members": members, "center": center, "axis": normal / np.linalg.norm(normal)}


def rotated_copies(points: np.ndarray, groups: list[dict]) -> np.ndarray:
    """Keypoints ``[C, k, 3]`` that a rotational symmetry makes of ``[k, 3]``, the given ones first.

    Copy c turns every group by c: a group of discrete symmetry passes its places on, one on a circle turns by
    c / 36 of it.
    """
    steps = [CIRCLE_STEPS if "axis" in group else len(group["members"]) for group in groups]
    copies = np.repeat(points[None], max(steps, default=1), 0)
    for group, step in zip(groups, steps, strict=True):
        members = group["members"]
        for c in range(1, len(copies)):
            if "axis" in group:
                turn = _rotation(group["axis"], 2 * np.pi * c / step)
                copies[c, members] = (points[members] - group["center"]) @ turn.T + group["center"]
            else:
                copies[c, members] = points[np.roll(members, -(c % step))]
    return copies


def _model(record: dict, where: str) -> dict:
    class_id, model_id = (str(field(record, key, where)) for key in ("class_id", "model_id"))
    where, found = f"{where} ({model_id})", records(record, "keypoints", where)
    points, labels = [], []
    for i, keypoint in enumerate(found):
        place = f"{where}: keypoint {i}"
        points.append(finite_numbers(field(keypoint, "xyz", place), (3,), place, "xyz"))
        label = field(keypoint, "semantic_id", place)
        if isinstance(label, bool) or not isinstance(label, int) or label < 0 or label in labels:
            raise ValueError(f"{place}: semantic_id must be a number >= 0 that no other keypoint has, got {label!r}")
        labels.append(label)
    if not points:
        raise ValueError(f"{where}: no keypoints")
    symmetries = record.get("symmetries", {})
    groups = [_group(g, len(points), f"{where}: rotation") for g in symmetries.get("rotation", [])]
    reflections = [_group(g, len(points), f"{where}: reflection")["members"] for g in symmetries.get("reflection", [])]
    return {"class_id": class_id, "model_id": model_id, "where": where, "points": np.array(points), "labels": labels,
            "rotations": groups, "reflections": reflections}  # fmt: skip


def read_models(path: str | Path) -> list[dict]:
    """The annotated models of a category. Raises ValueError that names the file and the model."""
    content = read_json(path, "annotation")
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path}: annotations must be a list of models that is not empty")
    return [_model(record, f"{path}: model {i}") for i, record in enumerate(content)]


def read_split(path: str | Path) -> set[str]:
    """The names ``class_id-model_id`` of a split."""
    return set(read_text(path, "split").split())


def spacing(points: np.ndarray) -> float:
    """Mean distance of a point to its nearest neighbour: the paper's sigma for point clouds."""
    return float(cKDTree(points).query(points, 2)[0][:, 1].mean())


def check_augmentation(category: str, noise: float, shift: float) -> None:
    """Raise ValueError for an unknown category or a negative augmentation."""
    if category not in CATEGORIES:
        raise ValueError(f"data: category must be one of {', '.join(CATEGORIES)}, got {category!r}")
    for name, value in (("noise", noise), ("shift", shift)):
        if not value >= 0:
            raise ValueError(f"data: {name} must be >= 0, got {value}")


def moved(points: np.ndarray, noise: float, shift: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A point cloud ``[N, 3]`` with noise on every point, moved as a whole; and that move ``[3]``."""
    move = rng.uniform(-shift, shift, 3)
    return points + move + np.clip(rng.normal(size=points.shape), -2.5, 2.5) * noise, move


class KeypointClouds(EpochDataset):
    """Point clouds ``points`` ``[N, 3]`` of a category with their keypoints by semantic number.

    ``copies`` ``[C, K, 3]`` are the keypoints and what rotational symmetry makes of them (repeated up to the same C for
    all), ``weight`` ``[K]`` is 0 for a keypoint that a model lacks, ``sigma`` the mean distance of neighbours. Augmentation
    (``noise``: deviation of every point, clipped at 2.5 of them; ``shift``: largest move of a cloud) is a function of
    (seed, epoch, index). ``labels`` is K, at least the category's own number and that if it is None.
    """

    def __init__(self, root, category: str, split: str, noise: float = 0.0, shift: float = 0.0, seed: int = 0,
                 labels: int | None = None) -> None:  # fmt: skip
        super().__init__(seed)
        check_augmentation(category, noise, shift)
        self.root, self.noise, self.shift = Path(root), noise, shift
        every = read_models(self.root / "annotations" / f"{category}.json")
        known = 1 + max(label for model in every for label in model["labels"])
        if labels is not None and labels < known:
            raise ValueError(f"data: {category} has {known} semantic keypoints, but --model.keypoints is {labels}")
        self.count = labels or known
        names = read_split(self.root / "splits" / f"{split}.txt")
        self.models = [model for model in every if f"{model['class_id']}-{model['model_id']}" in names]
        if not self.models:
            raise ValueError(f"data: no model of {category} is in {self.root / 'splits' / f'{split}.txt'}")
        self.copies = max(len(rotated_copies(model["points"], model["rotations"])) for model in every)

    def __len__(self) -> int:
        return len(self.models)

    def cloud(self, index: int) -> np.ndarray:
        """The points ``[N, 3]`` of a model as they were read."""
        model = self.models[index]
        try:
            return read_pcd(self.root / "pcds" / model["class_id"] / f"{model['model_id']}.pcd")
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{error} ({model['where']})") from None

    def sample(self, index: int, epoch: int) -> dict:
        model, points = self.models[index], self.cloud(index)
        copies = np.zeros((self.copies, self.count, 3))
        turned = rotated_copies(model["points"], model["rotations"])
        copies[:, model["labels"]] = turned[np.arange(self.copies) % len(turned)]
        weight = np.zeros(self.count, np.float32)
        weight[model["labels"]] = 1
        sigma = spacing(points)
        if self.noise or self.shift:
            points, move = moved(points, self.noise, self.shift, self.generator(index, epoch))
            copies = np.where(weight[:, None] > 0, copies + move, 0)
        return {"points": points.astype(np.float32), "copies": copies.astype(np.float32), "weight": weight,
                "sigma": np.float32(sigma), "index": index}  # fmt: skip


class CloudFolder(Dataset):
    """The ``.pcd`` files of a folder, of equally many points each, for prediction; each is read when it is its turn."""

    def __init__(self, folder) -> None:
        self.files, self.left_out = files_of(folder, lambda path: path.suffix.lower() == ".pcd", ".pcd file")
        counts = {count_pcd(file) for file in self.files}
        if len(counts) > 1:
            raise ValueError(
                f"predict: the point clouds of {folder} must have equally many points, got {sorted(counts)}"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict:
        cloud = read_pcd(self.files[index])
        return {"points": cloud.astype(np.float32), "sigma": np.float32(spacing(cloud)), "index": index,
                "file_name": str(self.files[index]), "overlay": self.files[index].name}  # fmt: skip
