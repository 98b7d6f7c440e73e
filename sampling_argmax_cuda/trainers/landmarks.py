"""What a task's points are: their names, their mirror, how figures join them, and how exactly people mark them."""

from collections.abc import Mapping
from dataclasses import dataclass

KEYS = ("names", "pairs", "skeleton", "sigmas", "upper", "aliases")
SIGMA = 0.05  # of a point whose sigma nobody gave: COCO's are 0.025 (eyes) to 0.107 (hips)


@dataclass(frozen=True)
class Landmarks:
    """Points in a fixed order.

    Args:
        names: one a point, each another.
        pairs: points that a mirror swaps; None where nobody knows, so that images must not be mirrored.
        bones: points that figures join.
        upper: points of the upper body, which half-body crops keep or leave out together.
        sigmas: for OKS, one a point, > 0; empty for :data:`SIGMA` each.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...] | None
    bones: tuple[tuple[int, int], ...]
    upper: tuple[int, ...] = ()
    sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.sigmas:
            object.__setattr__(self, "sigmas", (SIGMA,) * len(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def mirrored(self) -> list[int]:
        """The point that each one becomes in a mirror."""
        order = list(range(len(self)))
        for left, right in self.pairs or ():
            order[left], order[right] = right, left
        return order

    def as_mapping(self) -> dict[str, list | None]:
        """The points as a point file and a checkpoint have them: by names."""
        named = {"pairs": self.pairs, "skeleton": self.bones}
        joined = {
            key: None if own is None else [[self.names[a], self.names[b]] for a, b in own] for key, own in named.items()
        }
        upper = [self.names[i] for i in self.upper]
        return {"names": list(self.names), **joined, "sigmas": list(self.sigmas), "upper": upper}


def landmarks_of(content: Mapping, where: str) -> Landmarks:
    """The points of a whole mapping of :meth:`Landmarks.as_mapping`. Raises ValueError that begins with ``where``.

    ``names`` must be there; ``pairs`` that are missing or null are not known, an empty list is a mirror that swaps nothing.
    ``aliases``, what annotation files call the points, are no part of them.
    """
    check_points(content, where)
    if not content.get("names"):
        raise ValueError(f"{where}: names are missing")
    place = {name: i for i, name in enumerate(content["names"])}

    def index(key: str, name) -> int:
        if name not in place:
            raise ValueError(f"{where}: {key}: no point is named {name!r} (names: {', '.join(place)})")
        return place[name]

    def joined(key: str) -> tuple[tuple[int, int], ...]:
        return tuple((index(key, a), index(key, b)) for a, b in content.get(key) or ())

    pairs, sigmas = None if content.get("pairs") is None else joined("pairs"), content.get("sigmas") or ()
    swapped = [i for pair in pairs or () for i in pair]
    if len(set(swapped)) < len(swapped):
        name = content["names"][next(i for i in swapped if swapped.count(i) > 1)]
        raise ValueError(f"{where}: pairs: {name!r} is in more than one place")
    sigmas = (float(sigmas),) * len(place) if isinstance(sigmas, int | float) else tuple(map(float, sigmas))
    if sigmas and len(sigmas) != len(place):
        raise ValueError(f"{where}: sigmas must be a number or {len(place)} numbers, got {len(sigmas)}")
    upper = tuple(index("upper", name) for name in content.get("upper") or ())
    return Landmarks(tuple(place), pairs, joined("skeleton"), upper, sigmas)


def check_points(content: Mapping, where: str) -> None:
    """Raise ValueError for a part of a point set that is not of its form; what is missing is no fault here."""
    wrong = next((key for key in content if key not in KEYS), None)
    if wrong is not None:
        raise ValueError(f"{where}: unknown key {wrong!r} (known: {', '.join(KEYS)})")
    for key in ("names", "upper", "aliases"):
        own = content.get(key) or []
        if not isinstance(own, list | tuple) or not all(isinstance(name, str) and name for name in own):
            raise ValueError(f"{where}: {key} must be a list of names, got {own!r}")
        twice = next((name for i, name in enumerate(own) if name in own[:i]), None)
        if twice is not None:
            raise ValueError(f"{where}: {key}: {twice!r} is there twice")
    for key in ("pairs", "skeleton"):
        own = content.get(key) or []
        lists = isinstance(own, list | tuple) and all(isinstance(pair, list | tuple) for pair in own)
        if not lists or not all(len(pair) == 2 and pair[0] != pair[1] for pair in own):
            raise ValueError(f"{where}: {key} must be a list of two different names each, got {own!r}")
    sigmas = content.get("sigmas") or []
    own = sigmas if isinstance(sigmas, list | tuple) else [sigmas]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and 0 < x < float("inf") for x in own):
        raise ValueError(f"{where}: sigmas must be numbers > 0, got {sigmas!r}")
