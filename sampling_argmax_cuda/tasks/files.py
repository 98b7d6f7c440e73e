"""Files of all tasks: JSON and images, each with one line that says what is wrong with it."""

import json
import os
from pathlib import Path

import cv2
import numpy as np


def read_json(path: str | Path, what: str):
    """The content of a JSON file, or one line that says what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} file {path} does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} file {path} is not valid JSON: {error}") from None


def read_image(path: Path) -> np.ndarray:
    """An RGB image, ``uint8 [H, W, 3]``."""
    if not path.is_file():
        raise FileNotFoundError(f"image {path} does not exist")
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"image {path} cannot be read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def write_json(path: Path, content) -> None:
    """Write JSON atomically."""
    write_atomically(path, json.dumps(content, indent=1).encode())


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
