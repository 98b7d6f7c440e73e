"""Samples and batches that any run can replay: functions of (seed, epoch, index), whatever loads them.

A data set gives a sample as an epoch has it, an order goes through the samples, every rank has its part of a global batch, and
a loader goes on within an epoch.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


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


class EpochOrder(Sampler[int]):
    """The order of a data set's samples: for training a permutation that is a function of (seed, epoch), else as they are.

    It tells the epoch on to the data set. Lightning tells it to a loader's ``batch_sampler.sampler``, and to nothing else.

    Args:
        dataset: if it has ``together``, so many consecutive samples follow one another in every order.
        train: draw a permutation.
        seed: of the permutations.
        fixed: keep the permutation of epoch 0, of which an overfitted run sees the first batches again and again.
        samples: how many of the samples there are to train on, which ones a function of the seed; None for all of them.
    """

    def __init__(
        self, dataset: Dataset, train: bool, seed: int, fixed: bool = False, samples: int | None = None
    ) -> None:
        self.dataset, self.train, self.seed, self.fixed, self.epoch = dataset, train, seed, fixed, 0
        self.together = getattr(dataset, "together", 1)
        self.samples = len(dataset) if samples is None or not train else samples
        if self.samples > len(dataset) or self.samples % self.together:
            whole = f" and a multiple of {self.together}" if self.together > 1 else ""
            raise ValueError(f"data: train_samples must be at most {len(dataset)}{whole}, got {samples}")

    def set_epoch(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)
        self.epoch = 0 if self.fixed else epoch

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[int]:
        if not self.train:
            return iter(range(len(self)))
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self) // self.together)
        firsts = self._chosen()[order] * self.together
        return iter((firsts[:, None] + np.arange(self.together)).ravel().tolist())

    def _chosen(self) -> np.ndarray:
        """The groups of samples to train on: of fewer samples a part of those of more."""
        groups = len(self.dataset) // self.together
        if len(self) == len(self.dataset):
            return np.arange(groups)
        return np.random.default_rng(self.seed).permutation(groups)[: len(self) // self.together]


class GlobalBatches(Sampler[list[int]]):
    """Batches of a rank. Every global batch is a slice of one order of the data, cut into equal parts by rank.

    With ``accumulate`` the batches of so many calls are one global batch. Training leaves out the last, incomplete one;
    evaluation has every sample exactly once, and equally many batches a rank. An epoch begins at batch ``start``, once.
    """

    def __init__(self, sampler: EpochOrder, batch_size: int, rank: int, world: int, accumulate: int = 1) -> None:
        whole = batch_size * world * accumulate
        if sampler.train and len(sampler) < whole:
            raise ValueError(f"data: {len(sampler)} training samples are fewer than one global batch of {whole} "
                             "(--data.batch_size)")  # fmt: skip
        self.sampler, self.batch_size, self.start = sampler, batch_size, 0
        self.rank, self.world, self.accumulate = rank, world, accumulate

    def __len__(self) -> int:
        step = self.batch_size * self.world
        if self.sampler.train:
            return len(self.sampler) // (step * self.accumulate) * self.accumulate
        return max(1, -(-len(self.sampler) // step))

    def __iter__(self) -> Iterator[list[int]]:
        parts, start, self.start = len(self) * self.world, self.start, 0
        order = np.fromiter(self.sampler, int)
        if self.sampler.train:
            order = order[: parts * self.batch_size]
        for part in np.array_split(order, parts)[self.rank + start * self.world :: self.world]:
            yield part.tolist()


class EpochLoader(DataLoader):
    """A loader of :class:`GlobalBatches` whose state is the number of batches that an epoch has had."""

    given = 0

    def __iter__(self) -> Iterator[dict]:
        # A generator begins with the first batch, not when it is made: Lightning makes it before it tells the epoch.
        self.given = self.batch_sampler.start
        for batch in super().__iter__():
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batch_sampler.start = state["given"] % len(self)
