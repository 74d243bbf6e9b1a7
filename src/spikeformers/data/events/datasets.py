"""Event data sets: N-MNIST, DVS128 Gesture, CIFAR10-DVS, N-Caltech101, HAR-DVS, events made from images, and folders of one's own.

Each is a list of recordings with labels that becomes frames of counts [T, 2, H, W]; `loading` makes batches of them.
"""
# Shapes: T time steps (frames per recording), H W pixels; channel 0 counts OFF events, channel 1 ON events.

import os
import shutil
import tempfile
import urllib.request
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, get_args, get_type_hints

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.datasets import utils

from ..._options import PROBABILITY, Range, check_options
from ..images import ImageData
from ..loading import UNREADABLE, Source, check_holdout, collate
from ..reading import class_folders, files_in, tell_left_out, upright_image
from ._arrays import Arrays, must_be_a_file
from ._events import Events
from .augment import Augment
from .cache import FrameCache, ImageFrameCache
from .frames import inside, integrate, must_be_countable, rescale
from .readers import SUFFIXES, read_events
from .readers._shared import in_order
from .saccades import Saccades, earlier

SENSORS = {  # width and height in pixels
    "nmnist": (34, 34),
    "dvs128_gesture": (128, 128),
    "cifar10_dvs": (128, 128),
    "ncaltech101": (240, 180),
    "har_dvs": (346, 260),
    "cifar10_saccades": (48, 48),
}
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GESTURES = (
    "hand_clapping",
    "right_hand_wave",
    "left_hand_wave",
    "right_arm_clockwise",
    "right_arm_counter_clockwise",
    "left_arm_clockwise",
    "left_arm_counter_clockwise",
    "arm_roll",
    "air_drums",
    "air_guitar",
    "other_gestures",
)


@dataclass
class EventData:
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
    collate = staticmethod(collate)

    name: Literal["nmnist", "dvs128_gesture", "cifar10_dvs", "ncaltech101", "har_dvs", "cifar10_saccades", "events"] = (
        "nmnist"
    )
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
        **dict.fromkeys(("fold", "limit"), Range(least=0)),
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
            raise ValueError(f"data.fold is {self.fold}; give 1 to data.folds, which is {self.folds}, or 0 for all of them")

    @property
    def channels(self) -> int:
        """OFF and ON."""
        return 2

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a sample: (T, 2, H, W). For `events` without sensor and img_size, the first training file says.

        Raises:
            ValueError: that file does not say, or there is none.
        """
        size = self.size or self._everything(training=True).size
        return self.time_steps, self.channels, *size

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the frames; None where files have to say."""
        if self.img_size is not None:
            return self.img_size, self.img_size
        return self.counted

    @property
    def counted(self) -> tuple[int, int] | None:
        """Height and width of the grid on which events are counted; None where files have to say."""
        if self.img_size is not None and self.resize == "events":
            return self.img_size, self.img_size
        sensor = self.sensor or SENSORS.get(self.name)
        return sensor and (sensor[1], sensor[0])

    def source(self, training: bool):
        """The training or test recordings: item i is (counts [T, 2, H, W] of small integers, label).

        Raises:
            ValueError: the data are not where `data.root` says, or cannot be downloaded.
        """
        source = self._everything(training)
        return Limited(source, self.limit) if self.limit else source

    def _everything(self, training):
        if self.download:
            _download(self.name, Path(self.root))
        return SOURCES[self.name](self, training)

    def transform(self, training: bool) -> Callable[[np.ndarray], torch.Tensor]:
        """From counts to a tensor [T, 2, H, W] in float32, of the size of the frames, in training augmented.

        Raises:
            ValueError: the frames are larger than any memory.
        """
        if self.size:
            must_be_countable(self.time_steps, self.size)
        augment = Augment(self.hflip, self.roll, self.rotate, self.shear, self.cutout, self.augment_one)
        size = self.size if self.resize == "bilinear" else None
        return Transform(self.clip, size, augment if training else None)

    def read(self, path: str | Path) -> torch.Tensor:
        """An event file, or for cifar10_saccades an image file, as a test sample [T, 2, H, W].

        Raises:
            ValueError: the file is missing or is no such file, or nothing states the sensor's size.
        """
        frames = self.integrate(self._recorded(path), path)
        return self.transform(training=False)(frames)

    def _recorded(self, path):
        if self.name != "cifar10_saccades" or str(path).lower().endswith(SUFFIXES):
            return read_events(path)
        try:
            return self.saccades(upright_image(path))
        except UNREADABLE as error:
            raise ValueError(f"cannot read the image {path} ({error}); give an image file, or a recording") from None

    @property
    def saccades(self) -> Saccades:
        """The camera that watches the images of cifar10_saccades."""
        return Saccades(self.sensor or SENSORS["cifar10_saccades"])

    def integrate(self, events: Events, where: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
        """Counts [T, 2, H, W], int32, on the grid `counted` or the sensor's, of a recording from the file `where`.

        Args:
            size: height and width that the frames must have; None takes them as they are.
        Raises:
            ValueError: nothing states the sensor's size, or the frames have another size.
        """
        events, sensor = self.within(events, where)
        own = self.counted or sensor
        if size is not None and own != size:
            raise ValueError(
                f"its sensor has {sensor[1]}x{sensor[0]} pixels but the first file's {size[1]}x{size[0]}; "
                "data.img_size brings all to one size"
            )
        events = rescale(events, sensor, own)
        try:
            return integrate(events, self.time_steps, split_by=self.split_by, duration=self.duration, size=own)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    def within(self, events: Events, where: str | Path) -> tuple[Events, tuple[int, int]]:
        """The events on the sensor, with a warning that counts the others, and the sensor's height and width.

        Raises:
            ValueError: nothing states the sensor's size, or most events lie outside it.
        """
        width, height = self.sensor or SENSORS.get(self.name) or (events.width, events.height)
        if width is None or height is None:
            raise ValueError(
                f"{where} does not state its sensor's size; give its width and height, such as --data.sensor [346,260]"
            )
        given, events = len(events) + events.dropped, inside(events, (height, width))
        if len(events) < 0.75 * given:  # a stray event is noise, more are another camera
            raise ValueError(
                f"only {len(events):,} of the {given:,} events in {where} lie on a sensor of {width}x{height} pixels at a known time; "
                "give a recording of such a sensor, or data.sensor"
            )
        if events.dropped:
            warnings.warn(
                f"{where}: {events.dropped} events are cut off or outside the sensor of {width}x{height} pixels; "
                "they are left out",
                stacklevel=2,
            )
        return replace(events, dropped=0), (height, width)

    def frame_cache(self, kind: type[FrameCache] = FrameCache, **parameters) -> FrameCache | None:
        """Where frames are kept, None if they are not.

        Args:
            kind: the class of the cache.
            parameters: what decides the frames besides the recording and these data's own settings; must be JSON.
        Raises:
            ValueError: the folder that `data.cache` names cannot be made.
        """
        if self.cache is not None and self.cache.lower() in ("", "none"):
            return None
        folder = self.cache or Path(self.root, "frames_cache")
        for key in ("name", "time_steps", "split_by", "duration", "img_size", "sensor"):
            parameters[key] = getattr(self, key)
        if self.resize == "bilinear":
            parameters["img_size"] = None  # what is kept are the counts
        try:
            return kind(folder, self.root, parameters)
        except OSError as error:
            if self.cache:
                raise ValueError(f"data.cache is {self.cache!r}, which cannot be used ({error})") from None
            warnings.warn(f"frames are not cached: {error}; data.cache names another folder", stacklevel=2)
            return None


@dataclass(frozen=True)
class Transform:
    """Counts [T, 2, H, W] of any integers, none above `clip` if that is not 0 -> tensor [T, 2, *size] in float32, of the same
    size if that is None."""

    clip: int
    size: tuple[int, int] | None
    augment: Augment | None

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(frames.astype(np.float32))
        if self.clip:
            tensor.clamp_(max=self.clip)
        if self.size:
            tensor = F.interpolate(tensor, self.size, mode="bilinear", align_corners=False)
        return tensor if self.augment is None else self.augment(tensor)


@dataclass(frozen=True)
class Recording:
    """A labelled file, or the part of it from `span[0]` to before `span[1]` microseconds."""

    path: Path
    label: int
    span: tuple[int, int] | None = None


class Recordings:
    """Event files as a source of frames, decoded once if there is a cache. Parts of one file are cached together."""

    def __init__(self, data: EventData, recordings: list[Recording], classes: Iterable[str]):
        self.data, self.recordings, self.classes = data, recordings, list(classes)
        self.labels = [recording.label for recording in recordings]
        self.cache = data.frame_cache()
        self.parts: dict[Path, list[int]] = {}
        for index, recording in enumerate(recordings):
            self.parts.setdefault(recording.path, []).append(index)
        self.size = data.counted or self._stated_size()
        must_be_countable(data.time_steps, self.size)

    def __len__(self):
        return len(self.recordings)

    def __getitem__(self, index):
        wanted = self.recordings[index]
        shape = self.data.time_steps, 2, *self.size
        frames = self.cache.load(wanted.path, wanted.span, shape) if self.cache else None
        if frames is None:
            frames = self._decode(index)
        return frames, wanted.label

    def where(self, index):
        return str(self.recordings[index].path)

    def _decode(self, index):
        wanted = self.recordings[index]
        if wanted.path.is_dir():
            frames = self._pictured(wanted.path)
            self._keep(wanted, frames)
            return frames
        events, _ = self.data.within(read_events(wanted.path), wanted.path)
        for part in self.parts[wanted.path] if self.cache else [index]:
            recording = self.recordings[part]
            events_of_part = events if recording.span is None else events.between(*recording.span)
            if recording.span is not None and not len(events_of_part):
                if part == index:
                    raise ValueError(f"no events from {wanted.span[0]} to {wanted.span[1]} microseconds; it may be cut")
                continue
            counts = self.data.integrate(events_of_part, wanted.path, self.size)
            self._keep(recording, counts)
            if part == index:
                frames = counts
        return frames

    def _pictured(self, folder):
        frames = []
        for events in pictures(folder, self.data.time_steps):
            sensor = events.width, events.height
            one = replace(self.data, time_steps=1, split_by="number", duration=None, sensor=sensor)
            frames.append(one.integrate(events, folder, self.size))
        return np.concatenate(frames)

    def _keep(self, recording, frames):
        if self.cache:
            self.cache.store(recording.path, recording.span, frames)

    def _stated_size(self):
        for path in self.parts:
            try:
                events = read_events(path)
            except UNREADABLE:  # whoever reads it for its frames says so
                continue
            return self.data.integrate(events[:0], path).shape[-2:]
        raise ValueError(f"none of the {len(self.parts)} event files can be read, such as {self.where(0)}")


def pictures(folder: Path, count: int) -> list[Events]:
    """`count` images of a folder, evenly spaced in the order of their names (repeated where there are fewer), as events.

    HAR-DVS is also published as images. A pixel whose grey is below 0.12 of white becomes an OFF event, one above 0.3 up to
    0.78 an ON event: the rule of Spike-driven Transformer V3.

    Raises:
        ValueError: the folder holds no images.
    """
    files = sorted(_files(folder, (".png", ".jpg", ".jpeg", ".bmp")), key=lambda file: (len(file.name), file.name))
    if not files:
        raise ValueError(f"no images in {folder}")
    result = []
    for index in range(count):
        grey = np.asarray(upright_image(files[index * len(files) // count]).convert("L")) / 255
        off, on = grey < 0.12, (grey > 0.3) & (grey <= 0.78)
        y, x = np.nonzero(off | on)
        result.append(Events(np.zeros(len(y), np.int64), x, y, on[y, x].astype(np.uint8), *grey.shape[::-1]))
    return result


class SaccadeImages:
    """Labelled images as a source of frames: each is recorded by `data.saccades`, once if there is a cache."""

    def __init__(self, data: EventData, training: bool):
        self.data, self.camera = data, data.saccades
        self.images = ImageData(data.images, data.root).source(training)
        self.classes, self.labels = self.images.classes, self.images.labels
        self.shards = getattr(self.images, "shards", None)
        self.cache = data.frame_cache(ImageFrameCache, camera=asdict(self.camera))
        must_be_countable(data.time_steps, data.counted)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image, label = self.images[index]
        image = image.convert("L")  # all that the camera sees, so all that decides the frames
        frames = self.cache.load(image, shape=(self.data.time_steps, 2, *self.data.counted)) if self.cache else None
        if frames is None:
            frames = self.data.integrate(self.camera(image), self.where(index))
            if self.cache:
                self.cache.store(image, None, frames)
        return frames, label

    def where(self, index):
        return self.images.where(index)


class Limited:
    """A part of a source: `limit` samples, or all if there are fewer; of each class the first ones, in their order."""

    def __init__(self, source: Source, limit: int):
        labels = np.asarray(source.labels)
        self.source, self.classes = source, source.classes
        self.indices = np.sort(np.lexsort((labels, earlier(labels)))[:limit]).tolist()
        self.labels = labels[self.indices].tolist()

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self.source[self.indices[index]]

    def where(self, index):
        return self.source.where(self.indices[index])


class PackedNMNIST:
    """N-MNIST recordings end to end in one .npz: SPLIT_t (microseconds), SPLIT_x, SPLIT_y, SPLIT_p, SPLIT_offsets and
    SPLIT_labels, where SPLIT is train or test; recording i is [offsets[i], offsets[i + 1]). They stay in memory."""

    classes = list("0123456789")

    def __init__(self, data: EventData, training: bool):
        self.data, self.path = data, Path(data.root, "nmnist.npz")
        split = "train" if training else "test"
        names = [f"{split}_{key}" for key in ("t", "x", "y", "p", "offsets", "labels")]
        try:
            arrays = Arrays(self.path)
            held = arrays.read([name for name in names if name in arrays.held])
        except Exception as error:  # whatever NumPy and zipfile raise at what is damaged
            raise ValueError(f"cannot read {self.path} ({error}); fetch it again, or set data.root") from None
        if not held:
            raise ValueError(
                f"{self.path} holds no {split} recordings; give --data.folds 5 to cross-validate on those that it holds"
            )
        if missing := [name for name in names if name not in held]:
            raise ValueError(f"{self.path} lacks the arrays {', '.join(missing)}; fetch it again, or set data.root")
        *self.columns, offsets, labels = (held[name] for name in names)
        t, x, y, p = self.columns
        if (
            any(array.ndim != 1 or array.dtype.kind not in "iu" for array in held.values())
            or not len(t) == len(x) == len(y) == len(p)
            or len(offsets) != len(labels) + 1
            or not 0 <= min(offsets) <= max(offsets) <= len(t)
            or (offsets[1:] < offsets[:-1]).any()
            or not np.isin(labels, range(10)).all()
            or not np.isin(p, (0, 1)).all()
        ):
            raise ValueError(
                f"the arrays in {self.path} do not fit each other (columns t, x, y, p of one length, p of 0 and 1, offsets that rise within "
                "it, labels of 0 to 9); fetch it again, or set data.root"
            )
        self.offsets, self.labels = offsets.tolist(), labels.tolist()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.data.integrate(self.events(index), self.where(index)), self.labels[index]

    def events(self, index: int) -> Events:
        """Recording `index`."""
        t, x, y, p = (column[self.offsets[index] : self.offsets[index + 1]] for column in self.columns)
        t, x, y, p = in_order(self.where(index), t.astype(np.int64), x.astype(np.int32), y.astype(np.int32), p)
        return Events(t, x, y, p)

    def where(self, index):
        return f"{self.path} (recording {index})"


def _nmnist(data, training):
    """The publisher's folders Train/DIGIT/*.bin and Test/DIGIT/*.bin, or a small packed set."""
    if Path(data.root, "nmnist.npz").is_file():
        return PackedNMNIST(data, training)
    folder = _there(data, "Train" if training else "Test")
    classes = list("0123456789")
    return Recordings(data, _by_class(folder, classes, (".bin",)), classes)


def _dvs128_gesture(data, training):
    """The publisher's split: trials_to_train.txt (users 1 to 23) and trials_to_test.txt (24 to 29) list AEDAT files;
    each row of FILE_labels.csv is a sample, class 1 to 11 and its first and last microsecond."""
    folder = "DvsGesture" if Path(data.root, "DvsGesture").is_dir() else "."
    trials = _there(data, folder, f"trials_to_{'train' if training else 'test'}.txt")
    recordings = []
    for name in _text(trials).split():
        path = trials.with_name(name)
        for label, start, end in _gesture_table(path.with_name(f"{path.stem}_labels.csv"), trials):
            recordings.append(Recording(path, label - 1, (start, end)))
    return Recordings(data, recordings, GESTURES)


def _gesture_table(file, trials):
    try:
        must_be_a_file(file)
        rows = np.loadtxt(file, np.int64, delimiter=",", skiprows=1, ndmin=2).reshape(-1, 3)
        if not ((rows[:, 0] >= 1) & (rows[:, 0] <= len(GESTURES)) & (rows[:, 1] < rows[:, 2])).all():
            raise ValueError("a class is not 1 to 11, or ends before it starts")
    except FileNotFoundError:
        raise ValueError(
            f"no {file}, though {trials.name} lists its recording; DVS128 Gesture is not complete"
        ) from None
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{file} must hold rows of class,startTime_usec,endTime_usec below a header: {error}"
        ) from None
    return rows.tolist()


def _cifar10_dvs(data, training):
    """CLASS/*, of which the first 90 % of each class train: SpikingJelly's rule, which the papers use. The order is that
    of file names as text (..._10 before ..._2), as SpikingJelly's, so that the test recordings are the papers'."""
    return Recordings(data, _ninety(_by_class(_there(data, "."), CIFAR10, SUFFIXES), training), CIFAR10)


def _ncaltech101(data, training):
    """Caltech101/CLASS/*.bin, all 101 classes (BACKGROUND_Google is one of them); there is no official split, so the first
    90 % of each class in the order of file names train."""
    root = _there(data, "Caltech101" if Path(data.root, "Caltech101").is_dir() else ".")
    classes = _subfolders(root)
    return Recordings(data, _ninety(_by_class(root, classes, (".bin",)), training), classes)


def _har_dvs(data, training):
    """The publisher's lists train_label.txt and test_label.txt: lines that begin with CLASS/RECORDING, an event file with
    or without its suffix or a folder of images (see `pictures`); classes are the folders' names, action_001 to action_300,
    in order, whatever number the line ends in."""
    root = Path(data.root)
    listed = {}
    for split in ("train", "test"):
        file = _there(data, f"{split}_label.txt")
        listed[split] = [root / line.split()[0] for line in _text(file).splitlines() if line.strip()]
    folders = {path.parent for paths in listed.values() for path in paths}
    if root in folders:
        raise ValueError(f"{root}/train_label.txt and test_label.txt must list CLASS/RECORDING in each line")
    classes = sorted({folder.name for folder in folders})
    label = {name: index for index, name in enumerate(classes)}
    known = {
        folder / name: file
        for folder in folders
        for file in _files(folder, SUFFIXES)
        for name in (file.name, file.stem)
    }
    recordings = []
    for path in listed["train" if training else "test"]:
        recordings.append(Recording(known.get(path, path), label[path.parent.name]))  # reading tells what is missing
    return Recordings(data, recordings, classes)


def _events(data, training):
    """train/CLASS/* and val/CLASS/* in any format that is read."""
    folders = [_there(data, split) for split in (("train", "val") if data.folds == 1 else ("train",))]
    classes = _subfolders(folders[0])
    if differ := set(classes) ^ set(_subfolders(folders[-1])):
        raise ValueError(
            f"{data.root}/train and {data.root}/val must hold the same class folders; these differ: {', '.join(sorted(differ))}"
        )
    return Recordings(data, _by_class(folders[0 if training else -1], classes, SUFFIXES), classes)


SOURCES = {
    "nmnist": _nmnist,
    "dvs128_gesture": _dvs128_gesture,
    "cifar10_dvs": _cifar10_dvs,
    "ncaltech101": _ncaltech101,
    "har_dvs": _har_dvs,
    "cifar10_saccades": SaccadeImages,
    "events": _events,
}


LAYOUTS = {
    "nmnist": "N-MNIST lies in {root}/Train/DIGIT/*.bin and {root}/Test/DIGIT/*.bin: --data.download true fetches it",
    "dvs128_gesture": "DVS128 Gesture is behind a form of IBM Research: fetch DvsGesture.tar.gz by hand and unpack it into {root}",
    "cifar10_dvs": "CIFAR10-DVS lies in {root}/airplane/*.aedat and nine folders more: --data.download true fetches it",
    "ncaltech101": "N-Caltech101 lies in {root}/Caltech101/CLASS/*.bin: fetch Caltech101.zip (md5 "
    "66201824eabb0239c7ab992480b50ba3) by hand, as www.garrickorchard.com/datasets/n-caltech101 says, and unpack it there",
    "har_dvs": "HAR-DVS lies in {root}/action_001/* and so on, train_label.txt and test_label.txt beside: fetch it by hand, as "
    "github.com/Event-AHU/HARDVS says",
    "cifar10_saccades": "the images lie in {root}, of a kind that data.images names (cifar10: fetch it with torchvision)",
    "events": "event folders look like {root}/train/CLASS/1.aedat4 and {root}/val/CLASS/1.aedat4",
}


def _there(data, *names):
    """The file or folder below the root, if it exists."""
    path = Path(data.root, *names)
    if not path.exists():
        raise ValueError(f"no {path}; {LAYOUTS[data.name].format(root=data.root)}; or set data.root")
    return path


def _text(file):
    try:
        must_be_a_file(file)
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {file} as a list of recordings ({error}); fetch it again, or set data.root") from None


def _subfolders(folder):
    return [name for name in class_folders(folder) if name != "frames_cache"]


def _files(folder, suffixes):
    return files_in(folder, suffixes)[0] if folder.is_dir() else []


def _by_class(root, classes, suffixes):
    listed = [files_in(root / name, suffixes) if (root / name).is_dir() else ([], []) for name in classes]
    found = [[Recording(path, label) for path in files] for label, (files, _) in enumerate(listed)]
    missing = [str(root / name) for name, files in zip(classes, found, strict=True) if not files]
    if missing or not found:
        others = f" and {len(missing) - 1} more folders" if len(missing) > 1 else ""
        where = f"{missing[0]}{others}" if missing else f"the folders of {root}"
        raise ValueError(f"no event files ({', '.join(suffixes)}) in {where}; set data.root")
    tell_left_out(root, [path for _, others in listed for path in others], suffixes)
    return [recording for files in found for recording in files]


def _ninety(recordings, training):
    """Of each class the first 90 %, rounded up, or the rest."""
    labels = np.array([recording.label for recording in recordings])
    first = earlier(labels) < np.ceil(np.bincount(labels)[labels] * 0.9)
    return [recording for recording, trains in zip(recordings, first, strict=True) if trains == training]


_MENDELEY = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files"
_FIGSHARE = "https://ndownloader.figshare.com/files"
DOWNLOADS = {  # folder in the archive, archive, URL, md5
    "nmnist": [
        (split, f"{split}.zip", f"{_MENDELEY}/{number}/file_downloaded", md5)
        for split, number, md5 in (
            ("Train", "39c25547-014b-4137-a934-9d29fa53c7a0", "20959b8e626244a1b502305a9e6e2031"),
            ("Test", "05a4d654-7e03-4c15-bdfa-9bb2bcbea494", "69ca8762b2fe404d9b9bad1103e97832"),
        )
    ],
    "cifar10_dvs": [
        (name, f"{name}.zip", f"{_FIGSHARE}/{number}", md5)
        for name, number, md5 in (
            ("airplane", 7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
            ("automobile", 7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
            ("bird", 7712794, "a9c207c91c55b9dc2002dc21c684d785"),
            ("cat", 7712812, "52c63c677c2b15fa5146a8daf4d56687"),
            ("deer", 7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
            ("dog", 7712818, "f379ebdf6703d16e0a690782e62639c3"),
            ("frog", 7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
            ("horse", 7712851, "e7cbbf77bec584ffbf913f00e682782a"),
            ("ship", 7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
            ("truck", 7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
        )
    ],
}


def _download(name, root):
    """Fetches and unpacks what is missing. A folder appears when it is complete.

    Raises:
        ValueError: there is nothing to fetch, or a download failed.
    """
    if name == "nmnist" and (root / "nmnist.npz").is_file():
        return
    if name not in DOWNLOADS:
        raise ValueError(
            f"data.download cannot fetch {name}; {LAYOUTS[name].format(root=root)}; leave data.download out"
        )
    for folder, archive, url, md5 in DOWNLOADS[name]:
        if (root / folder).is_dir():
            continue
        partial = None
        try:
            root.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=root, prefix=f".{folder}."))  # other processes may be fetching it too
            placed = utils.check_integrity(str(root / archive), md5)
            if not placed:
                utils.download_url(url, str(partial), archive, md5)
            utils.extract_archive(str((root if placed else partial) / archive), str(partial / "unpacked"))
            os.rename(partial / "unpacked" / folder, root / folder)
        except (OSError, RuntimeError) as error:
            if (root / folder).is_dir():  # another process was faster
                continue
            raise ValueError(
                f"cannot fetch {archive} of {name} ({error}); fetch {url} ({_size(url)}, md5 {md5}) by hand to "
                f"{root / archive}, or set data.root to where it is unpacked"
            ) from None
        finally:
            if partial:
                shutil.rmtree(partial, ignore_errors=True)


def _size(url):
    """What the server says of a file's size, for people; the publishers state none."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5) as answer:
            return f"{int(answer.headers['Content-Length']):,} bytes"
    except (OSError, TypeError, ValueError):
        return "of a size that the server does not tell now"
