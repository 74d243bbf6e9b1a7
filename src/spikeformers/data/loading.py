"""From a data set's samples to batches: what is drawn at random, which process sees what, and what happens to broken files.

Configurations (`ImageData`, `EventData`) say which samples there are and how they become tensors; this is the rest.
"""
# Shapes: T time steps, B batch, C channels, H W pixels.

import hashlib
import math
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from .reading import NO_IMAGE, NOT_THE_FILE, UNREADABLE, upright_image

PADDING_LABEL = -100  # torch's cross_entropy leaves such samples out; so must whoever counts


class Source(Protocol):
    """Labelled samples before any transform: images, frames [T, C, H, W] of events, or images with what they show.

    `classes` are the classes' names, `labels` the label of each sample (0 where an image has no single one). A source whose
    neighbours lie in one file may have `shards`: the number of samples in each file, in order; training then shuffles the files,
    and samples among a few of them.
    """

    classes: Sequence[str]
    labels: Sequence[int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[object, int]: ...

    def where(self, index: int) -> str:
        """The sample's file, for people."""


class Measured:
    """What a configuration is to whoever measures a network on it, see `measure.batches_of`."""

    classified: ClassVar[bool] = False

    def test_batches(self) -> DataLoader:
        """The test samples, as of `test_loader`."""
        return test_loader(TestSet(self))

    def calibration_batches(self, samples: int = 256) -> DataLoader:
        """So many training samples, drawn evenly and always the same, prepared as in a test."""
        chosen = CalibrationSet(self)
        places = random.Random(0).sample(range(len(chosen)), min(samples, len(chosen)))
        return DataLoader(Subset(chosen, places), self.batch_size, num_workers=self.workers, collate_fn=self.collate)


class Data(Protocol):
    """What a configuration offers; the fields that all of them have. `task` is the name of what its samples are for, see
    `evaluation.task`; `classified` says that a sample's label is its class, and nothing else is known of it."""

    name: str
    batch_size: int
    workers: int
    strict: bool
    folds: int
    fold: int
    holdout: int
    repeats: int
    shape: tuple[int, ...]
    task: str
    classified: bool

    def source(self, training: bool) -> Source: ...

    def transform(self, training: bool): ...

    def collate(self, samples: Sequence[tuple[object, int]]) -> tuple: ...

    def read(self, path: str | Path) -> torch.Tensor: ...


def stable_seed(*key) -> int:
    """A 63-bit seed that is the same for the same numbers on every machine, and unrelated for neighbouring ones."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


def _draw_from(seed):
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reset the GPU's generator as well


@contextmanager
def drawing_from(seed: int):
    """Inside, Python, NumPy and torch (on the CPU) draw from `seed`; outside they go on as if nothing had happened. Yields what
    begins anew with another seed."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _draw_from(seed)
    try:
        yield _draw_from
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def fold_of(labels: Sequence[int], folds: int) -> np.ndarray:
    """The fold, 1 to `folds`, in which each sample is tested: classes evenly spread, the same on every machine.

    Raises:
        ValueError: a class has fewer samples than there are folds.
    """
    labels = np.asarray(labels)
    result = np.zeros(len(labels), int)
    started = 0
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        if len(members) < folds:
            raise ValueError(f"data.folds is {folds}, but the class {label} has only {len(members)} samples; give fewer folds")
        order = np.random.default_rng(stable_seed("folds", int(label))).permutation(len(members))
        result[members[order]] = (started + np.arange(len(members))) % folds + 1
        started += len(members)
    return result


def check_holdout(data: Data):
    """
    Raises:
        ValueError: data.holdout is given with data.folds.
    """
    if data.holdout and data.folds > 1:
        raise ValueError("data.folds tests on training samples already; leave out data.holdout or data.folds")


def held_out_of(labels: Sequence[int], count: int) -> np.ndarray:
    """Which `count` samples are held out of training, as bools: classes as evenly as they come, the same on every machine.

    Raises:
        ValueError: nothing would be left to train on.
    """
    labels = np.asarray(labels)
    if count >= len(labels):
        raise ValueError(f"data.holdout is {count}, and there are only {len(labels)} training samples; give fewer")
    order = np.random.default_rng(stable_seed("holdout")).permutation(len(labels))
    rank = np.empty(len(labels), int)  # of each sample among those of its class, in this order
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    chosen = np.zeros(len(labels), bool)
    chosen[order[np.argsort(rank[order], kind="stable")[:count]]] = True
    return chosen


class _Samples(Dataset):
    """The readable samples of a source, tensors of `shape` [C, H, W] or [T, C, H, W]. `unreadable` marks those that were not,
    in all worker processes together."""

    training: bool

    def __init__(self, data: Data, held_out: bool = False):
        self.data, self.held_out = data, held_out
        self.source = data.source(self.training or held_out or data.folds > 1)
        self.classes = list(self.source.classes)
        self.transform = data.transform(self.training)
        self.indices = range(len(self.source))
        if data.folds > 1:
            tested = fold_of(self.source.labels, data.folds) == data.fold
            (indices,) = np.nonzero(~tested if self.training else tested)
            self.indices = indices.tolist()
        if data.holdout and (self.training or held_out):
            (indices,) = np.nonzero(held_out_of(self.source.labels, data.holdout) == held_out)
            self.indices = indices.tolist()
        self.unreadable = torch.zeros(len(self.indices), dtype=torch.bool).share_memory_()
        if data.classified:
            self._say_which_classes_are_missing()

    def _say_which_classes_are_missing(self):
        """An accuracy, which is one of the classes that occur, hides that others do not."""
        there = np.bincount(np.asarray(self.source.labels, int)[self.indices], minlength=len(self.classes))
        absent = [name for name, count in zip(self.classes, there, strict=False) if not count]
        if absent and len(self):
            names = ", ".join(absent[:5]) + ", ..." * (len(absent) > 5)
            kind = "training" if self.training else "test"
            warnings.warn(f"no {kind} sample is of {len(absent)} of the {len(self.classes)} classes: {names}", stacklevel=3)

    def __len__(self):
        return len(self.indices)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of a tensor; some data sets have to open a file to know it."""
        return self.data.shape

    @property
    def shards(self) -> Sequence[int] | None:
        """Samples per file, where that matters and the samples are all there."""
        return getattr(self.source, "shards", None) if len(self.indices) == len(self.source) else None

    @property
    def left_out(self) -> str:
        """How many samples could not be read and which the first are, for people; empty if there were none."""
        broken = self.unreadable.nonzero().flatten().tolist()
        if not broken:
            return ""
        names = ", ".join(self.where(index) for index in broken[:3])
        return f"{len(broken)} of {len(self):,} could not be read and were left out: {names}" + ", ..." * (len(broken) > 3)

    def where(self, index: int) -> str:
        """The file of sample `index`, for people."""
        return self.source.where(self.indices[index])

    def read(self, index: int) -> tuple[object, int, bool]:
        """Sample `index`, its label and True; for a broken file the next that can be read, its label and False.

        Raises:
            ValueError: a broken file in strict mode, or no file can be read.
            IndexError: there is no sample `index`; Python's loops end by it.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there is no sample {index} among {len(self)}")
        why = ""
        for place in range(index, index + len(self)):
            place %= len(self)
            if self.unreadable[place]:
                continue
            try:
                sample, label = self.source[self.indices[place]]
                return sample, label, place == index
            except UNREADABLE as error:
                if getattr(error, "errno", None) in NOT_THE_FILE:
                    raise
                where = self.where(place)
                if isinstance(error, UnidentifiedImageError):
                    error = NO_IMAGE
                elif isinstance(error, MemoryError):
                    error = f"it takes more memory than there is, {error}".removesuffix(", ")
                if self.data.strict:
                    raise ValueError(f"cannot read {where} ({error}); mend it, or leave data.strict (--strict) out") from None
                why = f" ({error})"
                warnings.warn(f"cannot read {where}{why}; it is left out", stacklevel=2)
                self.unreadable[place] = True
        raise ValueError(f"none of the {len(self)} samples can be read, such as {self.where(index)}{why}")


class TrainingSet(_Samples):
    """Augmented samples. Item (index, draw) is (tensor, label) and depends on nothing but the seed and these two: not on the
    order, the number of workers or the number of processes. In place of a broken file comes the next one. Once `numbered`,
    (label, index) stands in the label's place."""

    training = True
    numbered = False

    def __init__(self, data: Data, seed: int):
        super().__init__(data)
        self.seed = seed

    def __getitem__(self, key):
        return self.__getitems__([key])[0]

    def __getitems__(self, keys):  # torch's name for a batch of items
        items = []
        with drawing_from(0) as draw_from:  # generators are put back once for all of them, which costs as much as an augmentation
            for index, draw in keys:
                sample, label, _ = self.read(index)
                draw_from(stable_seed(self.seed, draw, index))
                items.append((self.transform(sample), (label, index) if self.numbered else label))
        return items


class TestSet(_Samples):
    """Test samples. Item i is (tensor, label); item ~i (below zero) is the same sample as padding, with the label
    PADDING_LABEL, as has what stands in for a broken file. Those `held_out` are the training samples of data.holdout instead."""

    __test__ = False  # pytest: the name is no test
    training = False

    def __getitem__(self, key):
        index = key if key >= 0 else ~key
        sample, label, readable = self.read(index)
        return self.transform(sample), label if key >= 0 and readable else PADDING_LABEL


class CalibrationSet(_Samples):
    """Training samples prepared as in a test. Item i is (tensor, label), with PADDING_LABEL for what stands in for a broken file."""

    training = True

    def __init__(self, data: Data):
        super().__init__(data)
        self.transform = data.transform(training=False)

    def __getitem__(self, index):
        sample, label, readable = self.read(index)
        return self.transform(sample), label if readable else PADDING_LABEL


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


def train_loader(
    samples: TrainingSet, rank: int = 0, world: int = 1, epoch: int = 0, accumulate: int = 1, done: int = 0
) -> DataLoader:
    """Batches (images [B, C, H, W] or sequences [T, B, C, H, W], labels [B]; lists of B images and of B targets where the task
    is detection or segmentation) of process `rank` of `world`, with B = batch_size / world / accumulate; the loader's
    `sampler.set_epoch` chooses the order and the augmentation.

    Args:
        epoch: the first epoch.
        accumulate: batches per optimiser step.
        done: batches of the first epoch that are left out because a run that continues has seen them.
    Raises:
        ValueError: batch_size cannot be shared evenly, or there are fewer samples than that.
    """
    data = samples.data
    if data.batch_size % (world * accumulate):
        by = f"{world} processes" + (f" in {accumulate} accumulated batches" if accumulate > 1 else "")
        raise ValueError(
            f"data.batch_size {data.batch_size} (over all processes) cannot be shared by {by}; "
            f"give a multiple of {world * accumulate}"
        )
    if len(samples) < data.batch_size:
        raise ValueError(f"data.batch_size is {data.batch_size} but there are only {len(samples)} training samples; give fewer")
    sampler = Shuffled(len(samples), data.batch_size, samples.seed, rank, world, epoch, data.repeats, samples.shards)
    size = data.batch_size // world // accumulate
    sampler.done = done * size
    return _loader(samples, sampler, size)


def test_loader(samples: TestSet, rank: int = 0, world: int = 1) -> DataLoader:
    """Batches, as of `train_loader`, of process `rank` of `world`; all processes together see every test sample once, and
    padding labelled PADDING_LABEL (or with the target None).

    Args:
        samples: what is tested on.
        rank, world: which of how many processes.
    """
    return _loader(samples, Shared(len(samples), rank, world), max(1, samples.data.batch_size // world))


test_loader.__test__ = False


def collate(samples: Sequence[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [C, H, W] -> [B, C, H, W], sequences [T, C, H, W] -> [T, B, C, H, W]; labels [B], or [B, 2] with indices."""
    tensors, labels = zip(*samples, strict=True)
    return torch.stack(tensors, dim=0 if tensors[0].ndim == 3 else 1), torch.tensor(labels)


def collate_dense(samples: Sequence[tuple[tuple[torch.Tensor, object], int]]) -> tuple[list[torch.Tensor], list]:
    """Pairs (image [C, H, W], target) of any sizes -> images and targets; None is the target of padding (label PADDING_LABEL)."""
    images = [image for (image, _), _ in samples]
    return images, [None if label == PADDING_LABEL else target for (_, target), label in samples]


def read_image(path: str | Path) -> Image.Image:
    """An image file in RGB, upright as the camera says (EXIF), see `reading.stored_image`.

    Raises:
        ValueError: the file is missing or is no image.
    """
    try:
        return upright_image(path)
    except FileNotFoundError:
        raise ValueError(f"no image file {path}; check the path") from None
    except UNREADABLE as error:
        if str(error) == NO_IMAGE:
            raise ValueError(f"{path} is not an image that Pillow can read; give a PNG, JPEG, WebP or the like") from None
        raise ValueError(f"cannot read the image {path} ({error}); check that it is a complete image file") from None


def _loader(samples, sampler, batch_size):
    return DataLoader(
        samples,
        batch_size,
        sampler=sampler,
        num_workers=samples.data.workers,
        collate_fn=samples.data.collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=samples.data.workers > 0,
        generator=torch.Generator(),  # workers get their seeds from here, not from the training's random numbers
    )
