"""Where the points are: targets with what is known of them, cells that are nearest, and Gaussian maps."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Target:
    """Where the points are.

    Args:
        position: ``[B, K, d]`` in cells.
        weight: ``[B, K]``, 0 for a point that must not count; None for 1.
        size: cells of the axes x, y(, z), or ones for point sets; read by objectives whose units are not cells.
        axes: ``[B, K, d]``, 0 for a coordinate that is not known; None if all are.
        points: ``[B, N, d]`` where the cells are points and no grid, or None; positions have their units.
        sigma: ``[B, 1]``, the width of the gaussian basis and of a regulariser's target; None for the objective's own.
    """

    position: Tensor
    weight: Tensor | None = None
    size: tuple[int, ...] = ()
    axes: Tensor | None = None
    points: Tensor | None = None
    sigma: Tensor | None = None

    def complete(self) -> Tensor | None:
        """1 for the points ``[B, K]`` of which every coordinate is known, 0 for the others; None for 1."""
        return None if self.axes is None else self.axes.amin(-1)

    def known(self) -> "Target":
        """The same with 0 in place of what is not known, NaN too, and weight 0 for a point of which nothing is."""
        counts, weight = None, self.weight
        if weight is not None:
            counts = (weight != 0).unsqueeze(-1)
        if self.axes is not None:
            counts = self.axes > 0 if counts is None else counts & (self.axes > 0)
            weight = (
                counts.any(-1).to(self.position.dtype) if weight is None else torch.where(counts.any(-1), weight, 0)
            )
        position = self.position if counts is None else torch.where(counts, self.position, 0)
        return dataclasses.replace(self, position=position, weight=weight)


def nearest_cell(position: Tensor) -> Tensor:
    """The cell nearest to each coordinate, as a number of the same type; halves go up."""
    return (position + 0.5).floor()


def gaussian_maps(position: Tensor, size: tuple[int, ...], sigma: float, axes: Tensor | None = None) -> Tensor:
    """The maps ``[..., (D,) (H,) W]`` that heatmaps are trained towards, for positions ``[..., d]`` in cells.

    ``exp(-|c - m|^2 / (2 sigma^2))`` at the cells c within 3 sigma of m on every axis, m the cell nearest to the position
    (Xiao et al., "Simple Baselines", ECCV 2018). ``size`` is W(, H, D). An axis that is not known (``axes`` ``[..., d]``, 0
    there) has no part in the distance, so that the map is constant along it.
    """
    maps = position.new_ones(())
    for a, cells in enumerate(size):
        offset = torch.arange(cells, device=position.device) - nearest_cell(position[..., a, None])
        line = torch.where(offset.abs() <= 3 * sigma, (-offset.square() / (2 * sigma**2)).exp(), 0)
        if axes is not None:
            line = torch.where(axes[..., a, None] > 0, line, 1)
        maps = maps * line.view(*line.shape[:-1], *[-1 if b == a else 1 for b in reversed(range(len(size)))])
    return maps


def person_maps(position: Tensor, visible: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """The :func:`gaussian_maps` ``[B, K, H, W]`` of joints ``[B, P, K, 2]`` in cells: the largest over people.

    ``size`` is W and H, ``visible`` ``[B, P, K]``, 0 for a joint that is on no map. Associative embedding's code cuts a place
    to a whole number where here the nearest is taken, and a Gaussian one cell later; else its maps are these.
    """
    maps = position.new_zeros((position.shape[0], position.shape[2], size[1], size[0]))
    for person, seen in zip(position.unbind(1), visible.unbind(1), strict=True):
        own = gaussian_maps(person, size, sigma)
        maps = torch.maximum(maps, torch.where(seen[..., None, None] > 0, own, 0))
    return maps
