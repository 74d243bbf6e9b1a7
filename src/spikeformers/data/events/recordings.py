"""Event files as a source of frames."""
# Shapes: T time steps (frames per recording), H W pixels.

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..protocols import Source
from ..reading import UNREADABLE
from ._events import Events
from ._ranks import earlier
from .cache import FrameCache
from .framing import Framing
from .readers import read_events


@dataclass(frozen=True)
class Recording:
    """A labelled file, or the part of it from `span[0]` to before `span[1]` microseconds."""

    path: Path
    label: int
    span: tuple[int, int] | None = None


class Recordings:
    """Event files as a source of frames: item i is (counts [T, 2, H, W] of small integers, label). Files are decoded once if there
    is a cache; parts of one file are cached together.

    Args:
        recordings: the files, or parts of them.
        classes: the classes' names, which the recordings' labels number.
        framing: how they become frames.
        cache: where frames are kept; None decodes a file whenever it is asked for.
    Raises:
        ValueError: the frames are larger than any memory, or no file states the sensor's size where that is needed.
    """

    def __init__(
        self, recordings: Sequence[Recording], classes: Iterable[str], framing: Framing, cache: FrameCache | None
    ):
        self.recordings, self.classes, self.framing, self.cache = recordings, list(classes), framing, cache
        self.labels = [recording.label for recording in recordings]
        self.parts: dict[Path, list[int]] = {}
        for index, recording in enumerate(recordings):
            self.parts.setdefault(recording.path, []).append(index)
        self.size = framing.grid or self._stated_size()
        framing.must_be_countable(self.size)

    def __len__(self):
        return len(self.recordings)

    def __getitem__(self, index):
        wanted = self.recordings[index]
        shape = self.framing.time_steps, 2, *self.size
        frames = self.cache.load(wanted.path, wanted.span, shape) if self.cache else None
        if frames is None:
            frames = self.decoded(index)
        return frames, wanted.label

    def where(self, index):
        """What messages call a sample."""
        return str(self.recordings[index].path)

    def decoded(self, index: int) -> np.ndarray:
        """Counts [T, 2, H, W] of recording `index`; with a cache, all parts of its file are kept.

        Raises:
            ValueError: the file cannot be read, has another size than the others, or no events in this part.
        """
        wanted = self.recordings[index]
        placed = self.placed(self.framing, read_events(wanted.path), wanted.path)
        for part in self.parts[wanted.path] if self.cache else [index]:
            recording = self.recordings[part]
            events = placed if recording.span is None else placed.between(*recording.span)
            if recording.span is not None and not len(events):
                if part == index:
                    raise ValueError(f"no events from {wanted.span[0]} to {wanted.span[1]} microseconds; it may be cut")
                continue
            counts = self.framing.count(events, wanted.path)
            self.keep(recording, counts)
            if part == index:
                frames = counts
        return frames

    def placed(self, framing: Framing, events: Events, where: Path) -> Events:
        """The events of a file on the grid, which must be as large as that of all recordings.

        Args:
            framing: how this file becomes frames.
            events: what it holds.
            where: the file.
        Raises:
            ValueError: the grid is larger or smaller, or see `Framing.place`.
        """
        placed = framing.place(events, where)
        if (placed.height, placed.width) != self.size:
            raise ValueError(
                f"its sensor has {placed.width}x{placed.height} pixels but the first file's {self.size[1]}x{self.size[0]}; "
                "data.img_size brings all to one size"
            )
        return placed

    def keep(self, recording: Recording, frames: np.ndarray):
        """Puts frames [T, 2, H, W] into the cache, if there is one."""
        if self.cache:
            self.cache.store(recording.path, recording.span, frames)

    def _stated_size(self):
        for path in self.parts:
            try:
                events = read_events(path)
            except UNREADABLE:  # it is reported when its frames are made
                continue
            return self.framing.sensor_of(events, path)
        raise ValueError(f"none of the {len(self.parts)} event files can be read, such as {self.where(0)}")


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
        """What messages call a sample."""
        return self.source.where(self.indices[index])
