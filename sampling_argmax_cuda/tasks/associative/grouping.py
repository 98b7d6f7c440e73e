"""From maps of joints and tags to people: the best cells of each joint, joined by their tags."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import max_pool2d

# Joints in the order in which they join people: face, shoulders, hips, elbows, wrists, knees, ankles.
ORDER = (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16)
_NEVER = 1e10  # cost of a pair that must not be


@dataclass(frozen=True)
class Grouping:
    """How joints become people.

    Args:
        threshold: least score of a joint that joins or makes a person.
        distance: largest root mean square distance of a joint's tag to its person's.
        most: people of an image at most, and cells of a joint that are looked at.
        refine: look for the missing joints of a person where the map is high and the tag near.
    """

    threshold: float = 0.1
    distance: float = 1.0
    most: int = 30
    refine: bool = True

    def __post_init__(self) -> None:
        if not self.distance > 0 or self.most < 1:
            raise ValueError(f"model: tag_distance must be > 0 and most >= 1, got {self.distance} and {self.most}")

    def people(self, maps: Tensor, tags: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """People ``[n, K, 3]`` (x, y in cells, score; a joint that is missing has score 0) and their scores ``[n]``.

        ``maps`` ``[K, H, W]``, ``tags`` ``[K, H, W, T]``. The score of a person is the mean over all joints before refining.
        """
        cells, scores = self._candidates(maps)
        maps, tags = maps.float().cpu().numpy(), tags.float().cpu().numpy()
        width = maps.shape[2]
        groups: list[dict[int, tuple[int, float, np.ndarray]]] = []  # joint: cell, score, tag
        for joint in ORDER[: len(maps)] if len(maps) == len(ORDER) else range(len(maps)):
            good = scores[joint] > self.threshold
            found = [(int(c), float(s), tags[joint, c // width, c % width])
                     for c, s in zip(cells[joint][good], scores[joint][good], strict=True)]  # fmt: skip
            self._join(groups, joint, found)
        people, score = np.zeros((len(groups), len(maps), 3)), np.zeros(len(groups))
        for n, group in enumerate(groups):
            for joint, (cell, value, _) in group.items():
                people[n, joint] = [*_adjusted(maps[joint], cell), value]
            score[n] = people[n, :, 2].mean()
            if self.refine:
                self._complete(people[n], group, maps, tags)
        return people, score

    def _candidates(self, maps: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The best local maxima of each joint's map: cells and scores ``[K, most]``."""
        peaks = torch.where(max_pool2d(maps[None].float(), 3, 1, 1)[0] == maps, maps.float(), 0).flatten(1)
        scores, cells = peaks.topk(min(self.most, peaks.shape[1]))
        return cells.cpu().numpy(), scores.cpu().numpy()

    def _join(self, groups: list, joint: int, found: list) -> None:
        """Give the candidates of a joint to people, the nearest tags first and then the best scores; others are new people."""
        if not found:
            return
        taken: dict[int, int] = {}
        if groups:
            means = np.stack([np.mean([tag for _, _, tag in group.values()], 0) for group in groups])
            own = np.stack([tag for _, _, tag in found])
            apart = np.sqrt(np.square(own[:, None] - means[None]).mean(-1))
            cost = np.rint(apart) * 100 - np.array([score for _, score, _ in found])[:, None]
            # A candidate without a person is no worse than one with a person that it must not join.
            padded = np.concatenate([cost, np.full((len(found), len(found)), _NEVER)], 1)
            for row, column in zip(*linear_sum_assignment(padded), strict=True):
                if column < len(groups) and apart[row, column] < self.distance:
                    taken[row] = column
        for row, candidate in enumerate(found):
            if row in taken:
                groups[taken[row]][joint] = candidate
            elif len(groups) < self.most:
                groups.append({joint: candidate})

    def _complete(self, person: np.ndarray, group: dict, maps: np.ndarray, tags: np.ndarray) -> None:
        """Put every missing joint where its map less the rounded distance of the tags is largest, if the map is positive."""
        mean = np.mean([tag for _, _, tag in group.values()], 0)
        for joint in set(range(len(maps))) - set(group):
            apart = np.sqrt(np.square(tags[joint] - mean).mean(-1))
            cell = int((maps[joint] - np.rint(apart)).argmax())
            value = float(maps[joint].flat[cell])
            if value > 0:
                person[joint] = [*_adjusted(maps[joint], cell), value]


def _adjusted(heat: np.ndarray, cell: int) -> tuple[float, float]:
    """x and y of a cell, each moved a quarter towards its larger neighbour."""
    y, x = divmod(cell, heat.shape[1])
    out = []
    for line, place in ((heat[y], x), (heat[:, x], y)):
        inside = 0 < place < len(line) - 1
        out.append(place + (0.25 * np.sign(line[place + 1] - line[place - 1]) if inside else 0.0))
    return out[0], out[1]
