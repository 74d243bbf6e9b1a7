"""The options of event data sets: which recordings, how they become frames, how these are augmented."""
# Shapes: T time steps (frames per recording), H W pixels; channel 0 counts OFF events, channel 1 ON events.

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args, get_type_hints

import numpy as np
import torch

from ..._options import PROBABILITY, check_options
from ..._ranges import Range
from ..images import ImageData
from ..loading import Measured, collate
from ..protocols import Source
from ..splits import check_holdout
from .augment import EventAugment
from .cache import FrameCache, open_cache
from .datasets import DATASETS, EventDataset
from .framing import Framing
from .recordings import Limited

if TYPE_CHECKING:
    Names = str
else:
    Names = Literal[tuple(DATASETS)]


@dataclass
class EventData(Measured):
    """Which event recordings, how they become frames, and how these are augmented in training.

    Args:
        name: the data set; events stands for folders of one's own, root/train/CLASS/* and root/val/CLASS/*, in any format that
            is read, cifar10_saccades for CIFAR-10 or other images that move before a simulated camera (see `Saccades`).
        root: folder that holds the data.
        time_steps: frames per recording.
        split_by: what all frames of a recording have in common: the number of events, the share of its time, or the
            duration given by data.duration.
        duration: microseconds per frame with split_by duration; what comes after time_steps frames is cut off, and a
            shorter recording ends in empty frames.
        img_size: height and width of the frames in pixels; None keeps the sensor's.
        sensor: the sensor's width and height in pixels; None takes that of the data set (for cifar10_saccades 48 x 48), or for
            events what the files state.
        clip: largest count of a pixel in a frame that is kept, 0 for no limit; 1 makes frames binary.
        hflip: probability of mirroring a training recording, all its frames alike, as with all that follows.
        roll: largest shift along x and y in pixels.
        rotate: largest rotation in degrees.
        shear: largest shift along x per pixel of y.
        cutout: side in pixels of a square that is emptied, 0 for none.
        augment_one: apply to each recording one of nothing, roll, rotate, shear and cutout, drawn evenly, instead of all.
        cache: folder for frames, so that recordings are decoded once; root/frames_cache if left out. An empty string or the
            word none keeps no frames.
        download: fetch what is missing, where the publisher allows it.
        batch_size: recordings per optimiser step over all processes together.
        workers: processes that prepare frames beside each training process; the frames do not depend on it.
        strict: stop at a file that cannot be read instead of leaving it out with a warning.
        folds: if above 1, the training recordings are divided into so many parts, and one is tested on instead of the test
            recordings.
        fold: which of the parts is tested on, from 1; 0 trains all of them one after the other (cross-validation).
        repeats: times that a sample is drawn in a row, each with an augmentation of its own.
        limit: if above 0, only so many training and so many test recordings are used: the first of each class, equally many or
            one more.
        resize: how img_size is reached: events, they are scaled before they are counted, so that counts are preserved, or
            bilinear, frames as large as the sensor are interpolated (between pixels' centres, without smoothing).
        holdout: so many training recordings, evenly spread over the classes, are not trained on but tested after every epoch, so
            that the test recordings choose nothing: they are tested once, at the end.
        images: for cifar10_saccades, which of the image data sets lies in root: cifar10, mosaics, folder or another (see
            `ImageData`).
    """

    task: ClassVar[str] = "classification"
    classified: ClassVar[bool] = True
    collate = staticmethod(collate)

    name: Names = "nmnist"
    root: str = "data"
    time_steps: int = 16
    split_by: Literal["number", "time", "duration"] = "number"
    duration: int | None = None
    img_size: int | None = None
    sensor: tuple[int, int] | None = None
    clip: int = 0
    hflip: float = 0.0
    roll: int = 0
    rotate: float = 0.0
    shear: float = 0.0
    cutout: int = 0
    augment_one: bool = False
    cache: str | None = None
    download: bool = False
    batch_size: int = 16
    workers: int = 0
    strict: bool = False
    folds: int = 1
    fold: int = 0
    repeats: int = 1
    limit: int = 0
    resize: Literal["events", "bilinear"] = "events"
    images: str = "cifar10"
    holdout: int = 0

    ranges: ClassVar = {
        "time_steps": Range(least=1, most=10**5),
        "duration": Range(least=1, most=10**12),
        **dict.fromkeys(("img_size", "sensor"), Range(least=1, most=8192)),
        "clip": Range(least=0),
        "hflip": PROBABILITY,
        **dict.fromkeys(("roll", "cutout"), Range(least=0, most=8192)),
        "rotate": Range(least=0, most=360),
        "shear": Range(least=0, most=100),
        **dict.fromkeys(("batch_size", "folds", "repeats"), Range(least=1, most=10**6)),
        "workers": Range(least=0, most=256),
        **dict.fromkeys(("fold", "limit", "holdout"), Range(least=0)),
    }

    def __post_init__(self):
        check_options(self, "data", self.ranges)
        if self.sensor is not None:
            self.sensor = tuple(self.sensor)
        image_sets = get_args(get_type_hints(ImageData)["name"])
        if self.images not in image_sets:
            raise ValueError(f"data.images is {self.images!r}; give {', '.join(image_sets)}")
        if (self.split_by == "duration") != (self.duration is not None):
            raise ValueError(
                f"data.split_by is {self.split_by!r} and data.duration {self.duration}; "
                "the duration, in microseconds per frame, belongs to split_by duration and only there"
            )
        check_holdout(self)
        if not 0 <= self.fold <= self.folds:
            raise ValueError(
                f"data.fold is {self.fold}; give 1 to data.folds, which is {self.folds}, or 0 for all of them"
            )

    @property
    def channels(self) -> int:
        """OFF and ON."""
        return 2

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, 2, H, W) of a sample. Where neither sensor nor img_size is known, as with the name `events`, the first training file tells.

        Raises:
            ValueError: that file does not say, or there is none.
        """
        size = self.size or self._everything(training=True).size
        return self.time_steps, self.channels, *size

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the frames; None where files have to say."""
        return self.framing.size or self.framing.grid

    @property
    def framing(self) -> Framing:
        """How a recording becomes frames."""
        size = None if self.img_size is None else (self.img_size, self.img_size)
        sensor = self.sensor or DATASETS[self.name].sensor
        return Framing(self.time_steps, self.split_by, self.duration, sensor, size, self.resize, self.clip)

    @property
    def dataset(self) -> EventDataset:
        """The data set of that name, below the root."""
        return DATASETS[self.name](self)

    def source(self, training: bool) -> Source:
        """The training or test recordings: item i is (counts [T, 2, H, W] of small integers, label).

        Raises:
            ValueError: the data are not where `data.root` says, or cannot be downloaded.
        """
        source = self._everything(training)
        return Limited(source, self.limit) if self.limit else source

    def _everything(self, training):
        dataset = self.dataset
        if self.download:
            dataset.download()
        return dataset.source(training)

    def transform(self, training: bool) -> Callable[[np.ndarray], torch.Tensor]:
        """From counts to a tensor [T, 2, H, W] in float32, of the size of the frames, in training augmented.

        Raises:
            ValueError: the frames are larger than any memory.
        """
        framing = self.framing
        if self.size:
            framing.must_be_countable(self.size)
        augment = EventAugment(self.hflip, self.roll, self.rotate, self.shear, self.cutout, self.augment_one)
        return AugmentedFrames(framing, augment) if training else framing.tensor

    def read(self, path: str | Path) -> torch.Tensor:
        """An event file, or for cifar10_saccades an image file, as a test sample [T, 2, H, W].

        Raises:
            ValueError: the file is missing or is no such file, or nothing states the sensor's size.
        """
        framing = self.framing
        counts = framing.count(framing.place(self.dataset.read(path), path), path)
        return self.transform(training=False)(counts)

    def frame_cache(self, kind: type[FrameCache] = FrameCache, **parameters) -> FrameCache | None:
        """Where frames are kept, None if they are not.

        Args:
            kind: the class of the cache.
            parameters: what decides the frames besides the recording and these data's own settings; must be JSON.
        Raises:
            ValueError: the folder that `data.cache` names cannot be made.
        """
        for key in ("name", "time_steps", "split_by", "duration", "img_size", "sensor"):
            parameters[key] = getattr(self, key)
        if self.resize == "bilinear":
            parameters["img_size"] = None  # what is kept are the counts
        return open_cache(self.cache, self.root, parameters, kind)


@dataclass(frozen=True)
class AugmentedFrames:
    """Counts [T, 2, H, W] of any integers -> float32 [T, 2, H, W] of the framing's size, augmented."""

    framing: Framing
    augment: EventAugment

    def __call__(self, counts: np.ndarray) -> torch.Tensor:
        return self.augment(self.framing.tensor(counts))
