"""From recordings to frames: the sensor, the grid, the counts and the tensor."""

import warnings

import numpy as np
import pytest
import torch

from spikeformers.data.events import EventData, Events, frames, framing, integrate, write_events
from spikeformers.data.events.frames import inside, rescale
from spikeformers.data.events.framing import Framing


def test_a_sensor_of_unknown_size_is_asked_for(tmp_path, made):
    write_events(tmp_path / "train" / "left" / "0.npz", made.events())
    data = EventData("events", str(tmp_path), folds=2, cache="none")
    with pytest.raises(ValueError, match=r"0.npz does not state its sensor's size; give its width and height"):
        data.source(training=True)
    assert EventData("events", str(tmp_path), folds=2, sensor=(34, 34)).source(training=True)[0][0].sum() == 40


def test_frames_can_be_interpolated_instead(tmp_path, made):
    recording = made.packed(tmp_path)[7]
    data = EventData("nmnist", str(tmp_path), time_steps=2, img_size=17, resize="bilinear", clip=2)
    counts = torch.from_numpy(integrate(recording, 2, size=(34, 34))).float().clamp(max=2)
    got = data.transform(training=False)(data.source(training=True)[7][0])
    assert got.shape == data.shape == (2, 2, 17, 17)
    # pixels twice as large: their centres lie amid four
    torch.testing.assert_close(got, counts.unflatten(3, (17, 2)).unflatten(2, (17, 2)).mean((3, 5)))


def test_events_outside_the_sensor_are_counted_with_the_file(tmp_path, made):
    made.bin_file(tmp_path / "a.bin", made.events(50, width=40))
    outside = int((made.events(50, width=40).x >= 34).sum())
    data = EventData("nmnist", time_steps=2)
    with pytest.warns(UserWarning, match=f"a.bin: {outside} events .* outside the sensor of 34x34") as warned:
        frames = data.read(tmp_path / "a.bin")
    assert len(warned) == 1 and frames.sum() == 50 - outside > 0
    root = made.nmnist(tmp_path / "data")
    made.bin_file(tmp_path / "data" / "Train" / "0" / "00000.bin", made.events(50, width=40))
    with pytest.warns(UserWarning, match=f"00000.bin: {outside} events") as warned:
        EventData("nmnist", root).source(training=True)[0]
    assert len(warned) == 1


def test_durations_reach_the_frames(tmp_path):
    write_events(tmp_path / "a.npz", Events(*(np.array(c) for c in ([0, 9, 10, 35], [0] * 4, [0] * 4, [1] * 4)), 2, 2))
    data = EventData("events", split_by="duration", duration=10, time_steps=3)
    assert data.read(tmp_path / "a.npz").sum((1, 2, 3)).tolist() == [2, 1, 0]


def test_a_recording_of_another_sensor_is_refused(tmp_path):
    large = Events(
        np.arange(10), np.arange(30, 40, dtype=np.int32), np.zeros(10, np.int32), np.ones(10, np.uint8), 64, 64
    )
    write_events(tmp_path / "large.npz", large)
    with pytest.raises(ValueError, match="only 4 of the 10 events in .*large.npz lie on a sensor of 34x34 pixels"):
        EventData("nmnist", time_steps=2).read(tmp_path / "large.npz")
    with pytest.warns(UserWarning, match="1 events are cut off or outside"):
        frames = EventData("nmnist", time_steps=2, sensor=(39, 39)).read(tmp_path / "large.npz")
    assert frames.sum() == 9


@pytest.mark.parametrize("stated", [(64, 64), (34, 34)], ids=str)
def test_a_recording_that_lies_outside_the_sensor_that_it_states_is_refused(stated, tmp_path):
    """What the reader has left out counts as well as what the data set's own sensor leaves out."""
    columns = dict(t=np.arange(100), x=np.arange(100), y=np.zeros(100, int), p=np.ones(100, int))
    np.savez(tmp_path / "a.npz", **columns, width=stated[0], height=stated[1])
    for data in (EventData("nmnist", time_steps=2), EventData("events", sensor=(34, 34), time_steps=2)):
        with pytest.raises(ValueError, match="only 34 of the 100 events in .*a.npz lie on a sensor of 34x34"):
            data.read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=f"only {stated[0]} of the 100 events"):
        EventData("events", time_steps=2).read(tmp_path / "a.npz")


def test_frames_larger_than_any_memory_are_refused(tmp_path, made):
    write_events(tmp_path / "a.npz", made.events(40))
    with pytest.raises(ValueError, match="a.npz: 100,000 frames of 300x300 pixels .* cannot be counted"):
        EventData("nmnist", time_steps=10**5, sensor=(300, 300)).read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="cannot be counted"):
        EventData("nmnist", made.nmnist(tmp_path / "data"), time_steps=10**5, img_size=300).source(training=True)
    with pytest.raises(ValueError, match="cannot be counted"):
        EventData("nmnist", time_steps=100, img_size=8192, resize="bilinear").read(tmp_path / "a.npz")


@pytest.mark.parametrize("change", [{}, {"img_size": 7}, {"sensor": (30, 40)}], ids=str)
def test_a_recording_is_looked_through_once(change, tmp_path, made, monkeypatch):
    looked = []

    def counted(*given):
        looked.append(given)
        return inside(*given)

    monkeypatch.setattr(framing, "inside", counted)
    monkeypatch.setattr(frames, "inside", counted)
    data = EventData("nmnist", made.nmnist(tmp_path), time_steps=3, **change)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of those outside the smaller sensor
        data.source(training=True)[0]
    assert len(looked) == 1


@pytest.mark.parametrize("split_by", ["number", "time"])
def test_parts_of_a_placed_recording_are_framed_like_recordings_of_their_own(split_by, made):
    recording = made.events(500, width=60, height=40)
    how = Framing(4, split_by, sensor=(60, 40), size=(20, 20))
    part = how.count(how.place(recording, "a").between(200, 700), "a")
    alone = integrate(rescale(recording.between(200, 700), (40, 60), (20, 20)), 4, split_by=split_by, size=(20, 20))
    np.testing.assert_array_equal(part, alone)
    assert part.sum() == len(recording.between(200, 700)) > 0


def test_tensors_are_clipped_and_interpolated():
    counts = np.zeros((1, 2, 2, 2), np.uint8)
    counts[0, 1] = [[8, 0], [2, 2]]
    assert Framing(1, clip=3).tensor(counts)[0, 1].tolist() == [[3, 0], [2, 2]]
    assert Framing(1, size=(1, 1)).tensor(counts).shape == (1, 2, 2, 2), "events are scaled before they are counted"
    small = Framing(1, size=(1, 1), resize="bilinear", sensor=(2, 2))
    assert small.grid == (2, 2) and small.tensor(counts)[0, 1].tolist() == [[3.0]]
