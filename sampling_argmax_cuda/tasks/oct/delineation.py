"""MSHC's manual delineations (``.mat``): control points of nine surfaces, joined by natural cubic splines."""

from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.io import loadmat, savemat

# Between vitreous, nerve fibre layer, ganglion cells with inner plexiform, inner nuclear, outer plexiform, outer nuclear,
# inner segments, outer segments, pigment epithelium and choroid.
SURFACES = ("ILM", "RNFL-GCL", "IPL-INL", "INL-OPL", "OPL-ONL", "ELM", "IS-OS", "OS-RPE", "BM")
LAYERS = ("RNFL", "GCIP", "INL", "OPL", "ONL", "IS", "OS", "RPE")
_COLUMNS, _USED = 11, (0, 1, 3, 4, 5, 6, 7, 8, 9)  # of the cell array; the others are empty


def _curve(points, width: int, where: str) -> np.ndarray:
    """Rows ``[width]`` of a surface, NaN to the left and right of its control points ``[n, 2]`` (x, y from 1)."""
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "fiu":
        raise ValueError(f"{where}: control points must be n x 2 numbers, got shape {list(points.shape)}")
    if not np.isfinite(points).all():
        raise ValueError(f"{where}: control points hold a number that is not finite")
    x, y = points[np.argsort(points[:, 0], kind="stable")].astype(float).T - 1
    x, first = np.unique(x, return_index=True)
    if len(x) < 2:
        return np.full(width, np.nan)
    columns = np.arange(width)
    rows = CubicSpline(x, y[first], bc_type="natural")(columns)
    return np.where((columns >= x[0] - 0.5) & (columns <= x[-1] + 0.5), rows, np.nan)


def read_delineation(path: str | Path, scans: int, width: int) -> np.ndarray:
    """Surfaces ``[scans, 9, width]`` in rows counted from 0, NaN where there are none; a lower one is never above.

    Raises ValueError that names the file and the B-scan.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"delineation {path} does not exist")
    try:
        content = loadmat(path)
    except Exception as error:  # SciPy raises many kinds for a file that is not MATLAB's
        raise ValueError(f"delineation {path} cannot be read: {error}") from None
    if "control_pts" not in content:
        raise ValueError(f"delineation {path}: field 'control_pts' is missing")
    cells = content["control_pts"]
    if cells.dtype != object or cells.shape != (scans, _COLUMNS):
        shape = list(cells.shape)
        raise ValueError(f"delineation {path}: control_pts must be a cell of {scans} x {_COLUMNS}, got {shape}")
    out = np.full((scans, len(_USED), width), np.nan)
    for scan in range(scans):
        for surface, column in enumerate(_USED):
            if cells[scan, column].size:
                where = f"delineation {path}: B-scan {scan}, {SURFACES[surface]}"
                out[scan, surface] = _curve(cells[scan, column], width, where)
    # NaN never wins a maximum here, and a surface that is not known stays unknown.
    return np.where(np.isnan(out), np.nan, np.fmax.accumulate(out, axis=1))


def write_delineation(path: Path, surfaces: np.ndarray, step: int = 8) -> None:
    """Write every ``step``-th column of surfaces ``[scans, 9, width]`` and the last as control points."""
    scans, _, width = surfaces.shape
    cells = np.empty((scans, _COLUMNS), object)
    chosen = np.unique([*range(0, width, step), width - 1])
    for scan in range(scans):
        for column in range(_COLUMNS):
            cells[scan, column] = np.zeros((0, 0))
        for surface, column in enumerate(_USED):
            cells[scan, column] = np.stack([chosen + 1.0, surfaces[scan, surface, chosen] + 1], 1)
    savemat(path, {"control_pts": cells})
