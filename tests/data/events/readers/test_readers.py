"""All formats of event files: known events, cut and damaged files, files that stand for gigabytes, and times that run back."""

import importlib
import json
import os
import re
import resource
import struct
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spikeformers._install import command_for
from spikeformers.data.events import EventData
from spikeformers.data.events.readers import SUFFIXES, prophesee, read_events

SAMPLES = Path(__file__).parents[5] / "shared" / "data" / "events"


FORMATS = (
    "nmnist.bin",
    "two.dat",
    "one.dat",
    "evt2.raw",
    "evt21.raw",
    "legacy.raw",
    "evt3.raw",
    "stream.es",
    "two.aedat",
    "three.aedat",
    "plain.aedat4",
    "lz4.aedat4",
    "zstd.aedat4",
    "open.aedat4",
    "events.h5",
    "events.npz",
    "events.npy",
)


BY_EVENT = ("nmnist.bin", "two.dat", "one.dat", "two.aedat")  # the last event ends the file


def test_every_format_and_every_maker_is_tested(files):
    assert (
        set(FORMATS) == set(files.MADE)
        and {*IN_ANY_ORDER, "a.es"} == set(files.OF_EVENTS)
        and set(BOMBS) == set(files.BOMBS_MADE)
    )
    assert {Path(name).suffix for name in FORMATS} == set(SUFFIXES) - {".hdf5"}


@pytest.mark.parametrize("name", FORMATS)
def test_known_events(name, tmp_path, files):
    events = files.reading(tmp_path, files.MADE[name](), name)
    files.assert_valid(events)
    assert files.rows(events) == files.KNOWN and events.dropped == 0


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.startswith("nmnist")])
def test_content_decides_whatever_the_suffix(name, tmp_path, files):
    suffix = ".bin" if name.endswith(".dat") else ".dat"
    assert files.rows(files.reading(tmp_path, files.MADE[name](), f"wrong{suffix}")) == files.KNOWN


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_anywhere_gives_its_whole_events_or_an_error(name, tmp_path, files):
    content = files.MADE[name]()
    for end in range(0, len(content), max(1, len(content) // 100)):
        try:
            events = files.reading(tmp_path, content[:end], name)
        except ValueError as error:
            assert str(tmp_path) in str(error)
            continue
        files.assert_valid(events)
        assert files.rows(events) == files.KNOWN[: len(events)]
    if name in BY_EVENT:
        events = files.reading(tmp_path, content[:-1], name)
        assert files.rows(events) == files.KNOWN[:-1] and events.dropped == 1


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.endswith((".h5", ".npz", ".npy"))])
def test_a_byte_less_is_counted(name, tmp_path, files):
    content = files.MADE[name]()
    if name.endswith(".aedat4") and not name.startswith("open"):
        content = content[:-4]  # the table of packets at the end is not needed
    events = files.reading(tmp_path, content[:-1], name)
    assert events.dropped >= 1 and files.rows(events) == files.KNOWN[: len(events)]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(2))
def test_flipped_bytes_give_events_or_an_error(name, seed, tmp_path, files):
    content, random = files.MADE[name](), np.random.default_rng(seed)
    for _ in range(50):
        damaged = bytearray(content)
        for place in random.integers(len(content), size=random.integers(1, 4)):
            damaged[place] ^= 1 << int(random.integers(8))
        try:
            events = files.reading(tmp_path, bytes(damaged), name)
        except ValueError as error:
            assert str(tmp_path) in str(error)
            continue
        files.assert_valid(events)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_garbage_is_an_error(suffix, tmp_path, files):
    garbage = np.random.default_rng(0).integers(256, size=4000, dtype=np.uint8).tobytes()
    for content in (garbage, b"{'not': 'events'}\n" * 200):
        with pytest.raises(ValueError, match=f"garbage{suffix}"):
            files.reading(tmp_path, content, f"garbage{suffix}")


def test_empty_missing_and_unknown_files_are_errors(tmp_path, files):
    with pytest.raises(ValueError, match="nothing.raw is empty"):
        files.reading(tmp_path, b"", "nothing.raw")
    with pytest.raises(ValueError, match="no event file .*absent.raw"):
        read_events(tmp_path / "absent.raw")
    with pytest.raises(ValueError, match="cannot open"):
        read_events(tmp_path)
    with pytest.raises(ValueError, match="notes.txt: .*give one of .aedat4"):
        files.reading(tmp_path, b"hello", "notes.txt")


@pytest.mark.parametrize("name", ["a.dat", "evt2.raw", "evt3.raw", "a.es", "two.aedat", "three.aedat", "a.aedat4"])
def test_no_events(name, tmp_path, files):
    events = files.reading(tmp_path, files.OF_EVENTS[name]([]), name)
    files.assert_valid(events)
    assert len(events) == 0 and events.dropped == 0 and events.width in (32, 128)


OUTSIDE = [(11, 32, 3, 1), (13, 4, 40, 0)]


@pytest.mark.parametrize("name", ["a.dat", "evt2.raw", "evt3.raw", "a.aedat4"])
def test_events_outside_the_sensor_are_dropped_and_counted(name, tmp_path, files):
    events = files.reading(tmp_path, files.OF_EVENTS[name](sorted(files.KNOWN + OUTSIDE)), name)
    assert (
        files.rows(events) == sorted(files.KNOWN) and events.dropped == 2 and (events.width, events.height) == (32, 32)
    )


@pytest.mark.parametrize("name", ["a.bin", "a.dat", "evt2.raw", "two.aedat", "three.aedat"])
def test_times_that_run_back_are_sorted_stably(name, tmp_path, files):
    swapped = files.KNOWN[:3] + [files.KNOWN[4], files.KNOWN[3], files.KNOWN[5]]
    assert files.rows(files.reading(tmp_path, files.OF_EVENTS[name](swapped), name)) == files.KNOWN


def test_times_overflow(tmp_path, files):
    late = [(2**32 - 5, 1, 1, 1), (3, 2, 2, 0)]
    want = [(2**32 - 5, 1, 1, 1), (2**32 + 3, 2, 2, 0)]
    assert files.rows(files.reading(tmp_path, files.dat(late), "a.dat")) == want
    assert files.rows(files.reading(tmp_path, files.aedat2(late), "a.aedat")) == want
    assert files.rows(files.reading(tmp_path, files.aedat3([[(5, 1, 1, 1)]], overflows=3), "a.aedat")) == [
        (3 * 2**31 + 5, 1, 1, 1)
    ]
    late = [(2**34 - 5, 1, 1, 1), (3, 2, 2, 0)]
    assert files.rows(files.reading(tmp_path, files.evt2(late), "a.raw")) == [
        (2**34 - 5, 1, 1, 1),
        (2**34 + 3, 2, 2, 0),
    ]
    words = files.evt3_words([(2**24 - 5, 1, 1, 1), (3, 2, 2, 0)])
    assert files.rows(files.reading(tmp_path, files.evt3(words), "a.raw")) == [
        (2**24 - 5, 1, 1, 1),
        (2**24 + 3, 2, 2, 0),
    ]


def test_formats_are_recognised_by_what_they_hold(tmp_path, files):
    many = [(10 * i, 20 + i % 100, 70 + i % 100, 1) for i in range(100)]
    with pytest.raises(ValueError, match="100 of 100 events have more than the 18 bits of version 1"):
        files.reading(tmp_path, files.dat(many).replace(b"% Version 2", b"% Version 1"), "a.dat")
    with pytest.raises(ValueError, match="50 of 100 events lie in rows from 241 on"):
        files.reading(tmp_path, files.nmnist([(10 * i, 3, 200 + i % 2 * 50, 1) for i in range(100)]), "a.bin")
    with pytest.raises(ValueError, match="since its name ends in .bin, all bytes are the same"):
        files.reading(tmp_path, bytes(5000), "a.bin")


RESET = [(100 * i, i % 32, 0, 1) for i in range(2000)] + [(100 * i, i % 32, 1, 1) for i in range(2000)]


JITTERING = [(100 * i - 700 * (i % 20 == 0), i % 32, 0, 1) for i in range(20, 2000)]


IN_ANY_ORDER = (
    "a.bin",
    "a.dat",
    "evt2.raw",
    "evt21.raw",
    "evt3.raw",
    "two.aedat",
    "three.aedat",
    "a.aedat4",
)


@pytest.mark.parametrize("name", [*IN_ANY_ORDER, "a.npz", "a.h5"])
def test_times_that_run_back_far_or_often_are_told(name, tmp_path, files):
    make = files.OF_EVENTS.get(name, lambda events: files.columns_of(name, events))
    with pytest.warns(
        UserWarning, match=f"{name}: the time runs back once in 4,000 events, by up to 199,900 micro"
    ) as warned:
        events = files.reading(tmp_path, make(RESET), name)
    assert len(warned) == 1 and len(events) == 4000
    files.assert_valid(events)
    if name != "a.bin":  # where so many are an error
        often = [
            (t - 9 * (i % 2), x, y, p) for i, (t, x, y, p) in enumerate((i, i % 32, 0, 1) for i in range(100, 400))
        ]
        with pytest.warns(UserWarning, match="runs back 150 times in 300 events, by up to 8 micro"):
            files.assert_valid(files.reading(tmp_path, make(often), name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert files.rows(files.reading(tmp_path, make(JITTERING), name)) == sorted(
            JITTERING, key=lambda event: event[0]
        )


@pytest.mark.parametrize(
    ("name", "late"),
    [("a.dat", 2**31 + 2**30), ("two.aedat", 2**31 + 2**30), ("evt2.raw", 2**33 + 2**32), ("evt3.raw", 10_000_000)],
)
def test_a_counter_that_is_reset_late_has_not_overflowed(name, late, tmp_path, files):
    with pytest.warns(UserWarning, match="runs back once"):
        events = files.reading(tmp_path, files.OF_EVENTS[name]([(late, 1, 1, 1), (5000, 2, 2, 0)]), name)
    assert files.rows(events) == [(5000, 2, 2, 0), (late, 1, 1, 1)]


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


BOMBS = {
    "zip.npz": "stand for 200,000,000",
    "header.npz": "shape .1000000000000,. is stated",
    "negative.npz": "a.npz|negative.npz",
    "filled.h5": "stand for 400,000,000",
    "chunk.h5": "stand for",
    "lz4.aedat4": "stands for more than",
    "zstd.aedat4": "stands for more than",
    "a.es": "larger than any event camera",
    "a.raw": "larger than any event camera",
    "size.dat": "larger than any event camera",
    "size.aedat4": "larger than any event camera",
    "header.raw": "text header",
    "header.aedat": "text header",
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_that_stand_for_gigabytes_are_refused(name, tmp_path, files):
    path = tmp_path / name
    path.write_bytes(files.BOMBS_MADE[name]())
    before, start = peak(), time.monotonic()
    with pytest.raises(ValueError, match=BOMBS[name]) as error:
        read_events(path)
    assert str(path) in str(error.value)
    assert peak() - before < 150 << 20 and time.monotonic() - start < 5


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.raw")
    with pytest.raises(ValueError, match="cannot open .*a.raw: it is a pipe"):
        read_events(tmp_path / "a.raw")
    (tmp_path / "b.bin").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="cannot open .*b.bin: it is a pipe, a device"):
        read_events(tmp_path / "b.bin")


def test_a_hole_is_refused(tmp_path, files):
    path = tmp_path / "a.dat"
    path.write_bytes(files.dat())
    os.truncate(path, 8 << 30)
    if path.stat().st_blocks * 512 > 1 << 25:
        pytest.skip("this file system knows no holes")
    with pytest.raises(ValueError, match="nearly all of its 8,589,934,592 bytes are a hole"):
        read_events(path)


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("too large"), struct.error("short")], ids=repr)
def test_no_memory_is_an_unreadable_file(error, tmp_path, monkeypatch, files):
    def fails(*_):
        raise error

    monkeypatch.setattr(prophesee, "records", fails)
    with pytest.raises(ValueError, match="cannot read .*a.dat"):
        files.reading(tmp_path, files.dat(), "a.dat")


def mutated(content, random):
    """A copy with one to four faults of the kinds that disks, networks and strangers make."""
    data = bytearray(content)
    for _ in range(random.integers(1, 5)):
        place, length = int(random.integers(len(data) or 1)), int(random.integers(1, 33))
        kind = random.integers(9)
        if kind < 3:
            data[place : place + 1] = bytes([data[place] ^ 1 << int(random.integers(8))]) if data else b"x"
        elif kind == 3:
            data[place : place + length] = random.integers(256, size=length, dtype=np.uint8).tobytes()
        elif kind == 4:
            del data[place : place + length]
        elif kind == 5:
            data[place:place] = data[place : place + length]
        elif kind == 6:
            width = int(random.choice([1, 2, 4, 8]))
            data[place : place + width] = (b"\xff" * width, b"\x7f" * width, bytes(width))[random.integers(3)]
        elif kind == 7:
            del data[place:]
        else:  # numbers of headers in text
            digits = [i for i in range(min(len(data), 400)) if chr(data[i]).isdigit()]
            if digits:
                at = digits[random.integers(len(digits))]
                data[at : at + 1] = str(random.choice(["99999", "-1", "0", "1e9", "9" * 30])).encode()
    return bytes(data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_thousands_of_mutated_files_give_frames_or_an_error(tmp_path, files):
    """26,000 files of all formats: frames or a ValueError that names the file, in less than 10 s, in little memory."""
    random, random_events = np.random.default_rng(0), np.random.default_rng(1)
    many = [(50 * i, int(x), int(y), i % 2) for i, (x, y) in enumerate(random_events.integers(32, size=(150, 2)))]
    makers = {
        **{f"many-{name}": (lambda make=make: make(many)) for name, make in files.OF_EVENTS.items() if name != "a.es"},
        **files.MADE,
    }
    makers |= {f"many-{name}": (lambda name=name: files.columns_of(name, many)) for name in ("a.npz", "b.h5")}
    makers |= {
        "many-a.es": lambda: files.event_stream(many),
        "many-lz4.aedat4": lambda: files.aedat4([many], compression=1),
    }
    contents = {name: make() for name, make in makers.items()}
    with_size = EventData("events", time_steps=4, sensor=(32, 32), cache="none")
    stated = EventData("events", time_steps=4, cache="none")
    for data in (with_size, stated):  # what is loaded once is no growth
        path = tmp_path / "first.dat"
        path.write_bytes(contents["two.dat"])
        data.read(path)
    before, read, slowest = peak(), 0, 0.0
    names = list(contents)
    for number in range(26_000):
        name = names[number % len(names)]
        path = tmp_path / name
        path.write_bytes(mutated(contents[name], random))
        start = time.monotonic()
        try:
            (with_size if number // len(names) % 3 else stated).read(path)
            read += 1
        except ValueError as error:
            assert str(path) in str(error) or "first file" in str(error), f"{name} ({number}): {error}"
        slowest = max(slowest, time.monotonic() - start)
    grown = (peak() - before) >> 20
    print(f"\n26,000 files: {read:,} read, {26_000 - read:,} refused, slowest {slowest:.2f} s, {grown} MiB more memory")
    assert slowest < 10 and grown < 1024
    assert read > 2000


@pytest.mark.parametrize(
    "module, name", [("h5py", "events.h5"), ("lz4.frame", "lz4.aedat4"), ("zstandard", "zstd.aedat4")]
)
def test_missing_packages_are_named(module, name, tmp_path, monkeypatch, files):
    content = files.MADE[name]()

    def missing(wanted):
        assert wanted == module
        raise ImportError(wanted)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=re.escape(command_for("events"))):
        files.reading(tmp_path, content, name)


def sample(name):
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "nmnist_sample.bin",
        "dat_sample.dat",
        "aedat4_sample.aedat4",
        "evt2_sample.raw",
        "evt3_sample.raw",
        "es_sample.es",
    ],
)
def test_real_recordings(name, files):
    if name.endswith(".aedat4"):
        pytest.importorskip("lz4.frame")
    events, want = read_events(sample(name)), json.loads((SAMPLES / "expected.json").read_text())[name]
    files.assert_valid(events)
    y = want["height"] - 1 - events.y if name.endswith(".es") else events.y  # expected.json has the rows as stored
    ends = [[int(column[i]) for column in (events.t, events.x, y, events.p)] for i in (0, -1)]
    assert len(events) == want["events"] and events.dropped == 0
    assert ends == [want["first"], want["last"]]
    assert (events.x.sum(), y.sum(), events.p.sum()) == (want["sum_x"], want["sum_y"], want["on"])
    if events.width is not None:
        assert (events.width, events.height) == (want["width"], want["height"])


@pytest.mark.parametrize(
    "name", ["nmnist_sample.bin", "dat_sample.dat", "aedat4_sample.aedat4", "evt2_sample.raw", "es_sample.es"]
)
def test_real_recordings_cut_and_damaged(name, tmp_path, files):
    if name.endswith(".aedat4"):
        pytest.importorskip("lz4.frame")
    content = sample(name).read_bytes()
    whole, random = read_events(SAMPLES / name), np.random.default_rng(0)
    for place in random.integers(len(content), size=6):
        try:
            events = files.reading(tmp_path, content[:place], name)
        except ValueError:
            assert place < 3000  # in the header
        else:
            files.assert_valid(events)
            for column in "txyp":
                assert_array_equal(getattr(events, column), getattr(whole, column)[: len(events)])
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        try:
            files.assert_valid(files.reading(tmp_path, bytes(damaged), name))
        except ValueError as error:
            assert name in str(error)
