"""Event Stream 2 (.es): bytes 0xFF (127 microseconds pass) and 0xFE (reset) between events of five bytes.

Source: the format's description by its authors (github.com/neuromorphic-paris/event_stream).
"""

import struct
from pathlib import Path

import numpy as np

from .._events import Events
from ._shared import AGAIN, checked_events, sensor_size


def read_event_stream(path: Path) -> Events:
    """The events of an Event Stream of type DVS; its rows, which count from the bottom, are turned over.

    Raises:
        ValueError: it is damaged, or of another version or type.
    """
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
    sensor_size(width, height)
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
    return checked_events(path, t, x, height - 1 - y, first & 1, width, height, cut)


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
