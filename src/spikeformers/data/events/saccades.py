"""Events from still images: an image on a screen moves along a closed path, and a model of an event camera watches it."""
# Shapes: S samples in time, P = H W pixels, N events.

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from PIL import Image

from ._events import Events
from ._ranks import earlier

RHOMBUS = ((-3.0, 0.0), (0.0, 3.0), (3.0, 0.0), (0.0, -3.0))  # four diagonal legs, as CIFAR10-DVS moved its images
TRIANGLE = ((0.0, 0.0), (3.0, 6.0), (6.0, 0.0))  # three legs, as N-MNIST and N-Caltech101 moved the camera
GAMMA = 2.2  # of the screen
WHITE = (1 << 14) - 1  # light of a white pixel: logarithms of so many numbers fit into a small table
UNIT = 1 / 4096  # of log intensity


@dataclass(frozen=True)
class Saccades:
    """An event camera that watches still images move; called with an image, it returns the recording.

    How N-MNIST and N-Caltech101 (Orchard et al., Frontiers in Neuroscience, 2015: the camera makes three saccades before a
    screen) and CIFAR10-DVS (Li et al., Frontiers in Neuroscience, 2017: the image repeats a closed loop) were recorded, with the
    pixel of Lichtsteiner et al. (IEEE Journal of Solid-State Circuits, 2008):

    - The image becomes grey (ITU-R 601), is resized to the sensor (bilinear) and shown on a screen: light = black + (1 - black)
      * grey ** 2.2 for grey in [0, 1].
    - It moves from corner to corner of the path and back to the first, at constant speed on each leg. A pixel sees the light at
      its place, interpolated (bilinear); beyond the image its outermost pixels go on. L is the natural logarithm of that light,
      sampled `steps` times per leg and linear in between.
    - Each pixel remembers a reference. Wherever L comes to lie its threshold c above the reference, it emits an ON event and
      the reference rises by c; c below, an OFF event and the reference falls by c. Several events may come between two samples,
      each at its own time. At the start the reference lies up to c / 2 from L, drawn once for a sensor: if it were L, then
      pixels all over the image would fire at the very moment in which the image comes back.

    Left out: the finite bandwidth and latency of real pixels, leak events, different thresholds for ON and OFF, jitter, the
    limited throughput of the readout, the screen's refresh (visible in CIFAR10-DVS), and the lens. Lengths and durations of the
    default path are ours.

    The same image, seed and parameters give the same events on every machine: logarithms are whole multiples of 1/4096, found in
    a table; all else is addition, multiplication and division, which IEEE 754 fixes.

    Args:
        sensor: width and height in pixels.
        path: corners (x, y) of the image's displacement in pixels to the right and down.
        leg: duration of the way from a corner to the next in microseconds.
        loops: times that the whole path is walked.
        steps: samples of the light per leg; with a quarter of a pixel or less between two the events hardly depend on it.
        threshold: mean of c in units of natural log intensity; 0.2 is a contrast of 22 %.
        mismatch: standard deviation of c over pixels, which are drawn once for a sensor; none is below a quarter of the mean.
        refractory: microseconds after an event in which its pixel's further events are lost, though its reference moves on.
        noise: events per pixel and second at random times and of random polarity, besides those of the image.
        black: light of a black pixel where white is 1: the screen's own and what it reflects.
        sensor_seed: which sensor: other seeds have other pixels.
    Raises:
        ValueError: a parameter is out of its range.
    """

    sensor: tuple[int, int] = (48, 48)
    path: tuple[tuple[float, float], ...] = RHOMBUS
    leg: int = 50_000
    loops: int = 1
    steps: int = 12
    threshold: float = 0.2
    mismatch: float = 0.03
    refractory: int = 0
    noise: float = 0.0
    black: float = 0.02
    sensor_seed: int = 0

    def __post_init__(self):
        if len(self.sensor) != 2 or min(self.sensor) < 1:
            raise ValueError(f"sensor is {self.sensor}; give its width and height in pixels")
        if len(self.path) < 2:
            raise ValueError(f"path is {self.path}; give at least two corners (x, y) in pixels")
        for key, least in (("leg", 1), ("loops", 1), ("steps", 1), ("mismatch", 0), ("refractory", 0), ("noise", 0)):
            if getattr(self, key) < least:
                raise ValueError(f"{key} is {getattr(self, key)}; give at least {least}")
        if not self.threshold >= 4 * UNIT:
            raise ValueError(f"threshold is {self.threshold}; give at least {4 * UNIT:.5f}, such as 0.2")
        if not 1 / WHITE <= self.black < 1:
            raise ValueError(f"black is {self.black}; give a share of white from {1 / WHITE:.5f} to below 1")

    @property
    def duration(self) -> int:
        """Of a recording in microseconds."""
        return self.leg * len(self.path) * self.loops

    def __call__(self, image: Image.Image, seed: int = 0) -> Events:
        """The recording of an image of any size and mode, from time 0 to `duration`.

        Args:
            seed: decides the noise, 0 to 2**32 - 1; without noise it does not matter.
        Returns:
            Events in order of time, those of one microsecond in order of rows and columns; width and height are the sensor's.
        """
        words = self._crossings(self._log_intensity(image))
        if self.noise:
            words = np.concatenate([words, self._noise(seed)])
        words.sort()
        if self.refractory:
            words = words[_rested(words >> 32, words >> 1 & 0x7FFFFFFF, self.refractory)]
        width, height = self.sensor
        pixel = (words >> 1 & 0x7FFFFFFF).astype(np.int32)
        y = pixel // np.int32(width)
        return Events(words >> 32, pixel - y * np.int32(width), y, (words & 1).astype(np.uint8), width, height)

    @cached_property
    def _greys(self):
        """Light of the grey values 0 to 255, in float32."""
        return (WHITE * (self.black + (1 - self.black) * (np.arange(256) / 255) ** GAMMA)).round().astype(np.float32)

    @cached_property
    def _logs(self):
        """Log intensity, in units, of the light 0 (which no pixel has) to WHITE, in float32."""
        return (np.log(np.maximum(np.arange(WHITE + 1), 1)) / UNIT).round().astype(np.float32)

    @cached_property
    def _thresholds(self):
        """c of each pixel [P], in units, in float32."""
        c = self.threshold + self.mismatch * self._draw().standard_normal(self.sensor[0] * self.sensor[1])
        return (np.maximum(c, self.threshold / 4) / UNIT).round().astype(np.float32)

    @cached_property
    def _lags(self):
        """How far each pixel's reference [P] lies below its log intensity at the start, in units, in float32."""
        return (self._thresholds * self._draw(1).uniform(-0.5, 0.5, len(self._thresholds))).round().astype(np.float32)

    def _draw(self, *more):
        # RandomState, unlike Generator, promises the same numbers in all versions of NumPy
        return np.random.RandomState([self.sensor_seed, *more])

    @cached_property
    def _margin(self):
        """Pixels by which the image goes on beyond its edges."""
        return math.ceil(max(abs(shift) for corner in self.path for shift in corner)) + 1

    @cached_property
    def _places(self):
        """For each sample of a loop the row and column of the widened image that the first pixel sees, and how far it sees
        into the next: (row, column, down, right), the latter two in [0, 1)."""
        places = []
        for start, end in pairwise((*self.path, self.path[0])):
            for i in range(self.steps):
                x, y = (self._margin - (a + (b - a) * i / self.steps) for a, b in zip(start, end, strict=True))
                places.append((math.floor(y), math.floor(x), np.float32(y % 1), np.float32(x % 1)))
        return places

    def _log_intensity(self, image):
        """Log intensity [S, P] of an image in units along one loop, in float32; the loop's end is its start."""
        width, height = self.sensor
        light = self._greys[np.asarray(image.convert("L").resize(self.sensor, Image.Resampling.BILINEAR))]
        light = np.pad(light, self._margin, mode="edge")
        slope = np.diff(light, axis=0)
        seen = np.empty((len(self._places), height, width), np.float32)
        for frame, (row, column, down, right) in zip(seen, self._places, strict=True):
            part = slice(row, row + height), slice(column, column + width + 1)
            rows = slope[part] * down
            rows += light[part]
            np.subtract(rows[:, 1:], rows[:, :-1], out=frame)
            frame *= right
            frame += rows[:, :-1]
        seen += np.float32(0.5)
        return self._logs.take(seen.astype(np.int16)).reshape(len(seen), -1)

    def _crossings(self, levels):
        """One word (see `_words`) per threshold that the log intensity [S, P] crosses, in no particular order."""
        c, pixels = self._thresholds, levels.shape[1]
        samples = len(levels) * self.loops
        reference = np.empty((samples + 1, pixels), np.float32)
        crossed = np.empty((samples, pixels), np.float32)  # thresholds until the next sample, below 0 for OFF
        np.subtract(levels[0], self._lags, out=reference[0])
        moved = np.empty_like(c)
        for i in range(samples):  # all sums are of whole numbers below 2**24, so exact
            np.subtract(levels[(i + 1) % len(levels)], reference[i], out=moved)
            np.divide(moved, c, out=moved)
            np.trunc(moved, out=crossed[i])
            np.multiply(crossed[i], c, out=moved)
            np.add(reference[i], moved, out=reference[i + 1])
        place = np.flatnonzero(crossed)
        number = crossed.take(place)
        sample = place // pixels
        pixel = place - sample * pixels
        before = levels.take(place % levels.size)
        speed = levels.take((place + pixels) % levels.size) - before  # per sample
        interval = np.copysign(c.take(pixel), number).astype(np.float64) / speed  # samples between two events
        start = sample + (reference.take(place) - before).astype(np.float64) / speed
        times = np.abs(number).astype(np.int64)
        source = np.repeat(np.arange(len(place)), times)
        rank = np.arange(1, len(source) + 1) - (np.cumsum(times) - times).take(source)
        t = (start.take(source) + rank * interval.take(source)) * (self.leg / self.steps)
        return _words(t.astype(np.int64), pixel.take(source), (number > 0).take(source))

    def _noise(self, seed):
        random = np.random.RandomState(seed)
        pixels = self.sensor[0] * self.sensor[1]
        count = random.poisson(self.noise * pixels * self.duration / 1e6)
        return _words(*(random.randint(0, end, count, dtype=np.int64) for end in (self.duration, pixels, 2)))


def _words(t, pixel, p):
    """Events as single numbers whose order is that of time, pixel and polarity."""
    return t << 32 | pixel << 1 | p


def _rested(t, pixel, refractory):
    """Which of the events [N], in order of time, come at least `refractory` after their pixel's last that is kept."""
    rank = earlier(pixel)
    kept = np.zeros(len(t), bool)
    last = np.full(pixel.max(initial=0) + 1, -refractory)
    for i in range(rank.max(initial=-1) + 1):
        (candidates,) = np.nonzero(rank == i)
        candidates = candidates[t[candidates] - last[pixel[candidates]] >= refractory]
        kept[candidates] = True
        last[pixel[candidates]] = t[candidates]
    return kept
