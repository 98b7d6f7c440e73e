"""``dsntnn``: its functions, with the same names, arguments and results, and ``sampling``.

    from sampling_argmax_cuda.compat import dsntnn      # was: import dsntnn

Maps are ``[B, L, *axes]``, positions x, y, z, normalized so that the borders of a map are at -1 and 1 (``cell`` in
:mod:`.coords`: ``(2 e + 1) / W - 1``). Nibali et al., "Numerical Coordinate Regression with Convolutional Neural Networks", 2018.

Losses of positions ``[B, L, d]`` take samples ``[B, L, S, d]`` too and are their mean over samples then: what ``dsnt(...,
sampling=...)`` gives makes the loss the expectation of the error, that of sampling-argmax.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..coords import convert_coords
from ..distances import metric_of
from .drawing import located, log_of

_Coords = TypeVar("_Coords", Tensor, float)
_EPS = 1e-24  # what logarithms and a Gaussian's sum are kept away from 0 by


def normalized_linspace(length: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """The normalized coordinates ``(2 e + 1) / length - 1`` of the cells of an axis."""
    return (2 * torch.arange(length, dtype=dtype, device=device) + (1 - length)) / length  # as far to both sides


def linear_expectation(probs: Tensor, values: Sequence[Tensor]) -> Tensor:
    """``sum_i p_i v_a(i)`` of maps ``[B, L, *axes]``, with values of the cells of each axis in the maps' order: ``[B, L, d]``.

    Values are ``[n]``, or ``[B, L, n]``.
    """
    axes = probs.dim() - 2
    if len(values) != axes:
        raise ValueError(f"linear_expectation: values must be one tensor an axis, {axes}, got {len(values)}")
    found = []
    for axis, value in enumerate(values):
        others = [2 + other for other in range(axes) if other != axis]
        found.append(((probs.sum(others) if others else probs) * value).sum(-1))
    return torch.stack(found, -1)


def _axes(heatmaps: Tensor, normalized: bool = True) -> list[Tensor]:
    """The coordinates of the cells of each axis, in the maps' order."""
    if normalized:
        return [normalized_linspace(n, heatmaps.dtype, heatmaps.device) for n in heatmaps.shape[2:]]
    return [torch.arange(n, dtype=heatmaps.dtype, device=heatmaps.device) for n in heatmaps.shape[2:]]


def soft_argmax(heatmaps: Tensor, normalized_coordinates: bool = True, *, from_logits: bool = False,
                sampling: Mapping | None = None) -> Tensor:  # fmt: skip
    """``sum_i p_i c_i`` of maps of probabilities ``[B, L, *axes]``, as they are: ``[B, L, d]``.

    Args:
        heatmaps: probabilities, as of :func:`flat_softmax`.
        normalized_coordinates: from -1 to 1 between borders, or in cells.
        from_logits: ``heatmaps`` are logits: ``soft_argmax(flat_softmax(x))`` in one pass over x.
        sampling: options of :func:`.sample`, for samples ``[B, L, S, d]`` (:mod:`sampling_argmax_cuda.compat`).
    """
    if not from_logits and sampling is None:
        return linear_expectation(heatmaps, _axes(heatmaps, normalized_coordinates)).flip(-1)
    position = located("soft_argmax", heatmaps if from_logits else log_of(heatmaps), sampling)
    if not normalized_coordinates:
        return position
    return convert_coords(position, heatmaps.shape[2:][::-1], "index", "cell")


def dsnt(heatmaps: Tensor, **kwargs) -> Tensor:
    """The differentiable spatial to numerical transform: :func:`soft_argmax`, whose arguments it takes by name."""
    return soft_argmax(heatmaps, **kwargs)


def flat_softmax(inp: Tensor) -> Tensor:
    """The softmax over all cells of each map ``[B, L, *axes]``."""
    return inp.flatten(2).softmax(-1).view(inp.shape)


def _offsets(op: str, actual: Tensor, target: Tensor) -> Tensor:
    """``[B, L, d]``, or of samples ``[B, L, S, d]``."""
    sampled = actual.dim() == target.dim() + 1
    if (actual.shape[:-2] + actual.shape[-1:] if sampled else actual.shape) != target.shape:
        raise ValueError(f"{op}: actual must be as target {tuple(target.shape)}, or samples [B, L, S, d] of it, got "
                         f"{tuple(actual.shape)}")  # fmt: skip
    return actual - (target.unsqueeze(-2) if sampled else target)


def _over_samples(losses: Tensor, target: Tensor) -> Tensor:
    return losses.mean(-1) if losses.dim() == target.dim() else losses


def euclidean_losses(actual: Tensor, target: Tensor) -> Tensor:
    """``|actual - target|``: ``[B, L]`` of positions or samples."""
    offsets = _offsets("euclidean_losses", actual, target)
    return _over_samples(metric_of(offsets.unbind(-1), "euclidean"), target)


def l1_losses(actual: Tensor, target: Tensor) -> Tensor:
    """The mean over axes of ``|actual - target|``: ``[B, L]`` of positions or samples."""
    return _over_samples(_offsets("l1_losses", actual, target).abs().mean(-1), target)


def mse_losses(actual: Tensor, target: Tensor) -> Tensor:
    """The mean over axes of ``(actual - target)^2``: ``[B, L]`` of positions or samples."""
    return _over_samples(_offsets("mse_losses", actual, target).square().mean(-1), target)


def make_gauss(means: Tensor, size: Sequence[int], sigma: float | Tensor, normalize: bool = True) -> Tensor:
    """Gaussians ``[..., *size]`` about normalized means ``[..., d]``, of width ``sigma`` in cells, over their sum or not.

    ``size`` is in the order of maps, (D,) H, W.
    """
    maps = means.new_ones(())
    for axis, n in enumerate(reversed(size)):
        offset = (normalized_linspace(n, means.dtype, means.device) - means[..., axis, None]) * (n / 2)
        line = (-0.5 * (offset / sigma).square()).exp()
        maps = maps * line.view(*line.shape[:-1], *[n if a == axis else 1 for a in reversed(range(len(size)))])
    if not normalize:
        return maps
    return maps / (maps.sum(list(range(-len(size), 0)), keepdim=True) + _EPS)


def average_loss(losses: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean of losses ``[B, L]``, of those with mask 1 where there is one; the divisor is at least 1."""
    if mask is None:
        return losses.sum() / max(losses.numel(), 1)
    if mask.shape != losses.shape:
        raise ValueError(f"average_loss: mask must be as losses {tuple(losses.shape)}, got {tuple(mask.shape)}")
    return (losses * mask).sum() / mask.sum().clamp(1)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * ((p + _EPS).log() - (q + _EPS).log())).flatten(2).sum(-1)


def _js(p: Tensor, q: Tensor) -> Tensor:
    middle = (p + q) / 2
    return (_kl(p, middle) + _kl(q, middle)) / 2


def _to_gaussian(op: str, divergence: Callable, heatmaps: Tensor, mu_t: Tensor, sigma_t: float | Tensor) -> Tensor:
    expected = (*heatmaps.shape[:2], heatmaps.dim() - 2)
    if tuple(mu_t.shape) != expected:
        raise ValueError(f"{op}: mu_t must be [B, L, d] = {list(expected)}, got {tuple(mu_t.shape)}")
    return divergence(heatmaps, make_gauss(mu_t, heatmaps.shape[2:], sigma_t))


def kl_reg_losses(heatmaps: Tensor, mu_t: Tensor, sigma_t: float | Tensor) -> Tensor:
    """``KL(p | q)`` ``[B, L]`` of maps of probabilities and the :func:`make_gauss` of ``mu_t`` and ``sigma_t`` cells."""
    return _to_gaussian("kl_reg_losses", _kl, heatmaps, mu_t, sigma_t)


def js_reg_losses(heatmaps: Tensor, mu_t: Tensor, sigma_t: float | Tensor) -> Tensor:
    """``JS(p | q)`` ``[B, L]`` of maps of probabilities and the :func:`make_gauss` of ``mu_t`` and ``sigma_t`` cells."""
    return _to_gaussian("js_reg_losses", _js, heatmaps, mu_t, sigma_t)


def variance_reg_losses(heatmaps: Tensor, sigma_t: float | Tensor) -> Tensor:
    """``sum_a (Var_a - sigma_t^2)^2`` ``[B, L]`` of maps of probabilities, in cells."""
    cells = _axes(heatmaps)
    mean = linear_expectation(heatmaps, cells).unbind(-1)
    variance = linear_expectation(heatmaps, [(c - m.unsqueeze(-1)).square() for c, m in zip(cells, mean, strict=True)])
    size = variance.new_tensor(heatmaps.shape[2:])
    return (variance * (size / 2) ** 2 - sigma_t**2).square().sum(-1)


def _size(coords: Tensor | float, size: Sequence[int] | int) -> Any:
    """Cells of the axes x, y, z, of a size (D,) H, W; of one axis the number that it is."""
    return coords.new_tensor(size).flip(-1) if isinstance(coords, Tensor) else size


def normalized_to_pixel_coordinates(coords: _Coords, size: Sequence[int] | int) -> _Coords:
    """Normalized coordinates ``[..., d]`` in pixels of images of ``size`` (D,) H, W."""
    return 0.5 * ((coords + 1) * _size(coords, size) - 1)


def pixel_to_normalized_coordinates(coords: _Coords, size: Sequence[int] | int) -> _Coords:
    """Pixels ``[..., d]`` of images of ``size`` (D,) H, W in normalized coordinates."""
    return (2 * coords + 1) / _size(coords, size) - 1
