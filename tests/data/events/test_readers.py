import importlib
import json
import os
import resource
import struct
import time
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spikeformers.data.events import EventData, Events
from spikeformers.data.events.readers import SUFFIXES, prophesee, read_events, write_events

SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "events"

# Events that every format below can hold: (t in microseconds, x, y, p), rows from the top.
KNOWN = [(10, 3, 7, 1), (12, 0, 0, 0), (12, 5, 2, 1), (300, 31, 31, 0), (5000, 1, 30, 1), (70000, 30, 1, 0)]


def nmnist(events=KNOWN):
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for t, x, y, p in events)


def dat(events=KNOWN, version=2, header="% Height 32\n% Width 32\n"):
    x_bits, y_bits = (14, 14) if version == 2 else (9, 8)
    text = f"% Data file containing CD events.\n% Version {version}\n% Date 2020-01-01 00:00:00\n{header}".encode()
    records = (struct.pack("<2I", t, x | y << x_bits | p << (x_bits + y_bits)) for t, x, y, p in events)
    return text + bytes([12, 8]) + b"".join(records)


def evt2(events=KNOWN, header="% evt 2.0\n% geometry 32x32\n% end\n"):
    words = []
    for t, x, y, p in events:
        words += [8 << 28 | t >> 6, p << 28 | (t & 63) << 22 | x << 11 | y]
    return header.encode() + struct.pack(f"<{len(words)}I", *words)


def evt21(events=KNOWN, order="little", stated=True):
    """Each event is a vector whose x is rounded down to a multiple of 32."""
    words = []
    for t, x, y, p in events:
        words += [(8 << 28 | t >> 6, 0), (p << 28 | (t & 63) << 22 | (x & ~31) << 11 | y, 1 << (x & 31))]
    option = f";endianness={order}" if stated else ""
    header = f"% evt 2.1\n% format EVT21{option};height=32;width=32\n% end\n".encode()
    return header + b"".join(struct.pack("<2I", *(pair if order == "legacy" else pair[::-1])) for pair in words)


def evt3(words, header="% evt 3.0\n% format EVT3;height=32;width=32\n% end\n"):
    return header.encode() + struct.pack(f"<{len(words)}H", *(kind << 12 | value for kind, value in words))


def evt3_words(events=KNOWN):
    words = []
    for t, x, y, p in events:
        words += [(8, t >> 12 & 4095), (6, t & 4095), (0, y), (2, p << 11 | x)]
    return words


def event_stream(events=KNOWN, width=32, height=32):
    body, now = b"", 0
    for t, x, y, p in events:
        body += b"\xff" * ((t - now) // 127)
        body += struct.pack("<B2H", (t - now) % 127 << 1 | p, x, height - 1 - y)
        now = t
    return b"Event Stream" + bytes([2, 0, 0, 1]) + struct.pack("<2H", width, height) + body


def aedat2(events=KNOWN, header="#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"):
    words = (struct.pack(">2I", (127 - x) << 8 | (127 - y) << 1 | 1 - p, t) for t, x, y, p in events)
    return header.encode() + b"".join(words)


def aedat3(packets=(KNOWN[:2], KNOWN[2:]), overflows=0, chip="DVS128"):
    data = f"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: {chip}\r\n#!END-HEADER\r\n".encode()
    for events in packets:
        data += struct.pack("<2h6i", 0, 1, 16, 12, overflows, 1, 1, 1) + bytes(16)  # a special event, to be left out
        data += struct.pack("<2h6i", 1, 1, 8, 4, overflows, len(events), len(events), len(events))
        data += b"".join(struct.pack("<Ii", x << 17 | y << 2 | p << 1 | 1, t) for t, x, y, p in events)
    return data


def aedat4(packets=(KNOWN[:2], KNOWN[2:]), compression=0, table=True, size=32):
    """Flatbuffers by hand: a root offset, a table of fields, the root table, what its offsets lead to."""
    pack = {0: bytes, 1: lz4_frame, 3: zstandard_frame}[compression]
    body = b""
    for events in packets:
        records = b"".join(struct.pack("<q2hB3x", t, x, y, p) for t, x, y, p in events)
        buffer = (
            struct.pack("<I4s", 16, b"EVTS") + struct.pack("<4H", 6, 8, 4, 0) + struct.pack("<iII", 8, 4, len(events))
        )
        content = pack(struct.pack("<I", len(buffer + records)) + buffer + records)
        other = pack(b"\x00" * 8)
        body += struct.pack("<2i", 0, len(content)) + content + struct.pack("<2i", 1, len(other)) + other
    attributes = f'<attr key="sizeX" type="int">{size}</attr><attr key="sizeY" type="int">{size}</attr>'
    text = (
        '<dv version="2.0"><node name="outInfo"><node name="0"><attr key="typeIdentifier" type="string">EVTS</attr>'
        f'<node name="info">{attributes}</node></node>'
        '<node name="1"><attr key="typeIdentifier" type="string">IMUS</attr></node></node></dv>'
    ).encode()
    start = 14 + 4 + 44 + len(text)
    header = struct.pack("<I4s", 20, b"IOHE") + struct.pack("<6H", 10, 20, 4, 8, 16, 0)
    header += struct.pack("<iiqI", 12, compression, start + len(body) if table else -1, 4) + struct.pack(
        "<I", len(text)
    )
    assert len(header) == 44
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header) + len(text)) + header + text + body + b"FTAB" * table


def lz4_frame(content):
    return pytest.importorskip("lz4.frame").compress(content)


def zstandard_frame(content):
    return pytest.importorskip("zstandard").ZstdCompressor().compress(content)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def columns(events=KNOWN):
    return dict(zip("txyp", np.array(events).T, strict=True))


def npz_bytes():
    out = BytesIO()
    np.savez_compressed(out, **columns(), width=32, height=32)
    return out.getvalue()


def npy_bytes():
    out = BytesIO()
    np.save(out, structured())
    return out.getvalue()


def structured(names=("t", "x", "y", "p")):
    return np.array(KNOWN, [(name, np.int64) for name in names])


def hdf5_bytes(path="events/"):
    h5py = pytest.importorskip("h5py")
    out = BytesIO()
    with h5py.File(out, "w") as file:
        for name, column in columns().items():
            file[path + name] = column
    return out.getvalue()


FORMATS = {
    "nmnist.bin": nmnist,
    "two.dat": dat,
    "one.dat": lambda: dat(version=1),
    "evt2.raw": evt2,
    "evt21.raw": evt21,
    "legacy.raw": lambda: evt21(order="legacy"),
    "evt3.raw": lambda: evt3(evt3_words()),
    "stream.es": event_stream,
    "two.aedat": aedat2,
    "three.aedat": aedat3,
    "plain.aedat4": aedat4,
    "lz4.aedat4": lambda: aedat4(compression=1),
    "zstd.aedat4": lambda: aedat4(compression=3),
    "open.aedat4": lambda: aedat4(table=False),
    "events.h5": hdf5_bytes,
    "events.npz": npz_bytes,
    "events.npy": npy_bytes,
}
BY_EVENT = ("nmnist.bin", "two.dat", "one.dat", "two.aedat")  # the last event ends the file


def rows(events):
    return list(zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), strict=True))


def reading(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    return read_events(path)


def assert_valid(events):
    assert len(events.t) == len(events.x) == len(events.y) == len(events.p)
    assert [column.dtype for column in (events.t, events.x, events.y, events.p)] == ["i8", "i4", "i4", "u1"]
    assert (events.t[1:] >= events.t[:-1]).all() and events.dropped >= 0
    assert (events.x >= 0).all() and (events.y >= 0).all() and (events.p <= 1).all()
    assert events.width is None or (events.x < events.width).all()
    assert events.height is None or (events.y < events.height).all()


@pytest.mark.parametrize("name", FORMATS)
def test_known_events(name, tmp_path):
    events = reading(tmp_path, FORMATS[name](), name)
    assert_valid(events)
    assert rows(events) == KNOWN and events.dropped == 0


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.startswith("nmnist")])
def test_content_decides_whatever_the_suffix(name, tmp_path):
    suffix = ".bin" if name.endswith(".dat") else ".dat"
    assert rows(reading(tmp_path, FORMATS[name](), f"wrong{suffix}")) == KNOWN


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_anywhere_gives_its_whole_events_or_an_error(name, tmp_path):
    content = FORMATS[name]()
    for end in range(0, len(content), max(1, len(content) // 100)):
        try:
            events = reading(tmp_path, content[:end], name)
        except ValueError as error:
            assert str(tmp_path) in str(error)
            continue
        assert_valid(events)
        assert rows(events) == KNOWN[: len(events)]
    if name in BY_EVENT:
        events = reading(tmp_path, content[:-1], name)
        assert rows(events) == KNOWN[:-1] and events.dropped == 1


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.endswith((".h5", ".npz", ".npy"))])
def test_a_byte_less_is_counted(name, tmp_path):
    content = FORMATS[name]()
    if name.endswith(".aedat4") and not name.startswith("open"):
        content = content[:-4]  # the table of packets at the end is not needed
    events = reading(tmp_path, content[:-1], name)
    assert events.dropped >= 1 and rows(events) == KNOWN[: len(events)]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(2))
def test_flipped_bytes_give_events_or_an_error(name, seed, tmp_path):
    content, random = FORMATS[name](), np.random.default_rng(seed)
    for _ in range(50):
        damaged = bytearray(content)
        for place in random.integers(len(content), size=random.integers(1, 4)):
            damaged[place] ^= 1 << int(random.integers(8))
        try:
            events = reading(tmp_path, bytes(damaged), name)
        except ValueError as error:
            assert str(tmp_path) in str(error)
            continue
        assert_valid(events)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_garbage_is_an_error(suffix, tmp_path):
    garbage = np.random.default_rng(0).integers(256, size=4000, dtype=np.uint8).tobytes()
    for content in (garbage, b"{'not': 'events'}\n" * 200):
        with pytest.raises(ValueError, match=f"garbage{suffix}"):
            reading(tmp_path, content, f"garbage{suffix}")


@pytest.mark.parametrize("make", [evt2, evt21, lambda events: evt3(evt3_words(events))])
def test_garbage_after_a_good_header_is_an_error(make, tmp_path):
    garbage = np.random.default_rng(0).integers(256, size=4000, dtype=np.uint8).tobytes()
    with pytest.raises(ValueError, match="no known type"):
        reading(tmp_path, make([]) + garbage, "a.raw")


def test_empty_missing_and_unknown_files_are_errors(tmp_path):
    with pytest.raises(ValueError, match="nothing.raw is empty"):
        reading(tmp_path, b"", "nothing.raw")
    with pytest.raises(ValueError, match="no event file .*absent.raw"):
        read_events(tmp_path / "absent.raw")
    with pytest.raises(ValueError, match="cannot open"):
        read_events(tmp_path)
    with pytest.raises(ValueError, match="notes.txt: .*give one of .aedat4"):
        reading(tmp_path, b"hello", "notes.txt")


@pytest.mark.parametrize(
    "name", ["two.dat", "evt2.raw", "evt3.raw", "stream.es", "two.aedat", "three.aedat", "plain.aedat4"]
)
def test_no_events(name, tmp_path):
    make = {
        "two.dat": lambda: dat([]),
        "evt2.raw": lambda: evt2([]),
        "evt3.raw": lambda: evt3([]),
        "stream.es": lambda: event_stream([]),
        "two.aedat": lambda: aedat2([]),
        "three.aedat": lambda: aedat3([]),
        "plain.aedat4": lambda: aedat4([[]]),
    }
    events = reading(tmp_path, make[name](), name)
    assert_valid(events)
    assert len(events) == 0 and events.dropped == 0 and events.width in (32, 128)


OUTSIDE = [(11, 32, 3, 1), (13, 4, 40, 0)]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("two.dat", dat),
        ("evt2.raw", evt2),
        ("evt3.raw", lambda events: evt3(evt3_words(events))),
        ("plain.aedat4", lambda events: aedat4([events])),
    ],
)
def test_events_outside_the_sensor_are_dropped_and_counted(name, make, tmp_path):
    events = reading(tmp_path, make(sorted(KNOWN + OUTSIDE)), name)
    assert rows(events) == sorted(KNOWN) and events.dropped == 2 and (events.width, events.height) == (32, 32)


def test_event_stream_outside_the_sensor(tmp_path):
    content = event_stream([(1, 3, 31, 1)]) + struct.pack("<B2H", 2, 3, 32) + struct.pack("<B2H", 2, 32, 3)
    events = reading(tmp_path, content, "a.es")
    assert rows(events) == [(1, 3, 31, 1)] and events.dropped == 2


def test_rows_of_event_stream_are_turned_over(tmp_path):
    content = event_stream([]) + struct.pack("<B2H", 1, 5, 0)  # y = 0, the bottom row
    assert rows(reading(tmp_path, content, "a.es")) == [(0, 5, 31, 1)]


def test_event_stream_passes_marks_and_blocks(tmp_path):
    many = [(200 * i, i % 32, i // 7 % 32, i % 2) for i in range(30_000)]
    content = event_stream(many)
    assert rows(reading(tmp_path, content, "a.es")) == many
    content = event_stream([(1, 2, 3, 1)]) + b"\xfe\xfe\xff" + struct.pack("<B2H", 3 << 1, 0, 0)
    assert rows(reading(tmp_path, content, "a.es")) == [(1, 2, 3, 1), (131, 0, 31, 0)]
    with pytest.raises(ValueError, match="type ATIS"):
        reading(tmp_path, content[:15] + b"\x02" + content[16:], "a.es")


@pytest.mark.parametrize("make", [nmnist, dat, evt2, aedat2, lambda events: aedat3([events])])
def test_times_that_run_back_are_sorted_stably(make, tmp_path):
    swapped = KNOWN[:3] + [KNOWN[4], KNOWN[3], KNOWN[5]]
    name = "a.bin" if make is nmnist else "a.dat"
    assert rows(reading(tmp_path, make(swapped), name)) == KNOWN


def test_events_of_the_same_time_keep_their_order(tmp_path):
    many = [(1000 - i // 50, i % 32, i // 32, i % 2) for i in range(1000)]
    assert rows(reading(tmp_path, dat(many), "a.dat")) == sorted(many, key=lambda event: event[0])


def test_times_overflow(tmp_path):
    late = [(2**32 - 5, 1, 1, 1), (3, 2, 2, 0)]
    want = [(2**32 - 5, 1, 1, 1), (2**32 + 3, 2, 2, 0)]
    assert rows(reading(tmp_path, dat(late), "a.dat")) == want
    assert rows(reading(tmp_path, aedat2(late), "a.aedat")) == want
    assert rows(reading(tmp_path, aedat3([[(5, 1, 1, 1)]], overflows=3), "a.aedat")) == [(3 * 2**31 + 5, 1, 1, 1)]
    late = [(2**34 - 5, 1, 1, 1), (3, 2, 2, 0)]
    assert rows(reading(tmp_path, evt2(late), "a.raw")) == [(2**34 - 5, 1, 1, 1), (2**34 + 3, 2, 2, 0)]
    words = evt3_words([(2**24 - 5, 1, 1, 1), (3, 2, 2, 0)])
    assert rows(reading(tmp_path, evt3(words), "a.raw")) == [(2**24 - 5, 1, 1, 1), (2**24 + 3, 2, 2, 0)]


def test_one_damaged_time_does_not_move_the_others(tmp_path):
    damaged = [(100, 1, 1, 1), (2**31 + 2**30, 2, 2, 0), (200, 3, 3, 1)]
    assert rows(reading(tmp_path, dat(damaged), "a.dat"))[:2] == [(100, 1, 1, 1), (200, 3, 3, 1)]


def test_nmnist_overflow_mark(tmp_path):
    mark = bytes([0, 240, 0, 0, 0])
    events = reading(tmp_path, nmnist(KNOWN[:2]) + mark + nmnist(KNOWN[2:3]), "a.bin")
    assert rows(events) == [*KNOWN[:2], (12 + 8192, 5, 2, 1)] and events.dropped == 0


def test_evt3_vectors_go_on_from_their_base(tmp_path):
    words = [(8, 1), (6, 2), (0, 9), (3, 1 << 11 | 4), (4, 0b100000000001), (5, 0b10000010), (2, 7), (5, 1)]
    at = 1 << 12 | 2
    want = [(at, x, 9, p) for x, p in ((4, 1), (15, 1), (17, 1), (23, 1), (7, 0), (24, 1))]
    assert rows(reading(tmp_path, evt3(words), "a.raw")) == want


def test_evt3_small_step_back_is_no_overflow(tmp_path):
    words = [(8, 5), (6, 811), (0, 1), (2, 1), (6, 800), (2, 2), (6, 815), (2, 3)]
    events = reading(tmp_path, evt3(words), "a.raw")
    base = 5 << 12
    assert rows(events) == [(base + 811, 1, 1, 0), (base + 811, 2, 1, 0), (base + 815, 3, 1, 0)]


def test_evt3_new_high_word_starts_from_zero(tmp_path):
    words = [(8, 5), (6, 4095), (0, 1), (2, 1), (8, 6), (2, 2), (6, 1), (8, 6), (2, 3)]
    base = 6 << 12
    assert rows(reading(tmp_path, evt3(words), "a.raw")) == [(base - 1, 1, 1, 0), (base, 2, 1, 0), (base + 1, 3, 1, 0)]


def test_evt_events_before_the_first_time_are_dropped(tmp_path):
    events = reading(tmp_path, evt3([(0, 1), (2, 1), (3, 2), (4, 7), *evt3_words()]), "a.raw")
    assert rows(events) == KNOWN and events.dropped == 4
    content = evt2([]) + struct.pack("<I", 1 << 28) + evt2(header="")
    events = reading(tmp_path, content, "a.raw")
    assert rows(events) == KNOWN and events.dropped == 1


@pytest.mark.parametrize("order", ["little", "legacy"])
def test_evt21_finds_the_order_of_its_halves(order, tmp_path):
    assert rows(reading(tmp_path, evt21(order=order, stated=False), "a.raw")) == KNOWN


def test_evt21_vectors(tmp_path):
    header = evt21([])
    content = header + struct.pack("<4I", 0, 8 << 28 | 1, 1 << 31 | 5, 1 << 28 | 2 << 22 | 0 << 11 | 6)
    assert rows(reading(tmp_path, content, "a.raw")) == [(66, 0, 6, 1), (66, 2, 6, 1), (66, 31, 6, 1)]


@pytest.mark.parametrize(
    "header", ["% date today\n", "% evt 4.0\n", "% format HISTO3D;height=3;width=3\n", "% evt 2.0\n% endianness big\n"]
)
def test_raw_of_an_unknown_encoding_is_an_error(header, tmp_path):
    with pytest.raises(ValueError, match="EVT 2.0, 2.1 and 3.0"):
        reading(tmp_path, evt2(header=header), "a.raw")


def test_what_the_text_header_states(tmp_path):
    with pytest.raises(ValueError, match="no version"):
        reading(tmp_path, dat().replace(b"% Version 2\n", b""), "a.dat")
    events = reading(tmp_path, evt2(header="% evt 2.0\n% plugin_name hal_plugin_gen3_fx3\n"), "a.raw")
    assert (events.width, events.height) == (640, 480)
    assert reading(tmp_path, dat(header=""), "a.dat").width is None


def test_aedat2_has_the_axes_of_spikingjelly(tmp_path):
    word = 100 << 8 | 20 << 1 | 1
    events = reading(tmp_path, aedat2([]) + struct.pack(">4I", word, 7, 0x8000, 8), "a.aedat")
    assert rows(events) == [(7, 27, 107, 0)] and events.dropped == 0  # and no mark of synchronisation
    with pytest.raises(ValueError, match="DAVIS240C"):
        reading(tmp_path, aedat2(header="#!AER-DAT2.0\r\n# AEChip: ini.DAVIS240C\r\n"), "a.aedat")


V2E = "#!AER-DAT2.0\r\n# This is a raw AE data file created by AEDat2Output in v2e\r\n# Timestamps tick is 1 us\r\n"


def v2e(events, width, height, header=V2E):
    """Columns from the right and rows from the bottom, as v2e writes them for its three cameras."""
    shifts = (1, 11, 0) if width == 640 else (12, 22, 11)
    words = [
        ((width - 1 - x) << shifts[0] | (height - 1 - y) << shifts[1] | p << shifts[2], t) for t, x, y, p in events
    ]
    return header.encode() + b"".join(struct.pack(">2I", *word) for word in words)


@pytest.mark.parametrize("size", [(346, 260), (240, 180), (640, 480)], ids=str)
def test_aedat2_of_v2e(size, tmp_path):
    events = reading(tmp_path, v2e(KNOWN, *size), "a.aedat")
    assert rows(events) == KNOWN and (events.width, events.height) == size
    anonymous = "#!AER-DAT2.0\r\n# raw events, 32-bit address, 32-bit time\r\n"
    with pytest.raises(ValueError, match="more than 15 bits, .*those of a DVS128 can be read"):
        reading(tmp_path, v2e(KNOWN, *size, anonymous), "a.aedat")
    middle = [(t, x + size[0] // 2, y + size[1] // 2, p) for t, x, y, p in KNOWN]
    if size == (240, 180):
        with pytest.raises(ValueError, match="does not say whose sensor"):
            reading(tmp_path, v2e(middle, *size), "a.aedat")


def test_a_camera_of_many_marks_is_no_dvs128(tmp_path):
    words = b"".join(struct.pack(">2I", 0x8000 * (i % 2) | i << 8 | i << 1, i) for i in range(100))
    with pytest.raises(ValueError, match="50 of its 100 addresses have more than 15 bits"):
        reading(tmp_path, aedat2([]) + words, "a.aedat")


def test_formats_are_recognised_by_what_they_hold(tmp_path):
    many = [(10 * i, 20 + i % 100, 70 + i % 100, 1) for i in range(100)]
    with pytest.raises(ValueError, match="100 of 100 events have more than the 18 bits of version 1"):
        reading(tmp_path, dat(many).replace(b"% Version 2", b"% Version 1"), "a.dat")
    with pytest.raises(ValueError, match="50 of 100 events lie in rows from 241 on"):
        reading(tmp_path, nmnist([(10 * i, 3, 200 + i % 2 * 50, 1) for i in range(100)]), "a.bin")
    with pytest.raises(ValueError, match="since its name ends in .bin, all bytes are the same"):
        reading(tmp_path, bytes(5000), "a.bin")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ts": np.arange(6)}, "both t and ts"),
        ({"p": np.array([-1, 0, 1, 0, 1, 1])}, "both -1 and 0"),
        ({"t": np.arange(6) * 1e6 + 0.5}, "more than a day"),
        ({"t": np.ones(6, bool)}, "not numbers"),
    ],
)
def test_columns_that_can_mean_two_things_are_errors(change, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        read_events(npz(tmp_path / "a.npz", **{**columns(), **change}))


RESET = [(100 * i, i % 32, 0, 1) for i in range(2000)] + [(100 * i, i % 32, 1, 1) for i in range(2000)]
JITTERING = [(100 * i - 700 * (i % 20 == 0), i % 32, 0, 1) for i in range(20, 2000)]
IN_ANY_ORDER = {
    "a.bin": nmnist,
    "a.dat": dat,
    "evt2.raw": evt2,
    "evt21.raw": evt21,
    "evt3.raw": lambda events: evt3(evt3_words(events)),
    "two.aedat": aedat2,
    "three.aedat": lambda events: aedat3([events]),
    "a.aedat4": lambda events: aedat4([events]),
}


def columns_of(name, events):
    out = BytesIO()
    if name.endswith(".npz"):
        np.savez(out, **columns(events))
    else:
        with pytest.importorskip("h5py").File(out, "w") as file:
            for key, column in columns(events).items():
                file[key] = column
    return out.getvalue()


@pytest.mark.parametrize("name", [*IN_ANY_ORDER, "a.npz", "a.h5"])
def test_times_that_run_back_far_or_often_are_told(name, tmp_path):
    make = IN_ANY_ORDER.get(name, lambda events: columns_of(name, events))
    with pytest.warns(UserWarning, match=f"{name}: the time runs back once in 4,000 events, by up to 199,900 micro") as warned:
        events = reading(tmp_path, make(RESET), name)
    assert len(warned) == 1 and len(events) == 4000
    assert_valid(events)
    if name != "a.bin":  # where so many are an error
        often = [(t - 9 * (i % 2), x, y, p) for i, (t, x, y, p) in enumerate((i, i % 32, 0, 1) for i in range(100, 400))]
        with pytest.warns(UserWarning, match="runs back 150 times in 300 events, by up to 8 micro"):
            assert_valid(reading(tmp_path, make(often), name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows(reading(tmp_path, make(JITTERING), name)) == sorted(JITTERING, key=lambda event: event[0])


@pytest.mark.parametrize(
    ("name", "make", "late"),
    [
        ("a.dat", dat, 2**31 + 2**30),
        ("a.aedat", aedat2, 2**31 + 2**30),
        ("evt2.raw", evt2, 2**33 + 2**32),
        ("evt3.raw", lambda events: evt3(evt3_words(events)), 10_000_000),
    ],
)
def test_a_counter_that_is_reset_late_has_not_overflowed(name, make, late, tmp_path):
    with pytest.warns(UserWarning, match="runs back once"):
        events = reading(tmp_path, make([(late, 1, 1, 1), (5000, 2, 2, 0)]), name)
    assert rows(events) == [(5000, 2, 2, 0), (late, 1, 1, 1)]


def test_evt3_without_high_words_is_carried_on(tmp_path):
    times = [(i * 1500, 7, 1, i % 2) for i in range(200)]
    words = [word for t, x, y, p in times for word in ((6, t & 4095), (0, y), (2, p << 11 | x))]
    wraps = (199 * 1500) >> 12
    for first in ([], [(8, 0)]):
        with pytest.warns(UserWarning, match=f"begins anew {wraps} times without a high word, of which there are {len(first)}"):
            events = reading(tmp_path, evt3(first + words), "a.raw")
        assert rows(events) == times
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows(reading(tmp_path, evt3(evt3_words(times)), "a.raw")) == times
        short = reading(tmp_path, evt3(words[:6]), "a.raw")
    assert rows(short) == times[:2]


@pytest.mark.parametrize("layout", ["top", "events/", "CD/events", "attributes", "of the group"])
def test_hdf5_states_the_size_in_many_places(layout, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if layout == "CD/events":
            file[layout] = structured()
            file["width"], file["height"] = np.array([32]), 48.0
        else:
            prefix = "" if layout in ("top", "attributes") else "events/"
            for name, column in columns().items():
                file[prefix + name] = column
            place = {"attributes": file.attrs, "of the group": file["events"].attrs if prefix else None}.get(layout, file)
            at = prefix if layout == "events/" else ""
            place[f"{at}width"], place[f"{at}height"] = 32, 48
    events = read_events(tmp_path / "a.h5")
    assert rows(events) == KNOWN and (events.width, events.height) == (32, 48)


def test_a_resolution_of_the_other_order_is_recognised(tmp_path):
    h5py = pytest.importorskip("h5py")
    for stated, want in (([48, 64], (64, 48)), ([64, 48], (64, 48)), ([64, 64], (64, 64))):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, column in columns([(1, 60, 3, 1), (2, 50, 40, 0)]).items():
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
            for key, column in columns().items():
                file[key] = column
            file.attrs[name] = value
        with pytest.raises(ValueError, match=says):
            read_events(tmp_path / "a.h5")


def test_hdf5_that_leads_into_other_files_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    path, other = tmp_path / "a.h5", tmp_path / "other.h5"
    other.write_bytes(hdf5_bytes())
    with h5py.File(path, "w") as file:
        file["events"] = h5py.ExternalLink(str(other), "/events")
    with pytest.raises(ValueError, match="'events' in it is a link that leads to another file"):
        read_events(path)
    with h5py.File(path, "w") as file:
        for name, column in columns().items():
            file[f"hidden/{name}"] = column
        file["events"] = h5py.SoftLink("/hidden")
    assert rows(read_events(path)) == KNOWN
    with h5py.File(path, "w") as file:
        for name in "txy":
            file[f"events/{name}"] = columns()[name]
        file["events"].create_dataset("p", (6,), "u1", external=[(str(other), 0, 6)])
    with pytest.raises(ValueError, match="p lies in another file"):
        read_events(path)
    with h5py.File(path, "w") as file:
        file["events"] = h5py.SoftLink("/events")
    with pytest.raises(ValueError, match="leads to another file or nowhere"):
        read_events(path)


def test_compressions_of_hdf5_are_read_or_named(tmp_path, monkeypatch):
    h5py, hdf5plugin = pytest.importorskip("h5py"), pytest.importorskip("hdf5plugin")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:  # DSEC
        for name, column in columns().items():
            file.create_dataset(f"events/{name}", data=column, chunks=(6,), **hdf5plugin.Blosc())
    assert rows(read_events(path)) == KNOWN
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    with pytest.raises(ValueError, match=r"events/t is compressed with the filter 32001 .*pip install hdf5plugin$"):
        read_events(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<H", 32001), struct.pack("<H", 0x8ECF)))
    with pytest.raises(ValueError, match="Prophesee's ECF"):
        read_events(path)


def test_hdf5plugin_is_not_needed_for_plain_files(tmp_path, monkeypatch):
    content, found = hdf5_bytes(), importlib.import_module

    def without(name):
        if name == "hdf5plugin":
            raise ImportError(name)
        return found(name)

    monkeypatch.setattr(importlib, "import_module", without)
    assert rows(reading(tmp_path, content, "a.h5")) == KNOWN


# Files that stand for much more than they are. The memory that a test has taken at most is never given back, so what is
# measured is the rise of this peak.


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def zip_bomb(count=50_000_000):
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "txyp":
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count,)})
                for _ in range(count // 1_000_000):
                    file.write(bytes(1_000_000))
    return out.getvalue()


def npz_header(shape):
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in "txyp":
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": shape})
                file.write(bytes(80))
    return out.getvalue()


def hdf5_bomb(kind):
    h5py = pytest.importorskip("h5py")
    out = BytesIO()
    with h5py.File(out, "w") as file:
        for name in "txyp":
            if kind == "one chunk":  # larger than what lies in it
                file.create_dataset(name, (10,), "u1", chunks=(1 << 29,), maxshape=(None,), compression="gzip")
            else:
                file.create_dataset(name, (100_000_000,), "u1", chunks=(1 << 20,))
    return out.getvalue()


def aedat4_bomb(compression):
    content = aedat4(compression=compression)
    pack = {1: lz4_frame, 3: zstandard_frame}[compression]
    bomb = pack(bytes(300_000_000))
    header = content[: content.index(b"</dv>") + 5]
    return header.replace(struct.pack("<q", len(content) - 4), struct.pack("<q", -1)) + struct.pack("<2i", 0, len(bomb)) + bomb


BOMBS = {
    "zip.npz": (zip_bomb, "stand for 200,000,000"),
    "header.npz": (lambda: npz_header((10**12,)), "shape .1000000000000,. is stated"),
    "negative.npz": (lambda: npz_header((-(10**12),)), "a.npz|negative.npz"),
    "filled.h5": (lambda: hdf5_bomb("filled"), "stand for 400,000,000"),
    "chunk.h5": (lambda: hdf5_bomb("one chunk"), "stand for"),
    "lz4.aedat4": (lambda: aedat4_bomb(1), "stands for more than"),
    "zstd.aedat4": (lambda: aedat4_bomb(3), "stands for more than"),
    "a.es": (lambda: event_stream(width=65535, height=65535), "larger than any event camera"),
    "a.raw": (lambda: evt2(header="% evt 2.0\n% geometry 20000x20000\n% end\n"), "larger than any event camera"),
    "size.dat": (lambda: dat(header="% Height 9999\n% Width 9999\n"), "larger than any event camera"),
    "size.aedat4": (lambda: aedat4(size=99999), "larger than any event camera"),
    "header.raw": (lambda: b"% a\n" * 400_000, "text header"),
    "header.aedat": (lambda: b"#!AER-DAT2.0\n" + b"#\n" * 800_000, "text header"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_that_stand_for_gigabytes_are_refused(name, tmp_path):
    make, says = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(make())
    before, start = peak(), time.monotonic()
    with pytest.raises(ValueError, match=says) as error:
        read_events(path)
    assert str(path) in str(error.value)
    assert peak() - before < 150 << 20 and time.monotonic() - start < 5


@pytest.mark.parametrize("size", [{"width": 2**40}, {"width": -1}, {"height": np.inf}, {"height": 1.5}, {"width": "wide"}], ids=str)
def test_sizes_that_no_sensor_has_are_errors(size, tmp_path):
    with pytest.raises(ValueError, match="a.npz: it states"):
        read_events(npz(tmp_path / "a.npz", **columns(), **{"width": 34, "height": 34, **size}))


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.raw")
    with pytest.raises(ValueError, match="cannot open .*a.raw: it is a pipe"):
        read_events(tmp_path / "a.raw")
    (tmp_path / "b.bin").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="cannot open .*b.bin: it is a pipe, a device"):
        read_events(tmp_path / "b.bin")


def test_a_hole_is_refused(tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(dat())
    os.truncate(path, 8 << 30)
    if path.stat().st_blocks * 512 > 1 << 25:
        pytest.skip("this file system knows no holes")
    with pytest.raises(ValueError, match="nearly all of its 8,589,934,592 bytes are a hole"):
        read_events(path)


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("too large"), struct.error("short")], ids=repr)
def test_no_memory_is_an_unreadable_file(error, tmp_path, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setattr(prophesee, "records", fails)
    with pytest.raises(ValueError, match="cannot read .*a.dat"):
        reading(tmp_path, dat(), "a.dat")


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
def test_thousands_of_mutated_files_give_frames_or_an_error(tmp_path):
    """26,000 files of all formats: frames or a ValueError that names the file, in less than 10 s, in little memory."""
    random, random_events = np.random.default_rng(0), np.random.default_rng(1)
    many = [(50 * i, int(x), int(y), i % 2) for i, (x, y) in enumerate(random_events.integers(32, size=(150, 2)))]
    makers = {**{f"many-{name}": (lambda make=make: make(many)) for name, make in IN_ANY_ORDER.items()}, **FORMATS}
    makers |= {f"many-{name}": (lambda name=name: columns_of(name, many)) for name in ("a.npz", "b.h5")}
    makers |= {"many-a.es": lambda: event_stream(many), "many-lz4.aedat4": lambda: aedat4([many], compression=1)}
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




def test_aedat3_leaves_invalid_events_out_and_needs_whole_headers(tmp_path):
    content = aedat3([[(5, 1, 1, 1)]])
    invalid = content[:-8] + bytes([content[-8] & 0xFE]) + content[-7:]
    assert len(reading(tmp_path, invalid, "a.aedat")) == 0
    assert reading(tmp_path, aedat3(chip="DAVIS240C"), "a.aedat").width == 240
    with pytest.raises(ValueError, match="packet at byte"):
        reading(tmp_path, content + struct.pack("<2h6i", 1, 1, 8, 4, 0, 1, 2, 2), "a.aedat")


def test_aedat4_damage_is_found(tmp_path):
    content = aedat4(compression=1)
    with pytest.raises(ValueError, match="packet at byte"):
        reading(tmp_path, content.replace(b"\x04\x22\x4d\x18", b"\x04\x22\x4d\x19"), "a.aedat4")
    place = content.index(struct.pack("<q", len(content) - 4))
    early = content[:place] + struct.pack("<q", len(content) - 12) + content[place + 8 :]
    with pytest.raises(ValueError, match="packets end at byte"):
        reading(tmp_path, early, "a.aedat4")
    with pytest.raises(ValueError, match="holds events"):
        reading(tmp_path, content.replace(b">EVTS<", b">FRME<"), "a.aedat4")
    with pytest.raises(ValueError, match="sensor"):
        reading(tmp_path, content.replace(b"sizeX", b"sizeZ"), "a.aedat4")


@pytest.mark.parametrize(
    "module, name", [("h5py", "events.h5"), ("lz4.frame", "lz4.aedat4"), ("zstandard", "zstd.aedat4")]
)
def test_missing_packages_are_named(module, name, tmp_path, monkeypatch):
    content = FORMATS[name]()

    def missing(wanted):
        assert wanted == module
        raise ImportError(wanted)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"pip install 'spikeformers\[events\]'"):
        reading(tmp_path, content, name)


def test_hdf5_layouts(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["CD/events"] = structured(("t", "x", "y", "p"))
        file.attrs["geometry"] = "32x48"
    events = read_events(path)
    assert rows(events) == KNOWN and (events.width, events.height) == (32, 48)
    with h5py.File(path, "w") as file:
        for name, column in columns().items():
            file[name + "s"] = column / 1e6 if name == "t" else column if name != "p" else column * 2 - 1
        file.attrs["sensor_resolution"] = [48, 32]
    events = read_events(path)
    assert rows(events) == KNOWN and (events.width, events.height) == (32, 48)
    with h5py.File(path, "w") as file:  # DSEC
        for name, column in columns().items():
            file[f"events/{name}"] = column.astype(np.uint32)
        file["t_offset"] = 50_000_000_000
    assert rows(read_events(path)) == [(t + 50_000_000_000, x, y, p) for t, x, y, p in KNOWN]
    with h5py.File(path, "w") as file:
        file["events"] = np.array(KNOWN)
    with pytest.raises(ValueError, match="no columns t, x, y, p"):
        read_events(path)


def test_numpy_layouts(tmp_path):
    want = columns()
    assert (
        rows(read_events(npz(tmp_path / "a.npz", ts=want["t"], xs=want["x"], ys=want["y"], pol=want["p"] > 0))) == KNOWN
    )
    assert rows(read_events(npz(tmp_path / "a.npz", events=structured(("timestamp", "x", "y", "polarity"))))) == KNOWN
    seconds = npz(tmp_path / "a.npz", **{**want, "t": want["t"] / 1e6})
    assert rows(read_events(seconds)) == KNOWN
    whole = npz(tmp_path / "a.npz", **{name: column.astype(np.float64) for name, column in want.items()})
    assert rows(read_events(whole)) == KNOWN
    outside = npz(tmp_path / "a.npz", **{**want, "x": want["x"].astype(np.float32) * -1e30})
    assert read_events(outside).dropped == sum(x > 0 for _, x, _, _ in KNOWN)


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
def test_numpy_columns_that_are_no_events(change, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        read_events(npz(tmp_path / "a.npz", **{**columns(), **change}))


def test_numpy_without_names_or_with_objects_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", np.array(KNOWN))
    with pytest.raises(ValueError, match="which column is which"):
        read_events(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([{"t": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="a.npy"):
        read_events(tmp_path / "a.npy")


def test_written_events_are_read_again(tmp_path):
    t, x, y, p = np.array(KNOWN).T
    events = Events(t + 2**40, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8), 32, None, 4)
    path = tmp_path / "new" / "a.npz"
    write_events(path, events)
    again = read_events(path)
    assert_valid(again)
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


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")

    def fails(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(OSError, match="disk full"):
        write_events(path, Events(*np.array(KNOWN).T))
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["a.npz"]


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
def test_real_recordings(name):
    if name.endswith(".aedat4"):
        pytest.importorskip("lz4.frame")
    events, want = read_events(sample(name)), json.loads((SAMPLES / "expected.json").read_text())[name]
    assert_valid(events)
    y = want["height"] - 1 - events.y if name.endswith(".es") else events.y  # expected.json has the rows as stored
    ends = [[int(column[i]) for column in (events.t, events.x, y, events.p)] for i in (0, -1)]
    assert len(events) == want["events"] and events.dropped == 0
    assert ends == [want["first"], want["last"]]
    assert (events.x.sum(), y.sum(), events.p.sum()) == (want["sum_x"], want["sum_y"], want["on"])
    if events.width is not None:
        assert (events.width, events.height) == (want["width"], want["height"])


def test_real_evt3_equals_its_reference():
    events = read_events(sample("evt3_sample.raw"))
    with np.load(SAMPLES / "evt3_sample_events.npz") as want:
        for name in "txyp":
            assert_array_equal(getattr(events, name), want[name])


@pytest.mark.parametrize(
    "name", ["nmnist_sample.bin", "dat_sample.dat", "aedat4_sample.aedat4", "evt2_sample.raw", "es_sample.es"]
)
def test_real_recordings_cut_and_damaged(name, tmp_path):
    if name.endswith(".aedat4"):
        pytest.importorskip("lz4.frame")
    content = sample(name).read_bytes()
    whole, random = read_events(SAMPLES / name), np.random.default_rng(0)
    for place in random.integers(len(content), size=6):
        try:
            events = reading(tmp_path, content[:place], name)
        except ValueError:
            assert place < 3000  # in the header
        else:
            assert_valid(events)
            for column in "txyp":
                assert_array_equal(getattr(events, column), getattr(whole, column)[: len(events)])
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        try:
            assert_valid(reading(tmp_path, bytes(damaged), name))
        except ValueError as error:
            assert name in str(error)
