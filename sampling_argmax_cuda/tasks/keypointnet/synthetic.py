"""Synthetic furniture as KeypointNet's files: chairs, round tables with a symmetry, bottles on a circle."""

import json
from pathlib import Path

import numpy as np

from ...trainers.synthetic import write_data_set
from .reader import CATEGORIES

Part = tuple[np.ndarray, np.ndarray]  # lowest corner and size of a box


def _on_box(part: Part, u: np.ndarray) -> np.ndarray:
    """Points ``[n, 3]`` on the surface of a box from uniform numbers ``[n, 4]``."""
    corner, size = part
    areas = np.array([size[1] * size[2], size[0] * size[2], size[0] * size[1]])
    axis = np.searchsorted(np.cumsum(areas) / areas.sum(), u[:, 3])
    out, side = u[:, :3].copy(), (u[:, 3] * 1e4 % 1 < 0.5).astype(float)
    out[np.arange(len(u)), axis] = side
    return corner + out * size


def _on_parts(parts: list[Part], count: int, rng: np.random.Generator) -> np.ndarray:
    areas = np.array([size[0] * size[1] + size[1] * size[2] + size[0] * size[2] for _, size in parts])
    chosen = rng.choice(len(parts), count, p=areas / areas.sum())
    u = rng.random((count, 4))
    return np.concatenate([_on_box(part, u[chosen == k]) for k, part in enumerate(parts)])


def _box(x0, y0, z0, x1, y1, z1) -> Part:
    low = np.array([x0, y0, z0], float)
    return low, np.array([x1, y1, z1], float) - low


def draw_chair(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict]:
    """Points ``[count, 3]`` with y up, keypoints ``[10, 3]`` (tips of legs, corners of seat and back), symmetries."""
    w, d, h, b = rng.uniform(0.32, 0.5), rng.uniform(0.32, 0.5), rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.55)
    t, leg = rng.uniform(0.04, 0.07), rng.uniform(0.03, 0.05)
    parts = [_box(-w / 2, h - t, -d / 2, w / 2, h, d / 2), _box(-w / 2, h, -d / 2, w / 2, h + b, -d / 2 + t)]
    tips, corners = [], []
    for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        a, c = x * (w / 2 - leg / 2), z * (d / 2 - leg / 2)
        parts.append(_box(a - leg / 2, 0, c - leg / 2, a + leg / 2, h - t, c + leg / 2))
        tips.append((x * w / 2, 0, z * d / 2))
        corners.append((x * w / 2, h, z * d / 2))
    keypoints = np.array([*tips, *corners, (-w / 2, h + b, -d / 2), (w / 2, h + b, -d / 2)])
    pairs = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    return _on_parts(parts, count, rng), keypoints, {"reflection": [{"kp_indexes": p} for p in pairs], "rotation": []}


def draw_table(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict]:
    """A square table that quarter turns leave as it is: tips of four legs, four corners of the top."""
    w, h, t, leg = rng.uniform(0.5, 0.8), rng.uniform(0.4, 0.6), rng.uniform(0.03, 0.06), rng.uniform(0.04, 0.07)
    parts, tips, corners = [_box(-w / 2, h - t, -w / 2, w / 2, h, w / 2)], [], []
    for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        a, c = x * (w / 2 - leg / 2), z * (w / 2 - leg / 2)
        parts.append(_box(a - leg / 2, 0, c - leg / 2, a + leg / 2, h - t, c + leg / 2))
        tips.append((x * w / 2, 0, z * w / 2))
        corners.append((x * w / 2, h, z * w / 2))
    groups = [{"kp_indexes": [0, 1, 2, 3], "is_circle": False, "circle": {}},
              {"kp_indexes": [4, 5, 6, 7], "is_circle": False, "circle": {}}]  # fmt: skip
    return _on_parts(parts, count, rng), np.array([*tips, *corners]), {"reflection": [], "rotation": groups}


def draw_bottle(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict]:
    """A body of revolution: middle of the bottom and of the top, and one point of its widest circle, which may turn."""
    r, neck = rng.uniform(0.1, 0.18), rng.uniform(0.03, 0.06)
    h, shoulder = rng.uniform(0.6, 0.8), rng.uniform(0.5, 0.65)
    heights, radii = np.array([0, 0, shoulder * h, 0.8 * h, h, h]), np.array([0, r, r, neck, neck, 0])
    lengths = np.hypot(np.diff(heights), np.diff(radii)) * (radii[1:] + radii[:-1])
    part = rng.choice(5, count, p=lengths / lengths.sum())
    share, angle = rng.random(count), rng.uniform(0, 2 * np.pi, count)
    radius = radii[part] + share * np.diff(radii)[part]
    cloud = np.stack(
        [radius * np.cos(angle), heights[part] + share * np.diff(heights)[part], radius * np.sin(angle)], 1
    )
    turn = rng.uniform(0, 2 * np.pi)
    keypoints = np.array([(0, 0, 0), (0, h, 0), (r * np.cos(turn), 0, r * np.sin(turn))])
    circle = {"center": [0, 0, 0], "radius": r, "normal": [0, 1, 0]}
    return cloud, keypoints, {"reflection": [], "rotation": [{"kp_indexes": [2], "is_circle": True, "circle": circle}]}


SHAPES = {"chair": draw_chair, "table": draw_table, "bottle": draw_bottle}


def draw_model(category: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list, dict]:
    """A cloud with noise and holes, its keypoints, which of them are there, and symmetries; the middle at the origin."""
    cloud, keypoints, symmetries = SHAPES[category](2 * count, rng)
    middle = (cloud.max(0) + cloud.min(0)) / 2
    cloud, keypoints = cloud - middle, keypoints - middle
    hole = cloud[rng.integers(len(cloud))]
    far = np.linalg.norm(cloud - hole, axis=1) > rng.uniform(0, 0.08)
    cloud = cloud[rng.permutation(np.flatnonzero(far))[:count]]
    cloud = cloud + np.clip(rng.normal(size=cloud.shape), -2, 2) * 0.002
    there = list(range(len(keypoints)))
    if not symmetries["rotation"] and rng.random() < 0.2:
        there.remove(int(rng.integers(len(keypoints))))  # annotators leave keypoints out
    return cloud, keypoints, there, symmetries


def _pcd(cloud: np.ndarray) -> str:
    head = ["VERSION .7", "FIELDS x y z rgb", "SIZE 4 4 4 4", "TYPE F F F U", "COUNT 1 1 1 1", f"WIDTH {len(cloud)}",
            "HEIGHT 1", "VIEWPOINT 0 0 0 1 0 0 0", f"POINTS {len(cloud)}", "DATA ascii"]  # fmt: skip
    return "\n".join([*head, *(f"{x:f} {y:f} {z:f} 10066329" for x, y, z in cloud)]) + "\n"


def _annotation(
    class_id: str, name: str, cloud: np.ndarray, keypoints: np.ndarray, there: list, symmetries: dict
) -> dict:
    found = []
    for label in there:
        index = int(np.linalg.norm(cloud - keypoints[label], axis=1).argmin())
        found.append({"xyz": keypoints[label].tolist(), "rgb": [153, 153, 153], "semantic_id": label,
                      "pcd_info": {"point_index": index}, "mesh_info": {}})  # fmt: skip
    kept = {label: place for place, label in enumerate(there)}
    groups = {kind: [{**group, "kp_indexes": [kept[i] for i in group["kp_indexes"] if i in kept]} for group in symmetries[kind]]
              for kind in symmetries}  # fmt: skip
    return {"class_id": class_id, "model_id": name, "keypoints": found, "symmetries": groups}


def write_synthetic_keypointnet(root: str | Path, category: str, num_train: int, num_val: int, points: int = 2048,
                                seed: int = 0) -> None:  # fmt: skip
    """Write synthetic models of a category in KeypointNet's layout under ``root`` (see :func:`.write_data_set`)."""
    if category not in SHAPES:
        raise ValueError(f"synthetic data: category must be one of {', '.join(SHAPES)}, got {category!r}")

    def write(folder: Path) -> None:
        class_id, annotations = CATEGORIES[category], []
        for part in (f"pcds/{class_id}", "annotations", "splits"):
            (folder / part).mkdir(parents=True)
        for i in range(num_train + num_val):
            drawn, name = draw_model(category, points, np.random.default_rng((seed, i))), f"drawn{i:05d}"
            (folder / "pcds" / class_id / f"{name}.pcd").write_text(_pcd(drawn[0]))
            annotations.append(_annotation(class_id, name, *drawn))
        (folder / "annotations" / f"{category}.json").write_text(json.dumps(annotations))
        names = [f"{class_id}-{record['model_id']}\n" for record in annotations]
        (folder / "splits" / "train.txt").write_text("".join(names[:num_train]))
        (folder / "splits" / "val.txt").write_text("".join(names[num_train:]))

    settings = {"task": "keypointnet", "category": category, "num_train": num_train, "num_val": num_val,
                "image_size": points, "seed": seed}  # fmt: skip
    write_data_set(root, settings, write)
