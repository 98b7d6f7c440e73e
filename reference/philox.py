"""Philox4x32-10 on int64 tensors, and the random numbers that the operators read. See README.md, "Randomness"."""

import math

import torch
from torch import Tensor

GUMBEL, PAIR, SINGLE, NORMAL = range(4)
_MASK = 0xFFFFFFFF


def philox4x32(c0, c1, c2, c3, k0, k1, rounds: int = 10) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random123's Philox4x32: four words from a counter and a key, all 32-bit numbers in int64 tensors."""
    for _ in range(rounds):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2  # wraps modulo 2**64, which keeps all bits of the product
        c0, c1, c2, c3 = (p1 >> 32 & _MASK) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32 & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = k0 + 0x9E3779B9 & _MASK, k1 + 0xBB67AE85 & _MASK
    return c0, c1, c2, c3


def words(key, rows, samples, index, stream: int) -> Tensor:
    """``word(stream, i)`` of a (row, sample) for int64 tensors that broadcast; ``key`` is an int64 scalar tensor."""
    rows, samples, index = torch.broadcast_tensors(rows, samples, index)
    tag = stream | rows >> 32 << 8
    counter = (index >> 2 & _MASK, rows & _MASK, samples & _MASK, tag & _MASK)
    out = philox4x32(*counter, key & _MASK, key >> 32 & _MASK)
    return torch.stack(out, -1).gather(-1, (index & 3)[..., None])[..., 0]


def unit(word: Tensor, bits: int = 32) -> Tensor:
    """The centre of the word's cell in (0, 1), float64."""
    return (word.double() + 0.5) / 2.0**bits


def gumbel(word: Tensor) -> Tensor:
    """``-log(-log(1 - u))``: small words are the winners, whose digits log1p keeps."""
    return -torch.log(-torch.log1p(-unit(word)))


def fields(key, rows, samples, index) -> Tensor:
    """16-bit field ``index`` of the SINGLE stream: word ``index / 2``, its low half for even indices."""
    return words(key, rows, samples, index >> 1, SINGLE) >> 16 * (index & 1) & 0xFFFF


def normal(key, rows, samples, index) -> Tensor:
    """Standard normal number ``index``: Box-Muller on words ``index & ~1`` (radius) and ``index | 1`` (angle)."""
    radius = torch.sqrt(-2 * torch.log(unit(words(key, rows, samples, index & ~1, NORMAL))))
    angle = 2 * math.pi * unit(words(key, rows, samples, index | 1, NORMAL))
    return radius * torch.where(index % 2 == 0, torch.cos(angle), torch.sin(angle))


def jitter(field: Tensor, basis: str) -> Tensor:
    """Quantile function of the uniform or triangular basis at a 16-bit field."""
    u = unit(field, 16)
    if basis == "uniform":
        return u - 0.5
    v = 2 * u - 1
    return torch.sign(v) * (1 - torch.sqrt(1 - v.abs()))


def seed_words(seed, device) -> tuple[Tensor, Tensor]:
    """Key and first row, from an integer or an int64 tensor of one or two elements."""
    seed = torch.as_tensor(seed, dtype=torch.int64, device=device).reshape(-1)
    return seed[0], seed[1] if seed.numel() > 1 else torch.zeros_like(seed[0])


def numbering(logits: Tensor, num_samples: int, seed) -> tuple[Tensor, Tensor, Tensor]:
    """Key, row numbers ``[B, K, 1, 1]`` and sample numbers ``[S, 1]`` of a call."""
    key, first_row = seed_words(seed, logits.device)
    batch, keypoints = logits.shape[:2]
    rows = first_row + torch.arange(batch * keypoints, device=logits.device).view(batch, keypoints, 1, 1)
    return key, rows, torch.arange(num_samples, device=logits.device)[:, None]
