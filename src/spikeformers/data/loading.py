"""Batches of samples."""
# Shapes: T time steps, B batch, C channels, H W pixels.

import random
from collections.abc import Collection, Sequence
from typing import ClassVar

import torch
from torch.utils.data import DataLoader, Subset

from .order import Shared, Shuffled
from .reading import image_suffixes
from .samples import PADDING_LABEL, CalibrationSet, TestSet, TrainingSet


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
        raise ValueError(
            f"data.batch_size is {data.batch_size} but there are only {len(samples)} training samples; give fewer"
        )
    sampler = Shuffled(len(samples), data.batch_size, samples.seed, rank, world, epoch, data.repeats, samples.shards)
    size = data.batch_size // world // accumulate
    sampler.done = done * size
    return _loader(samples, sampler, size)


def test_loader(samples: TestSet, rank: int = 0, world: int = 1) -> DataLoader:
    """Batches like those of `train_loader` for process `rank` of `world`. All processes together see every test sample once, and padding,
    which has the label PADDING_LABEL or the target None.

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


class Measured:
    """The batches that a configuration gives to measurements of a network, see `measure.batches_of`."""

    classified: ClassVar[bool] = False
    samples_are: ClassVar[str] = "image"
    """What a file of a sample is called, for messages."""

    @property
    def suffixes(self) -> Collection[str]:
        """In what names of files end that `read` takes."""
        return image_suffixes()

    def test_batches(self) -> DataLoader:
        """Batches of the test samples, see `test_loader`."""
        return test_loader(TestSet(self))

    def calibration_batches(self, samples: int = 256) -> DataLoader:
        """So many training samples, drawn evenly and always the same, prepared as in a test."""
        chosen = CalibrationSet(self)
        places = random.Random(0).sample(range(len(chosen)), min(samples, len(chosen)))
        return DataLoader(Subset(chosen, places), self.batch_size, num_workers=self.workers, collate_fn=self.collate)


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
