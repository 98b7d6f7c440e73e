"""Random rows of logits, targets and weights for the tests of losses and regularisers."""

import numpy as np
import torch

GRIDS = ((7,), (5, 6), (3, 4, 5))
SAMPLING = {"num_samples": 5, "tau": 0.7, "seed": 3}


def problem(grid=(5, 6), rows=(2, 3), dtype=torch.float64, seed=0):
    """Logits, a target inside the map and weights in (0, 2)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*rows, *grid, generator=generator, dtype=dtype) * 2
    target = torch.rand(*rows, len(grid), generator=generator, dtype=dtype)
    target = target * torch.tensor(grid[::-1], dtype=dtype)
    weight = torch.rand(rows, generator=generator, dtype=dtype) * 2
    return logits, target, weight


def positions(grid) -> np.ndarray:
    """[N, d] cells in row-major order, x first."""
    return np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij")[::-1], -1).reshape(-1, len(grid))
