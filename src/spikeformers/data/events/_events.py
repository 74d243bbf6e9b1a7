"""A recording of an event camera in memory."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False, repr=False)
class Events:
    """Events in order of time.

    Args:
        t: time [N] in microseconds, int64, never decreasing.
        x: column [N] in pixels from the left, int32.
        y: row [N] in pixels from the top, int32.
        p: polarity [N], uint8: 0 OFF (darker), 1 ON (brighter).
        width: of the sensor in pixels, None where the file does not say.
        height: of the sensor in pixels, None where the file does not say.
        dropped: events that the file holds and that were left out because they lie outside the sensor or are cut off.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    width: int | None = None
    height: int | None = None
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.t)

    def __repr__(self) -> str:
        size = f"{self.width} x {self.height} pixels" if self.width and self.height else "a sensor of unknown size"
        if not len(self):
            return f"Events(none, on {size})"
        seconds = (int(self.t[-1]) - int(self.t[0])) / 1e6
        dropped = f", {self.dropped:,} dropped" if self.dropped else ""
        return f"Events({len(self):,} in {seconds:g} s, {np.mean(self.p):.0%} ON, on {size}{dropped})"

    def between(self, start: int, end: int) -> "Events":
        """The events with start <= t < end, in microseconds."""
        first, last = np.searchsorted(self.t, [start, end])
        return self[first:last]

    def __getitem__(self, part: slice) -> "Events":
        return Events(self.t[part], self.x[part], self.y[part], self.p[part], self.width, self.height)
