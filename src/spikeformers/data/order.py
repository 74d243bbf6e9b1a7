"""The order in which samples are seen, and which process sees which."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from .randomness import stable_seed


class Shuffled(Sampler):
    """Keys (index, draw) of one process's share of the training samples, in a new order each epoch.

    The samples of an optimiser step are the same however many processes share them: step b is row b of
    [steps, batch_size], and process r takes every world-th column from r on. What does not fill a step is left for the
    next epoch's order. With `repeats`, an epoch takes fewer samples, each that many times in a row with an augmentation of
    its own (repeated augmentation, Hoffer et al., CVPR 2020): on several processes the copies meet in one step.

    Args:
        size: number of training samples.
        batch_size: samples of an optimiser step over all processes.
        seed: of all orders.
        rank, world: which of how many processes.
        epoch: the first one.
        repeats: how often an epoch takes each of its samples.
        shards: numbers of samples of the files that they lie in, which are read one after the other; None: they lie
            anywhere.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        epoch: int = 0,
        repeats: int = 1,
        shards: Sequence[int] | None = None,
    ):
        self.size, self.batch_size, self.seed, self.rank, self.world = size, batch_size, seed, rank, world
        self.epoch, self.repeats, self.shards = epoch, repeats, shards
        self.done = 0  # keys of the first epoch that a continued run has already seen

    def set_epoch(self, epoch: int):
        if epoch != self.epoch:
            self.epoch, self.done = epoch, 0

    def __len__(self):
        return self.size // self.batch_size * (self.batch_size // self.world)

    def order(self) -> torch.Tensor:
        """The epoch's permutation [size] of all samples: any, or files shuffled and the samples of every 8 files among themselves."""
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self.epoch))
        if self.shards is None:
            return torch.randperm(self.size, generator=generator)
        files = torch.arange(self.size).split(list(self.shards))
        shuffled = torch.randperm(len(files), generator=generator).tolist()
        parts = [torch.cat([files[i] for i in shuffled[start : start + 8]]) for start in range(0, len(files), 8)]
        return torch.cat([part[torch.randperm(len(part), generator=generator)] for part in parts])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.epoch * self.repeats
        places = torch.arange(self.size // self.batch_size * self.batch_size).view(-1, self.batch_size)
        places = places[:, self.rank :: self.world].flatten()[self.done :]
        order = self.order()
        for place in places.tolist():
            yield int(order[place // self.repeats]), first + place % self.repeats


class Shared(Sampler):
    """Indices of one process's share of the test samples. All shares are equally long: where the samples run out, ~index
    marks a padding sample that must not count.

    Args:
        size: number of test samples.
        rank, world: which of how many processes.
    """

    def __init__(self, size: int, rank: int = 0, world: int = 1):
        self.size, self.rank, self.world = size, rank, world

    def __len__(self):
        return math.ceil(self.size / self.world)

    def __iter__(self) -> Iterator[int]:
        for index in range(self.rank, len(self) * self.world, self.world):
            yield index if index < self.size else ~(self.size - 1)
