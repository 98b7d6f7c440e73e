"""A person's own boxes on the images of a folder, to predict on."""

from pathlib import Path

from ...trainers.boxes import checked, read_content
from ...trainers.files import field
from .annotations import category_named, identity, images_by_id, number, of_category, person_category


def _box(record: dict, name, folder: Path, where: str) -> dict:
    """A box, checked: ``file``, ``box`` and, if it has one, ``score``."""
    box, file = checked(field(record, "bbox", where), where), folder / str(name)
    if not file.is_file():
        raise FileNotFoundError(f"image {file} does not exist ({where})")
    return {"file": file, "box": box, **({"score": number(record, "score", where)} if "score" in record else {})}


def read_boxes(path: str | Path, folder: str | Path, points: int, category: str | None = None) -> list[dict]:
    """The boxes of a file: a list of ``{"file_name", "bbox"}`` with or without ``score``, the same as CSV, or COCO's structure.

    Of that the boxes of people are taken (see :func:`.annotations.person_category` of ``points``), or of the category of a name
    (see :func:`.annotations.category_named`), that are no crowds; they need no keypoints, and have an ``image_id``.

    Raises ValueError or FileNotFoundError that name the file and the record.
    """
    content, where, folder = read_content(path), str(path), Path(folder)
    if isinstance(content, list):
        named = [(record, f"{where}: box {i}") for i, record in enumerate(content)]
        boxes = [_box(record, field(record, "file_name", place), folder, place) for record, place in named]
    else:
        images, boxes = images_by_id(content, where), []
        person = (
            person_category(content, points, where) if category is None else category_named(content, category, where)
        )
        own, _ = of_category(content, person, where)
        for i, record in enumerate(own):
            place = f"{where}: annotation {record.get('id', i)}"
            image = identity(record, "image_id", place)
            if image not in images:
                raise ValueError(f"{place}: no image {image}")
            if not record.get("iscrowd", 0):
                name = field(images[image], "file_name", f"{where}: image {image}")
                boxes.append(_box(record, name, folder, place) | {"image_id": image})
    if not boxes:
        raise ValueError(f"{where}: no box of a person")
    return boxes
