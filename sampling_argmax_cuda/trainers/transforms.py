"""From an image and a box to the network's input: crops, their inverses, and random augmentations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from numbers import Real
from statistics import NormalDist

import cv2
import numpy as np

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # red, green, blue
MEAN, STD = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)


def box_to_center_scale(box, aspect: float, padding: float = 1.25) -> tuple[np.ndarray, np.ndarray]:
    """Centre and size in pixels of a box ``x, y, w, h`` grown to ``aspect = w / h``, then by ``padding``."""
    x, y, w, h = (float(v) for v in box)
    center = np.array([x + w / 2, y + h / 2])
    w, h = max(w, h * aspect), max(h, w / aspect)
    return center, np.array([w, h]) * padding


def crop_matrix(center, scale, rotation: float, size: tuple[int, int]) -> np.ndarray:
    """Affine ``[2, 3]`` from image to crop of ``size`` (w, h): the box turned by ``rotation`` degrees."""
    angle = np.deg2rad(rotation)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    linear = np.diag(np.asarray(size, float) / np.asarray(scale, float)) @ turn
    offset = np.asarray(size, float) / 2 - linear @ np.asarray(center, float)
    return np.concatenate([linear, offset[:, None]], 1)


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse of an affine ``[2, 3]``."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], 1)


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points ``[..., 2]`` through an affine ``[2, 3]``."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def mirror(matrix: np.ndarray, width: int) -> np.ndarray:
    """The affine followed by the mirror ``x -> width - 1 - x`` of the crop."""
    return np.array([[-1.0, 0.0], [0.0, 1.0]]) @ matrix + np.array([[0, 0, width - 1], [0, 0, 0]])


def normalize(image: np.ndarray, mean=MEAN, std=STD) -> np.ndarray:
    """RGB ``uint8 [H, W, 3]`` to ``float32 [3, H, W]`` less a mean and over a deviation, ImageNet's unless others are given."""
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return np.ascontiguousarray(((image.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1))


@dataclass(frozen=True)
class CropRule:
    """How a box of an image becomes a network's input; a checkpoint has it, for those who use the network elsewhere.

    Args:
        image_size: width and height of the input in pixels.
        padding: the share of a box that is shown, once it has the input's shape.
        mean: of the channels red, green, blue, in [0, 1], which is subtracted.
        std: of the channels, by which is divided.
    """

    image_size: tuple[int, int]
    padding: float = 1.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def plain(self) -> dict[str, object]:
        """Numbers and lists alone, for checkpoints and JSON."""
        return {name: list(x) if isinstance(x, tuple) else x for name, x in asdict(self).items()}

    @classmethod
    def of(cls, plain: Mapping) -> "CropRule":
        """The rule of :meth:`plain`."""
        return cls(**{name: tuple(x) if isinstance(x, list) else x for name, x in plain.items()})

    def whole(self) -> "CropRule":
        """The rule for images that are shown whole, without a margin."""
        return replace(self, padding=1.0)

    def matrix(self, box) -> np.ndarray:
        """Affine ``[2, 3]`` from the image to the input of a box x, y, w, h in pixels."""
        width, height = self.image_size
        return crop_matrix(*box_to_center_scale(box, width / height, self.padding), 0.0, self.image_size)

    def input(self, image: np.ndarray, box) -> tuple[np.ndarray, np.ndarray]:
        """The input ``float32 [3, H, W]`` of a box of an RGB image ``uint8 [h, w, 3]``, and the affine back to the image."""
        matrix = self.matrix(box)
        crop = cv2.warpAffine(image, matrix, self.image_size)
        return normalize(crop, self.mean, self.std), invert(matrix).astype(np.float32)


@dataclass
class Hole:
    """A rectangle of noise: its area, shape (height over width) and place as shares, and the seed of the noise."""

    area: float
    shape: float
    place: tuple[float, float]
    seed: int

    def paint(self, crop: np.ndarray) -> None:
        """Fill the rectangle of a crop ``uint8 [H, W, 3]`` in place."""
        height, width = crop.shape[:2]
        h = min(height, int(np.sqrt(self.area * height * width * self.shape)))
        w = min(width, int(np.sqrt(self.area * height * width / self.shape)))
        y, x = int(self.place[0] * (height - h)), int(self.place[1] * (width - w))
        noise = np.random.default_rng(self.seed)
        crop[y : y + h, x : x + w] = noise.integers(0, 256, (h, w, 3), dtype=np.uint8)


@dataclass
class Draw:
    """One draw of the augmentations."""

    scale: float = 1.0
    rotation: float = 0.0
    flip: bool = False
    half_body: bool = False
    upper: bool = True
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    hole: Hole | None = None


@dataclass
class Augment:
    """Augmentations; each number switches its own off at 0.

    Args:
        scale: half width of the uniform factor of the box in [0, 1), 0.3 for U[0.7, 1.3].
        rotation: largest angle in degrees in [0, 180], U[-rotation, rotation] for half of the samples.
        flip: probability of mirroring.
        half_body: probability of cropping the upper or the lower body.
        color: half width of the uniform gain of each channel in [0, 1].
        occlusion: probability of a rectangle of noise, of 0 to 70 % of the crop and 0.3 to 3.33 times as high as wide.
        normal: scale and rotation from normals of these deviations, clipped at one and two of them, the rotation for
            0.6 of the samples (the released recipe of faces and 3-D poses).
    """

    scale: float = 0.3
    rotation: float = 40.0
    flip: float = 0.5
    half_body: float = 0.0
    color: float = 0.0
    occlusion: float = 0.0
    normal: bool = False

    def __post_init__(self) -> None:
        largest = {"scale": 1, "rotation": 180, "flip": 1, "half_body": 1, "color": 1, "occlusion": 1}
        for name, top in largest.items():
            value, close = getattr(self, name), ")" if name == "scale" else "]"  # a box scaled by 0 has no crop
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not (0 <= value < top or value == top and close == "]"):
                raise ValueError(f"data: {name} must be a number in [0, {top}{close}, got {value!r}")

    def draw(self, rng: np.random.Generator) -> Draw:
        """Draw every number whatever the settings, so that one flag does not move the others."""
        u = rng.random(14)
        scale, rotation, share = 2 * u[0] - 1, 2 * u[1] - 1, 0.5
        if self.normal:
            scale, rotation = (NormalDist().inv_cdf(max(x, 1e-12)) for x in u[:2])
            scale, rotation = np.clip(scale, -1, 1), np.clip(rotation, -2, 2)
            share = 0.6
        return Draw(
            scale=1 + self.scale * scale,
            rotation=self.rotation * rotation if u[2] < share else 0.0,
            flip=bool(u[3] < self.flip),
            half_body=bool(u[4] < self.half_body),
            upper=bool(u[5] < 0.5),
            gain=tuple(1 + self.color * (2 * v - 1) for v in u[6:9]),
            hole=Hole(0.7 * u[10], 0.3 + 3.03 * u[11], (u[12], u[13]), int(u[9] * 2**53))
            if u[9] < self.occlusion
            else None,
        )
