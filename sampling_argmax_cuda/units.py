"""What positions are in and how far apart two are: cells, or a user's coordinates, on lines and on circles."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from .cells import cell_offsets, largest_cell
from .checks import check_periodic
from .circle import samples_on_circles, soft_argmax_on_circles, wrap
from .coords import Frame, frame_of
from .distances import mask_rows, spread_error, total, weigh_rows
from .sub_distributions import is_per_cell


class Units(NamedTuple):
    """Of maps of ``size`` W(, H, D) cells: the user's frame, None for cells, and the axes that are circles."""

    frame: Frame | None
    periodic: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether positions are in cells, on lines: what the operators compute."""
        return self.frame is None and not self.periodic

    def shown(self, cells: Tensor) -> Tensor:
        """``[..., d]`` in cells as the user has it."""
        return cells if self.frame is None else self.frame.from_cells(cells)

    def in_cells(self, position: Tensor) -> Tensor:
        """``[..., d]`` as the user has it, in cells."""
        return position if self.frame is None else self.frame.to_cells(position)

    def factor(self, metric: str) -> float | None:
        """What a distance in cells is multiplied by to be the user's, or None where no factor does it."""
        if self.periodic:
            return None
        return 1.0 if self.frame is None else self.frame.factor(metric)

    def offsets(self, cells: Sequence[Tensor]) -> list[Tensor]:
        """Differences in cells, one tensor an axis, in the user's units: the shorter way round on circles."""
        found = [wrap(x, self.size[a]) if a in self.periodic else x for a, x in enumerate(cells)]
        return found if self.frame is None else [x * s for x, s in zip(found, self.frame.scales, strict=True)]

    def shown_covariance(self, cells: Tensor) -> Tensor:
        """``[..., d, d]`` in cells squared as the user has it."""
        if self.frame is None:
            return cells
        scale = cells.new_tensor(self.frame.scales)
        return cells * scale * scale[:, None]

    def check_cells(self, op: str, offset: Tensor | None, sigma: float | Tensor = 1.0, spread: float = 0.0) -> None:
        """Raise ValueError for what there is on lines only."""
        if self.periodic and (offset is not None or is_per_cell(sigma)):
            raise ValueError(
                f"{op}: offset and a sigma of every cell need axes that are lines, got periodic {self.periodic}"
            )
        if self.periodic and spread > 0:
            raise ValueError(f"{op}: spread needs axes that are lines, got periodic {self.periodic}")

    def soft_argmax(self, read: Callable, logits: Tensor, offset: Tensor | None) -> Tensor:
        """Positions as the user has them, of ``read(logits, points=, offset=)``, the soft-argmax in cells."""
        if not self.periodic:
            return self.shown(read(logits, offset=offset))
        return self.shown(soft_argmax_on_circles(read, logits, self.periodic))

    def samples(self, draw: Callable, logits: Tensor, basis: str, offset: Tensor | None) -> Tensor:
        """Samples as the user has them, of ``draw(logits, points=, basis=, offset=)``, those in cells, equal at every call."""
        if not self.periodic:
            return self.shown(draw(logits, basis=basis, offset=offset))
        return self.shown(samples_on_circles(draw, logits, self.periodic, basis))

    def error(self, draw: Callable, logits: Tensor, target: Tensor, weight: Tensor | None, metric: str,
              spread: float) -> Tensor:  # fmt: skip
        """The expectation of the error ``[B, K]`` over samples in cells, ``draw(logits)``, of a target in cells."""
        y = draw(mask_rows(logits, weight))
        offsets = y - mask_rows(target, weight).to(y.dtype).unsqueeze(2)
        return weigh_rows(spread_error(self.offsets(offsets.unbind(-1)), metric, spread), weight)

    def log_window(self, logits: Tensor, width: float, points: Tensor | None) -> Tensor:
        """``-|c - c*|^2 / (2 width^2)`` of every cell c, c* the largest one without gradient; widths in cells."""
        offsets = cell_offsets(logits, largest_cell(logits.detach(), points)[0], points)
        shorter = [wrap(x, self.size[a]) if a in self.periodic else x for a, x in enumerate(offsets)]
        return total(x.square() for x in shorter) * (-0.5 / width**2)


def units_of(
    op: str,
    size: Sequence[int],
    points: Tensor | None,
    coords: str,
    stride: float | Sequence[float],
    periodic: Sequence[int] = (),
) -> Units:
    """The units that arguments of these names ask for, of maps of ``size`` W(, H, D); raises ValueError for what is none."""
    size = tuple(size)
    if coords == "index" and type(stride) in (float, int) and stride == 1 and periodic == ():
        return Units(None, (), size)  # the checks of the rest take longer than a small map
    return Units(frame_of(op, coords, stride, size, points), check_periodic(op, periodic, len(size), points), size)
