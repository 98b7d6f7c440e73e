"""Heidelberg's raw volumes (``.vol``): read lazily, and written for generated data.

A file is a header of 2,048 bytes, an image of the fundus (uint8), and the B-scans, each a header and float32 intensities.
All numbers are little-endian.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER, _INVALID = 2048, 1e30  # intensities beyond the second are no measurements
_FIELDS = "<12s3i3d2i2did4sq2i"  # version ... BScanHdrSize, the first 104 bytes
_SCAN_HEADER = 256  # of the files that are written here


@dataclass(frozen=True)
class Volume:
    """An OCT volume.

    Args:
        path: its file.
        version: of the format, as the file says.
        scale_mm: width of a column, distance of two B-scans and height of a row in mm.
        position: the eye, OD or OS.
        fundus: uint8 ``[height, width]``.
        scans: float32 ``[B-scans, rows, columns]``, read from the file when they are used.
    """

    path: Path
    version: str
    scale_mm: tuple[float, float, float]
    position: str
    fundus: np.ndarray
    scans: np.ndarray

    @property
    def um_per_row(self) -> float:
        return 1000 * self.scale_mm[2]

    def scan(self, index: int) -> np.ndarray:
        """The intensities ``[rows, columns]`` of a B-scan; what is no measurement is 0."""
        scan = np.array(self.scans[index])
        return np.where(np.isfinite(scan) & (scan < _INVALID), scan, 0)


def read_volume(path: str | Path) -> Volume:
    """Open a ``.vol`` file. Raises ValueError that says what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"volume {path} does not exist")
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER)
    if len(head) < HEADER:
        raise ValueError(f"volume {path}: {length} bytes are no header of {HEADER}")
    values = struct.unpack_from(_FIELDS, head)
    version, columns, scans, rows = values[0], *values[1:4]
    if min(columns, scans, rows, values[7], values[8]) < 1:
        raise ValueError(f"volume {path}: sizes must be >= 1, got {columns} columns, {scans} B-scans, {rows} rows")
    body = HEADER + values[7] * values[8]
    # The B-scan's own field counts: writers are known to leave another number in the file's header.
    with path.open("rb") as file:
        file.seek(body)
        first = file.read(16)
    size = struct.unpack_from("<i", first, 12)[0] if len(first) == 16 else -1
    expected = body + scans * (size + 4 * rows * columns)
    if size < 16 or length != expected:
        raise ValueError(f"volume {path}: expected {scans} B-scans of {columns} x {rows}, got a file of {length} bytes")
    block = np.memmap(path, np.uint8, "r", body, (scans, size + 4 * rows * columns))
    intensities = block[:, size:].view("<f4").reshape(scans, rows, columns)
    fundus = np.memmap(path, np.uint8, "r", HEADER, (values[8], values[7]))
    return Volume(path, version.decode("latin-1").strip("\0 "), values[4:7], values[13].decode("latin-1").strip("\0 "),
                  fundus, intensities)  # fmt: skip


def write_volume(path: Path, scans: np.ndarray, scale_mm: tuple[float, float, float], position: str = "OD") -> None:
    """Write intensities ``[B-scans, rows, columns]`` as a ``.vol`` file with a black fundus of 8 x 8."""
    count, rows, columns = scans.shape
    head = struct.pack(_FIELDS, b"HSF-OCT-103", columns, count, rows, *scale_mm, 8, 8, 0.1, 0.1, 30, 0.0,
                       position.encode(), 0, 3, _SCAN_HEADER)  # fmt: skip
    own = struct.pack("<12si", b"HSF-BS-103", _SCAN_HEADER).ljust(_SCAN_HEADER, b"\0")
    blocks = [own + scan.astype("<f4").tobytes() for scan in scans]
    path.write_bytes(head.ljust(HEADER, b"\0") + bytes(64) + b"".join(blocks))
