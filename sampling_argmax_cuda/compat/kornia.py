"""``kornia.geometry.subpix``'s spatial soft-argmax: the same names, arguments and results, and ``sampling``.

    from sampling_argmax_cuda.compat.kornia import spatial_soft_argmax2d      # was: from kornia.geometry.subpix import ...

Positions are x, y. Normalized, they go from -1 at the centre of the first cell to 1 at that of the last one (``corners`` in
:mod:`.coords`); an axis of one cell is at 0. ``temperature`` divides the logits: ``beta = 1 / temperature``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .drawing import located, log_of


def _check(op: str, input: Tensor) -> None:
    if not isinstance(input, Tensor) or input.dim() != 4:
        got = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
        raise ValueError(f"{op}: input must be [B, N, H, W], got {got}")


def _check_temperature(op: str, temperature: Tensor | float) -> None:
    if isinstance(temperature, Tensor):
        if torch.compiler.is_compiling() or bool((temperature > 0).all()):
            return
    elif temperature > 0:
        return
    raise ValueError(f"{op}: temperature must be > 0, got {temperature}")


def _cooled(input: Tensor, temperature: Tensor) -> Tensor:
    """The maps over a temperature that is a tensor: it broadcasts to ``[B, N, H * W]``, and has its gradient."""
    temperature = temperature.to(device=input.device, dtype=input.dtype)
    return (input.flatten(2) / temperature).view(input.shape)


def _normalized(position: Tensor, height: int, width: int) -> Tensor:
    """``[..., 2]`` in cells, from -1 to 1."""
    columns = zip(position.unbind(-1), (width, height), strict=True)
    return torch.stack([x * (2 / (n - 1)) - 1 if n > 1 else x for x, n in columns], -1)


def spatial_softmax2d(input: Tensor, temperature: Tensor | float | None = None) -> Tensor:
    """``softmax(input / temperature)`` over the cells of each map ``[B, N, H, W]``; ``temperature`` > 0, None for 1."""
    _check("spatial_softmax2d", input)
    temperature = 1.0 if temperature is None else temperature
    _check_temperature("spatial_softmax2d", temperature)
    cooled = _cooled(input, temperature) if isinstance(temperature, Tensor) else input / temperature
    return cooled.flatten(2).softmax(-1).view(input.shape)


def spatial_expectation2d(
    input: Tensor, normalized_coordinates: bool = True, *, sampling: Mapping | None = None
) -> Tensor:
    """``sum_i p_i c_i`` of maps of probabilities ``[B, N, H, W]``, as they are: ``[B, N, 2]``.

    ``sampling``: samples ``[B, N, S, 2]`` of the maps over their sum (:mod:`sampling_argmax_cuda.compat`).
    """
    _check("spatial_expectation2d", input)
    height, width = input.shape[2:]
    if sampling is not None:
        position = located("spatial_expectation2d", log_of(input), sampling)
        return _normalized(position, height, width) if normalized_coordinates else position
    dtype = torch.promote_types(input.dtype, torch.float32)  # places are rounded once, to the maps' own type
    found = []
    for n, other in ((width, 2), (height, 3)):
        cells = torch.arange(n, device=input.device, dtype=dtype)
        if normalized_coordinates:
            cells = cells * (2 / (n - 1)) - 1 if n > 1 else cells
        found.append((input.sum(other) * cells.to(input.dtype)).sum(-1))
    return torch.stack(found, -1)


def spatial_soft_argmax2d(
    input: Tensor,
    temperature: Tensor | float | None = None,
    normalized_coordinates: bool = True,
    *,
    sampling: Mapping | None = None,
) -> Tensor:
    """``spatial_expectation2d(spatial_softmax2d(input, temperature))`` in one pass: ``[B, N, 2]``.

    Args:
        input: logits ``[B, N, H, W]``.
        temperature: > 0, a number or a tensor, which may need a gradient; None for 1.
        normalized_coordinates: from -1 to 1, or in cells.
        sampling: options of :func:`.sample`, for samples ``[B, N, S, 2]`` (:mod:`sampling_argmax_cuda.compat`).
    """
    _check("spatial_soft_argmax2d", input)
    temperature = 1.0 if temperature is None else temperature
    _check_temperature("spatial_soft_argmax2d", temperature)
    beta = 1.0
    if isinstance(temperature, Tensor):
        input = _cooled(input, temperature)
    else:
        beta = 1 / temperature
    position = located("spatial_soft_argmax2d", input, sampling, beta)
    return _normalized(position, *input.shape[2:]) if normalized_coordinates else position


class SpatialSoftArgmax2d(nn.Module):
    """:func:`spatial_soft_argmax2d` as a module; with ``sampling`` samples in training and positions in evaluation.

    Args:
        temperature: as :func:`spatial_soft_argmax2d`.
        normalized_coordinates: as :func:`spatial_soft_argmax2d`.
        sampling: as :func:`spatial_soft_argmax2d`.
    """

    def __init__(self, temperature: Tensor | float | None = None, normalized_coordinates: bool = True, *,
                 sampling: Mapping | None = None) -> None:  # fmt: skip
        super().__init__()
        self.temperature = 1.0 if temperature is None else temperature
        self.normalized_coordinates, self.sampling = normalized_coordinates, sampling

    def extra_repr(self) -> str:
        text = f"temperature={self.temperature}, normalized_coordinates={self.normalized_coordinates}"
        return text if self.sampling is None else f"{text}, sampling={self.sampling}"

    def forward(self, input: Tensor) -> Tensor:
        """Positions ``[B, N, 2]``, or samples ``[B, N, S, 2]``, of logits ``[B, N, H, W]``."""
        sampling = self.sampling if self.training else None
        return spatial_soft_argmax2d(input, self.temperature, self.normalized_coordinates, sampling=sampling)
