"""Drawn tools with four points, as every labelling tool exports them: the writers are the tests' own, or sleap-io's."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import sleap_io

from sampling_argmax_cuda.tasks.keypoints.dialects import points_box
from sampling_argmax_cuda.tasks.keypoints.synthetic import BONES, NAMES, draw_tool

SIZE, VIDEOS = 64, ("clip a", "clip_b", "клип")


@dataclass(frozen=True)
class Tool:
    """An image and its tool: a name, BGR pixels, points ``[4, 2]``, NaN where one is not labelled."""

    video: str
    name: str
    image: np.ndarray
    points: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        return np.isfinite(self.points).all(1)


def draw_tools(count: int = 24) -> list[Tool]:
    """Images of three videos; every fifth has a point that is not labelled."""
    out = []
    for i in range(count):
        image, points = draw_tool(SIZE, np.random.default_rng((7, i)))
        points = np.round(points, 4)
        if i % 5 == 4:
            points[i % 4] = np.nan
        out.append(Tool(VIDEOS[i % len(VIDEOS)], f"img{i:03d}.png", image, points))
    return out


def write_image(path: Path, image: np.ndarray) -> None:
    """OpenCV's own writer knows no names in other scripts on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


# ---- COCO, and two tools that export it ----


def coco(tools: list[Tool], folder: Callable[[Tool], str], **category) -> dict:
    images, annotations = [], []
    for i, tool in enumerate(tools, 1):
        points = np.concatenate([np.nan_to_num(tool.points), 2.0 * tool.seen[:, None]], 1)
        images.append({"id": i, "file_name": folder(tool), "width": SIZE, "height": SIZE})
        annotations.append(
            {"id": i, "image_id": i, "category_id": category.get("id", 1), "keypoints": points.ravel().tolist()}
        )
    own = {
        "id": 1,
        "name": "tool",
        "keypoints": list(NAMES),
        "skeleton": [[a + 1, b + 1] for a, b in BONES],
        **category,
    }
    return {"images": images, "annotations": annotations, "categories": [own]}


def write_coco(root: Path, tools: list[Tool]) -> Path:
    for tool in tools:
        write_image(root / "images" / tool.video / tool.name, tool.image)
    content = coco(tools, lambda tool: f"{tool.video}/{tool.name}")
    (root / "train.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def write_cvat(root: Path, tools: list[Tool]) -> Path:
    """Names without folders, empty boxes, and what CVAT adds."""
    for tool in tools:
        write_image(root / "images" / "train" / tool.name, tool.image)
    content = coco(tools, lambda tool: tool.name, supercategory="")
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        image |= {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
        annotation |= {"bbox": [], "area": 0.0, "iscrowd": 0, "segmentation": [], "attributes": {"occluded": False}}
    (root / "annotations").mkdir()
    (root / "annotations" / "person_keypoints_train.json").write_text(json.dumps(content))
    return root


def write_roboflow(root: Path, tools: list[Tool]) -> Path:
    """One folder, hashed names, and a category above that has no points."""

    def name(tool: Tool) -> str:
        return f"{tool.name[:-4]}_png.rf.{hash(tool.name) % 16**8:08x}.png"

    for tool in tools:
        write_image(root / "train" / name(tool), tool.image)
    content = coco(tools, name, id=1, supercategory="tools")
    content["categories"].insert(0, {"id": 0, "name": "tools", "supercategory": "none"})
    (root / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    return root


# ---- what is converted ----


def write_rows(path: Path, rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def table(tools: list[Tool], one: bool) -> list[list]:
    """DeepLabCut's rows; ``one``: the path in a column of its own, as older versions and Lightning Pose have it."""
    empty = [] if one else ["", ""]
    heads = [("scorer", ["me"] * 8), ("bodyparts", [name for name in NAMES for _ in "xy"]), ("coords", ["x", "y"] * 4)]
    rows = [[level, *empty, *cells] for level, cells in heads]
    for tool in tools:
        parts = ["labeled-data", tool.video, tool.name]
        values = ["" if np.isnan(x) else x for x in tool.points.ravel()]
        rows.append([*(["/".join(parts)] if one else parts), *values])
    return rows


def write_deeplabcut(root: Path, tools: list[Tool]) -> Path:
    """A project: a folder and a table a video."""
    for video in VIDEOS:
        own = [tool for tool in tools if tool.video == video]
        for tool in own:
            write_image(root / "labeled-data" / video / tool.name, tool.image)
        write_rows(root / "labeled-data" / video / "CollectedData_me.csv", table(own, one=False))
    bones = [[NAMES[a], NAMES[b]] for a, b in BONES]
    (root / "config.yaml").write_text(f"Task: tool\nscorer: me\nskeleton: {json.dumps(bones)}\nvideo_sets: {{}}\n")
    return root


def write_lightning_pose(root: Path, tools: list[Tool]) -> Path:
    """One table for all videos."""
    for tool in tools:
        write_image(root / "labeled-data" / tool.video / tool.name, tool.image)
    write_rows(root / "CollectedData.csv", table(tools, one=True))
    return root


def sleap_labels(root: Path, tools: list[Tool]) -> sleap_io.Labels:
    skeleton, frames = sleap_io.Skeleton(list(NAMES), edges=[(NAMES[a], NAMES[b]) for a, b in BONES], name="tool"), []

    def on(tool: Tool) -> list[sleap_io.Instance]:
        return [sleap_io.Instance.from_numpy(tool.points, skeleton=skeleton)]

    for video in VIDEOS:
        own = [tool for tool in tools if tool.video == video]
        for tool in own:
            write_image(root / video / tool.name, tool.image)
        images = sleap_io.Video.from_filename([str(root / video / tool.name) for tool in own])
        frames += [sleap_io.LabeledFrame(video=images, frame_idx=i, instances=on(tool)) for i, tool in enumerate(own)]
    return sleap_io.Labels(frames, skeletons=[skeleton])


def write_sleap(root: Path, tools: list[Tool]) -> Path:
    """By sleap-io, and then moved: its paths lead nowhere."""
    sleap_labels(root.with_name(f"{root.name} before"), tools).save(
        str(root.with_name(f"{root.name} before") / "labels.slp")
    )
    root.with_name(f"{root.name} before").rename(root)
    return root / "labels.slp"


def write_sleap_package(root: Path, tools: list[Tool]) -> Path:
    """By sleap-io, with the images in the file and nowhere else."""
    labels = sleap_labels(root.with_name(f"{root.name} before"), tools)
    root.mkdir()
    labels.save(str(root / "labels.pkg.slp"), embed="user", verbose=False)
    return root


def region(kind: str, key: str, label: str, **more) -> dict:
    value = {name: more.pop(name) for name in ("x", "y", "width", "height", "rotation") if name in more}
    return {"id": key, "type": kind, "from_name": "points", "to_name": "image", "original_width": SIZE, "original_height": SIZE,
            "image_rotation": 0, "value": {**value, kind: [label]}, **more}  # fmt: skip


def task(number: int, name: str, points: np.ndarray) -> dict:
    """A task of Label Studio with the points of one tool."""
    result = [region("keypointlabels", f"p{i}", NAMES[i], x=100 * x / SIZE, y=100 * y / SIZE, width=0.5)
              for i, (x, y) in enumerate(points.tolist()) if np.isfinite(x)]  # fmt: skip
    annotation = {"id": 100 + number, "was_cancelled": False, "ground_truth": False, "result": result}
    return {"id": number, "data": {"image": f"/data/upload/1/{name}", "ref": "a text"}, "annotations": [annotation]}


def write_label_studio(root: Path, tools: list[Tool]) -> Path:
    """Uploads have digits before their names that the files at home have not."""
    tasks = [task(i, f"{i:08x}-{tool.name}", tool.points) for i, tool in enumerate(tools, 1)]
    for tool in tools:
        write_image(root / "photos" / tool.name, tool.image)
    (root / "project-1.json").write_text(json.dumps(tasks))
    return root


def line(tool: Tool) -> str:
    box = points_box(tool.points[tool.seen])
    numbers = [*(box[:2] + box[2:] / 2), *box[2:]]
    for point, seen in zip(tool.points, tool.seen, strict=True):
        numbers += [*point, 2 * SIZE] if seen else [0, 0, 0]
    return " ".join(["0", *(f"{x / SIZE:.8g}" for x in numbers)])


def write_ultralytics(root: Path, tools: list[Tool], folders: Callable[[str], str] = "{}/train".format) -> Path:
    """Ultralytics' own layout, images/train and labels/train."""
    for tool in tools:
        write_image(root / folders("images") / tool.name, tool.image)
        path = root / folders("labels") / tool.name.replace(".png", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line(tool) + "\n")
    (root / "data.yaml").write_text(
        f"path: .\ntrain: {folders('images')}\nnames: {{0: tool}}\nkpt_shape: [4, 3]\nflip_idx: [0, 1, 3, 2]\n"
        f"kpt_names: {{0: {json.dumps(NAMES)}}}\nskeleton: {json.dumps(BONES)}\n"
    )
    return root


READ_AS_THEY_ARE = {"coco": write_coco, "cvat": write_cvat, "roboflow": write_roboflow}
CONVERTED = {"deeplabcut": write_deeplabcut, "lightning_pose": write_lightning_pose, "sleap": write_sleap,
             "sleap_package": write_sleap_package, "label_studio": write_label_studio, "ultralytics": write_ultralytics,
             "roboflow_yolo": lambda root, tools: write_ultralytics(root, tools, "train/{}".format)}  # fmt: skip
TOOLS = draw_tools()


def export_of(kind: str, folder: Path) -> Path:
    """The tools as one of these writes them; what it would be given to."""
    folder.mkdir(exist_ok=True)
    return {**READ_AS_THEY_ARE, **CONVERTED}[kind](folder / kind, TOOLS)


def blank(path: Path) -> Path:
    """An image without anything on it."""
    write_image(path, np.full((SIZE, SIZE, 3), 90, np.uint8))
    return path
