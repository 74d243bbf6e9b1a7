"""What all event data sets have: a name, a sensor, classes, a layout on disk, a split, and what can be fetched."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from ...protocols import Source
from .._events import Events
from ..cache import FrameCache
from ..download import Archive, fetch
from ..framing import Framing
from ..readers import read_events
from ..recordings import Recording, Recordings

DATASETS: dict[str, type["EventDataset"]] = {}
Registered = TypeVar("Registered", bound="type[EventDataset]")


def register_dataset(name: str) -> Callable[[Registered], Registered]:
    """Decorator of an `EventDataset`: makes `name` one that data.name takes."""

    def register(kind):
        assert name not in DATASETS, f"two event data sets are called {name}"
        kind.name = name
        DATASETS[name] = kind
        return kind

    return register


class Options(Protocol):
    """What a data set asks of `EventData`."""

    root: str
    sensor: tuple[int, int] | None
    folds: int
    images: str
    framing: Framing

    def frame_cache(self, kind: type[FrameCache] = FrameCache, **parameters) -> FrameCache | None:
        """Where frames are kept, which depend on `parameters` besides the options."""
        ...


class EventDataset:
    """An event data set below a folder.

    A subclass states `layout`, `classes` and `recordings`, and where they are known `sensor` and `archives`; the rest follows. Its docstring
    says who published it, under which licence, how it is laid out and how it is split.

    Attributes:
        name: what data.name calls it.
        sensor: its width and height in pixels; None where the files or data.sensor say.
        layout: where the files lie and how one gets them, for people; {root} stands for the folder.
        archives: what the publisher lets everybody fetch.
        classes: the classes' names, in the order of their labels.
    """

    name: str
    sensor: tuple[int, int] | None = None
    layout: str
    archives: Sequence[Archive] = ()
    classes: Sequence[str]

    def __init__(self, options: Options):
        self.options, self.root = options, Path(options.root)

    def recordings(self, training: bool) -> Sequence[Recording]:
        """The training or the test recordings.

        Raises:
            ValueError: they are not there.
        """
        raise NotImplementedError

    def source(self, training: bool) -> Source:
        """The training or the test recordings as frames.

        Raises:
            ValueError: they are not there.
        """
        recordings = self.recordings(training)
        return Recordings(recordings, self.classes, self.options.framing, self.options.frame_cache())

    def read(self, path: str | Path) -> Events:
        """The events of any file as one of this data set.

        Raises:
            ValueError: it cannot be read.
        """
        return read_events(path)

    def download(self) -> None:
        """Fetches what is missing.

        Raises:
            ValueError: there is nothing to fetch, or a download failed.
        """
        if not self.archives:
            raise ValueError(
                f"data.download cannot fetch {self.name}; {self.layout.format(root=self.root)}; leave data.download out"
            )
        fetch(self.archives, self.root, self.name)

    def there(self, *names: str) -> Path:
        """The file or folder below the root.

        Raises:
            ValueError: there is none; how the data set is laid out.
        """
        path = Path(self.root, *names)
        if not path.exists():
            raise ValueError(f"no {path}; {self.layout.format(root=self.options.root)}; or set data.root")
        return path

    def within(self, folder: str) -> Path:
        """`folder` below the root if it is there, otherwise the root, which then stands for it itself."""
        return self.there(folder if (self.root / folder).is_dir() else ".")
