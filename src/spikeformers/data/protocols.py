"""What a configuration of data offers, and the source of samples behind it."""
# Shapes: T time steps, C channels, H W pixels.

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch


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


class Data(Protocol):
    """What a configuration offers; the fields that all of them have.

    `task` is the name of the task that its samples are for, see `evaluation.task`; `classified` says that a sample's label is its class,
    and nothing else is known of it.
    """

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
