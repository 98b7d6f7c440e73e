"""Heidelberg's raw volumes (``.vol``): read lazily, and written for synthetic data.

A file is a header of 2,048 bytes, an image of the fundus (uint8), the B-scans, each a header and float32 intensities, and in
some files grids of thicknesses that the device measured, which are not read. All numbers are little-endian.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER, _INVALID = 2048, 1e30  # intensities beyond the second are no measurements
_FIELDS = "<12s3i3d2i2did4sq2i"  # version ... BScanHdrSize, the first 104 bytes
_GRIDS = 208  # where the header says of two grids their type, 0 for none, and their place in the file
_SCAN_HEADER = 256  # of the files that are written here


@dataclass(frozen=True)
class Volume:
    """An OCT volume, of which a file is open only while something is read.

    Args:
        path: its file.
        version: of the format, as the file says.
        scale_mm: width of a column, distance of two B-scans and height of a row in mm.
        position: the eye, OD or OS.
        fundus_shape: rows and columns of the image of the fundus.
        shape: B-scans, rows and columns.
        scan_header: bytes in front of each B-scan.
    """

    path: Path
    version: str
    scale_mm: tuple[float, float, float]
    position: str
    fundus_shape: tuple[int, int]
    shape: tuple[int, int, int]
    scan_header: int

    @property
    def um_per_row(self) -> float:
        return 1000 * self.scale_mm[2]

    def _read(self, start: int, count: int, dtype: str) -> np.ndarray:
        found = np.fromfile(self.path, dtype, count, offset=start)
        if len(found) < count:
            raise ValueError(f"volume {self.path}: the file has become shorter since it was opened")
        return found

    @property
    def fundus(self) -> np.ndarray:
        """uint8 ``[rows, columns]``."""
        return self._read(HEADER, self.fundus_shape[0] * self.fundus_shape[1], "u1").reshape(self.fundus_shape)

    def scan(self, index: int) -> np.ndarray:
        """The intensities ``[rows, columns]`` of a B-scan; what is no measurement is 0."""
        _, rows, columns = self.shape
        body = HEADER + self.fundus_shape[0] * self.fundus_shape[1]
        start = body + index * (self.scan_header + 4 * rows * columns) + self.scan_header
        scan = self._read(start, rows * columns, "<f4").reshape(rows, columns)
        return np.where(np.isfinite(scan) & (scan < _INVALID), scan, 0)


def _has_grids(head: bytes, start: int, length: int) -> bool:
    """Whether a header has a grid behind the B-scans, which end at ``start``."""
    kind, place, kind1, place1 = struct.unpack_from("<4i", head, _GRIDS)
    return any(k != 0 and start <= p < length for k, p in ((kind, place), (kind1, place1)))


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
        version, columns, scans, rows, scale, fundus = values[0], *values[1:4], values[4:7], (values[8], values[7])
        if min(columns, scans, rows, *fundus) < 1:
            raise ValueError(f"volume {path}: sizes must be >= 1, got {columns} columns, {scans} B-scans, {rows} rows")
        body = HEADER + fundus[0] * fundus[1]
        # The B-scan's own field counts: writers are known to leave another number in the file's header.
        file.seek(body)
        first = file.read(16)
    size = struct.unpack_from("<i", first, 12)[0] if len(first) == 16 else -1
    expected = body + scans * (size + 4 * rows * columns)
    if size < 16 or (length != expected and not _has_grids(head, expected, length)):
        raise ValueError(f"volume {path}: expected {scans} B-scans of {columns} x {rows}, got a file of {length} bytes")
    return Volume(path, version.decode("latin-1").strip("\0 "), scale, values[13].decode("latin-1").strip("\0 "),
                  fundus, (scans, rows, columns), size)  # fmt: skip


def write_volume(path: Path, scans: np.ndarray, scale_mm: tuple[float, float, float], position: str = "OD") -> None:
    """Write intensities ``[B-scans, rows, columns]`` as a ``.vol`` file with a black fundus of 8 x 8."""
    count, rows, columns = scans.shape
    head = struct.pack(_FIELDS, b"HSF-OCT-103", columns, count, rows, *scale_mm, 8, 8, 0.1, 0.1, 30, 0.0,
                       position.encode(), 0, 3, _SCAN_HEADER)  # fmt: skip
    own = struct.pack("<12si", b"HSF-BS-103", _SCAN_HEADER).ljust(_SCAN_HEADER, b"\0")
    blocks = [own + scan.astype("<f4").tobytes() for scan in scans]
    path.write_bytes(head.ljust(HEADER, b"\0") + bytes(64) + b"".join(blocks))
