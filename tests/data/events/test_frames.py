"""Events to frames: SpikingJelly's rules, a loop over events as the plain truth, and recordings that are short or odd."""

import sys
from unittest.mock import MagicMock

import numpy as np
import pytest

from spikeformers.data.events import Events, integrate
from spikeformers.data.events.frames import inside, rescale, split

SIZE = (5, 7)  # height, width


def recording(count, seed=0, size=SIZE, longest=1000):
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(0, longest, count)) + 123_456
    x, y, p = (random.integers(0, end, count) for end in (size[1], size[0], 2))
    return Events(t.astype(np.int64), x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8))


def loop(events, frames, split_by, duration=None, size=SIZE):
    """The definition, event by event."""
    counts = np.zeros((frames, 2, *size), int)
    n, start = len(events), int(events.t[0])
    step = (int(events.t[-1]) - start) // frames
    for i in range(n):
        if split_by == "number":
            frame = min(i // (n // frames), frames - 1) if n >= frames else frames - 1
        elif split_by == "time":
            frame = min((int(events.t[i]) - start) // step, frames - 1) if step else frames - 1
        else:
            frame = (int(events.t[i]) - start) // duration
        if frame < frames:
            counts[frame, events.p[i], events.y[i], events.x[i]] += 1
    return counts


@pytest.mark.parametrize("split_by", ["number", "time", "duration"])
@pytest.mark.parametrize(("count", "frames"), [(1, 1), (1, 4), (3, 4), (4, 4), (97, 1), (97, 10), (1003, 16)])
def test_frames_are_those_of_a_loop_over_events(split_by, count, frames):
    events, duration = recording(count, seed=count), 60 if split_by == "duration" else None
    counts = integrate(events, frames, split_by=split_by, duration=duration, size=SIZE)
    assert counts.shape == (frames, 2, *SIZE) and counts.dtype == np.int32
    np.testing.assert_array_equal(counts, loop(events, frames, split_by, duration))


@pytest.mark.parametrize("split_by", ["number", "time"])
@pytest.mark.parametrize(("count", "frames"), [(500, 1), (500, 10), (1003, 16)])
def test_frames_are_spikingjellys(split_by, count, frames, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", MagicMock())  # for its speech data; may not fit the installed torch
    utils = pytest.importorskip("spikingjelly.datasets.utils")
    events = recording(count, seed=1)
    columns = {key: getattr(events, key) for key in "txyp"}
    want = utils.integrate_events_by_fixed_frames_number(columns, split_by, frames, *SIZE)
    np.testing.assert_array_equal(integrate(events, frames, split_by=split_by, size=SIZE), want)


def test_off_events_come_first_and_x_runs_along_the_width():
    events = Events(*(np.array(column) for column in ([5, 6], [4, 1], [2, 3], [0, 1])))
    counts = integrate(events, 1, size=(4, 6))
    assert counts.sum() == 2
    assert counts[0, 0, 2, 4] == 1  # OFF at x 4, y 2
    assert counts[0, 1, 3, 1] == 1  # ON at x 1, y 3


def test_what_does_not_divide_goes_to_the_last_frame():
    assert split(np.arange(11), 4).tolist() == [0, 2, 4, 6, 11]
    assert split(np.arange(3), 4).tolist() == [0, 0, 0, 0, 3]
    assert split(np.array([0, 1, 2, 30, 43]), 4, "time").tolist() == [0, 3, 3, 3, 5]
    assert split(np.array([7, 7, 7]), 4, "time").tolist() == [0, 0, 0, 0, 3]


def test_durations_cut_what_is_too_long_and_leave_frames_empty_where_it_is_short():
    t = np.array([100, 109, 110, 120, 139])
    assert split(t, 2, "duration", 10).tolist() == [0, 2, 3]
    assert split(t, 6, "duration", 10).tolist() == [0, 2, 3, 4, 5, 5, 5]


@pytest.mark.parametrize("split_by", ["number", "time", "duration"])
def test_a_recording_without_events_is_empty_frames(split_by):
    counts = integrate(recording(0), 3, split_by=split_by, duration=10, size=SIZE)
    assert counts.shape == (3, 2, *SIZE) and not counts.any()


def test_many_events_of_one_pixel_do_not_overflow():
    zeros = np.zeros(70_000, np.int64)
    assert integrate(Events(zeros, zeros, zeros, zeros), 1, size=(1, 1)).item(0) == 70_000


def test_events_outside_are_left_out_and_counted():
    columns = [[0, 1, 2, 3, 4], [0, 7, -1, 6, 2], [0, 0, 0, 5, 4], [0, 1, 0, 1, 1]]
    events = Events(*(np.array(column) for column in columns), dropped=2)
    kept = inside(events, SIZE)
    assert kept.dropped == 5 and kept.t.tolist() == [0, 4]
    with pytest.warns(UserWarning, match="3 of 5 events lie outside 7x5"):
        counts = integrate(events, 2, size=SIZE)
    assert counts.sum() == 2 and counts[0, 0, 0, 0] == 1 and counts[1, 1, 4, 2] == 1


def test_rescaled_events_keep_their_number_and_place():
    events = recording(500, size=(180, 240))
    small = rescale(events, (180, 240), (60, 60))
    whole, part = integrate(events, 4, size=(180, 240)), integrate(small, 4, size=(60, 60))
    np.testing.assert_array_equal(part, whole.reshape(4, 2, 60, 3, 60, 4).sum((3, 5)))
    assert (small.width, small.height) == (60, 60)
    odd = rescale(events, (180, 240), (34, 34))
    assert odd.x.max() == 33 and odd.x.tolist() == [int(x) * 34 // 240 for x in events.x]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"frames": 0}, "at least 1"),
        ({"split_by": "count"}, "number, time or duration"),
        ({"split_by": "duration"}, "at least 1 microsecond"),
    ],
)
def test_errors_say_what_to_give(given, message):
    with pytest.raises(ValueError, match=message):
        integrate(recording(10), **{"frames": 2, "size": SIZE, **given})


def test_frames_that_fill_any_memory_are_refused():
    events = recording(10)
    for frames, size in ((10**9, SIZE), (10**15, SIZE), (1, (10**6, 10**6)), (2, (0, 5))):
        with pytest.raises(ValueError, match="cannot be counted"):
            integrate(events, frames, size=size)


@pytest.mark.parametrize("duration", [1, 10**6, 2**62, 10**30])
@pytest.mark.parametrize("frames", [1, 3, 5000])
def test_frames_longer_than_the_recording_hold_all_of_it(frames, duration):
    t = np.array([-(2**59), 5, 2**59])
    events = Events(t, np.zeros(3, np.int32), np.zeros(3, np.int32), np.zeros(3, np.uint8))
    counts = integrate(events, frames, split_by="duration", duration=duration, size=(1, 1))
    assert counts[:, 0].ravel().tolist() == [3 if duration > 2**60 else 1] + [0] * (frames - 1)
    assert integrate(events, 2, split_by="time", size=(1, 1))[:, 0, 0, 0].tolist() == [1, 2]


def test_what_was_lost_before_is_told():
    events = Events(*(np.zeros(5, np.int64),) * 4, dropped=4)
    with pytest.warns(UserWarning, match="0 of 5 events lie outside 7x5 pixels, and 4 were lost before"):
        assert integrate(events, 2, size=SIZE).sum() == 5


def test_rescaling_to_large_grids_does_not_overflow():
    events = Events(np.zeros(1, np.int64), *(np.full(1, 4000, np.int32),) * 2, np.zeros(1, np.uint8))
    large = rescale(events, (4096, 4096), (2**20, 2**20))
    assert large.x.tolist() == large.y.tolist() == [4000 * 256]
