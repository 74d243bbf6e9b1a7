"""The samples that are trained on and tested on, and what happens to broken files among them."""
# Shapes: T time steps, C channels, H W pixels.

import warnings
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch.utils.data import Dataset

from .protocols import Data
from .randomness import drawing_from, stable_seed
from .reading import NO_IMAGE, NOT_THE_FILE, UNREADABLE
from .splits import fold_of, held_out_of

PADDING_LABEL = -100  # torch's cross_entropy leaves such samples out, and so must every count


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
        """Warns of classes without a sample, which an accuracy over the classes that occur would hide."""
        there = np.bincount(np.asarray(self.source.labels, int)[self.indices], minlength=len(self.classes))
        absent = [name for name, count in zip(self.classes, there, strict=False) if not count]
        if absent and len(self):
            names = ", ".join(absent[:5]) + ", ..." * (len(absent) > 5)
            kind = "training" if self.training else "test"
            warnings.warn(
                f"no {kind} sample is of {len(absent)} of the {len(self.classes)} classes: {names}", stacklevel=3
            )

    def __len__(self):
        return len(self.indices)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample; some data sets have to open a file to know it."""
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
        return f"{len(broken)} of {len(self):,} could not be read and were left out: {names}" + ", ..." * (
            len(broken) > 3
        )

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
                    raise ValueError(
                        f"cannot read {where} ({error}); mend it, or leave data.strict (--strict) out"
                    ) from None
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
        with drawing_from(
            0
        ) as draw_from:  # generators are put back once for all of them, which costs as much as an augmentation
            for index, draw in keys:
                sample, label, _ = self.read(index)
                draw_from(stable_seed(self.seed, draw, index))
                items.append((self.transform(sample), (label, index) if self.numbered else label))
        return items


class TestSet(_Samples):
    """Test samples. Item i is (tensor, label); item ~i (below zero) is the same sample as padding, with the label
    PADDING_LABEL, which the sample that replaces a broken file has, too. Those `held_out` are the training samples of data.holdout
    instead."""

    __test__ = False  # pytest: the name is no test
    training = False
    unlabelled = False

    def __getitem__(self, key):
        index = key if key >= 0 else ~key
        sample, label, readable = self.read(index)
        return self.transform(sample), label if key >= 0 and readable and not self.unlabelled else PADDING_LABEL


class CalibrationSet(_Samples):
    """Training samples prepared as in a test. Item i is (tensor, label), with PADDING_LABEL for the sample that replaces a broken file."""

    training = True

    def __init__(self, data: Data):
        super().__init__(data)
        self.transform = data.transform(training=False)

    def __getitem__(self, index):
        sample, label, readable = self.read(index)
        return self.transform(sample), label if readable else PADDING_LABEL
