"""N-MNIST: handwritten digits that an event camera sees while it makes three saccades before a screen.

Source: Orchard et al., "Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades", Frontiers in Neuroscience, 2015;
www.garrickorchard.com/datasets/n-mnist. Licence: CC BY-SA 4.0.
"""

from pathlib import Path

import numpy as np

from .._arrays import Arrays
from .._events import Events
from ..download import Archive
from ..framing import Framing
from ..readers import in_order
from ._base import EventDataset, register_dataset
from ._layout import DIGITS, by_class

MENDELEY = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files"


@register_dataset("nmnist")
class NMNIST(EventDataset):
    """60,000 training and 10,000 test recordings of 34 x 34 pixels, in the publisher's folders Train/DIGIT/*.bin and Test/DIGIT/*.bin, or
    a small packed set in nmnist.npz (see `PackedNMNIST`). The split is the publisher's, which is that of MNIST."""

    sensor = (34, 34)
    classes = DIGITS
    layout = "N-MNIST lies in {root}/Train/DIGIT/*.bin and {root}/Test/DIGIT/*.bin: --data.download true fetches it"
    archives = (
        Archive(
            "Train",
            "Train.zip",
            f"{MENDELEY}/39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
            "20959b8e626244a1b502305a9e6e2031",
        ),
        Archive(
            "Test",
            "Test.zip",
            f"{MENDELEY}/05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
            "69ca8762b2fe404d9b9bad1103e97832",
        ),
    )

    @property
    def packed(self) -> Path | None:
        """The file of packed recordings, where there is one."""
        path = self.root / "nmnist.npz"
        return path if path.is_file() else None

    def recordings(self, training):
        return by_class(self.there("Train" if training else "Test"), self.classes, (".bin",))

    def source(self, training):
        return PackedNMNIST(self.packed, training, self.options.framing) if self.packed else super().source(training)

    def download(self):
        if not self.packed:
            super().download()


class PackedNMNIST:
    """N-MNIST recordings end to end in one .npz: SPLIT_t (microseconds), SPLIT_x, SPLIT_y, SPLIT_p, SPLIT_offsets and
    SPLIT_labels, where SPLIT is train or test; recording i is [offsets[i], offsets[i + 1]). They stay in memory.

    Args:
        path: the file.
        training: whether the training or the test recordings.
        framing: how they become frames.
    Raises:
        ValueError: the file is damaged, lacks arrays, or holds such as do not fit each other.
    """

    classes = list(DIGITS)

    def __init__(self, path: Path, training: bool, framing: Framing):
        self.path, self.framing = path, framing
        split = "train" if training else "test"
        names = [f"{split}_{key}" for key in ("t", "x", "y", "p", "offsets", "labels")]
        try:
            arrays = Arrays(path)
            held = arrays.read([name for name in names if name in arrays.held])
        except Exception as error:  # whatever NumPy and zipfile raise at what is damaged
            raise ValueError(f"cannot read {path} ({error}); fetch it again, or set data.root") from None
        if not held:
            raise ValueError(
                f"{path} holds no {split} recordings; give --data.folds 5 to cross-validate on those that it holds"
            )
        if missing := [name for name in names if name not in held]:
            raise ValueError(f"{path} lacks the arrays {', '.join(missing)}; fetch it again, or set data.root")
        *self.columns, offsets, labels = (held[name] for name in names)
        if not _fit(*self.columns, offsets, labels):
            raise ValueError(
                f"the arrays in {path} do not fit each other (columns t, x, y, p of one length, p of 0 and 1, offsets that rise within "
                "it, labels of 0 to 9); fetch it again, or set data.root"
            )
        self.offsets, self.labels = offsets.tolist(), labels.tolist()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        where = self.where(index)
        return self.framing.count(self.framing.place(self.events(index), where), where), self.labels[index]

    def events(self, index: int) -> Events:
        """Recording `index`."""
        t, x, y, p = (column[self.offsets[index] : self.offsets[index + 1]] for column in self.columns)
        t, x, y, p = in_order(self.where(index), t.astype(np.int64), x.astype(np.int32), y.astype(np.int32), p)
        return Events(t, x, y, p)

    def where(self, index):
        """What messages call a sample."""
        return f"{self.path} (recording {index})"


def _fit(t, x, y, p, offsets, labels):
    return (
        all(array.ndim == 1 and array.dtype.kind in "iu" for array in (t, x, y, p, offsets, labels))
        and len(t) == len(x) == len(y) == len(p)
        and len(offsets) == len(labels) + 1
        and 0 <= min(offsets) <= max(offsets) <= len(t)
        and not (offsets[1:] < offsets[:-1]).any()
        and np.isin(labels, range(10)).all()
        and np.isin(p, (0, 1)).all()
    )
