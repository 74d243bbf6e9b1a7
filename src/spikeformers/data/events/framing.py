"""The way from a recording to the frames [T, 2, H, W] that a network takes: sensor, grid of pixels, counts, tensor."""
# Shapes: T time steps (frames per recording), H W pixels; channel 0 counts OFF events, channel 1 ON events.

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ._events import Events
from .frames import count, inside, must_be_countable, rescale


@dataclass(frozen=True)
class Framing:
    """How recordings become frames. `place` puts a recording's events on the grid of pixels, where each is looked at once whether it
    lies inside; `count` makes frames of it or of a part of it, which caches keep; `tensor` makes of these what a network takes.

    Args:
        time_steps: T.
        split_by: "number", "time" or "duration", see `frames.integrate`.
        duration: of a frame in microseconds, for split_by "duration".
        sensor: its width and height in pixels; None takes what a recording states.
        size: height and width of the frames; None keeps the sensor's.
        resize: how `size` is reached: "events", they are scaled before they are counted, or "bilinear", frames as large as the sensor
            are interpolated.
        clip: largest count that `tensor` keeps, 0 for no limit.
    """

    time_steps: int
    split_by: str = "number"
    duration: int | None = None
    sensor: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    resize: str = "events"
    clip: int = 0

    @property
    def grid(self) -> tuple[int, int] | None:
        """Height and width of the pixels in which events are counted; None where a recording has to say."""
        if self.size is not None and self.resize == "events":
            return self.size
        return self.sensor and (self.sensor[1], self.sensor[0])

    def must_be_countable(self, size: tuple[int, int]):
        """
        Raises:
            ValueError: frames of this height and width fill any memory, or have no pixel.
        """
        must_be_countable(self.time_steps, size)

    def sensor_of(self, events: Events, where: str | Path) -> tuple[int, int]:
        """Height and width of the sensor of a recording from the file `where`.

        Raises:
            ValueError: nothing states them.
        """
        width, height = self.sensor or (events.width, events.height)
        if width is None or height is None:
            raise ValueError(
                f"{where} does not state its sensor's size; give its width and height, such as --data.sensor [346,260]"
            )
        return height, width

    def place(self, events: Events, where: str | Path) -> Events:
        """The events of the file `where` on the grid, whose size they state; those outside the sensor cost a warning that counts them.

        Raises:
            ValueError: nothing states the sensor's size, or most events lie outside it.
        """
        sensor = self.sensor_of(events, where)
        shown = f"{sensor[1]}x{sensor[0]}"
        given, kept = len(events) + events.dropped, inside(events, sensor)
        if len(kept) < 0.75 * given:  # a stray event is noise, more are another camera
            raise ValueError(
                f"only {len(kept):,} of the {given:,} events in {where} lie on a sensor of {shown} pixels at a known time; "
                "give a recording of such a sensor, or data.sensor"
            )
        if kept.dropped:
            warnings.warn(
                f"{where}: {kept.dropped} events are cut off or outside the sensor of {shown} pixels; they are left out",
                stacklevel=2,
            )
        height, width = self.grid or sensor
        return replace(rescale(kept, sensor, (height, width)), dropped=0, width=width, height=height)

    def count(self, placed: Events, where: str | Path) -> np.ndarray:
        """Counts [T, 2, H, W], int32, of events that `place` returned, or of a part of them.

        Raises:
            ValueError: the frames are larger than any memory.
        """
        size = placed.height, placed.width
        try:
            return count(placed, self.time_steps, split_by=self.split_by, duration=self.duration, size=size)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    def tensor(self, counts: np.ndarray) -> torch.Tensor:
        """Counts [T, 2, H, W] of any integers -> float32 [T, 2, H, W] of the frames' size, none above `clip` if that is not 0."""
        tensor = torch.from_numpy(counts.astype(np.float32))
        if self.clip:
            tensor.clamp_(max=self.clip)
        if self.size and self.resize == "bilinear":
            tensor = F.interpolate(tensor, self.size, mode="bilinear", align_corners=False)
        return tensor
