"""The losses of associative embedding: maps of joints, and tags that are equal within a person and differ between people."""

from typing import NamedTuple

import torch
from torch import Tensor


class TagLoss(NamedTuple):
    """``pull`` and ``push`` of each image, ``[B]``."""

    pull: Tensor
    push: Tensor


def tag_loss(tags: Tensor, place: Tensor, visible: Tensor) -> TagLoss:
    """How far the tags of a person are apart, and how close those of different people.

    With t the tag at a joint, ``m_n`` the mean of the ``K_n`` visible joints of person n, and N the people that have any:
    ``pull = 1 / N sum_n 1 / K_n sum_k (t_nk - m_n)^2``, ``push = 1 / (N (N - 1)) sum_{i<j} exp(-(m_i - m_j)^2)``, which is half
    the mean over pairs and 0 for fewer than two people. No step waits for the device, and no number of people is too many.

    Args:
        tags: ``[B, K, H, W]``.
        place: ``[B, P, K]``, int64, the cell ``y W + x`` of each joint of each of P people.
        visible: ``[B, P, K]``, 0 for a joint that does not count, wherever its place is.
    """
    if tags.dim() != 4 or place.dim() != 3 or place.shape != visible.shape or place.shape[::2] != tags.shape[:2]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (tags, place, visible))
        raise ValueError(f"tag_loss: needs tags [B, K, H, W], place and visible [B, P, K], got {shapes}")
    seen = visible > 0
    inside = torch.where(seen, place, 0).transpose(1, 2)  # [B, K, P]
    found = tags.float().flatten(2).gather(2, inside).transpose(1, 2)
    found = torch.where(seen, found, 0)
    joints = seen.sum(2)
    mean = found.sum(2) / joints.clamp(min=1)
    there = joints > 0
    people = there.sum(1)
    spread = torch.where(seen, (found - mean.unsqueeze(2)).square(), 0).sum(2) / joints.clamp(min=1)
    near = (-(mean.unsqueeze(2) - mean.unsqueeze(1)).square()).exp()
    pairs = (there.unsqueeze(2) & there.unsqueeze(1)).triu(1)
    push = torch.where(pairs, near, 0).sum((1, 2)) / (people * (people - 1)).clamp(min=1)
    return TagLoss(spread.sum(1) / people.clamp(min=1), push)


def detection_loss(maps: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Mean over joints and cells ``[B]`` of ``mask (maps - truth)^2``; ``mask`` ``[B, H, W]`` is 0 where nobody knows."""
    known = torch.where(mask.unsqueeze(1) > 0, maps.float(), truth)  # what is there, NaN too, goes nowhere
    return (mask.unsqueeze(1) * (known - truth).square()).mean((1, 2, 3))
