"""NumPy files: names, types and sizes of columns, and writing."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spikeformers.data.events import Events
from spikeformers.data.events.readers import read_events, write_events


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ts": np.arange(6)}, "both t and ts"),
        ({"p": np.array([-1, 0, 1, 0, 1, 1])}, "both -1 and 0"),
        ({"t": np.arange(6) * 1e6 + 0.5}, "more than a day"),
        ({"t": np.ones(6, bool)}, "not numbers"),
    ],
)
def test_columns_that_can_mean_two_things_are_errors(change, says, tmp_path, files):
    with pytest.raises(ValueError, match=says):
        read_events(files.npz(tmp_path / "a.npz", **{**files.columns(), **change}))


@pytest.mark.parametrize(
    "size", [{"width": 2**40}, {"width": -1}, {"height": np.inf}, {"height": 1.5}, {"width": "wide"}], ids=str
)
def test_sizes_that_no_sensor_has_are_errors(size, tmp_path, files):
    with pytest.raises(ValueError, match="a.npz: it states"):
        read_events(files.npz(tmp_path / "a.npz", **files.columns(), **{"width": 34, "height": 34, **size}))


@pytest.mark.parametrize("size", [([32], [[48]]), ("32", b"48"), (32.0, [48.0])], ids=str)
def test_numpy_states_the_size_in_many_ways(size, tmp_path, files):
    width, height = size
    events = read_events(files.npz(tmp_path / "a.npz", **files.columns(), width=width, height=height, dropped=[3]))
    assert (events.width, events.height, events.dropped) == (32, 48, 3)


def test_numpy_layouts(tmp_path, files):
    want = files.columns()
    assert (
        files.rows(
            read_events(files.npz(tmp_path / "a.npz", ts=want["t"], xs=want["x"], ys=want["y"], pol=want["p"] > 0))
        )
        == files.KNOWN
    )
    assert (
        files.rows(
            read_events(files.npz(tmp_path / "a.npz", events=files.structured(("timestamp", "x", "y", "polarity"))))
        )
        == files.KNOWN
    )
    seconds = files.npz(tmp_path / "a.npz", **{**want, "t": want["t"] / 1e6})
    assert files.rows(read_events(seconds)) == files.KNOWN
    whole = files.npz(tmp_path / "a.npz", **{name: column.astype(np.float64) for name, column in want.items()})
    assert files.rows(read_events(whole)) == files.KNOWN
    outside = files.npz(tmp_path / "a.npz", **{**want, "x": want["x"].astype(np.float32) * -1e30})
    assert read_events(outside).dropped == sum(x > 0 for _, x, _, _ in files.KNOWN)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": np.arange(3)}, "equally long"),
        ({"x": np.full(6, 0.5)}, "fractions"),
        ({"t": np.full(6, np.nan)}, "not finite"),
        ({"t": np.full(6, 2**63, np.uint64)}, "times reach"),
        ({"p": np.full(6, 7)}, "polarities reach"),
        ({"y": np.full(6, "a")}, "not numbers"),
    ],
)
def test_numpy_columns_that_are_no_events(change, says, tmp_path, files):
    with pytest.raises(ValueError, match=says):
        read_events(files.npz(tmp_path / "a.npz", **{**files.columns(), **change}))


def test_numpy_without_names_or_with_objects_is_an_error(tmp_path, files):
    np.save(tmp_path / "a.npy", np.array(files.KNOWN))
    with pytest.raises(ValueError, match="which column is which"):
        read_events(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([{"t": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="a.npy"):
        read_events(tmp_path / "a.npy")


def test_written_events_are_read_again(tmp_path, files):
    t, x, y, p = np.array(files.KNOWN).T
    events = Events(t + 2**40, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8), 32, None, 4)
    path = tmp_path / "new" / "a.npz"
    write_events(path, events)
    again = read_events(path)
    files.assert_valid(again)
    for name in "txyp":
        assert_array_equal(getattr(again, name), getattr(events, name))
    assert (again.width, again.height, again.dropped) == (32, None, 4)
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]
    with np.load(path) as arrays:
        assert arrays["x"].dtype == np.uint8 and arrays["t"].dtype == np.uint64
    write_events(path, events[:0])
    assert len(read_events(path)) == 0
    with pytest.raises(ValueError, match="ends in .npz"):
        write_events(tmp_path / "a.h5", events)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, files):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")

    def fails(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(OSError, match="disk full"):
        write_events(path, Events(*np.array(files.KNOWN).T))
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["a.npz"]
