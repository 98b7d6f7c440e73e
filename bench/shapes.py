"""The tasks' real shapes: logits, points if any, and samples."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Logits ``[B, K, *axes]``, dimensions of points (0 for a grid), and samples S."""

    logits: tuple[int, ...]
    samples: int
    points: int = 0


SHAPES = {
    "small": Shape((4, 17, 32, 24), 10),
    "coco": Shape((32, 17, 64, 48), 30),
    "h36m": Shape((16, 18, 32, 64, 64), 10),
    "oct": Shape((2, 9 * 1024, 128), 30),
    "keypointnet": Shape((8, 10, 2048), 30, points=3),
}
