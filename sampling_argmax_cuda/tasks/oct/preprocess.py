"""Before the network: intensities to [0, 1], Bruch's membrane found and made flat, rows cropped; and exactly back."""

from dataclasses import dataclass

import cv2
import numpy as np

_ABOVE = 0.82  # share of the crop that lies above Bruch's membrane


def normalise(scan: np.ndarray) -> np.ndarray:
    """Raw intensities (linear in [0, 1], or of 8 bits) as an image in [0, 1] whose range is that of the tissue.

    Linear ones are raised to 1/4, the law of the device's own display.
    """
    image = scan / 255 if scan.max(initial=0) > 1.5 else np.clip(scan, 0, None) ** 0.25
    low, high = np.percentile(image, (2, 99.5))
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def find_bruch(image: np.ndarray) -> np.ndarray:
    """Rows ``[columns]`` of Bruch's membrane: the lower edge of the bright pigment epithelium, smooth across columns.

    A column's candidate is the strongest fall of brightness at most 12 rows below its brightest smoothed row; a cubic is
    fitted to the candidates, again and again without those that are far off.
    """
    rows, columns = image.shape
    smooth = cv2.GaussianBlur(image, (0, 0), sigmaX=3, sigmaY=1.5)
    fall = smooth - np.roll(smooth, -2, 0)
    fall[-2:] = 0
    below = np.arange(rows)[:, None] - cv2.GaussianBlur(smooth, (0, 0), sigmaX=5, sigmaY=2).argmax(0)
    candidate = np.where((below >= 0) & (below <= 12), fall, -1).argmax(0) + 1.0
    x, kept = np.linspace(-1, 1, columns), np.ones(columns, bool)
    degree = min(3, max(0, columns // 8))
    for limit in (24.0, 12.0, 6.0, 4.0):
        fit = np.polyval(np.polyfit(x[kept], candidate[kept], degree), x)
        near = np.abs(candidate - fit) < limit
        kept = near if near.sum() > max(4 * degree, columns // 4) else kept
    return fit


@dataclass(frozen=True)
class Flattening:
    """Whole rows by which columns move, so that the way back is exact: row r of the crop is row ``r + offset[c]``."""

    offset: np.ndarray
    rows: int

    @classmethod
    def around(cls, bruch: np.ndarray, rows: int) -> "Flattening":
        """The crop of ``rows`` rows that has a surface ``[columns]`` at one height."""
        return cls(np.rint(bruch).astype(int) - round(_ABOVE * rows), rows)

    def crop(self, scan: np.ndarray) -> np.ndarray:
        """``[rows, columns]`` of a scan, 0 outside of it."""
        place = np.arange(self.rows)[:, None] + self.offset
        inside = (place >= 0) & (place < len(scan))
        return np.where(inside, np.take_along_axis(scan, place.clip(0, len(scan) - 1), 0), 0)

    def flatten(self, surfaces: np.ndarray) -> np.ndarray:
        """Surfaces ``[..., columns]`` from rows of the scan to rows of the crop."""
        return surfaces - self.offset

    def restore(self, surfaces: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`flatten`."""
        return surfaces + self.offset
