"""Crops of COCO's files, as the task makes them."""

from pathlib import Path

from sampling_argmax_cuda.tasks.coco.reader import read_annotations
from sampling_argmax_cuda.tasks.keypoints.crops import KeypointCrops
from sampling_argmax_cuda.tasks.keypoints.files import ImageFolders


def coco_crops(root: Path, file: Path, images: Path, **options) -> KeypointCrops:
    """People of an annotation file, whose images are in a folder or where their URLs say below ``root``."""
    return KeypointCrops(read_annotations(file), ImageFolders(images, root), **options)
