"""Events from images: they tell the light that each pixel saw, in time, and are the same everywhere."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from spikeformers.data.events import Saccades
from spikeformers.data.events.saccades import RHOMBUS, TRIANGLE

PLAIN = {"sensor": (24, 16), "mismatch": 0.0}


def picture(width=24, height=16, seed=0):
    """Coarse random grey values, smoothed, from black to white."""
    coarse = np.random.RandomState(seed).randint(0, 256, (5, 7)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


def log_light(image, x, y, black=0.02):
    """What each pixel sees of an image that is shifted by x and y: natural log of the light, from the formulas."""
    light = black + (1 - black) * (np.asarray(image) / 255) ** 2.2
    height, width = light.shape
    rows, columns = np.arange(height) - y, np.arange(width) - x
    result = np.zeros_like(light)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            for r in (np.floor(row), np.floor(row) + 1):
                for c in (np.floor(column), np.floor(column) + 1):
                    inside = int(np.clip(r, 0, height - 1)), int(np.clip(c, 0, width - 1))
                    result[i, j] += (1 - abs(row - r)) * (1 - abs(column - c)) * light[inside]
    return np.log(result)


def net(events, until):
    """ON minus OFF events of each pixel up to a time."""
    result = np.zeros((events.height, events.width))
    early = events.t <= until
    np.add.at(result, (events.y[early], events.x[early]), 2.0 * events.p[early] - 1)
    return result


@pytest.mark.parametrize(
    "path", [RHOMBUS, TRIANGLE, ((0.3, -1.2), (2.7, 1.9))], ids=["rhombus", "triangle", "there and back"]
)
def test_events_tell_the_light_that_each_pixel_saw(path):
    image = picture()
    events = Saccades(**PLAIN, path=path, steps=10, leg=1000, loops=2)(image)
    start = log_light(image, *path[0])
    largest = 0
    for leg in range(2 * len(path)):
        (ax, ay), (bx, by) = path[leg % len(path)], path[(leg + 1) % len(path)]
        for share in (0.0, 0.3, 0.8):
            change = log_light(image, ax + share * (bx - ax), ay + share * (by - ay)) - start
            told = 0.2 * net(events, 1000 * (leg + share))
            # a reference is less than c from the light, and began at most c / 2 from it
            assert np.abs(told - change).max() < 0.2 * 1.5 + 0.005
            largest = max(largest, np.abs(told).max())
    assert largest > 1.5, "nothing much happened"


def test_several_thresholds_are_crossed_at_even_intervals():
    """With one sample per leg, the log light is a straight line in time."""
    image = picture()
    events = Saccades(**PLAIN, path=((0.0, 0.0), (2.0, 1.0)), steps=1, leg=10_000)(image).between(0, 10_001)
    change = log_light(image, 2, 1) - log_light(image, 0, 0)
    many = 0
    for y, x in np.argwhere(np.abs(change) > 1):
        at = (events.y == y) & (events.x == x) & (events.t < 10_000)
        assert len(set(events.p[at])) == 1 and events.p[at][0] == (change[y, x] > 0)
        assert abs(at.sum() - abs(change[y, x]) / 0.2) < 1.5 + 0.02
        np.testing.assert_allclose(np.diff(events.t[at]), 0.2 / abs(change[y, x]) * 10_000, atol=12)
        many += 1
    assert many > 20


def test_a_moving_bar_is_on_ahead_and_off_behind():
    pixels = np.zeros((16, 24), np.uint8)
    pixels[:, 8:12] = 255
    events = Saccades(**PLAIN, path=((0.0, 0.0), (3.0, 0.0)), leg=9000)(Image.fromarray(pixels)).between(0, 9000)
    assert set(events.x[events.p == 1]) == {12, 13, 14} and set(events.x[events.p == 0]) == {8, 9, 10}
    for column in (12, 13, 14):  # a pixel each 3 ms
        t = events.t[(events.p == 1) & (events.x == column)]
        assert 3000 * (column - 12) <= t.min() and t.max() <= 3000 * (column - 11)


def test_events_are_in_order_and_on_the_sensor():
    camera = Saccades((24, 16), noise=50.0)
    events = camera(picture(100, 60).convert("RGB"))
    assert (events.width, events.height) == (24, 16) and len(events) > 1000
    assert [column.dtype for column in (events.t, events.x, events.y, events.p)] == [
        np.int64,
        np.int32,
        np.int32,
        np.uint8,
    ]
    assert (np.diff(events.t) >= 0).all() and events.t[0] >= 0 and events.t[-1] <= camera.duration == 200_000
    assert events.x.max() == 23 and events.y.max() == 15 and events.x.min() == events.y.min() == 0
    assert set(events.p) == {0, 1}


def test_the_events_are_the_same_on_every_machine():
    """If this fails and the change is meant, raise VERSION in cache.py: cached frames are of the old events."""
    image = Image.fromarray((np.add.outer(5 * np.arange(48), 3 * np.arange(48)) % 256).astype(np.uint8))
    state = np.random.get_state()[1].copy()
    events = Saccades(noise=2.0, refractory=300, loops=2)(image, seed=3)
    assert (np.random.get_state()[1] == state).all(), "the global random numbers were touched"
    digest = hashlib.blake2b(digest_size=8)
    for column in (events.t, events.x, events.y, events.p):
        digest.update(column.tobytes())
    assert (len(events), digest.hexdigest()) == (35991, "2371379b2cd59bbf")


def test_a_still_grey_image_is_silent_but_for_noise():
    grey = Image.new("L", (30, 30), 90)
    assert len(Saccades()(grey)) == 0
    noisy = Saccades(noise=100.0)
    first, again, other = noisy(grey, 1), noisy(grey, 1), noisy(grey, 2)
    assert len(first) == pytest.approx(100 * 48 * 48 * 0.2, rel=0.03)
    assert first.p.mean() == pytest.approx(0.5, abs=0.02)
    assert np.array_equal(first.t, again.t) and np.array_equal(first.x, again.x)
    assert not np.array_equal(first.t[:100], other.t[:100])


def test_refractory_pixels_lose_events():
    image = picture()
    free, tired = (Saccades((24, 16), leg=10_000, refractory=refractory)(image) for refractory in (0, 700))
    kept, last = [], {}
    for event in zip(*(column.tolist() for column in (free.t, free.x, free.y, free.p)), strict=True):
        t, *place, _ = event
        if t - last.get(tuple(place), -700) >= 700:
            last[tuple(place)] = t
            kept.append(event)
    assert len(kept) < 0.9 * len(free)
    assert list(zip(*(column.tolist() for column in (tired.t, tired.x, tired.y, tired.p)), strict=True)) == kept


def test_sensors_differ_in_their_pixels():
    def counts(**parameters):
        events = Saccades((24, 16), **parameters)(picture())
        return np.bincount(events.y * 24 + events.x, minlength=384)

    assert (counts() == counts()).all() and (counts() != counts(sensor_seed=1)).any()
    assert counts(threshold=0.1).sum() > 2 * counts().sum()
    assert counts(black=0.2).sum() < 0.7 * counts().sum()
    drawn = Saccades((100, 100), mismatch=0.03)._thresholds / 4096
    assert drawn.mean() == pytest.approx(0.2, abs=0.001) and drawn.std() == pytest.approx(0.03, rel=0.03)
    assert Saccades((100, 100), mismatch=0.2)._thresholds.min() == pytest.approx(0.05 * 4096, abs=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sensor": (0, 5)}, "width and height"),
        ({"path": ((0.0, 0.0),)}, "at least two corners"),
        ({"steps": 0}, "steps is 0; give at least 1"),
        ({"noise": -1.0}, "noise is -1.0; give at least 0"),
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"black": 0.0}, "black is 0.0"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Saccades(**given)
