"""People of MPII and LSP: three annotation formats of 16 joints."""

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from ...trainers.files import field, finite_numbers, read_json
from ...trainers.points import package_points
from ..keypoints.annotations import Annotations, extent, identity, named_images, of_category, people_in, record_of

NECK, HEAD_TOP = 8, 9
FIGURE = package_points("mpii")
# The joint of MPII that each of LSP's 14 is.
LSP = (0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9)


def _person(image: int | str, joints: np.ndarray, box, where: str, head: float = np.nan) -> dict:
    """A record with what PCKh needs: ``joints`` ``[16, 3]``, in their crop or not, and ``head``, a length in pixels.

    That is PCKh's own where ``head_boxed``, else the distance of the upper neck and the top of the head, NaN without these.
    """
    joints[(joints[:, :2] == 0).all(1), 2] = 0  # a joint at (0, 0) was not annotated, whatever its flag says
    boxed = bool(np.isfinite(head))
    if not boxed and (joints[[NECK, HEAD_TOP], 2] > 0).all():
        head = np.linalg.norm(joints[NECK, :2] - joints[HEAD_TOP, :2])
    return record_of(image, joints, np.asarray(box, float), where=where, head=np.float32(head), head_boxed=boxed,
                     joints=joints.astype(np.float32))  # fmt: skip


def _head(record: dict, where: str) -> float:
    """The length that PCKh counts in: 0.6 of the diagonal of ``head_box`` (x1, y1, x2, y2), or NaN without one."""
    if "head_box" not in record:
        return np.nan
    x1, y1, x2, y2 = finite_numbers(record["head_box"], (4,), where, "head_box")
    return float(0.6 * np.hypot(x2 - x1, y2 - y1))


def _list_record(record: dict, where: str) -> dict:
    """A person of the list form: ``image``, ``joints``, ``joints_vis``, ``center``, ``scale`` (of 200 pixels)."""
    joints = finite_numbers(field(record, "joints", where), (16, 2), where, "joints") - 1  # pixels were counted from 1
    visible = finite_numbers(field(record, "joints_vis", where), (16,), where, "joints_vis")
    center = finite_numbers(field(record, "center", where), (2,), where, "center") - 1
    scale = float(finite_numbers(field(record, "scale", where), (), where, "scale"))
    side = 200 * scale
    box = (center[0] - side / 2, center[1] + 15 * scale - side / 2, side, side)
    person = np.concatenate([joints, (visible > 0)[:, None] * (joints >= 0).all(1, keepdims=True)], 1)
    return _person(str(field(record, "image", where)), person, box, where, _head(record, where))


def _read_coco(content: dict, where: str) -> tuple[dict[int | str, dict], list[dict]]:
    """Images and people of COCO's structure with 16 joints."""
    images, category = people_in(content, FIGURE, where)
    for key, image in images.items():
        field(image, "file_name", f"{where}: image {key}")
    (own, _), people = of_category(content, category, where), []
    for i, record in enumerate(own):
        place = f"{where}: annotation {record.get('id', i)}"
        joints = finite_numbers(field(record, "keypoints", place), (48,), place, "keypoints").reshape(16, 3)
        box = finite_numbers(field(record, "bbox", place), (4,), place, "bbox")
        image = identity(record, "image_id", place)
        if image not in images:
            raise ValueError(f"{place}: no image {image!r}")
        people.append(_person(image, joints, box, place, _head(record, place)))
    return images, people


def read_lsp(path: str | Path) -> list[dict]:
    """People of LSP (``joints`` 3 x 14 x n) or its extension (14 x 3 x n), whose images are numbered from 1.

    A joint is labelled where its coordinates are positive; the box is that of the labelled joints.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"annotation file {path} does not exist")
    try:
        joints = loadmat(path).get("joints")
    except Exception as error:  # SciPy raises many kinds for a file that is not MATLAB's
        raise ValueError(f"annotation file {path} cannot be read: {error}") from None
    shape = None if joints is None else joints.shape
    if joints is None or joints.ndim != 3 or shape[:2] not in ((3, 14), (14, 3)) or joints.dtype.kind not in "fiu":
        raise ValueError(f"{path}: joints must be 3 x 14 x n or 14 x 3 x n numbers, got {shape}")
    joints = joints.transpose(2, 1, 0) if shape[0] == 3 else joints.transpose(2, 0, 1)
    people = []
    for i, record in enumerate(joints.astype(float)):
        where = f"{path}: person {i}"
        finite_numbers(record[:, :2], (14, 2), where, "joints")
        labelled = (record[:, :2] > 0).all(1)
        person = np.zeros((16, 3))
        person[list(LSP)] = np.concatenate([record[:, :2] - 1, labelled[:, None]], 1)
        digits = 4 if shape[0] == 3 else 5
        people.append(_person(f"im{i + 1:0{digits}d}.jpg", person, extent(person), where))
    return people


def read_people(path: str | Path) -> Annotations:
    """People with 16 joints: COCO's structure, the list that HRNet's users have, or LSP's ``joints.mat``."""
    path, where, images = Path(path), str(path), None
    if path.suffix.lower() == ".mat":
        people = read_lsp(path)
    else:
        content = read_json(path, "annotation")
        if isinstance(content, list):
            people = [_list_record(record, f"{where}: record {i}") for i, record in enumerate(content)]
        else:
            images, people = _read_coco(content, where)
    people = [person for person in people if not person["ignored"] and (person["box"][2:] > 0).all()]
    if not people:
        raise ValueError(f"{where}: no person has joints")
    return Annotations(path, FIGURE, named_images(people) if images is None else images, people)
