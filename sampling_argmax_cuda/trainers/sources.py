"""What predict looks at: the images of a folder, a glob or a list, one image, or the frames of a video."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from .files import files_of, is_image, read_image, read_text


class ImageFiles:
    """Images by their files, each once.

    Args:
        root: the folder that names in files of boxes begin at.
        files: in the order of the predictions.
        left_out: files that were found and are no images.
    """

    moving = False  # whether the images are frames of a video

    def __init__(self, root: Path, files: Sequence[Path], left_out: Sequence[Path] = ()) -> None:
        self.root, self.files, self.left_out = root, list(dict.fromkeys(files)), list(left_out)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> np.ndarray:
        """An image, RGB ``uint8 [H, W, 3]``."""
        return read_image(self.files[index])

    def name(self, index: int) -> str:
        """What an image is called in the names of figures."""
        return self.files[index].name

    def about(self, index: int) -> dict[str, object]:
        """What the records of an image say of it."""
        return {"file_name": str(self.files[index])}


class Video:
    """The frames of a video that OpenCV reads. They are read in order: what lies between two of them is decoded too.

    Containers know the number of their frames by estimate alone, so that all are counted before the first is read.
    """

    moving, left_out = True, ()

    def __init__(self, path: Path) -> None:
        self.path, self.root, self.files = path, path.parent, [path]
        self._capture: cv2.VideoCapture | None = None  # opened where it is read: a loader process has its own
        self._next = 0
        count = 0
        capture = self._opened()
        self.rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
        while capture.grab():
            count += 1
        capture.release()
        if count == 0:
            raise ValueError(f"predict: {path} has no frame that OpenCV reads")
        self.count = count

    def _opened(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise ValueError(f"predict: {self.path} is neither an image, a list (.txt) nor a video that OpenCV reads")
        return capture

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> np.ndarray:
        """A frame, RGB ``uint8 [H, W, 3]``."""
        if self._capture is None or index < self._next:
            self._capture, self._next = self._opened(), 0
        while self._next < index and self._capture.grab():
            self._next += 1
        read, frame = self._capture.read()
        if not read:
            raise ValueError(f"predict: frame {index} of {self.path} cannot be read")
        self._next += 1
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def frames(self) -> Iterator[np.ndarray]:
        """All frames, in order."""
        for index in range(len(self)):
            yield self.read(index)

    def name(self, index: int) -> str:
        return f"{self.path.name}_{index:06d}"

    def about(self, index: int) -> dict[str, object]:
        return {"file_name": str(self.path), "frame": index}


def find_source(what: str | Path | Sequence[str]) -> ImageFiles | Video:
    """The images that ``--data.images`` stands for.

    A folder (its images, by name), a glob (``"clips/*.png"``, ``**`` for folders in folders), a list of files, a text file
    ``.txt`` of one a line (relative to its folder), an image, or a video. Raises ValueError or FileNotFoundError.
    """
    if not isinstance(what, str | Path):
        return _listed(Path("."), list(what), "the list")
    path = Path(what)
    if path.is_dir():
        return ImageFiles(path, *files_of(path, is_image, "image"))
    if path.is_file():
        if path.suffix.lower() == ".txt":
            return _listed(path.parent, read_text(path, "list of images").split("\n"), str(path))
        return ImageFiles(path.parent, [path]) if is_image(path) else Video(path)
    if not glob.has_magic(str(what)):
        raise FileNotFoundError(f"predict: {what} is not a folder, nor a file, a glob or a list of images")
    return _matching(str(what))


def _matching(pattern: str) -> ImageFiles:
    found = [path for path in map(Path, sorted(glob.glob(pattern, recursive=True))) if path.is_file()]
    images = [path for path in found if is_image(path)]
    if not images:
        raise ValueError(f"predict: no image matches {pattern}")
    fixed = Path(*[part for part in _until_magic(Path(pattern).parts)])
    return ImageFiles(fixed, images, [path for path in found if path not in set(images)])


def _until_magic(parts: Sequence[str]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part


def _listed(root: Path, names: Sequence[str], what: str) -> ImageFiles:
    files = [root / name.strip() for name in names if str(name).strip()]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise FileNotFoundError(f"predict: image {missing} of {what} does not exist")
    if not files:
        raise ValueError(f"predict: {what} names no image")
    return ImageFiles(root, files)
