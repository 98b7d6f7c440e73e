"""Pinhole cameras: from the world to the camera, to pixels, and back."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A camera of Human3.6M: ``x = R (X - t)``, ``u = f_x x / z + c_x``, ``v = f_y y / z + c_y``, no distortion.

    Args:
        rotation: R ``[3, 3]``, from world to camera axes (x right, y down, z forward).
        translation: t ``[3]``, the camera's place in the world in mm.
        focal: f ``[2]`` in pixels.
        center: c ``[2]`` in pixels.
    """

    rotation: np.ndarray
    translation: np.ndarray
    focal: np.ndarray
    center: np.ndarray

    def from_world(self, points: np.ndarray) -> np.ndarray:
        """Points ``[n, 3]`` in mm of the world in mm of the camera."""
        return (points - self.translation) @ self.rotation.T

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`from_world`."""
        return points @ self.rotation + self.translation


def project(points: np.ndarray, focal: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Points ``[n, 3]`` in mm of the camera to pixels and depth ``[n, 3]`` (u, v, z)."""
    pixels = points[:, :2] / points[:, 2:] * focal + center
    return np.concatenate([pixels, points[:, 2:]], 1)


def back_project(pixels: np.ndarray, focal: np.ndarray, center: np.ndarray) -> np.ndarray:
    """The inverse of :func:`project`: pixels and depth ``[n, 3]`` to mm of the camera."""
    return np.concatenate([(pixels[:, :2] - center) / focal * pixels[:, 2:], pixels[:, 2:]], 1)


def pixels_per_mm(points: np.ndarray, pixels: np.ndarray) -> float:
    """The scale of the weak perspective that fits best: ``pixels`` ``[n, 2]`` of points ``[n, 3]`` of the camera.

    Least squares of ``pixels - mean = s (points - mean)`` over s.
    """
    flat = points[:, :2] - points[:, :2].mean(0)
    return float((flat * (pixels - pixels.mean(0))).sum() / np.square(flat).sum())
