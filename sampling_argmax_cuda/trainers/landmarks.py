"""What a task's points are: their names, their mirror, and how figures join them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass


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

    def plain(self) -> dict[str, list]:
        """Lists alone, for checkpoints and JSON."""
        return {name: [list(x) if isinstance(x, tuple) else x for x in value] for name, value in asdict(self).items()}

    @classmethod
    def of(cls, plain: Mapping) -> "Landmarks":
        """The landmarks of :meth:`plain`."""
        return cls(
            **{name: tuple(tuple(x) if isinstance(x, list) else x for x in value) for name, value in plain.items()}
        )

    def mirrored(self) -> list[int]:
        """The point that each one becomes in a mirror."""
        order = list(range(len(self)))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return order
