"""Data sets whose samples any run can draw again."""

import numpy as np
import torch
from torch.utils.data import Dataset


class EpochDataset(Dataset):
    """Samples that are a function of (seed, epoch, index) alone, in loader processes that outlive an epoch, too."""

    def __init__(self, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"data: seed must be >= 0, got {seed}")
        self.seed = seed
        # Shared, because a loader's processes have copies of all else and would stay in the epoch that they began in.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def sample(self, index: int, epoch: int) -> dict:
        """A sample as an epoch has it."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> dict:
        return self.sample(index, self.epoch)

    def generator(self, index: int, epoch: int) -> np.random.Generator:
        """What a sample's augmentation in an epoch is drawn from."""
        return np.random.default_rng((self.seed, epoch, index))
