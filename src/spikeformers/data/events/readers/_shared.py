"""What the readers of event files share: columns that are checked, counted and put in order, and words for damage."""

# Shapes: N events.

import importlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from ...._install import command_for
from .._arrays import Refused
from .._events import Events

AGAIN = "copy or download it again"
LARGEST = 1 << 22
"""Pixels of a sensor, four times those of the largest event camera; more are taken for damage."""
JITTER = 1000
"""Microseconds by which times may run back without an error, since cameras and their software do not hand on events in perfect
order."""
HEADER = 1 << 20
"""Bytes of a text header."""


def checked_events(
    path: Path,
    t: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    p: np.ndarray,
    width: int | None = None,
    height: int | None = None,
    dropped: int = 0,
) -> Events:
    """Events of columns in any order; those outside the sensor (or of a time beyond all clocks) are dropped and counted.

    Args:
        path: the file, for warnings.
        t: times [N] in microseconds, any integers.
        x: columns [N] in pixels from the left.
        y: rows [N] in pixels from the top.
        p: polarities [N]: 0 OFF, 1 ON.
        width: of the sensor in pixels, None or 0 where the file does not say.
        height: of the sensor in pixels, None or 0 where the file does not say.
        dropped: events that are lost already.
    Raises:
        ValueError: a sensor of no possible size.
    """
    width, height = sensor_size(width, height)
    outside = (x < 0) | (y < 0) | (x >= (width or 2**31)) | (y >= (height or 2**31)) | (t <= -(2**60)) | (t >= 2**60)
    if outside.any():
        dropped += int(np.count_nonzero(outside))
        t, x, y, p = (column[~outside] for column in (t, x, y, p))
    t, x, y, p = in_order(path, t.astype(np.int64), x, y, p)
    return Events(t, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8), width, height, dropped)


def sensor_size(width: object, height: object) -> tuple[int | None, int | None]:
    """Width and height as a file states them, None for what it leaves open (or states as 0).

    Raises:
        ValueError: they are no whole numbers, negative, or larger than any event camera's.
    """
    stated = [None if number is None else whole_number(number, "sensor's size") for number in (width, height)]
    if min((number for number in stated if number is not None), default=0) < 0:
        raise Refused(f"it states a sensor of {stated[0]} x {stated[1]} pixels; {AGAIN}")
    width, height = (number or None for number in stated)
    if (width or 1) * (height or 1) > LARGEST:
        raise Refused(
            f"it states a sensor of {width} x {height} pixels, larger than any event camera's; it is damaged: {AGAIN}"
        )
    return width, height


def whole_number(value: object, what: str) -> int:
    """An integer that a file states as a number of any type, or in digits.

    Raises:
        ValueError: it is none; `what` says for people what it stands for.
    """
    try:
        value = np.asarray(value).item()
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
        if isinstance(text, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text):
            value = int(text)
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


def records(data: memoryview, dtype: object, start: int = 0) -> tuple[np.ndarray, int]:
    """The whole records of a file, and how many are cut (0 or 1).

    Args:
        data: the file's bytes.
        dtype: NumPy's type of a record.
        start: the byte at which they begin.
    """
    size = np.dtype(dtype).itemsize
    count, rest = divmod(len(data) - start, size)
    return np.frombuffer(data[start : start + count * size], dtype), int(rest > 0)


def unwrapped(counter: np.ndarray, bits: int) -> np.ndarray:
    """A counter [N] of so many bits, as int64 without overflows. One is where the counter falls from its last eighth to its first; another
    fall means that it was reset or is damaged."""
    counter = counter.astype(np.int64)
    eighth = 1 << (bits - 3)
    first, last = counter < eighth, counter >= 7 * eighth
    over, back = last[:-1] & first[1:], first[:-1] & last[1:]  # a rise by as much goes back behind the overflow
    wraps = np.cumsum(over.astype(np.int64) - back)
    counter[1:] += np.maximum(wraps, 0) << bits
    return counter


@contextmanager
def damage(what: str) -> Iterator[None]:
    """Whatever a library raises inside, at a damaged file, becomes one error that begins with `what`.

    Raises:
        ValueError: anything was raised that is no `Refused`, which says enough by itself.
    """
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise ValueError(f"{what} ({type(error).__name__}: {error}); {AGAIN}") from error


def library(name: str, reads: str) -> ModuleType:
    """A module that only some files need; `reads` says for people which.

    Raises:
        ValueError: its package is missing; which, and how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise Refused(f"{reads} needs the package {package}: {command_for('events')}") from None
