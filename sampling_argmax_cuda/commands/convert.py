"""``sampling-argmax convert``: the labels of another tool as a folder of COCO key points, which ``--config keypoints`` trains."""

import argparse
import sys
from pathlib import Path

from ..tasks.keypoints.exports.dataset import GROUPS, SHARE, check_free, split_images, write_dataset
from ..tasks.keypoints.exports.deeplabcut import project_tables, read_deeplabcut
from ..tasks.keypoints.exports.label_studio import read_label_studio
from ..tasks.keypoints.exports.labelled import Export
from ..tasks.keypoints.exports.sleap import read_sleap
from ..tasks.keypoints.exports.ultralytics import read_ultralytics
from ..trainers.files import read_json, read_yaml

KINDS = "DeepLabCut's project, .csv or .h5, Lightning Pose's .csv, SLEAP's .slp, Label Studio's .json, Ultralytics' data.yaml"


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    found = argparse.ArgumentParser(prog="sampling-argmax convert", description=__doc__, allow_abbrev=False)
    found.add_argument("source", type=Path, metavar="SRC", help=f"{KINDS}, or a folder with one of these")
    found.add_argument(
        "folder", type=Path, metavar="DST", help="the folder to write, new or empty; images are copied into it"
    )
    found.add_argument("--val", type=float, default=None,
                       help=f"share for validation, in [0, 1); the export's own splits, or {SHARE}, unless said")  # fmt: skip
    found.add_argument("--by", choices=GROUPS, default="image",
                       help="what the share is of and stays whole: frames of one video look alike")  # fmt: skip
    found.add_argument("--seed", type=int, default=0, help="another split")
    found.add_argument(
        "--images", type=Path, default=None, help="folder that images and videos are below; SRC's own unless said"
    )
    return found


def find_export(source: Path) -> Path:
    """The file of an export, or the folder of a DeepLabCut project. Raises FileNotFoundError or ValueError."""
    if source.is_file():
        own = source.name == "config.yaml" and (source.parent / "labeled-data").is_dir()
        return source.parent if own else source
    if not source.is_dir():
        raise FileNotFoundError(f"convert: {source} does not exist")
    tables = sorted(source.glob("*.csv"))
    if (source / "labeled-data").is_dir() and not tables:
        return source
    layouts = [path for path in sorted(source.glob("*.y*ml")) if _is_layout(path)]
    found = layouts or [*tables, *(path for end in ("slp", "h5", "json") for path in sorted(source.glob(f"*.{end}")))]
    if len(found) != 1:
        told = ", ".join(path.name for path in found) or "none"
        raise ValueError(f"convert: {source} must have one export ({KINDS}), got {told}; name the file")
    return found[0]


def _is_layout(path: Path) -> bool:
    content = read_yaml(path, "config", str(path))
    return isinstance(content, dict) and "kpt_shape" in content


def read_export(path: Path, images: Path | None) -> Export:
    """An export by its kind, which its name tells."""
    kind = path.suffix.lower()
    if path.is_dir():
        return read_deeplabcut(project_tables(path), images or path)
    own = path.resolve().parent
    if kind in (".csv", ".h5"):
        project = own.parents[1] if own.parent.name == "labeled-data" else own
        return read_deeplabcut([path], images or project)
    if kind == ".slp":
        return read_sleap(path, images or own)
    if kind in (".yaml", ".yml"):
        if images is not None:
            raise ValueError(f"convert: --images is not used with {path}, which says where they are")
        return read_ultralytics(path)
    if kind == ".json":
        content = read_json(path, "labels")
        if isinstance(content, dict) and "categories" in content:
            raise ValueError(f"convert: {path} is COCO's already: fit --config keypoints --data.root {own}")
        return read_label_studio(path, images or own)
    raise ValueError(f"convert: expected {KINDS}, got {path}")


def main(argv: list[str]) -> int:
    """Convert; a wrong input prints one line and gives status 1."""
    given = parser().parse_args(argv[1:])
    try:
        if given.val is not None and not 0 <= given.val < 1:
            raise ValueError(f"convert: --val must be in [0, 1), got {given.val}")
        if given.images is not None and not given.images.is_dir():
            raise FileNotFoundError(f"convert: --images {given.images} is not a folder")
        check_free(given.folder)
        path = find_export(given.source)
        export = read_export(path, given.images)
        for line in (f"{path}: {len(export.names)} points: {', '.join(export.names)}", *export.told()):
            print(line)
        if not export.images:
            raise ValueError(f"convert: {path} has no image with a labelled point")
        splits = split_images(export, given.val, given.by, given.seed)
        lines = write_dataset(export, splits, given.folder)
    except (ValueError, FileNotFoundError) as error:
        print(f"sampling-argmax convert: {error}", file=sys.stderr)
        return 1
    more = "" if export.pairs is None else f" --data.points {given.folder / 'points.yaml'}"
    for line in (
        *lines,
        f"wrote {given.folder}; next: sampling-argmax fit --config keypoints --data.root {given.folder}{more}",
    ):
        print(line)
    return 0
