"""COCO's people: their 17 points, and the annotation files that have them."""

from pathlib import Path

from ...trainers.files import read_json
from ...trainers.points import package_points
from ..keypoints.annotations import Annotations, annotations_of, people_in

PERSON = package_points("coco")


def read_annotations(path: Path) -> Annotations:
    """The people of an annotation file of COCO's 17 keypoints: those of :func:`.annotations_of` its category of people.

    Raises ValueError or FileNotFoundError that name the file and the record.
    """
    content = read_json(path, "annotation")
    _, category = people_in(content, PERSON, str(path))
    return annotations_of(content, path, PERSON, category)
