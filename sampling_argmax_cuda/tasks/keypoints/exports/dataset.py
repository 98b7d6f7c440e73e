"""An export as a folder of COCO key points: who is trained on, who is validated on, and the files."""

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import yaml

from ....trainers.files import read_image, write_json
from .labelled import Export, Individual, LabelledImage

GROUPS = ("image", "video", "person")
SHARE = 0.2  # of validation, where neither the export nor the user says who is in it


def _joined(export: Export) -> dict[str, str]:
    """Of every individual the first name of those that it is on an image with, or that these are, and so on."""
    first: dict[str, str] = {}

    def find(name: str) -> str:
        while first.setdefault(name, name) != name:
            name = first[name]
        return name

    for image in export.images:
        for person in image.people:
            a, b = sorted((find(image.people[0].name), find(person.name)))
            first[b] = a
    return {name: find(name) for name in first}


def groups_of(export: Export, by: str) -> list[str]:
    """Of every image the name of its group, which a split leaves whole. Raises ValueError where there are no such names."""
    if by == "video":
        names = [image.video for image in export.images]
    elif by == "person":
        people = [person.name for image in export.images for person in image.people]
        joined = {} if None in people else _joined(export)
        names = [joined.get(image.people[0].name) for image in export.images]
    else:
        names = [image.name for image in export.images]
    if None in names:
        raise ValueError(f"convert: --by {by} needs an export that names every {by}; --by image")
    return names


def split_images(export: Export, share: float | None, by: str, seed: int) -> dict[str, list[LabelledImage]]:
    """The images of train and val, or of the export's own splits where ``share`` is None.

    Groups are in the order of a hash of the seed and their names, so that neither their order nor their place in the file matter;
    the first of them, a share of their number, at least one and not all, are for validation.
    """
    if share is None and any(image.split for image in export.images):
        return {
            split: own for split in ("train", "val", "test") if (own := [i for i in export.images if i.split == split])
        }
    groups, share = groups_of(export, by), SHARE if share is None else share
    order = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    if share and len(order) < 2:
        what = "individuals that share no image" if by == "person" else f"{by}s"
        raise ValueError(
            f"convert: --val {share} --by {by} needs two {what} or more, got {len(order)}; --val 0 leaves validation out"
        )
    chosen = set(order[: min(len(order) - 1, max(1, round(share * len(order))))] if share else ())
    parts: dict[str, list[LabelledImage]] = {"train": [], "val": []}
    for image, group in zip(export.images, groups, strict=True):
        parts["val" if group in chosen else "train"].append(image)
    return {split: own for split, own in parts.items() if own}


def _written(image: LabelledImage, folder: Path) -> tuple[int, int]:
    """Write an image, a copy where it is a file; its width and height."""
    path = folder / image.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image.source, Path):
        pixels = read_image(image.source)
        shutil.copyfile(image.source, path)
    else:
        pixels = image.source()
        path.write_bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())
    return pixels.shape[1], pixels.shape[0]


def _annotation(person: Individual, number: int, image: int) -> dict:
    out = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "keypoints": person.points.ravel().tolist(),
           "num_keypoints": int((person.points[:, 2] > 0).sum())}  # fmt: skip
    out |= {} if person.box is None else {"bbox": person.box.tolist(), "area": float(np.prod(person.box[2:]))}
    return out | ({} if person.name is None else {"individual": person.name})


def _coco(export: Export, images: list[LabelledImage], folder: Path) -> dict:
    """A split as COCO has it; its images are written."""
    category = {"id": 1, "name": export.title, "keypoints": list(export.names),
                "skeleton": [[int(a) + 1, int(b) + 1] for a, b in export.bones]}  # fmt: skip
    content = {"images": [], "annotations": [], "categories": [category]}
    for number, image in enumerate(images, 1):
        width, height = _written(image, folder / "images")
        about = {"id": number, "file_name": f"images/{image.name}", "width": width, "height": height}
        content["images"].append(about | ({} if image.video is None else {"video": image.video}))
        for person in image.people:
            content["annotations"].append(_annotation(person, len(content["annotations"]) + 1, number))
    return content


def check_free(folder: Path) -> None:
    """Raise ValueError for a folder that has anything in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"convert: {folder} must be a new or an empty folder")


def write_dataset(export: Export, splits: dict[str, list[LabelledImage]], folder: Path) -> list[str]:
    """Write the folder, whole or not at all; lines that say what is in it."""
    folder = folder.resolve()
    check_free(folder)
    temporary, lines = folder.with_name(f".{folder.name}.{os.getpid()}"), []
    try:
        for split, images in splits.items():
            write_json(temporary / f"{split}.json", _coco(export, images, temporary))
            people = sum(len(image.people) for image in images)
            videos = len(Counter(image.video for image in images if image.video))
            lines.append(
                f"{split}: {len(images)} images{f' of {videos} videos' * (videos > 0)}, {people} of {export.title}"
            )
        if export.pairs is not None:
            (temporary / "points.yaml").write_text(_point_file(export), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return lines


def _point_file(export: Export) -> str:
    bones = [[export.names[a], export.names[b]] for a, b in export.bones]
    content = {"names": list(export.names), "pairs": export.pairs, "skeleton": bones}
    return yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True, default_flow_style=None)
