"""From events to frames of counts [T, 2, H, W]: by number of events, by share of the recording, or by fixed duration."""
# Shapes: T frames, N events, H W pixels; channel 0 counts OFF events, channel 1 ON events.

import warnings
from dataclasses import replace

import numpy as np

from ._events import Events

SPLITS = ("number", "time", "duration")
MOST = 1 << 30
"""Counts of a recording: 4 GiB."""
TOGETHER = 1 << 20
"""Counts that are made at once, which takes twice their memory; more are slower, too."""


def integrate(
    events: Events, frames: int, *, split_by: str = "number", duration: int | None = None, size: tuple[int, int]
) -> np.ndarray:
    """Counts of events per frame, polarity and pixel.

    Which events frame i holds, for N events from time t0 on:
    number: events i * (N // T) up to (i + 1) * (N // T), the last frame all up to N (SpikingJelly's split_by="number").
        With fewer events than frames that leaves all of them to the last frame.
    time: t0 + i * dt <= t < t0 + (i + 1) * dt with dt = (t[N-1] - t0) // T, the last frame all the rest (SpikingJelly's
        split_by="time"); frames without events are empty.
    duration: t0 + i * duration <= t < t0 + (i + 1) * duration; what comes after T frames is left out.
    A recording without events becomes empty frames. Events outside the frame are left out before the recording is split,
    with a warning that also counts those that were lost before (`Events.dropped`).

    Args:
        events: a recording.
        frames: T, at least 1.
        split_by: "number", "time" or "duration".
        duration: of a frame in microseconds, for split_by="duration".
        size: height and width of the frames in pixels.
    Returns:
        Counts [T, 2, H, W], int32.
    Raises:
        ValueError: unknown split_by, no duration for split_by="duration", no size, or frames larger than any memory.
    """
    height, width = size
    if height is None or width is None:
        raise ValueError(f"size is {size}: the recording does not state its sensor's; give height and width in pixels")
    must_be_countable(frames, size)
    kept = inside(events, size)
    if kept.dropped:
        before = f", and {events.dropped} were lost before" if events.dropped else ""
        warnings.warn(
            f"{kept.dropped - events.dropped} of {len(events)} events lie outside {width}x{height} pixels{before}; they are left out",
            stacklevel=2,
        )
    return count(kept, frames, split_by=split_by, duration=duration, size=size)


def count(events: Events, frames: int, *, split_by: str, duration: int | None, size: tuple[int, int]) -> np.ndarray:
    """`integrate` of events all of which are known to lie within `size`.

    Args:
        events: a recording, or what `inside` leaves of it.
        frames: T, at least 1.
        split_by: "number", "time" or "duration".
        duration: of a frame in microseconds, for split_by="duration".
        size: height and width of the frames in pixels.
    Returns:
        Counts [T, 2, H, W], int32.
    Raises:
        ValueError: unknown split_by, no duration for split_by="duration", or frames larger than any memory.
    """
    must_be_countable(frames, size)
    height, width = size
    edges = split(events.t, frames, split_by, duration)
    try:
        counts = np.zeros((frames, 2 * height * width), np.int32)
        together = max(1, TOGETHER // counts.shape[1])
        for start in range(0, frames, together):
            part, bounds = counts[start : start + together], edges[start : start + together + 1]
            first, last = bounds[0], bounds[-1]
            if first < last:
                place = np.repeat(
                    np.arange(len(part)) * 2, np.diff(bounds)
                )  # the plane [frame, polarity] of each event, so far of OFF
                place += events.p[first:last]
                place *= height
                place += events.y[first:last]
                place *= width
                place += events.x[first:last]
                part[:] = np.bincount(place, minlength=part.size).reshape(part.shape)
    except MemoryError:
        raise ValueError(
            f"{frames:,} frames of {width}x{height} pixels do not fit into memory; give fewer or smaller ones"
        ) from None
    return counts.reshape(frames, 2, height, width)


def must_be_countable(frames: int, size: tuple[int, int]):
    """
    Raises:
        ValueError: so many frames of so many rows and columns fill any memory, or have no pixel.
    """
    height, width = size
    if min(height, width) < 1 or max(frames, 1) * 2 * height * width > MOST:
        raise ValueError(
            f"{frames:,} frames of {width}x{height} pixels and two polarities cannot be counted; give at least one pixel, and at most "
            f"{MOST:,} numbers in all"
        )


def split(t: np.ndarray, frames: int, split_by: str = "number", duration: int | None = None) -> np.ndarray:
    """Where frames begin and end: frame i holds the events edges[i] up to edges[i + 1] (see `integrate`).

    Args:
        t: times [N] in microseconds, never decreasing.
        frames: T, at least 1.
        split_by: "number", "time" or "duration".
        duration: of a frame in microseconds, for split_by="duration".
    Returns:
        edges [T + 1], indices of events.
    Raises:
        ValueError: no frame, unknown split_by, or no duration for split_by="duration".
    """
    if frames < 1:
        raise ValueError(f"frames is {frames}; give at least 1")
    if split_by not in SPLITS:
        raise ValueError(f"split_by is {split_by!r}; give {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    if split_by == "duration" and (duration is None or duration < 1):
        raise ValueError(f"split_by='duration' needs a duration of at least 1 microsecond, not {duration}")
    if not len(t):
        return np.zeros(frames + 1, np.int64)
    if split_by == "number":
        edges = np.arange(frames + 1) * (len(t) // frames)
    else:
        span, number = int(t[-1]) - int(t[0]), np.arange(frames + 1)
        step = min(duration, span + 1) if split_by == "duration" else span // frames  # a longer one holds the same
        if step:
            number = np.minimum(number, span // step + 1)  # frames behind the last event are empty
        edges = np.searchsorted(t, int(t[0]) + number * step)
    if split_by != "duration":
        edges[-1] = len(t)
    return edges


def inside(events: Events, size: tuple[int, int]) -> Events:
    """The events within `size` (height and width in pixels); `dropped` also counts those that are not."""
    height, width = size
    x, y = events.x, events.y
    if not len(events) or (x.min() >= 0 and x.max() < width and y.min() >= 0 and y.max() < height):
        return events
    keep = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    dropped = events.dropped + int((~keep).sum())
    return replace(events, t=events.t[keep], x=x[keep], y=y[keep], p=events.p[keep], dropped=dropped)


def rescale(events: Events, sensor: tuple[int, int], size: tuple[int, int]) -> Events:
    """Events of a sensor on another grid of pixels: x becomes floor(x * width / sensor's width), y likewise, so that no
    event is lost and none appears.

    Args:
        events: a recording whose events lie on the sensor.
        sensor: its height and width in pixels.
        size: height and width of the other grid.
    """
    (rows, columns), (height, width) = sensor, size
    if (rows, columns) == (height, width):
        return events
    x, y = (
        (place.astype(np.int64) * new // old).astype(np.int32)
        for place, new, old in ((events.x, width, columns), (events.y, height, rows))
    )
    return replace(events, x=x, y=y, width=width, height=height)
