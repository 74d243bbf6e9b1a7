"""Columns of numbers under many names, as HDF5 and NumPy files hold them: which is which, and what their numbers mean."""

# Shapes: N events.

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from .._arrays import Refused
from .._events import Events
from ._shared import checked_events

DAY = 86400.0
"""Seconds. Times with fractions that span more are no seconds."""
NAMES = {
    "t": ("t", "ts", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}


def named(names: Collection[str]) -> list[str] | None:
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


def must_be_columns(stated: Sequence[tuple[np.dtype, tuple[int, ...]]]):
    """Checks the types and shapes of t, x, y, p before their values are read.

    Raises:
        ValueError: they are no four rows of numbers of one length.
    """
    shapes = [shape for _, shape in stated]
    if any(len(shape) != 1 or shape != shapes[0] for shape in shapes):
        raise Refused(f"its columns t, x, y, p have the shapes {shapes}; they must be equally long rows of numbers")
    if any(dtype.kind not in "biuf" for dtype, _ in stated) or stated[0][0].kind == "b":
        raise Refused(f"its columns t, x, y, p have the types {[shown(dtype) for dtype, _ in stated]}, not numbers")


def from_columns(
    path: Path, columns: Sequence[np.ndarray], width: object, height: object, dropped: int = 0, offset: int = 0
) -> Events:
    """Events of columns of any numbers. Times with fractions are seconds, all others microseconds.

    Args:
        path: the file, for warnings.
        columns: t, x, y, p, each [N]; p holds 0 or -1 for OFF and 1 for ON.
        width: of the sensor in pixels, None or 0 where the file does not say.
        height: of the sensor in pixels, None or 0 where the file does not say.
        dropped: events that are lost already.
        offset: microseconds that are added to all times.
    Raises:
        ValueError: the numbers cannot be times, pixels or polarities.
    """
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
    return checked_events(path, t, x, y, p > 0, width, height, dropped)


def shown(text: object) -> str:
    """What a stranger's file calls something, shortened and without control characters."""
    return re.sub(r"[^ -~]", "?", str(text))[:40]
