"""Files of all tasks: JSON and images, each with one line that says what is wrong with it."""

import codecs
import contextlib
import csv
import heapq
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml

# What every OpenCV reads; it is asked about the others.
IMAGES = {".bmp", ".dib", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif",
          ".tiff", ".webp"}  # fmt: skip


def read_text(path: str | Path, what: str) -> str:
    """The content of a text file in UTF-8, with or without a byte order mark, its lines ended by any system's marks."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist")
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{what} {path}: line {line} is not UTF-8 (byte {data[error.start]:#04x})") from None


def read_json(path: str | Path, what: str):
    """The content of a JSON file, or one line that says what is wrong with it."""
    content = read_text(path, f"{what} file")
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} file {path} is not valid JSON: {error}") from None


def read_yaml(path: str | Path, what: str, where: str):
    """The content of a YAML file; what is wrong with it is told behind ``where``, with its line."""
    try:
        return yaml.safe_load(read_text(path, what))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"{where}: {line}{getattr(error, 'problem', None) or error}") from None


def is_image(path: Path) -> bool:
    """Whether a file should be an image: by its name, or because OpenCV knows its content."""
    return path.suffix.lower() in IMAGES or cv2.haveImageReader(str(path))


def files_of(folder: str | Path, wanted: Callable[[Path], bool], kind: str) -> tuple[list[Path], list[Path]]:
    """The files to predict on and the others of a folder, by name, without hidden ones. ``kind`` names those wanted."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"predict: {folder} is not a folder")
    files = sorted(path for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith("."))
    found = [path for path in files if wanted(path)]
    if not found:
        raise ValueError(f"predict: {folder} holds no {kind}")
    return found, [path for path in files if path not in set(found)]


def _jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG has its end marker behind the coded data; a preview inside of a segment has one of its own."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        marker = data[at + 1]
        if marker == 0xD9:
            return True
        if marker == 0xFF:  # a byte that fills
            at += 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # no segment: an escaped byte, or a restart
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def read_image(path: Path, where: str | None = None) -> np.ndarray:
    """An RGB image, ``uint8 [H, W, 3]``. Raises ValueError for one that ends too soon, too; ``where`` says who names it."""
    named = "" if where is None else f" ({where})"
    if not path.is_file():
        raise FileNotFoundError(f"image {path} does not exist{named}")
    data = path.read_bytes()
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # of an empty file, or of more pixels than OpenCV allows
        image = None
    if image is None:
        raise ValueError(f"image {path} cannot be read{named}")
    # OpenCV reads a JPEG file of which half is missing as an image whose rest is grey.
    if data.startswith(b"\xff\xd8") and not _jpeg_is_whole(data):
        raise ValueError(f"image {path} is cut off: it has no end marker{named}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV, atomically; the columns are those of all rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def write_json(path: Path, content) -> None:
    """Write JSON atomically."""
    write_atomically(path, json.dumps(content, indent=1).encode())


def count_records(path: Path) -> int:
    """The whole records that a :class:`RecordFile` has, the last of which may be cut off; 0 where there is none."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(line.endswith(b"\n") for line in file)


class RecordFile:
    """Numbered records on disk, one a line, for :func:`merge_records`; numbers rise.

    Of a file that is there so many as ``keep`` says stay, and it goes on behind them.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if keep == 0:
            path.write_bytes(b"")
        with path.open("rb+") as file:
            for _ in range(keep):
                file.readline()
            file.truncate(file.tell())
        self.path, self._file = path, path.open("a", encoding="utf-8")

    def write(self, number: int, record) -> None:
        self._file.write(f"{number} {json.dumps(record)}\n")

    def flush(self) -> None:
        """Let what was written outlive the process."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


def merge_records(parts: Sequence[Path], path: Path) -> int:
    """Write the records of parts as one JSON list in the order of their numbers, atomically. Their count."""
    temporary, count = path.with_name(f".{path.name}.{os.getpid()}"), 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(part.open(encoding="utf-8")) for part in parts]
        out = stack.enter_context(temporary.open("w", encoding="utf-8"))
        for line in heapq.merge(*files, key=lambda line: int(line.partition(" ")[0])):
            out.write(("[\n" if count == 0 else ",\n") + line.partition(" ")[2].rstrip("\n"))
            count += 1
        out.write("\n]\n" if count else "[]\n")
    os.replace(temporary, path)
    return count


def field(record: dict, key: str, where: str):
    """A field of a JSON object."""
    if not isinstance(record, dict) or key not in record:
        raise ValueError(f"{where}: field {key!r} is missing")
    return record[key]


def finite_numbers(value, shape: tuple[int, ...], where: str, key: str) -> np.ndarray:
    """A JSON value as finite numbers of a shape, ``float64``."""
    expected = f"{' x '.join(map(str, shape))} numbers" if shape else "a number"
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {key} must be {expected}, got {value!r}") from None
    if numbers.shape != shape:
        got = numbers.size if numbers.ndim == 1 else f"shape {list(numbers.shape)}"
        raise ValueError(f"{where}: {key} must be {expected}, got {got}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{where}: {key} holds a number that is not finite")
    return numbers


def records(content: dict, key: str, where: str) -> list:
    """A list that a JSON object holds."""
    found = field(content, key, where)
    if not isinstance(found, list):
        raise ValueError(f"{where}: {key} must be a list, got {type(found).__name__}")
    return found
