"""HDF5: places of columns and of the sensor's size, compressions, links."""

import importlib
import struct

import numpy as np
import pytest

from spikeformers.data.events.readers import read_events


@pytest.mark.parametrize("layout", ["top", "events/", "CD/events", "attributes", "of the group"])
def test_hdf5_states_the_size_in_many_places(layout, tmp_path, files):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if layout == "CD/events":
            file[layout] = files.structured()
            file["width"], file["height"] = np.array([32]), 48.0
        else:
            prefix = "" if layout in ("top", "attributes") else "events/"
            for name, column in files.columns().items():
                file[prefix + name] = column
            place = {"attributes": file.attrs, "of the group": file["events"].attrs if prefix else None}.get(
                layout, file
            )
            at = prefix if layout == "events/" else ""
            place[f"{at}width"], place[f"{at}height"] = 32, 48
    events = read_events(tmp_path / "a.h5")
    assert files.rows(events) == files.KNOWN and (events.width, events.height) == (32, 48)


@pytest.mark.parametrize("number", [str, str.encode, lambda digits: np.array([digits.encode()])], ids="abc")
@pytest.mark.parametrize("place", ["attributes", "data sets"])
def test_hdf5_states_the_size_in_digits(place, number, tmp_path, files):
    with pytest.importorskip("h5py").File(tmp_path / "a.h5", "w") as file:
        for name, column in files.columns().items():
            file[name] = column
        stated = file.attrs if place == "attributes" else file
        stated["width"], stated["height"] = number("32"), number("48")
    events = read_events(tmp_path / "a.h5")
    assert files.rows(events) == files.KNOWN and (events.width, events.height) == (32, 48)


def test_a_resolution_of_the_other_order_is_recognised(tmp_path, files):
    h5py = pytest.importorskip("h5py")
    for stated, want in (([48, 64], (64, 48)), ([64, 48], (64, 48)), ([64, 64], (64, 64))):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, column in files.columns([(1, 60, 3, 1), (2, 50, 40, 0)]).items():
                file[name] = column
            file.attrs["sensor_resolution"] = stated
        events = read_events(tmp_path / "a.h5")
        assert (events.width, events.height, len(events)) == (*want, 2)
    for name, value, says in (
        ("sensor_resolution", [3], "not .height, width"),
        ("geometry", "wide", "not such as '640x480'"),
        ("geometry", "20000x20000", "larger than any event camera"),
        ("sensor_resolution", [-3, 4], "states a sensor of 4 x -3"),
        ("sensor_resolution", [np.nan, 4], "'nan' as its sensor_resolution"),
    ):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for key, column in files.columns().items():
                file[key] = column
            file.attrs[name] = value
        with pytest.raises(ValueError, match=says):
            read_events(tmp_path / "a.h5")


def test_hdf5_that_leads_into_other_files_is_refused(tmp_path, files):
    h5py = pytest.importorskip("h5py")
    path, other = tmp_path / "a.h5", tmp_path / "other.h5"
    other.write_bytes(files.hdf5_bytes())
    with h5py.File(path, "w") as file:
        file["events"] = h5py.ExternalLink(str(other), "/events")
    with pytest.raises(ValueError, match="'events' in it is a link that leads to another file"):
        read_events(path)
    with h5py.File(path, "w") as file:
        for name, column in files.columns().items():
            file[f"hidden/{name}"] = column
        file["events"] = h5py.SoftLink("/hidden")
    assert files.rows(read_events(path)) == files.KNOWN
    with h5py.File(path, "w") as file:
        for name in "txy":
            file[f"events/{name}"] = files.columns()[name]
        file["events"].create_dataset("p", (6,), "u1", external=[(str(other), 0, 6)])
    with pytest.raises(ValueError, match="p lies in another file"):
        read_events(path)
    with h5py.File(path, "w") as file:
        file["events"] = h5py.SoftLink("/events")
    with pytest.raises(ValueError, match="leads to another file or nowhere"):
        read_events(path)


def test_compressions_of_hdf5_are_read_or_named(tmp_path, monkeypatch, files):
    h5py, hdf5plugin = pytest.importorskip("h5py"), pytest.importorskip("hdf5plugin")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:  # DSEC
        for name, column in files.columns().items():
            file.create_dataset(f"events/{name}", data=column, chunks=(6,), **hdf5plugin.Blosc())
    assert files.rows(read_events(path)) == files.KNOWN
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    with pytest.raises(ValueError, match=r"events/t is compressed with the filter 32001 .*pip install hdf5plugin$"):
        read_events(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<H", 32001), struct.pack("<H", 0x8ECF)))
    with pytest.raises(ValueError, match="Prophesee's ECF"):
        read_events(path)


def test_hdf5plugin_is_not_needed_for_plain_files(tmp_path, monkeypatch, files):
    content, found = files.hdf5_bytes(), importlib.import_module

    def without(name):
        if name == "hdf5plugin":
            raise ImportError(name)
        return found(name)

    monkeypatch.setattr(importlib, "import_module", without)
    assert files.rows(files.reading(tmp_path, content, "a.h5")) == files.KNOWN


def test_hdf5_layouts(tmp_path, files):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["CD/events"] = files.structured(("t", "x", "y", "p"))
        file.attrs["geometry"] = "32x48"
    events = read_events(path)
    assert files.rows(events) == files.KNOWN and (events.width, events.height) == (32, 48)
    with h5py.File(path, "w") as file:
        for name, column in files.columns().items():
            file[name + "s"] = column / 1e6 if name == "t" else column if name != "p" else column * 2 - 1
        file.attrs["sensor_resolution"] = [48, 32]
    events = read_events(path)
    assert files.rows(events) == files.KNOWN and (events.width, events.height) == (32, 48)
    with h5py.File(path, "w") as file:  # DSEC
        for name, column in files.columns().items():
            file[f"events/{name}"] = column.astype(np.uint32)
        file["t_offset"] = 50_000_000_000
    assert files.rows(read_events(path)) == [(t + 50_000_000_000, x, y, p) for t, x, y, p in files.KNOWN]
    with h5py.File(path, "w") as file:
        file["events"] = np.array(files.KNOWN)
    with pytest.raises(ValueError, match="no columns t, x, y, p"):
        read_events(path)
