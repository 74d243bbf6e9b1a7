"""Event files: one function reads every format, whatever wrote it and wherever the file was cut.

The binary formats are decoded here with numpy because the libraries that read them stop at the first event outside the
sensor, or give nothing of a file that was cut. h5py, lz4 and zstandard do what is not about events; they are imported when
a file needs them.
"""

import importlib
import re
import struct
import xml.etree.ElementTree as xml
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np

from ..._files import write_atomically
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
NAMES = {
    "t": ("t", "ts", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}


def read_events(path: str | Path) -> Events:
    """The events of a file. What the file begins with decides on the format; the suffix only where that says nothing.

    Formats: AEDAT 4 (its first stream of events), AEDAT 3.1, AEDAT 2.0 of a DVS128; Prophesee's EVT 2.0, 2.1 and 3.0 (.raw)
    and .dat; Event Stream (.es); N-MNIST and N-Caltech101 (.bin); HDF5 and NumPy files with columns t, x, y, p (or ts, xs,
    ys, ps, ...), at the top or under `events` or `CD/events`. Columns of times that hold fractions are seconds, all others
    microseconds; DSEC's `t_offset` is added.

    Rows count from the top. Event Stream counts them from the bottom, so they are turned over. The axes of AEDAT 2.0 are
    those of SpikingJelly's CIFAR10-DVS, on which published results rest: x = 127 - bits 8..14, y = 127 - bits 1..7 of the
    address (jAER's own viewer shows the transpose). All other formats keep the rows and columns they store.

    Times that run back are sorted, events of the same time keep their order. Where the low time word of EVT 3.0 steps back
    a little, the order of the file is kept and the time stands still meanwhile. Counters of time that overflow go on.
    Of a file that was cut, the whole events are given and the rest counts as (at least one) dropped.

    Args:
        path: the file.
    Returns:
        The events in order of time.
    Raises:
        ValueError: the file is missing, empty, damaged or of no known format, or a package to read it is missing.
    """
    path = Path(path)
    try:
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
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from error


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


def _events(t, x, y, p, width=None, height=None, dropped=0):
    """Events of columns in any order; those outside the sensor are dropped and counted."""
    outside = (x < 0) | (y < 0) | (x >= (width or 2**31)) | (y >= (height or 2**31))
    if outside.any():
        dropped += int(np.count_nonzero(outside))
        t, x, y, p = (column[~outside] for column in (t, x, y, p))
    if (t[1:] < t[:-1]).any():
        order = np.argsort(t, kind="stable")
        t, x, y, p = (column[order] for column in (t, x, y, p))
    columns = t.astype(np.int64), x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8)
    return Events(*columns, width or None, height or None, dropped)


def _records(data, dtype, start=0):
    """The whole records from `start` on, and how many are cut (0 or 1)."""
    size = np.dtype(dtype).itemsize
    count, rest = divmod(len(data) - start, size)
    return np.frombuffer(data[start : start + count * size], dtype), int(rest > 0)


def _unwrap(counter, bits):
    """A counter of so many bits, never reset, as int64: it overflowed where it falls by more than half its range."""
    counter = counter.astype(np.int64)
    step, half = np.diff(counter), 1 << (bits - 1)
    wraps = np.cumsum(
        (step < -half).astype(np.int64) - (step > half)
    )  # a rise by as much goes back behind the overflow
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
    except Exception as error:
        raise ValueError(f"{what} ({type(error).__name__}: {error}); {AGAIN}") from error


def _library(name, reads):
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise ValueError(f"{reads} needs the package {package}: pip install 'spikeformers[events]'") from None


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
        t, x, y, p, dropped = decoders[version](data, start, fields)
        return _events(t, x, y, p, width, height, dropped)
    if version is not None or form or path.suffix.lower() == ".raw":
        found = f"format {form or version or 'nowhere'}, {fields.get('endianness', 'little')}-endian"
        raise ValueError(f"its header states {found}; EVT 2.0, 2.1 and 3.0, little-endian, can be read: convert it")
    return _dat(data, start, fields, width, height)


def _header(data):
    """The keys (in small letters) and values of a text header, and where the events begin."""
    fields, start = {}, 0
    while data[start : start + 2] == b"% ":
        line = bytes(data[start : start + 4096]).split(b"\n", 1)
        if len(line) < 2:
            raise ValueError(f"it ends in its text header, or has a line of more than 4096 characters there; {AGAIN}")
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


def _evt2(data, start, fields):
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


def _evt21(data, start, fields):
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


def _evt3(data, start, fields):
    words, dropped = _records(data, "<u2", start)
    kinds = (words >> 12).astype(np.uint8)
    _check_kinds(kinds, EVT3_KINDS, "EVT 3.0")
    lines, bases, highs, lows = kinds == 0, kinds == 3, kinds == 8, kinds == 6
    at = np.flatnonzero((kinds == 2) | (kinds == 4) | (kinds == 5))
    line, base, high, low = (_before(setters, at) for setters in (lines, bases, highs, lows))
    kind, word = kinds[at], words[at]
    pixels = np.where(kind == 2, 1, np.where(kind == 4, word & 0xFFF, word & 0xFF))
    placed = (line >= 0) & (high >= 0) & ((kind == 2) | (base >= 0))
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

    high_words = words[highs] & 0xFFF
    changes = np.flatnonzero(highs)[np.diff(high_words.astype(np.int32), prepend=-1) != 0]
    low_words, low_at = np.append(words[lows] & 0xFFF, 0), np.append(np.flatnonzero(lows), -1)  # the last is for none
    current = low_at[low] > changes[np.searchsorted(changes, at) - 1]  # a new high word begins with the low word 0
    t = (_unwrap(high_words, 12)[high] << 12) + np.where(current, low_words[low], 0)
    latest = np.maximum.accumulate(t)
    if (latest - t).max(initial=0) < 64:
        t = latest  # the low word steps back by a few microseconds; the order is that of the sensor
    row, bit = _bits(pixels)
    return t[row], x[row] + bit.astype(np.int32), y[row], (word[row] >> 11 & 1).astype(np.uint8), dropped


def _bits(masks):
    """The set bits of unsigned numbers: which number, and which bit from the lowest on, in this order."""
    width = 8 * masks.dtype.itemsize
    at = np.flatnonzero(np.unpackbits(masks.view(np.uint8), bitorder="little").view(bool))
    return at // width, at % width


def _dat(data, start, fields, width, height):
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
    x = (address & ((1 << x_bits) - 1)).astype(np.int32)
    y = (address >> x_bits & ((1 << y_bits) - 1)).astype(np.int32)
    p = (address >> (x_bits + y_bits) & 1).astype(np.uint8)
    return _events(_unwrap(events["t"], 32), x, y, p, width, height, dropped)


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
    if backwards > max(1, len(t) // 10):
        raise ValueError(f"taken as N-MNIST's format, the time runs back at {backwards} of {len(t)} events; {AGAIN}")
    return _events(t, x, y, p, dropped=dropped)


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
    return _events(t, x, height - 1 - y, first & 1, width, height, cut)


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
        if len(line) < 2:
            raise ValueError(f"it ends in its text header, or has a line of more than 4096 characters there; {AGAIN}")
        start += len(line[0]) + 1
        lines.append(line[0].decode("ascii", "replace").strip())
        if lines[-1] == "#!END-HEADER":
            break
    return lines, start


def _aedat2(path):
    data = memoryview(path.read_bytes())
    lines, start = _comments(data)
    chip = re.search(r"AEChip: (\S+)", "\n".join(lines))
    if chip and "DVS128" not in chip[1]:
        raise ValueError(
            f"its events are of the camera {chip[1]}; of AEDAT 2.0 those of a DVS128 can be read: convert it"
        )
    events, dropped = _records(data, [("address", ">u4"), ("t", ">u4")], start)
    t = _unwrap(events["t"], 32)
    address = events["address"].astype(np.int64)
    pixel = address & 0x8000 == 0  # the others are marks of synchronisation
    t, address = t[pixel], address[pixel]
    x, y = 127 - (address >> 8), 127 - (address >> 1 & 127)  # an address of more than 15 bits lies outside
    return _events(t, x, y, 1 - (address & 1), 128, 128, dropped)


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
    return _events(t, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8), width, height, dropped)


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
        info = xml.fromstring(bytes(header[text + 4 : text + 4 + length]))
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
    unpack = _decompressor(compression)
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
                packets.append(_packet(unpack(bytes(data[start + 8 : start + 8 + size]))))
        start += 8 + size
    if end < len(data) and start != end:
        raise ValueError(f"its packets end at byte {start}, its header states byte {end}; {AGAIN}")
    cut = int(start < (table if table >= 0 else len(data)))
    events = np.concatenate(packets)
    x, y = events["x"].astype(np.int32), events["y"].astype(np.int32)
    return _events(events["t"], x, y, events["p"] & 1, width, height, cut)


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
    if compression == 0:
        return bytes
    if compression in (1, 2):
        return _library("lz4.frame", "a recording compressed with LZ4").decompress
    if compression in (3, 4):
        zstandard = _library("zstandard", "a recording compressed with Zstandard")
        return lambda packet: zstandard.ZstdDecompressor().decompressobj().decompress(packet)
    raise ValueError(f"its header states the unknown compression {compression}; {AGAIN}")


# HDF5 and NumPy: columns of numbers under many names.


def _hdf5(path):
    h5py = _library("h5py", "an HDF5 file")
    with _damage("it is no whole HDF5 file, or compressed in a way that h5py does not know"), h5py.File(path) as file:
        groups = [name for name in ("CD/events", "events", "/") if name in file]
        columns = next(filter(None, (_columns(file[name]) for name in groups)), None)
        width, height = _resolution(file)
        offset = int(np.int64(file["t_offset"][()])) if "t_offset" in file else 0
        held = ", ".join(file)
    if columns is None:
        raise ValueError(
            f"it holds {held or 'nothing'}, but no columns t, x, y, p under /, events or CD/events; name them so"
        )
    return _from_columns(columns, width, height, offset=offset)


def _resolution(file):
    """Width and height that an HDF5 file states: sensor_resolution is [height, width], geometry 'width x height'."""
    if "sensor_resolution" in file.attrs:
        height, width = (int(number) for number in file.attrs["sensor_resolution"][:2])
        return width, height
    if "geometry" in file.attrs:
        geometry = file.attrs["geometry"]
        width, height = (geometry.decode() if isinstance(geometry, bytes) else geometry).split("x")
        return int(width), int(height)
    return None, None


def _numpy(path):
    with _damage("it is no whole NumPy file"):
        loaded = np.load(path, allow_pickle=False)
        arrays = {"": loaded}
        if not isinstance(loaded, np.ndarray):
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    columns = _columns(arrays)
    if columns is None and len(arrays) == 1:
        columns = _columns(next(iter(arrays.values())))
    if columns is None:
        held = ", ".join(f"{name} {array.dtype} {list(array.shape)}".strip() for name, array in arrays.items())
        raise ValueError(
            f"it holds {held or 'nothing'}, but no arrays or fields t, x, y, p; save them under these names "
            "(a table without names does not say which column is which)"
        )
    about = [
        int(arrays[name]) if name in arrays and arrays[name].ndim == 0 else 0 for name in ("width", "height", "dropped")
    ]
    return _from_columns(columns, about[0] or None, about[1] or None, about[2])


def _columns(table):
    """The columns t, x, y, p of a group, of a structured array or of arrays by name; None where one is missing."""
    names = table.dtype.names if hasattr(table, "dtype") else tuple(table)
    if hasattr(table, "dtype"):
        table = table[()]
    found = [next((alias for alias in aliases if alias in (names or ())), None) for aliases in NAMES.values()]
    return None if None in found else [np.asarray(table[name]) for name in found]


def _from_columns(columns, width, height, dropped=0, offset=0):
    lengths = [column.shape for column in columns]
    if any(len(shape) != 1 or shape != lengths[0] for shape in lengths):
        raise ValueError(f"its columns t, x, y, p have the shapes {lengths}; they must be equally long rows of numbers")
    if any(column.dtype.kind not in "biuf" for column in columns):
        raise ValueError(
            f"its columns t, x, y, p have the types {[str(column.dtype) for column in columns]}, not numbers"
        )
    if any(column.dtype.kind == "f" and not np.isfinite(column).all() for column in columns):
        raise ValueError("its columns t, x, y, p hold numbers that are not finite; leave these events out")
    t, x, y, p = columns
    if t.dtype.kind == "f" and (t != np.rint(t)).any():
        t = t.astype(np.float64) * 1e6
    if t.size and not -(2**62) < int(t.min()) <= int(t.max()) < 2**62:
        raise ValueError(f"its times reach from {t.min()} to {t.max()}; give microseconds (or seconds with fractions)")
    if any(column.dtype.kind == "f" and (column != np.rint(column)).any() for column in (x, y, p)):
        raise ValueError("its columns x, y, p hold fractions; round them to pixels and polarities")
    if p.size and not -1 <= int(p.min()) <= int(p.max()) <= 1:
        raise ValueError(f"its polarities reach from {p.min()} to {p.max()}; give 0 or -1 for OFF and 1 for ON")
    t = np.rint(t).astype(np.int64) + offset if t.dtype.kind == "f" else t.astype(np.int64) + offset
    x, y = (
        (np.clip(column.astype(np.float64), -1, 2**31) if column.dtype.kind == "f" else column).astype(np.int64)
        for column in (x, y)
    )
    return _events(t, x, y, p > 0, width, height, dropped)
