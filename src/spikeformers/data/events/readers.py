"""Event files: one function reads every format, whatever wrote it and wherever the file was cut.

The binary formats are decoded here with numpy because the libraries that read them stop at the first event outside the
sensor, or give nothing of a file that was cut. h5py, hdf5plugin, lz4 and zstandard do what is not about events; they are
imported when a file needs them.
"""

import importlib
import math
import re
import struct
import warnings
import xml.etree.ElementTree as xml
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np

from ..._files import write_atomically
from ._arrays import AMPLE, RATIO, Arrays, Refused, must_be_a_file, must_be_worth
from ._events import Events

SUFFIXES: tuple[str, ...] = (
    ".aedat4",
    ".aedat",
    ".raw",
    ".dat",
    ".es",
    ".bin",
    ".h5",
    ".hdf5",
    ".npz",
    ".npy",
)

AGAIN = "copy or download it again"
LARGEST = 1 << 22
"""Pixels of a sensor, four times those of the largest event camera; more are taken for damage."""
JITTER = 1000
"""Microseconds by which times may run back without a word, since cameras and the software behind them do not hand on events in
perfect order."""
DAY = 86400.0
"""Seconds. Times with fractions that span more are no seconds."""
HEADER = 1 << 20
"""Bytes of a text header."""
NAMES = {
    "t": ("t", "ts", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}


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
        must_be_a_file(path)
        with open(path, "rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise ValueError(f"no event file {path}; check the path") from None
    except OSError as error:
        raise ValueError(f"cannot open {path} ({error.strerror}); give a file that you may read") from None
    if not head:
        raise ValueError(f"{path} is empty (0 bytes); {AGAIN}")
    try:
        return _decoder(path, head)(path)
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


def _decoder(path, head):
    known = (
        (rb"#!AER-DAT4", _aedat4),
        (rb"#!AER-DAT3", _aedat3),
        (rb"#!AER-DAT2", _aedat2),
        (rb"Event Stream", _event_stream),
        (rb"\x89HDF\r\n\x1a\n", _hdf5),
        (rb"PK\x03\x04", _numpy),
        (rb"PK\x05\x06", _numpy),
        (rb"\x93NUMPY", _numpy),
        (rb"% \w", _prophesee),
    )
    for begins, decoder in known:
        if re.match(begins, head):
            return decoder
    suffix = path.suffix.lower()
    if suffix == ".bin":
        return _nmnist
    begins = {
        ".aedat4": "#!AER-DAT4.0",
        ".aedat": "#!AER-DAT2.0 or #!AER-DAT3.1",
        ".raw": "a header of lines '% key value'",
        ".dat": "a header of lines '% key value'",
        ".es": "Event Stream",
        ".h5": "\\x89HDF",
        ".hdf5": "\\x89HDF",
        ".npz": "PK",
        ".npy": "\\x93NUMPY",
    }
    if suffix in begins:
        raise ValueError(f"it begins with {head[:12]!r}; a {suffix} file begins with {begins[suffix]}: {AGAIN}")
    raise ValueError(f"it begins with {head[:12]!r}, which is no known format; give one of {', '.join(SUFFIXES)}")


def _events(path, t, x, y, p, width=None, height=None, dropped=0):
    """Events of columns in any order; those outside the sensor (or of a time beyond all clocks) are dropped and counted."""
    width, height = _size(width, height)
    outside = (x < 0) | (y < 0) | (x >= (width or 2**31)) | (y >= (height or 2**31)) | (t <= -(2**60)) | (t >= 2**60)
    if outside.any():
        dropped += int(np.count_nonzero(outside))
        t, x, y, p = (column[~outside] for column in (t, x, y, p))
    t, x, y, p = in_order(path, t.astype(np.int64), x, y, p)
    return Events(t, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8), width, height, dropped)


def _size(width, height):
    """Width and height as a file states them, None for what it leaves open (or states as 0)."""
    stated = [None if number is None else _whole(number, "sensor's size") for number in (width, height)]
    if min((number for number in stated if number is not None), default=0) < 0:
        raise Refused(f"it states a sensor of {stated[0]} x {stated[1]} pixels; {AGAIN}")
    width, height = (number or None for number in stated)
    if (width or 1) * (height or 1) > LARGEST:
        raise Refused(f"it states a sensor of {width} x {height} pixels, larger than any event camera's; it is damaged: {AGAIN}")
    return width, height


def _whole(value, what):
    """An integer that a file states as a number of any type."""
    try:
        value = np.asarray(value).item()
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value:
        raise Refused(f"it states {str(value)[:40]!r} as its {what}, which is no whole number; {AGAIN}")
    return number


def in_order(where: str | Path, t: np.ndarray, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """Columns [N] in the order of the times `t`, events of the same time in theirs. More than jitter, which is to say steps back of
    more than `JITTER` microseconds or at more than a tenth of the events, costs a warning."""
    back = int(np.count_nonzero(t[1:] < t[:-1]))
    if not back:
        return t, *columns
    furthest = int((np.maximum.accumulate(t) - t).max())
    if furthest > JITTER or back > max(1, len(t) // 10):
        times = "once" if back == 1 else f"{back:,} times"
        warnings.warn(
            f"{where}: the time runs back {times} in {len(t):,} events, by up to {furthest:,} microseconds; the events are sorted by "
            "time, which mixes them if a counter was reset or recordings were put together",
            stacklevel=2,
        )
    order = np.argsort(t, kind="stable")
    return tuple(column[order] for column in (t, *columns))


def _records(data, dtype, start=0):
    """The whole records from `start` on, and how many are cut (0 or 1)."""
    size = np.dtype(dtype).itemsize
    count, rest = divmod(len(data) - start, size)
    return np.frombuffer(data[start : start + count * size], dtype), int(rest > 0)


def _unwrap(counter, bits):
    """A counter of so many bits as int64: it overflowed where it falls from its last eighth to its first. Where it falls otherwise, it
    was reset or is damaged."""
    counter = counter.astype(np.int64)
    eighth = 1 << (bits - 3)
    first, last = counter < eighth, counter >= 7 * eighth
    over, back = last[:-1] & first[1:], first[:-1] & last[1:]  # a rise by as much goes back behind the overflow
    wraps = np.cumsum(over.astype(np.int64) - back)
    counter[1:] += np.maximum(wraps, 0) << bits
    return counter


def _before(setters, at):
    """Which of the words that `setters` [words] marks comes last before each position `at`; -1 where none does."""
    return np.cumsum(setters)[at] - 1


@contextmanager
def _damage(what):
    """Whatever a library raises at a damaged file becomes a ValueError."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise ValueError(f"{what} ({type(error).__name__}: {error}); {AGAIN}") from error


def _library(name, reads):
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise Refused(f"{reads} needs the package {package}: pip install 'spikeformers[events]'") from None


# Prophesee: text lines "% key value", then words of 32 (EVT 2.0), 64 (EVT 2.1) or 16 bits (EVT 3.0), or .dat's records.


def _prophesee(path):
    data = memoryview(path.read_bytes())
    fields, start = _header(data)
    form, *options = fields.get("format", "").split(";")
    fields |= dict(option.split("=", 1) for option in options if "=" in option)
    version = {"EVT2": "2.0", "EVT21": "2.1", "EVT3": "3.0"}.get(form, fields.get("evt"))
    width, height = _sensor(fields)
    decoders = {"2.0": _evt2, "2.1": _evt21, "3.0": _evt3}
    if version in decoders and fields.get("endianness") != "big":
        t, x, y, p, dropped = decoders[version](path, data, start, fields)
        return _events(path, t, x, y, p, width, height, dropped)
    if version is not None or form or path.suffix.lower() == ".raw":
        found = f"format {form or version or 'nowhere'}, {fields.get('endianness', 'little')}-endian"
        raise ValueError(f"its header states {found}; EVT 2.0, 2.1 and 3.0, little-endian, can be read: convert it")
    return _dat(path, data, start, fields, width, height)


def _header(data):
    """The keys (in small letters) and values of a text header, and where the events begin."""
    fields, start = {}, 0
    while data[start : start + 2] == b"% ":
        line = bytes(data[start : start + 4096]).split(b"\n", 1)
        if len(line) < 2 or start > HEADER:
            raise ValueError(f"it ends in its text header, or that is longer than {HEADER:,} characters or 4096 in a line; {AGAIN}")
        start += len(line[0]) + 1
        key, _, value = line[0][1:].decode("ascii", "replace").strip().partition(" ")
        fields[key.lower()] = value.strip()
        if key == "end":
            break
    return fields, start


def _sensor(fields):
    """Width and height that the header states, directly or by the camera's plugin."""
    geometry = re.fullmatch(r"(\d+)x(\d+)", fields.get("geometry", ""))
    stated = geometry.groups() if geometry else (fields.get("width", ""), fields.get("height", ""))
    if all(re.fullmatch(r"\d{1,5}", number) and int(number) for number in stated):
        return int(stated[0]), int(stated[1])
    sizes = (("gen31", 640, 480), ("gen3", 640, 480), ("gen4", 1280, 720), ("imx636", 1280, 720), ("genx320", 320, 320))
    for camera, width, height in sizes:
        if f"_{camera}" in fields.get("plugin_name", ""):
            return width, height
    return None, None


def _check_kinds(kinds, known, words):
    """Words of types that the format does not know are few at most, unless it is another format."""
    unknown = int(np.bincount(kinds, minlength=16)[[kind for kind in range(16) if kind not in known]].sum())
    if unknown > len(kinds) // 20:
        raise ValueError(f"{unknown} of {len(kinds)} {words} words have no known type; it is damaged: {AGAIN}")


EVT2_KINDS = (0, 1, 8, 10, 14, 15)  # OFF, ON, high time, trigger, others, continued
EVT3_KINDS = (0, 2, 3, 4, 5, 6, 7, 8, 10, 14, 15)  # y, x, base x, 12 and 8 pixels, low time, ..., high time, ...


def _evt2(path, data, start, fields):
    words, dropped = _records(data, "<u4", start)
    kinds = (words >> 28).astype(np.uint8)
    _check_kinds(kinds, EVT2_KINDS, "EVT 2.0")
    at = np.flatnonzero(kinds <= 1)
    high = _before(kinds == 8, at)
    dropped += int(np.count_nonzero(high < 0))  # of unknown time
    at, high = at[high >= 0], high[high >= 0]
    events = words[at]
    t = _unwrap(words[kinds == 8] & 0x0FFFFFFF, 28)[high] << 6 | (events >> 22 & 63)
    return t, (events >> 11 & 2047).astype(np.int32), (events & 2047).astype(np.int32), kinds[at], dropped


def _evt21(path, data, start, fields):
    """Like EVT 2.0, with a column of 32 bits for the 32 pixels from x on. The upper half of a word comes first where the
    header says endianness=legacy; where it says nothing, the halves that look like the upper ones are."""
    halves, dropped = _records(data, "<2u4", start)
    halves = halves.reshape(-1, 2)
    order = {"legacy": 0, "little": 1}.get(fields.get("endianness"))
    if order is None:
        order = int(np.isin(halves >> 28, EVT2_KINDS).sum(axis=0).argmax())
    upper, pixels = halves[:, order], halves[:, 1 - order]
    kinds = (upper >> 28).astype(np.uint8)
    _check_kinds(kinds, EVT2_KINDS, "EVT 2.1")
    at = np.flatnonzero(kinds <= 1)
    high = _before(kinds == 8, at)
    row, bit = _bits(pixels[at])
    at, high = at[row], high[row]
    timed = high >= 0
    dropped += int(np.count_nonzero(~timed))
    at, high, bit = at[timed], high[timed], bit[timed]
    events = upper[at]
    t = _unwrap(upper[kinds == 8] & 0x0FFFFFFF, 28)[high] << 6 | (events >> 22 & 63)
    return t, (events >> 11 & 2047).astype(np.int32) + bit, (events & 2047).astype(np.int32), kinds[at], dropped


def _evt3(path, data, start, fields):
    words, dropped = _records(data, "<u2", start)
    kinds = (words >> 12).astype(np.uint8)
    _check_kinds(kinds, EVT3_KINDS, "EVT 3.0")
    lines, bases, highs, lows = kinds == 0, kinds == 3, kinds == 8, kinds == 6
    at = np.flatnonzero((kinds == 2) | (kinds == 4) | (kinds == 5))
    line, base, high, low = (_before(setters, at) for setters in (lines, bases, highs, lows))
    kind, word = kinds[at], words[at]
    pixels = np.where(kind == 2, 1, np.where(kind == 4, word & 0xFFF, word & 0xFF))
    timed = high if highs.any() else low
    placed = (line >= 0) & (timed >= 0) & ((kind == 2) | (base >= 0))
    dropped += len(_bits(pixels[~placed])[0])  # of unknown time or place
    width = np.where(kind == 4, 12, np.where(kind == 5, 8, 0))
    passed, everywhere = np.cumsum(width) - width, at  # pixels of all vectors before
    at, line, base, high, low, kind, word, pixels = (
        column[placed] for column in (at, line, base, high, low, kind, word, pixels)
    )

    x = (word & 2047).astype(np.int32)
    y = (words[lines] & 2047)[line].astype(np.int32)
    vectors = np.flatnonzero(kind != 2)
    begin = np.flatnonzero(bases)[base[vectors]]
    word[vectors] = words[begin]
    x[vectors] = (words[begin] & 2047) + (passed[placed][vectors] - passed[np.searchsorted(everywhere, begin)])

    high_words, low_words = words[highs] & 0xFFF, words[lows] & 0xFFF
    high_at, low_at = np.flatnonzero(highs), np.flatnonzero(lows)
    changes = high_at[np.diff(high_words.astype(np.int32), prepend=-1) != 0]
    since = np.append(changes, -1)[np.searchsorted(changes, at) - 1]  # the last is for events before all
    t = np.append(_unwrap(high_words, 12), 0)[high] << 12
    current = np.append(low_at, -1)[low] > since  # a new high word begins with the low word 0
    t += np.where(current, np.append(low_words + _carried(path, low_words, low_at, high_at, len(changes)), 0)[low], 0)
    latest = np.maximum.accumulate(t)
    if (latest - t).max(initial=0) < 64 and np.count_nonzero(t[1:] < t[:-1]) <= max(1, len(t) // 10):
        t = latest  # the low word steps back by a few microseconds; the order is that of the sensor
    row, bit = _bits(pixels)
    return t[row], x[row] + bit.astype(np.int32), y[row], (word[row] >> 11 & 1).astype(np.uint8), dropped


def _carried(path, low, low_at, high_at, changes):
    """What has to be added to each low time word [N] where the words above them are missing, as in what expelliarmus saves.

    Elsewhere a high word precedes each low word that begins anew, so that only a few of the latter, and by little, run back."""
    after = np.searchsorted(high_at, low_at)  # how many high words come before
    anew = (np.diff(low.astype(np.int32), prepend=0) <= -64) & (np.diff(after, prepend=-1) == 0)
    count = int(np.count_nonzero(anew))
    if count <= changes:
        return np.zeros(len(low), np.int64)
    warnings.warn(
        f"{path}: the low word of the time (12 bits) begins anew {count:,} times without a high word, of which there are {len(high_at):,}; "
        "it is carried on, so that pauses of more than 4 milliseconds are lost",
        stacklevel=2,
    )
    wraps = np.cumsum(anew)
    first = np.searchsorted(after, after)  # the first low word after the same high word
    return wraps - wraps[first] << 12


def _bits(masks):
    """The set bits of unsigned numbers: which number, and which bit from the lowest on, in this order."""
    width = 8 * masks.dtype.itemsize
    at = np.flatnonzero(np.unpackbits(masks.view(np.uint8), bitorder="little").view(bool))
    return at // width, at % width


def _dat(path, data, start, fields, width, height):
    """Version 2 has 14 bits each for x and y, version 1 nine and eight."""
    version = fields.get("version")
    if version not in ("1", "2"):
        found = f"version {version}" if version else "no version"
        raise ValueError(
            f"its header states {found} of .dat; a line '% Version 1' or '% Version 2' must say how to read it"
        )
    if len(data) < start + 2:
        raise ValueError(f"it ends after its text header; {AGAIN}")
    kind, size = data[start], data[start + 1]
    if kind not in (0, 12) or size != 8:
        raise ValueError(
            f"it holds items of type {kind} and {size} bytes; pixels' events (type 0 or 12, 8 bytes) can be read: "
            "give the file of change detection events"
        )
    events, dropped = _records(data, [("t", "<u4"), ("address", "<u4")], start + 2)
    address = events["address"]
    x_bits, y_bits = (14, 14) if version == "2" else (9, 8)
    strays = int(np.count_nonzero(address >> (x_bits + y_bits + 1)))
    if strays > len(address) // 20:
        raise ValueError(
            f"{strays} of {len(address)} events have more than the {x_bits + y_bits + 1} bits of version {version}, which its header "
            f"states; it is damaged, or of another version: {AGAIN}"
        )
    x = (address & ((1 << x_bits) - 1)).astype(np.int32)
    y = (address >> x_bits & ((1 << y_bits) - 1)).astype(np.int32)
    p = (address >> (x_bits + y_bits) & 1).astype(np.uint8)
    return _events(path, _unwrap(events["t"], 32), x, y, p, width, height, dropped)


# N-MNIST and N-Caltech101: five bytes per event, x, y, then one bit of polarity and 23 of time, big-endian.


def _nmnist(path):
    data = memoryview(path.read_bytes())
    events, dropped = _records(data, "5u1")
    events = events.reshape(-1, 5)
    x, y = events[:, 0].astype(np.int32), events[:, 1].astype(np.int32)
    overflow = y == 240  # no pixel: the time grew by 2**13 more
    t = (events[:, 2] & 127).astype(np.int64) << 16 | events[:, 3].astype(np.int64) << 8 | events[:, 4]
    t += np.cumsum(overflow) << 13
    t, x, y, p = (column[~overflow] for column in (t, x, y, events[:, 2] >> 7))
    backwards = int(np.count_nonzero(t[1:] < t[:-1]))
    beyond = int(np.count_nonzero(y > 240))
    why = None
    if backwards > max(1, len(t) // 10):
        why = f"the time runs back at {backwards} of {len(t)} events"
    elif beyond > len(t) // 20:
        why = f"{beyond} of {len(t)} events lie in rows from 241 on, which no such camera has"
    elif len(t) > 100 and t[0] == t[-1] and len(np.unique(data[:5000])) == 1:
        why = "all bytes are the same"
    if why:
        raise ValueError(f"taken as N-MNIST's format, since its name ends in .bin, {why}; it is damaged, or of another format: {AGAIN}")
    return _events(path, t, x, y, p, dropped=dropped)


# Event Stream 2: bytes 0xFF (127 microseconds pass) and 0xFE (reset) between events of five bytes.


def _event_stream(path):
    data = memoryview(path.read_bytes())
    if len(data) < 16:
        raise ValueError(f"it ends in its header; {AGAIN}")
    version, kind = tuple(data[12:15]), data[15]
    if version[0] != 2 or kind != 1:
        kinds = {0: "generic", 1: "DVS", 2: "ATIS", 4: "colour"}
        stated = f"version {'.'.join(map(str, version))} of type {kinds.get(kind, kind)}"
        raise ValueError(f"it is an Event Stream of {stated}; version 2 of type DVS can be read: convert it")
    if len(data) < 20:
        raise ValueError(f"it ends in its header; {AGAIN}")
    width, height = struct.unpack_from("<2H", data, 16)
    _size(width, height)
    if not width or not height:
        raise ValueError(f"its header states a sensor of {width} x {height} pixels; {AGAIN}")
    body = np.frombuffer(data[20:], np.uint8)
    at = _tokens(body)
    first = body[at]
    passed = np.where(first == 0xFF, 127, np.where(first == 0xFE, 0, first >> 1))
    t = np.cumsum(passed, dtype=np.int64)
    event = first < 0xFE
    whole = event & (at + 5 <= len(body))
    cut = int(np.count_nonzero(event & ~whole))
    at, t, first = at[whole], t[whole], first[whole]
    x = body[at + 1].astype(np.int32) | body[at + 2].astype(np.int32) << 8
    y = body[at + 3].astype(np.int32) | body[at + 4].astype(np.int32) << 8
    return _events(path, t, x, height - 1 - y, first & 1, width, height, cut)


def _tokens(body, size=1 << 15):
    """Where the events and marks of an Event Stream begin [N].

    Each begins where the one before ends. In a block of bytes, the set of beginnings is doubled: those that 2**k steps
    reach from it join it, then the steps are doubled too.
    """
    found, entry = [np.zeros(0, np.int64)], 0
    for start in range(0, len(body), size):
        block = body[start : start + size]
        end = len(block)
        steps = np.arange(end + 5, dtype=np.int32)  # the last five lie beyond the block and stay where they are
        steps[:end] += np.where(block >= 0xFE, 1, 5).astype(np.int32)
        begins = np.zeros(end + 5, bool)
        begins[entry] = True
        while True:
            reached = np.flatnonzero(begins)
            begins[steps[reached]] = True
            if steps[entry] >= end:
                break
            steps = steps[steps]
        found.append(np.flatnonzero(begins[:end]) + start)
        entry = int(steps[entry]) - end
    return np.concatenate(found)


# AEDAT: 2.0 holds pairs of 32-bit words, 3.1 packets of events, 4 compressed packets of flatbuffers.


def _comments(data):
    """The lines of a header that begin with '#', and where the events begin."""
    lines, start = [], 0
    while data[start : start + 1] == b"#":
        line = bytes(data[start : start + 4096]).split(b"\n", 1)
        if len(line) < 2 or start > HEADER:
            raise ValueError(f"it ends in its text header, or that is longer than {HEADER:,} characters or 4096 in a line; {AGAIN}")
        start += len(line[0]) + 1
        lines.append(line[0].decode("ascii", "replace").strip())
        if lines[-1] == "#!END-HEADER":
            break
    return lines, start


def _aedat2(path):
    data = memoryview(path.read_bytes())
    lines, start = _comments(data)
    text = "\n".join(lines)
    chip = re.search(r"AEChip: *(\S+)", text)
    if chip and "DVS128" not in chip[1].upper():
        raise ValueError(
            f"its events are of the camera {chip[1]}; of AEDAT 2.0 those of a DVS128 can be read: convert it"
        )
    events, dropped = _records(data, [("address", ">u4"), ("t", ">u4")], start)
    t = _unwrap(events["t"], 32)
    address = events["address"].astype(np.int64)
    if re.search(r"\bv2e\b", text):
        return _v2e(path, t, address, dropped)
    for bits, few in ((16, 20), (15, 4)):  # bit 15 marks synchronisation, of which there is little
        wide = int(np.count_nonzero(address >> bits))
        if wide > max(1, len(address) // few):
            raise ValueError(
                f"{wide} of its {len(address)} addresses have more than 15 bits, as those of a DAVIS have; of AEDAT 2.0 those of a DVS128 "
                "can be read, and those of v2e where its header names it: convert it to AEDAT 4 or .npz"
            )
    pixel = address & 0x8000 == 0
    t, address = t[pixel], address[pixel]
    x, y = 127 - (address >> 8), 127 - (address >> 1 & 127)  # an address of more than 15 bits lies outside
    return _events(path, t, x, y, 1 - (address & 1), 128, 128, dropped)


def _v2e(path, t, address, dropped):
    """v2e's three cameras, of which it states none: DAVIS of 346 x 260 or 240 x 180, which leave the lowest 10 bits free, and a DVS of
    640 x 480. Its axes run from the lower right."""
    if not (address & 0x3FF).any():
        marks = address & 0x80000400 != 0
        t, address = t[~marks], address[~marks]
        x, y, p = address >> 12 & 1023, address >> 22 & 511, address >> 11 & 1
        sizes = (240, 180), (346, 260)
    else:
        x, y, p = address >> 1 & 1023, address >> 11 & 1023, address & 1
        sizes = ((640, 480),)
        if (address >> 21).any():
            raise ValueError("its addresses are those of no camera that v2e writes in AEDAT 2.0; convert it to AEDAT 4 or .npz")
    right, top = x.max(initial=0), y.max(initial=0)
    width, height = next(((w, h) for w, h in sizes if right < w and top < h), sizes[-1])
    if right < 0.9 * width and top < 0.9 * height:
        raise ValueError(
            f"its events reach columns up to {right} and rows up to {top}, which does not say whose sensor of v2e's (240x180, 346x260, 640x480) "
            "it is; write it as AEDAT 4 or .npz"
        )
    return _events(path, t, width - 1 - x, height - 1 - y, p, width, height, dropped)


def _aedat3(path):
    data = memoryview(path.read_bytes())
    lines, start = _comments(data)
    if "#!END-HEADER" not in lines:
        raise ValueError(f"its text header has no end; {AGAIN}")
    form = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("#Format:")), "RAW")
    if form != "RAW":
        raise ValueError(f"its header states the format {form}; AEDAT 3.1 of the format RAW can be read: convert it")
    cameras = (("DVS128", 128, 128), ("DAVIS240", 240, 180), ("DAVIS346", 346, 260), ("DAVIS640", 640, 480))
    source = next((line for line in lines if line.startswith("#Source")), "")
    width, height = next((size for camera, *size in cameras if camera in source), (None, None))
    packets, times, dropped = [np.zeros(0, "<u4")], [np.zeros(0, np.int64)], 0
    while start < len(data):
        if len(data) - start < 28:
            dropped += 1
            break
        kind, _, size, _, overflows, capacity, number, _ = struct.unpack_from("<2h6i", data, start)
        if not 0 <= number <= capacity or size < 1 or overflows < 0 or kind < 0 or (kind == 1 and size != 8):
            raise ValueError(
                f"the packet at byte {start} states type {kind}, {number} of {capacity} events of {size} bytes and "
                f"{overflows} overflows; it is damaged: {AGAIN}"
            )
        start += 28
        there = (len(data) - start) // size
        if there < capacity:
            dropped += max(1, number - there)
        if kind == 1:
            events = np.frombuffer(data[start : start + min(number, there) * 8], "<u4").reshape(-1, 2)
            packets.append(events[:, 0])
            times.append((overflows << 31) + events[:, 1].view("<i4").astype(np.int64))
        start += capacity * size
    words, t = np.concatenate(packets), np.concatenate(times)
    valid = words & 1 == 1  # the camera's software marks events that it filtered as invalid
    words, t = words[valid], t[valid]
    x, y, p = words >> 17, words >> 2 & 0x7FFF, words >> 1 & 1
    return _events(path, t, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8), width, height, dropped)


def _aedat4(path):
    data = memoryview(path.read_bytes())
    with _damage("its header is damaged"):
        begin = bytes(data[:64]).index(b"\n") + 1
        (size,) = struct.unpack_from("<I", data, begin)
        header, start = data[begin + 4 : begin + 4 + size], begin + 4 + size
        compression = struct.unpack("<i", _field(header, 0, 4) or bytes(4))[0]
        table = struct.unpack("<q", _field(header, 1, 8) or b"\xff" * 8)[0]  # -1 where the recording was not closed
        (offset,) = struct.unpack("<I", _field(header, 2, 4))
        text = len(header) - len(_field(header, 2)) + offset
        (length,) = struct.unpack_from("<I", header, text)
        about = bytes(header[text + 4 : text + 4 + length])
        if b"<!" in about:
            raise ValueError("entities in its XML")  # which can stand for much more than they are
        info = xml.fromstring(about)
        streams = {
            int(node.get("name")): {key.get("key"): key.text for key in node.iter("attr")}
            for outputs in info.iter("node")
            if outputs.get("name") == "outInfo"
            for node in outputs.findall("node")
        }
        stream = min((key for key, about in streams.items() if about["typeIdentifier"] == "EVTS"), default=None)
    if stream is None:
        held = ", ".join(about["typeIdentifier"] for about in streams.values()) or "none"
        raise ValueError(f"none of its streams (types: {held}) holds events; give a recording of an event camera")
    with _damage("its header states no size of the sensor"):
        width, height = int(streams[stream]["sizeX"]), int(streams[stream]["sizeY"])
    unpack, left = _decompressor(compression), max(AMPLE, RATIO * len(data))
    end = len(data) if table < 0 else min(table, len(data))
    packets = [np.zeros(0, AEDAT4_EVENT)]
    while start + 8 <= end:
        identifier, size = struct.unpack_from("<2i", data, start)
        if size < 0 or identifier not in streams:
            raise ValueError(f"the packet at byte {start} states stream {identifier} and {size} bytes; {AGAIN}")
        if start + 8 + size > end:
            break
        if identifier == stream:
            with _damage(f"the packet at byte {start} is damaged"):
                content = unpack(bytes(data[start + 8 : start + 8 + size]), left)
                left -= len(content)
                packets.append(_packet(content))
        start += 8 + size
    if end < len(data) and start != end:
        raise ValueError(f"its packets end at byte {start}, its header states byte {end}; {AGAIN}")
    cut = int(start < (table if table >= 0 else len(data)))
    events = np.concatenate(packets)
    x, y = events["x"].astype(np.int32), events["y"].astype(np.int32)
    return _events(path, events["t"], x, y, events["p"] & 1, width, height, cut)


AEDAT4_EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("", "V3")])


def _packet(buffer):
    """The events of a flatbuffer that its size precedes: a vector of structs, the table's first field."""
    if len(buffer) < 12 or buffer[8:12] != b"EVTS":
        raise ValueError(f"it holds {buffer[8:12]!r} instead of events")
    found = _field(memoryview(buffer)[4:], 0)
    if found is None:
        return np.zeros(0, AEDAT4_EVENT)
    (offset,) = struct.unpack_from("<I", found)
    (count,) = struct.unpack_from("<I", found, offset)
    return np.frombuffer(found[offset + 4 : offset + 4 + count * AEDAT4_EVENT.itemsize], AEDAT4_EVENT, count)


def _field(buffer, number, size=None):
    """A flatbuffer from a field of its root table on, `size` bytes of it if given; None where the field is left out."""
    (root,) = struct.unpack_from("<I", buffer)
    fields = root - struct.unpack_from("<i", buffer, root)[0]
    (length,) = struct.unpack_from("<H", buffer, fields)
    offset = struct.unpack_from("<H", buffer, fields + 4 + 2 * number)[0] if 4 + 2 * number < length else 0
    if not offset:
        return None
    return buffer[root + offset : None if size is None else root + offset + size]


def _decompressor(compression):
    """A function of a packet and the most bytes that it may become, of which more is an error: a packet's own word for it is not
    believed."""
    if compression == 0:
        return lambda packet, most: packet
    if compression in (1, 2):
        lz4 = _library("lz4.frame", "a recording compressed with LZ4")
        return lambda packet, most: _whole_of(_lz4_pieces(lz4.LZ4FrameDecompressor(), packet), most)
    if compression in (3, 4):
        zstandard = _library("zstandard", "a recording compressed with Zstandard")
        return lambda packet, most: _whole_of(_zstandard_pieces(zstandard.ZstdDecompressor(), packet), most)
    raise ValueError(f"its header states the unknown compression {compression}; {AGAIN}")


PIECE = 1 << 20


def _lz4_pieces(decompressor, packet):
    while not decompressor.eof:
        yield decompressor.decompress(packet, PIECE)
        if decompressor.needs_input and not decompressor.eof:
            raise ValueError("its end is missing")
        packet = b""


def _zstandard_pieces(decompressor, packet):
    with decompressor.stream_reader(packet) as reader:
        while piece := reader.read(PIECE):
            yield piece


def _whole_of(pieces, most):
    found, size = [], 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size > most:
            raise ValueError(f"it stands for more than the {most:,} bytes that a recording in a file of this size takes")
    return b"".join(found)


# HDF5 and NumPy: columns of numbers under many names.


def _hdf5(path):
    h5py = _library("h5py", "an HDF5 file")
    with suppress(ImportError, OSError):
        importlib.import_module("hdf5plugin")  # registers Blosc and other ways to compress
    with _damage("it is no whole HDF5 file, or compressed in a way that h5py does not know"), h5py.File(path) as file:
        held = ", ".join(_shown(name) for name in list(file)[:20])
        for place in ("CD/events", "events", "/"):
            group = _node(h5py, file, place)
            if group is not None and (columns := _datasets(h5py, group)):
                break
        else:
            raise Refused(
                f"it holds {held or 'nothing'}, but no columns t, x, y, p under /, events or CD/events; name them so"
            )
        columns = _read_datasets(h5py, path, group, columns)
        width, height = _resolution(h5py, file, group, columns)
        offset = _node(h5py, file, "t_offset")
        offset = 0 if offset is None else _whole(offset[()], "t_offset")
    return _from_columns(path, columns, width, height, offset=offset)


def _node(h5py, group, place, links=8):
    """What lies at a place of an HDF5 file, None if nothing does. Links that lead into other files are not followed."""
    node = group
    for part in filter(None, place.split("/")):
        if not isinstance(node, h5py.Group) or not node.id.links.exists(part.encode()):
            return None
        kind = node.id.links.get_info(part.encode()).type
        if kind == h5py.h5l.TYPE_SOFT and links:
            target = node.id.links.get_val(part.encode()).decode()
            node = _node(h5py, group.file if target.startswith("/") else node, target, links - 1)
        elif kind == h5py.h5l.TYPE_HARD:
            node = node[part]
        else:
            raise Refused(f"{part!r} in it is a link that leads to another file or nowhere; give that file")
        if node is None:
            return None
    return node


def _datasets(h5py, group):
    """The names of the columns t, x, y, p in a group or table; None where one is missing."""
    if isinstance(group, h5py.Dataset):
        return _named(group.dtype.names or ())
    return _named(list(group)) if isinstance(group, h5py.Group) else None


def _read_datasets(h5py, path, group, names):
    """The columns by name, once their size is known to be what the file can hold."""
    whole = isinstance(group, h5py.Dataset)
    tables = [group] if whole else [_node(h5py, group, name) for name in names]
    for table in tables:
        if not isinstance(table, h5py.Dataset):
            raise Refused(f"its columns {', '.join(names)} are not all data sets")
        if table.external or table.is_virtual:
            raise Refused(f"its column {table.name} lies in another file; give that file")
        _must_be_unpacked(h5py, table)
    _must_be_columns([(group.dtype[name], group.shape) for name in names] if whole else [(table.dtype, table.shape) for table in tables])
    sizes = [max(table.size, math.prod(table.chunks or (0,))) * table.dtype.itemsize for table in tables]
    must_be_worth(sum(sizes), path)
    if whole:
        table = group[()]
        return [table[name] for name in names]
    return [table[()] for table in tables]


def _must_be_unpacked(h5py, table):
    """Says which package to install where a data set is compressed in a way that is not known here."""
    settings = table.id.get_create_plist()
    for number in range(settings.get_nfilters()):
        code, *_, name = settings.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        name = _shown(name.decode("ascii", "replace")) or "unknown"
        if code == 0x8ECF:
            raise Refused(
                f"its column {table.name} is compressed with Prophesee's ECF, which comes with Metavision and its HDF5 plugin; "
                "install that, or convert the recording to .raw"
            )
        raise Refused(
            f"its column {table.name} is compressed with the filter {code} ({name}), which h5py alone does not know: pip install hdf5plugin"
        )


def _shown(text):
    return re.sub(r"[^ -~]", "?", str(text))[:40]


def _resolution(h5py, file, group, columns):
    """Width and height that an HDF5 file states: as numbers or attributes beside the columns or at its top, as sensor_resolution, which
    is [height, width], or as geometry 'width x height'."""
    places = [place for place in (group, file) if isinstance(place, h5py.Group)]
    for place in places:
        found = [_node(h5py, place, name) for name in ("width", "height")]
        if all(isinstance(number, h5py.Dataset) and number.size == 1 and number.dtype.kind in "iuf" for number in found):
            return [_whole(number[()], "sensor's size") for number in found]
    for place in (group, file):
        if "width" in place.attrs and "height" in place.attrs:
            return [_whole(place.attrs[name], "sensor's size") for name in ("width", "height")]
        if "sensor_resolution" in place.attrs:
            stated = np.ravel(place.attrs["sensor_resolution"])
            if len(stated) < 2:
                raise Refused(f"its sensor_resolution is {_shown(stated)}, not [height, width]")
            height, width = (_whole(number, "sensor_resolution") for number in stated[:2])
            _, x, y, _ = columns
            if x.size and width <= x.max() < height and y.max() < width:
                width, height = height, width  # whoever wrote it meant [width, height]
            return width, height
        if "geometry" in place.attrs:
            geometry = place.attrs["geometry"]
            geometry = geometry.decode("ascii", "replace") if isinstance(geometry, bytes) else str(geometry)
            found = re.fullmatch(r"\s*(\d{1,9})\s*x\s*(\d{1,9})\s*", geometry)
            if not found:
                raise Refused(f"its geometry is {_shown(geometry)!r}, not such as '640x480'")
            return int(found[1]), int(found[2])
    return None, None


def _numpy(path):
    with _damage("it is no whole NumPy file"):
        arrays = Arrays(path)
    held = arrays.held
    table = next(iter(held)) if len(held) == 1 else None
    names, fields = _named(held), _named(held[table][0].names or ()) if table is not None else None
    if names is None and fields is None:
        shown = ", ".join(f"{_shown(name)} {_shown(dtype)} {list(shape)}".strip() for name, (dtype, shape) in list(held.items())[:20])
        raise Refused(
            f"it holds {shown or 'nothing'}, but no arrays or fields t, x, y, p; save them under these names "
            "(a table without names does not say which column is which)"
        )
    about = [name for name in ("width", "height", "dropped") if name in held and held[name][1] == ()]
    if names is None:
        dtype, shape = held[table]
        _must_be_columns([(dtype[name], shape) for name in fields])
    else:
        _must_be_columns([held[name] for name in names])
    with _damage("it is no whole NumPy file"):
        read = arrays.read([*(names or [table]), *about])
    columns = [read[name] for name in names] if names else [read[table][name] for name in fields]
    width, height, dropped = (_whole(read[name], name) if name in about else 0 for name in ("width", "height", "dropped"))
    return _from_columns(path, columns, width, height, max(0, dropped))


def _named(names):
    """Which of the names are the columns t, x, y, p; None where one is missing.

    Raises:
        ValueError: two names say the same.
    """
    found = [[alias for alias in aliases if alias in names] for aliases in NAMES.values()]
    if not all(found):
        return None
    if double := next((aliases for aliases in found if len(aliases) > 1), None):
        raise Refused(f"it holds both {' and '.join(double)}, which does not say which to take; leave one out")
    return [alias for (alias,) in found]


def _must_be_columns(stated):
    """Of types and shapes, before what they state is read."""
    shapes = [shape for _, shape in stated]
    if any(len(shape) != 1 or shape != shapes[0] for shape in shapes):
        raise Refused(f"its columns t, x, y, p have the shapes {shapes}; they must be equally long rows of numbers")
    if any(dtype.kind not in "biuf" for dtype, _ in stated) or stated[0][0].kind == "b":
        raise Refused(f"its columns t, x, y, p have the types {[_shown(dtype) for dtype, _ in stated]}, not numbers")


def _from_columns(path, columns, width, height, dropped=0, offset=0):
    if any(column.dtype.kind == "f" and not np.isfinite(column).all() for column in columns):
        raise ValueError("its columns t, x, y, p hold numbers that are not finite; leave these events out")
    t, x, y, p = columns
    if t.dtype.kind == "f" and (t != np.rint(t)).any():
        t = t.astype(np.float64)
        if t.max() - t.min() > DAY:
            raise ValueError(
                f"its times have fractions, which makes them seconds, and reach from {t.min():g} to {t.max():g}, which is more than a day; "
                "give microseconds as whole numbers"
            )
        t *= 1e6
    if t.size and not -(2**60) < int(t.min()) <= int(t.max()) < 2**60:
        raise ValueError(f"its times reach from {t.min()} to {t.max()}; give microseconds (or seconds with fractions)")
    if any(column.dtype.kind == "f" and (column != np.rint(column)).any() for column in (x, y, p)):
        raise ValueError("its columns x, y, p hold fractions; round them to pixels and polarities")
    if p.size and not -1 <= int(p.min()) <= int(p.max()) <= 1:
        raise ValueError(f"its polarities reach from {p.min()} to {p.max()}; give 0 or -1 for OFF and 1 for ON")
    if p.size and p.min() < 0 and (p == 0).any():
        raise ValueError("its polarities hold both -1 and 0, either of which can stand for OFF; give one of them")
    t = np.rint(t).astype(np.int64) + offset if t.dtype.kind == "f" else t.astype(np.int64) + offset
    x, y = (
        (np.clip(column.astype(np.float64), -1, 2**31) if column.dtype.kind == "f" else column).astype(np.int64)
        for column in (x, y)
    )
    return _events(path, t, x, y, p > 0, width, height, dropped)
