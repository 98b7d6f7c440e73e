"""What a task's points are: their names, their mirror, and how figures join them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Landmarks:
    """Points in a fixed order.

    Args:
        names: one a point.
        pairs: points that a mirror swaps.
        bones: points that figures join.
        upper: points of the upper body, which half-body crops keep or leave out together.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    bones: tuple[tuple[int, int], ...]
    upper: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def mirrored(self) -> list[int]:
        """The point that each one becomes in a mirror."""
        order = list(range(len(self)))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return order
