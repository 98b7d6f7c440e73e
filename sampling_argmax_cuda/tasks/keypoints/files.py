"""Which files of a folder are annotations, of which split, and where the images are that they name."""

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...trainers.files import read_json

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
AUTO = "auto"  # what stands for a file that is looked for


def words_of(name: str) -> set[str]:
    """The words of a file's name: person_keypoints_train2017 is of person, keypoints and train."""
    return set(re.findall(r"[a-z]+", name.lower()))


def split_of(path: Path, root: Path) -> str | None:
    """The split that a file's name tells, or that of the folder next to it below ``root``; None if they tell none."""
    for part in (path.stem, *reversed(path.relative_to(root).parent.parts)):
        found = [split for split, words in SPLITS.items() if words_of(part) & set(words)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def has_points(path: Path) -> bool:
    """Whether a JSON file is like COCO's and has key points."""
    try:
        content = read_json(path, "annotation")
    except ValueError:
        return False
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return False
    listed = [entry for key in ("annotations", "categories") for entry in content.get(key) or ()]
    return any(isinstance(entry, dict) and entry.get("keypoints") for entry in listed)


def annotation_files(root: Path) -> dict[str, list[Path]]:
    """The annotations under ``root`` and two levels of folders below, by split; the only one may have any name, as train.

    Files of train, val and test are told apart by these words in their names or their folders'.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data: root {root} is not a folder")
    files = [path for depth in ("*.json", "*/*.json", "*/*/*.json") for path in sorted(root.glob(depth))]
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    files = [path for path in files if len(files) == 1 or has_points(path)]
    found = {"train": [], "val": [], "test": [], "other": []}
    for path in files:
        found[split_of(path, root) or ("train" if len(files) == 1 else "other")].append(path)
    return found


def only_file(found: dict[str, list[Path]], split: str, root: Path) -> Path | None:
    """The file of a split, train or val; None without one of val or else test. Raises ValueError or FileNotFoundError."""
    every = [path for own in found.values() for path in own]
    if not every:
        raise FileNotFoundError(
            f"data: no annotations of key points (JSON like COCO's) under {root}; --data.{split}_file"
        )
    own = found["val"] or found["test"] if split == "val" else found["train"]
    if len(own) > 1 or (split == "train" and not own):
        shown = ", ".join(str(path.relative_to(root)) for path in every)
        raise ValueError(f"data: one file under {root} must be of split {split}, got {len(own)} of {len(every)} ({shown}); "
                         f"--data.{split}_file names it")  # fmt: skip
    return own[0] if own else None


def given_file(name: str, root: Path, option: str) -> Path:
    """The file that an option names: a path, or one under ``root`` or root/annotations."""
    for path in (Path(name), root / name, root / "annotations" / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"data: {option} {name} is no file, nor one under {root}")


def _key(part: str) -> str:
    """A part of a path as names are compared: without case, and composed as other systems write it."""
    return unicodedata.normalize("NFC", part).casefold()


def parts_of(name: str) -> list[str]:
    """The parts of a file name as annotations have it: a path of any system, a URL or a tool's ``?d=path``."""
    url = urlsplit(name) if "://" in name or "?d=" in name else None
    if url is not None:
        name = unquote(url.query.partition("d=")[2] if "d=" in url.query else url.path)
    return [part for part in re.split(r"[/\\]+", name) if part not in ("", ".")]


class ImageFolders:
    """Finds images in a format's own folders: by their name in the first that has it, or in the last as their URLs end."""

    def __init__(self, *folders: Path) -> None:
        self.folders = folders

    def find(self, image: dict, where: str) -> Path:
        """The path of an image that has a ``file_name`` or a ``coco_url``, whether it is there or not."""
        paths = [folder / str(image["file_name"]) for folder in self.folders if image.get("file_name")]
        if image.get("coco_url"):
            paths.append(self.folders[-1].joinpath(*str(image["coco_url"]).split("/")[-2:]))
        return next((path for path in paths if path.is_file()), paths[0])


class ImageFinder:
    """Finds images wherever they are below ``root``.

    Of files with the name, in any case, those count that share most of the folders before it; then those in the annotation
    file's own folder; then those in folders that share a word with the annotation file's name, as train.
    """

    def __init__(self, root: Path, annotations: Path) -> None:
        self.root, self.own = root, annotations.resolve().parent
        folder = self.own.name if root.resolve() in self.own.parents else ""
        self.words = words_of(annotations.stem) | words_of(folder) - {"annotations"}
        self.files: dict[str, list[Path]] = defaultdict(list)
        for folder, folders, names in os.walk(root, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                self.files[_key(name)].append(Path(folder) / name)

    def find(self, image: dict, where: str) -> Path:
        """The image's path. Raises FileNotFoundError or ValueError that begins with ``where``."""
        name = str(image.get("file_name") or image["coco_url"])
        parts = [_key(part) for part in parts_of(name)]
        if Path(name).is_absolute() and Path(name).is_file():
            return Path(name)
        found = self.files.get(parts[-1], []) if parts else []
        if not found:
            raise FileNotFoundError(f"{where}: image {name} is not below {self.root}")
        ranks = [self._rank(path, parts) for path in found]
        best = [path for path, rank in zip(found, ranks, strict=True) if rank == max(ranks)]
        if len(best) > 1:
            told = " or ".join(str(path) for path in best[:3])
            raise ValueError(
                f"{where}: image {name} may be {told}; --data.train_images and --data.val_images name a folder"
            )
        return best[0]

    def _rank(self, path: Path, parts: list[str]) -> tuple[int, bool, int]:
        own = [_key(part) for part in path.relative_to(self.root).parts]
        common = next((i for i, (a, b) in enumerate(zip(reversed(own), reversed(parts), strict=False)) if a != b), None)
        common = min(len(own), len(parts)) if common is None else common
        words = set().union(*(words_of(part) for part in path.relative_to(self.root).parent.parts))
        return common, path.resolve().parent == self.own, len(words & self.words)
