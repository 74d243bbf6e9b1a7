"""Event files: one function reads every format, whatever wrote it and wherever the file was cut.

The binary formats are decoded here with numpy because the libraries that read them stop at the first event outside the
sensor, or give nothing of a file that was cut. h5py, hdf5plugin, lz4 and zstandard read containers and decompress;
they are imported when a file needs them. A family of formats is a file of this package, and a row of FORMATS.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from ...._files import write_atomically
from .._arrays import recorded_file
from .._events import Events
from ._shared import AGAIN, in_order
from .aedat import read_aedat2, read_aedat3, read_aedat4
from .event_stream import read_event_stream
from .hdf5 import read_hdf5
from .nmnist import read_nmnist
from .npz import read_numpy
from .prophesee import read_prophesee

__all__ = ["FORMATS", "SUFFIXES", "FileFormat", "in_order", "read_events", "write_events"]


def read_events(path: str | Path) -> Events:
    """The events of a file. What the file begins with decides on the format; the suffix only where that says nothing.

    Formats: AEDAT 4 (its first stream of events), AEDAT 3.1, AEDAT 2.0 of a DVS128 or of v2e; Prophesee's EVT 2.0, 2.1 and 3.0 (.raw)
    and .dat; Event Stream (.es); N-MNIST and N-Caltech101 (.bin); HDF5 and NumPy files with columns t, x, y, p (or ts, xs,
    ys, ps, ...), at the top or under `events` or `CD/events`. Columns of times that hold fractions are seconds, all others
    microseconds; DSEC's `t_offset` is added. The sensor's size is what `width` and `height` say, numbers beside the columns, at the
    top or attributes, or the attributes `sensor_resolution` ([height, width]) and `geometry` of HDF5.

    Rows count from the top. Event Stream counts them from the bottom, so they are turned over. The axes of AEDAT 2.0 are
    those of SpikingJelly's CIFAR10-DVS, on which published results rest: x = 127 - bits 8..14, y = 127 - bits 1..7 of the
    address (jAER's own viewer shows the transpose). Cameras whose addresses take more than 15 bits (DAVIS) are another matter:
    programs that write them disagree which way the axes run, so only files that name v2e as their author are read. All other
    formats keep the rows and columns they store.

    Times that run back are sorted, events of the same time keep their order; more than a little jitter, such as a counter that
    is reset, costs a warning that counts. Where the low time word of EVT 3.0 steps back a little, the order of the file is kept
    and the time stands still meanwhile; where its high words are missing, the low word is carried on, with a warning. Counters of
    time that overflow go on. Of a file that was cut, the whole events are given and the rest counts as (at least one) dropped.

    A file that stands for much more memory than its own size explains is refused, as are sensors of more than 4 million pixels,
    pipes and devices.

    Args:
        path: the file.
    Returns:
        The events in order of time.
    Raises:
        ValueError: the file is missing, empty, damaged, too large or of no known format, or a package to read it is missing.
    """
    path = Path(path)
    try:
        with recorded_file(path) as file:
            head = file.read(64)
    except FileNotFoundError:
        raise ValueError(f"no event file {path}; check the path") from None
    except OSError as error:
        raise ValueError(f"cannot open {path} ({error.strerror}); give a file that you may read") from None
    if not head:
        raise ValueError(f"{path} is empty (0 bytes); {AGAIN}")
    try:
        return _format_of(path, head).read(path)
    except (ValueError, OverflowError, struct.error) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    except MemoryError as error:
        raise ValueError(f"cannot read {path}: it needs more memory than there is ({error})") from error


def write_events(path: str | Path, events: Events) -> None:
    """Writes events to a compressed .npz file that `read_events` and numpy read: t, x, y, p and, where known, width, height.

    Args:
        path: the file, ending in .npz; it appears when it is complete.
        events: what to write.
    Raises:
        ValueError: the path has another suffix.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise ValueError(f"events are written as .npz, not {path.name!r}; give a path that ends in .npz")
    columns = {name: _compact(getattr(events, name)) for name in "txyp"}
    about = {name: getattr(events, name) for name in ("width", "height", "dropped") if getattr(events, name)}
    content = BytesIO()
    np.savez_compressed(content, **columns, **about)
    write_atomically(path, content.getvalue())


def _compact(values):
    if not len(values):
        return values.astype(np.uint8)
    return values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))


@dataclass(frozen=True)
class FileFormat:
    """One kind of event file.

    Args:
        suffixes: how its names end, in small letters.
        mark: a regular expression of its first bytes; None for files without, which are told by their suffix alone.
        begins: what it begins with, for people.
        read: from a path to its events.
    """

    suffixes: tuple[str, ...]
    mark: bytes | None
    begins: str
    read: Callable[[Path], Events]


FORMATS = (
    FileFormat((".aedat4",), rb"#!AER-DAT4", "#!AER-DAT4.0", read_aedat4),
    FileFormat((".aedat",), rb"#!AER-DAT3", "#!AER-DAT2.0 or #!AER-DAT3.1", read_aedat3),
    FileFormat((".aedat",), rb"#!AER-DAT2", "#!AER-DAT2.0 or #!AER-DAT3.1", read_aedat2),
    FileFormat((".raw", ".dat"), rb"% \w", "a header of lines '% key value'", read_prophesee),
    FileFormat((".es",), rb"Event Stream", "Event Stream", read_event_stream),
    FileFormat((".bin",), None, "", read_nmnist),
    FileFormat((".h5", ".hdf5"), rb"\x89HDF\r\n\x1a\n", r"\x89HDF", read_hdf5),
    FileFormat((".npz",), rb"PK(\x03\x04|\x05\x06)", "PK", read_numpy),
    FileFormat((".npy",), rb"\x93NUMPY", r"\x93NUMPY", read_numpy),
)
SUFFIXES: tuple[str, ...] = tuple(dict.fromkeys(suffix for each in FORMATS for suffix in each.suffixes))


def _format_of(path, head):
    """The format of a file that begins with the bytes `head`."""
    for each in FORMATS:
        if each.mark is not None and re.match(each.mark, head):
            return each
    suffix = path.suffix.lower()
    for each in FORMATS:
        if suffix in each.suffixes:
            if each.mark is None:
                return each
            raise ValueError(f"it begins with {head[:12]!r}; a {suffix} file begins with {each.begins}: {AGAIN}")
    raise ValueError(f"it begins with {head[:12]!r}, which is no known format; give one of {', '.join(SUFFIXES)}")
