"""Prophesee: text lines "% key value", then words of 32 (EVT 2.0), 64 (EVT 2.1) or 16 bits (EVT 3.0), or .dat's records.

Source: Prophesee's description of its encodings (docs.prophesee.ai, "Data encoding formats": EVT 2.0, EVT 2.1, EVT 3.0; "File formats": RAW, DAT).
"""

import re
import warnings
from pathlib import Path

import numpy as np

from .._events import Events
from ._shared import AGAIN, HEADER, checked_events, records, unwrapped

EVT2_KINDS = (0, 1, 8, 10, 14, 15)  # OFF, ON, high time, trigger, others, continued
EVT3_KINDS = (0, 2, 3, 4, 5, 6, 7, 8, 10, 14, 15)  # y, x, base x, 12 and 8 pixels, low time, ..., high time, ...
WIDEST = 2048
"""Columns or rows of a sensor that .dat's header does not describe; Prophesee's largest have 1280."""


def read_prophesee(path: Path) -> Events:
    """The events of a .raw file in EVT 2.0, 2.1 or 3.0, or of a .dat file of change detection.

    Raises:
        ValueError: it is damaged, or its header states none of these.
    """
    data = memoryview(path.read_bytes())
    fields, start = _header(data)
    form, *options = fields.get("format", "").split(";")
    fields |= dict(option.split("=", 1) for option in options if "=" in option)
    version = {"EVT2": "2.0", "EVT21": "2.1", "EVT3": "3.0"}.get(form, fields.get("evt"))
    width, height = _sensor(fields)
    decoders = {"2.0": _evt2, "2.1": _evt21, "3.0": _evt3}
    if version in decoders and fields.get("endianness") != "big":
        t, x, y, p, dropped = decoders[version](path, data, start, fields)
        return checked_events(path, t, x, y, p, width, height, dropped)
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
            raise ValueError(
                f"it ends in its text header, or that is longer than {HEADER:,} characters or 4096 in a line; {AGAIN}"
            )
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


def _evt2(path, data, start, fields):
    words, dropped = records(data, "<u4", start)
    pairs = words[: len(words) // 2 * 2].reshape(-1, 2)
    if any(_like_evt21(pairs[:, order], pairs[:, 1 - order]) for order in (0, 1)):
        raise ValueError("its header states EVT 2.0, but its words are those of EVT 2.1; state that in its header")
    kinds = (words >> 28).astype(np.uint8)
    _check_kinds(kinds, EVT2_KINDS, "EVT 2.0")
    at = np.flatnonzero(kinds <= 1)
    t, timed = _times(path, words, kinds, at)
    dropped += int(np.count_nonzero(~timed))
    t, at = t[timed], at[timed]
    events = words[at]
    return t, (events >> 11 & 2047).astype(np.int32), (events & 2047).astype(np.int32), kinds[at], dropped


def _evt21(path, data, start, fields):
    """Like EVT 2.0, with a column of 32 bits for the 32 pixels from x on. The upper half of a word comes first where the
    header says endianness=legacy; where it says nothing, the halves that look like the upper ones are."""
    halves, dropped = records(data, "<2u4", start)
    halves = halves.reshape(-1, 2)
    order = {"legacy": 0, "little": 1}.get(fields.get("endianness"))
    if order is None:
        known, high = np.isin(halves >> 28, EVT2_KINDS), halves >> 28 == 8
        alone = high & (halves[:, ::-1] == 0)  # high times, but not pixels
        order = max((0, 1), key=lambda half: [int(marks[:, half].sum()) for marks in (known, alone, high)])
    upper, pixels = halves[:, order], halves[:, 1 - order]
    if _like_evt2(halves, upper, pixels):
        raise ValueError("its header states EVT 2.1, but its words are those of EVT 2.0; state that in its header")
    kinds = (upper >> 28).astype(np.uint8)
    _check_kinds(kinds, EVT2_KINDS, "EVT 2.1")
    at = np.flatnonzero(kinds <= 1)
    t, timed = _times(path, upper, kinds, at)
    row, bit = _bits(pixels[at])
    dropped += int(np.count_nonzero(~timed[row]))
    row, bit = row[timed[row]], bit[timed[row]]
    t, at = t[row], at[row]
    events = upper[at]
    return t, (events >> 11 & 2047).astype(np.int32) + bit, (events & 2047).astype(np.int32), kinds[at], dropped


def _like_evt2(halves, upper, pixels):
    """Whether words of 64 bits [N] are pairs of EVT 2.0's. In EVT 2.1 the half beside a high time is unused, and x is a multiple of 32."""
    words = halves.ravel()
    kinds = words >> 28
    high = words[kinds == 8]
    beside = pixels[upper >> 28 == 8] if (upper >> 28 == 8).any() else upper[pixels >> 28 == 8]
    events = upper[upper >> 28 <= 1]
    return (
        len(beside) > 0
        and np.isin(kinds, EVT2_KINDS).mean() >= 0.95
        and (high[1:] < high[:-1]).sum() <= len(high) // 20
        and (np.isin(beside >> 28, (0, 1, 8)) & (beside != 0)).mean() > 0.5
        and (not len(events) or (events >> 11 & 31 != 0).mean() > 0.5)
    )


def _like_evt21(upper, pixels):
    """Whether words of 32 bits are halves [N] of EVT 2.1's: beside high times nothing, beside events at multiples of 32 some pixels."""
    high, events = upper >> 28 == 8, upper >> 28 <= 1
    return (
        high.any()
        and events.any()
        and (pixels[high] == 0).mean() > 0.5
        and (pixels[events] != 0).mean() > 0.5
        and (upper[events] >> 11 & 31 == 0).mean() > 0.95
    )


def _times(path, words, kinds, at):
    """The times of the words `at` [N], and which of them are known, which those before the first high time are not."""
    high, low = _before(kinds == 8, at), (words[at] >> 22 & 63).astype(np.int64)
    if len(at) and high[-1] < 0:
        raise ValueError(
            f"none of its {len(at)} words of events has a known time, since no high time precedes; {AGAIN}"
        )
    above = words[kinds == 8] & 0x0FFFFFFF
    anew = int(np.count_nonzero((np.diff(low) <= -32) & (np.diff(high) == 0)))
    if anew > 1 + np.count_nonzero(np.diff(above)):
        warnings.warn(
            f"{path}: high words of the time are missing: the low ones (6 bits) begin anew {anew:,} times without one, of which there are "
            f"{len(above):,}; the times are too short",
            stacklevel=2,
        )
    return unwrapped(above, 28)[high] << 6 | low, high >= 0


def _evt3(path, data, start, fields):
    words, dropped = records(data, "<u2", start)
    kinds = (words >> 12).astype(np.uint8)
    _check_kinds(kinds, EVT3_KINDS, "EVT 3.0")
    lines, bases, highs, lows = kinds == 0, kinds == 3, kinds == 8, kinds == 6
    at = np.flatnonzero((kinds == 2) | (kinds == 4) | (kinds == 5))
    line, base, high, low = (_before(setters, at) for setters in (lines, bases, highs, lows))
    kind, word = kinds[at], words[at]
    pixels = np.where(kind == 2, 1, np.where(kind == 4, word & 0xFFF, word & 0xFF))
    timed = high if highs.any() else low
    placed = (line >= 0) & (timed >= 0) & ((kind == 2) | (base >= 0))
    if len(at) and timed[-1] < 0:
        raise ValueError(f"none of its {len(at)} words of events has a known time, since no time precedes; {AGAIN}")
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
    t = np.append(unwrapped(high_words, 12), 0)[high] << 12
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


def _before(setters, at):
    """Which of the words that `setters` [words] marks comes last before each position `at`; -1 where none does."""
    return np.cumsum(setters)[at] - 1


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
    events, dropped = records(data, [("t", "<u4"), ("address", "<u4")], start + 2)
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
    columns, rows = width or WIDEST, height or WIDEST
    outside = int(np.count_nonzero((x >= columns) | (y >= rows)))
    if outside > len(address) // 2:
        other = "; its addresses have the 18 bits of version 1" if version == "2" and not (address >> 18).any() else ""
        raise ValueError(
            f"{outside} of {len(address)} events lie outside a sensor of {columns} x {rows} pixels, read as .dat of version {version}, which its "
            f"header states{other}; it is damaged, or of another version or sensor: {AGAIN}"
        )
    return checked_events(path, unwrapped(events["t"], 32), x, y, p, width, height, dropped)
