"""Human3.6M's and MPII's annotations, and people in them as samples with 18 joints in space."""

import re
from pathlib import Path

import numpy as np

from ...trainers.crops import LandmarkCrops
from ...trainers.epochs import EpochDataset
from ...trainers.files import field, finite_numbers, read_image, read_json, records
from ...trainers.transforms import Augment
from ..mpii.reader import read_people
from .camera import Camera, pixels_per_mm, project
from .skeletons import BODY, MPII, PELVIS, from_joints, with_thorax

SIDE_MM = 2000.0  # of the volume around the pelvis
# Recordings whose annotations are known to be wrong.
BLOCKED = ("s_09_act_05_subact_02_ca", "s_09_act_10_subact_02_ca", "s_09_act_13_subact_01_ca")
LIFTS = ("camera", "bones")


def _camera(record: dict, where: str) -> Camera:
    parameters = field(record, "cam_param", where)
    shapes = {"R": (3, 3), "t": (3,), "f": (2,), "c": (2,)}
    values = [finite_numbers(field(parameters, key, f"{where}: cam_param"), shape, f"{where}: cam_param", key)
              for key, shape in shapes.items()]  # fmt: skip
    if not np.allclose(values[0] @ values[0].T, np.eye(3), atol=1e-3):
        raise ValueError(f"{where}: cam_param: R is no rotation")
    return Camera(*values)


def _action(name: str) -> int:
    """The action, 0 to 14, that a file's name tells, or -1."""
    found = re.search(r"act_(\d+)", name)
    action = int(found[1]) - 2 if found else -1
    return action if 0 <= action < 15 else -1


def _pose(record: dict, where: str) -> dict:
    name = str(field(record, "file_name", where))
    where = f"{where} ({name})"
    world = finite_numbers(field(record, "keypoints_world", where), (17, 3), where, "keypoints_world")
    box = finite_numbers(field(record, "bbox", where), (4,), where, "bbox")
    if not (box[2:] > 0).all():
        raise ValueError(f"{where}: bbox must have a width and a height > 0, got {box.tolist()}")
    camera = _camera(record, where)
    if not (camera.from_world(world)[:, 2] > 0).all():
        raise ValueError(f"{where}: keypoints_world lie behind the camera")
    return {"name": name, "where": where, "box": box, "world": world, "camera": camera, "action": _action(name)}


def read_poses(path: str | Path) -> list[dict]:
    """Poses of an annotation file whose ``images`` and ``annotations`` go together by position."""
    content, where = read_json(path, "annotation"), str(path)
    images, annotations = (records(content, key, where) for key in ("images", "annotations"))
    if len(images) != len(annotations):
        raise ValueError(f"{where}: {len(images)} images but {len(annotations)} annotations, which go together")
    pairs = zip(images, annotations, strict=True)
    poses = [_pose({**annotation, **image}, f"{where}: annotation {i}") for i, (image, annotation) in enumerate(pairs)]
    poses = [pose for pose in poses if not any(blocked in pose["name"] for blocked in BLOCKED)]
    if not poses:
        raise ValueError(f"{where}: no poses")
    return poses


def read_mpii(path: str | Path) -> list[dict]:
    """People of MPII (see :func:`..mpii.reader.read_people`), with 18 joints."""
    truth = read_people(path)
    return [{**person, "name": str(field(truth.images[person["image_id"]], "file_name", person["where"])),
             "keypoints": from_joints(person["keypoints"], MPII)} for person in truth.people]  # fmt: skip


class VolumeCrops(LandmarkCrops):
    """Crops of people with 18 joints: x, y in cells of the maps and z in cells of the volume, 0 where it is not known.

    ``lift`` camera: the volume is 2000 mm deep around the pelvis, whatever the crop. ``bones``: it is as deep as the
    crop is wide, in pixels of the weak perspective that fits best. ``axes [18, 3]`` says which coordinates are known.
    """

    def __init__(self, root, people: list[dict], image_size, heatmap_size, volume: int, lift: str,
                 augment: Augment | None, seed: int, padding: float) -> None:  # fmt: skip
        if lift not in LIFTS:
            raise ValueError(f"data: lift must be one of {', '.join(LIFTS)}, got {lift!r}")
        self.root, self.volume, self.lift = Path(root), volume, lift
        super().__init__(BODY, people, image_size, heatmap_size, augment, seed, padding)

    def read(self, record: dict) -> np.ndarray:
        return read_image(self.root / "images" / record["name"], record["where"])

    def box(self, record: dict, image: np.ndarray) -> np.ndarray:
        return record["box"]

    def depth(self, record: dict, width: float) -> np.ndarray | None:
        """Depths ``[18]`` behind the pelvis in sides of the volume, for a crop of ``width`` pixels of the image."""
        return None

    def target(self, record: dict, points: np.ndarray, matrix: np.ndarray, flip: bool) -> dict[str, np.ndarray]:
        flat = super().target(record, points, matrix, flip)
        width = self.image_size[0] / np.linalg.norm(matrix[:, 0])
        depth, known = self.depth(record, width), np.zeros(len(points))
        if depth is None:
            depth = np.full(len(points), -0.5)
        else:
            known = (np.abs(depth) <= 0.5).astype(np.float32)
            depth = np.where(known > 0, depth, -0.5)
        order = self.landmarks.mirrored() if flip else slice(None)
        cells, axes = ((depth + 0.5) * self.volume)[order], np.ones((len(points), 3), np.float32)
        axes[:, 2] = known[order]
        cells = np.where(flat["weight"] > 0, cells, 0).astype(np.float32)
        return {"target": np.concatenate([flat["target"], cells[:, None]], 1), "weight": flat["weight"], "axes": axes}


class H36mPoses(VolumeCrops):
    """Poses of Human3.6M. For evaluation a sample has its pose and camera in mm; in training it has nothing besides."""

    def __init__(self, root, annotation_file, image_size, heatmap_size, volume: int, lift: str = "camera",
                 augment: Augment | None = None, seed: int = 0, train: bool = True) -> None:  # fmt: skip
        self.train = train
        poses = read_poses(annotation_file)
        super().__init__(root, poses, image_size, heatmap_size, volume, lift, augment, seed, padding=1.0)

    @staticmethod
    def in_camera(record: dict) -> np.ndarray:
        """The pose ``[18, 3]`` in mm of the camera."""
        return with_thorax(record["camera"].from_world(record["world"]))

    def points(self, record: dict) -> np.ndarray:
        camera = record["camera"]
        pixels = project(self.in_camera(record), camera.focal, camera.center)
        return np.concatenate([pixels[:, :2], np.full((18, 1), 2.0)], 1)

    def depth(self, record: dict, width: float) -> np.ndarray:
        pose = self.in_camera(record)
        behind = pose[:, 2] - pose[PELVIS, 2]
        if self.lift == "camera":
            return behind / SIDE_MM
        return behind * pixels_per_mm(pose, self.points(record)[:, :2]) / width

    def extras(self, record: dict) -> dict:
        if self.train:
            return {}
        pose, camera = self.in_camera(record), record["camera"]
        return {"pose": pose, "root_depth": pose[PELVIS, 2], "focal": camera.focal, "center": camera.center,
                "action": record["action"]}  # fmt: skip


class MpiiPeople(VolumeCrops):
    """People of MPII, whose depth is not known."""

    def __init__(self, root, annotation_file, image_size, heatmap_size, volume: int,
                 augment: Augment | None = None, seed: int = 0) -> None:  # fmt: skip
        people = read_mpii(annotation_file)
        super().__init__(root, people, image_size, heatmap_size, volume, "camera", augment, seed, padding=1.25)


class HalfAndHalf(EpochDataset):
    """A data set and as many samples of a second one, in turns: sample 2 i is of the first, sample 2 i + 1 of the second.

    Each part goes through an endless series of permutations of itself, of which an epoch takes the next ``size`` samples, so
    that over the epochs every sample comes equally often. A sample is augmented as in the epoch of its permutation's number:
    it comes once in each, so no two crops of a run are alike, however often an epoch has the sample.

    Args:
        first, second: the data sets.
        size: samples of each an epoch; None for all of the first.
    """

    together = 2  # an order moves pairs, so a batch of an even number has as many samples of each part

    def __init__(self, first: LandmarkCrops, second: LandmarkCrops, seed: int, size: int | None = None) -> None:
        if size is not None and size < 1:
            raise ValueError(f"data: epoch_size must be >= 1, got {size}")
        super().__init__(seed)
        self.parts, self.size = (first, second), size or len(first)
        self._orders: dict[
            tuple[int, int], np.ndarray
        ] = {}  # the last ones, for a sample cannot wait for a permutation

    def draw(self, index: int, epoch: int) -> tuple[int, int, int]:
        """The part of a sample, its index there, and the number of the permutation that it comes from."""
        place, part = divmod(index, 2)
        turn, within = divmod(epoch * self.size + place, len(self.parts[part]))
        return part, int(self._order(part, turn)[within]), turn

    def _order(self, part: int, turn: int) -> np.ndarray:
        if (part, turn) not in self._orders:
            if len(self._orders) > 16:
                self._orders.clear()
            rng = np.random.default_rng((self.seed, part, turn))
            self._orders[part, turn] = rng.permutation(len(self.parts[part]))
        return self._orders[part, turn]

    def __len__(self) -> int:
        return 2 * self.size

    def sample(self, index: int, epoch: int) -> dict:
        part, own, turn = self.draw(index, epoch)
        return {**self.parts[part].sample(own, turn), "index": index}
