"""Predictions in plain Python: images and boxes in, positions in pixels of the images out."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from ..calibration.calibration import Calibration
from .certainty import certainty
from .landmarks import Landmarks
from .reading import LandmarkReader, Prediction, covariance_to_image, to_image
from .transforms import CropRule


class Predictor:
    """Finds the landmarks of images; :func:`sampling_argmax_cuda.load` makes it of a checkpoint.

    Args:
        reader: what answers crops.
        landmarks: the points, in the order of the answers: ``landmarks.names``, ``pairs`` and ``bones``.
        rule: how a box becomes a crop.
        device: where it runs, as torch names it.
        batch_size: boxes that are run at once, >= 1.
        calibration: of a calibrated checkpoint; confidences are then probabilities that the error is below its radius.
    """

    def __init__(self, reader: LandmarkReader, landmarks: Landmarks, rule: CropRule, device: str | torch.device,
                 batch_size: int = 32, calibration: Calibration | None = None) -> None:  # fmt: skip
        if batch_size < 1:
            raise ValueError(f"Predictor: batch_size must be >= 1, got {batch_size}")
        self.device, self.batch_size, self.calibration = torch.device(device), batch_size, calibration
        self.reader, self.landmarks, self.rule = reader.to(self.device).eval(), landmarks, rule

    @property
    def names(self) -> tuple[str, ...]:
        """The points' names."""
        return self.landmarks.names

    def __call__(self, images: Sequence[np.ndarray], boxes: Sequence | None = None) -> Prediction:
        """What is found in images, as NumPy arrays.

        Args:
            images: RGB, each ``uint8 [H, W, 3]`` of a size of its own (OpenCV reads BGR: ``image[..., ::-1]``).
            boxes: of each image its boxes ``[m, 4]``, or one ``[4]``: x, y, w, h in pixels; None for the whole images.

        Returns:
            ``positions`` ``[n, K, 2]`` (x, y) in pixels of the images, ``confidence`` ``[n, K]`` and ``covariance``
            ``[n, K, 2, 2]`` in pixels squared, float32, n the number of boxes in their order. The covariance is the map's,
            the square of the predicted width where the network says positions and widths, and NaN where it says neither.

        Raises:
            ValueError: for an image or a box that is none.
        """
        crops, found = self._crops(images, boxes), []
        while batch := list(islice(crops, self.batch_size)):
            found.append(self._run(*map(np.stack, zip(*batch, strict=True))))
        if not found:
            points = len(self.landmarks)
            return Prediction(*(np.zeros((0, points, *more), np.float32) for more in ((2,), (), (2, 2))))
        return Prediction(*map(np.concatenate, zip(*found, strict=True)))

    def _crops(self, images: Sequence[np.ndarray], boxes: Sequence | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The input of every box, and its affine back to the image."""
        if boxes is not None and len(boxes) != len(images):
            raise ValueError(f"Predictor: expected boxes of each of {len(images)} images, got {len(boxes)}")
        rule = self.rule.whole() if boxes is None else self.rule
        for i, image in enumerate(images):
            _check_image(i, image)
            whole = (0, 0, image.shape[1], image.shape[0])
            for box in [whole] if boxes is None else _checked_boxes(i, boxes[i]):
                yield rule.input(np.ascontiguousarray(image), box)

    @torch.inference_mode()
    def _run(self, crops: np.ndarray, inverse: np.ndarray) -> tuple[np.ndarray, ...]:
        images, inverse = (torch.from_numpy(x).to(self.device) for x in (crops, inverse))
        found, law = self.reader.read(images, law=self.calibration is not None)
        in_image = found._replace(
            positions=to_image(found.positions, inverse), covariance=covariance_to_image(found.covariance, inverse)
        )
        if law is not None:
            sure = certainty(law, images, inverse, self.calibration, ())
            in_image = in_image._replace(confidence=sure["confidence"], covariance=sure["covariance"])
        return tuple(x.float().cpu().numpy() for x in in_image)


def _check_image(i: int, image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"Predictor: image {i} must be an array uint8 [H, W, 3], got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"Predictor: image {i} must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")


def _checked_boxes(i: int, boxes) -> np.ndarray:
    """The boxes ``[m, 4]`` of an image."""
    found = np.asarray(boxes, np.float64)
    found = found.reshape(-1, 4) if found.shape in ((4,), (0,)) else found
    if found.ndim != 2 or found.shape[1] != 4:
        raise ValueError(f"Predictor: boxes of image {i} must be [m, 4] or [4], got {list(found.shape)}")
    if not (np.isfinite(found).all() and (found[:, 2:] > 0).all()):
        raise ValueError(
            f"Predictor: boxes of image {i} must be finite, with a width and a height > 0, got {found.tolist()}"
        )
    return found
