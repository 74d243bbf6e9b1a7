"""EVT 2.0, 2.1, 3.0 and .dat: words, vectors, headers."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spikeformers.data.events.readers import read_events

SAMPLES = Path(__file__).parents[5] / "shared" / "data" / "events"


@pytest.mark.parametrize("name", ["evt2.raw", "evt21.raw", "evt3.raw"])
def test_garbage_after_a_good_header_is_an_error(name, tmp_path, files):
    garbage = np.random.default_rng(0).integers(256, size=4000, dtype=np.uint8).tobytes()
    with pytest.raises(ValueError, match="no known type"):
        files.reading(tmp_path, files.OF_EVENTS[name]([]) + garbage, "a.raw")


def test_events_of_the_same_time_keep_their_order(tmp_path, files):
    many = [(1000 - i // 50, i % 32, i // 32, i % 2) for i in range(1000)]
    assert files.rows(files.reading(tmp_path, files.dat(many), "a.dat")) == sorted(many, key=lambda event: event[0])


def test_one_damaged_time_does_not_move_the_others(tmp_path, files):
    damaged = [(100, 1, 1, 1), (2**31 + 2**30, 2, 2, 0), (200, 3, 3, 1)]
    assert files.rows(files.reading(tmp_path, files.dat(damaged), "a.dat"))[:2] == [(100, 1, 1, 1), (200, 3, 3, 1)]


def test_evt3_vectors_go_on_from_their_base(tmp_path, files):
    words = [(8, 1), (6, 2), (0, 9), (3, 1 << 11 | 4), (4, 0b100000000001), (5, 0b10000010), (2, 7), (5, 1)]
    at = 1 << 12 | 2
    want = [(at, x, 9, p) for x, p in ((4, 1), (15, 1), (17, 1), (23, 1), (7, 0), (24, 1))]
    assert files.rows(files.reading(tmp_path, files.evt3(words), "a.raw")) == want


def test_evt3_small_step_back_is_no_overflow(tmp_path, files):
    words = [(8, 5), (6, 811), (0, 1), (2, 1), (6, 800), (2, 2), (6, 815), (2, 3)]
    events = files.reading(tmp_path, files.evt3(words), "a.raw")
    base = 5 << 12
    assert files.rows(events) == [(base + 811, 1, 1, 0), (base + 811, 2, 1, 0), (base + 815, 3, 1, 0)]


def test_evt3_new_high_word_starts_from_zero(tmp_path, files):
    words = [(8, 5), (6, 4095), (0, 1), (2, 1), (8, 6), (2, 2), (6, 1), (8, 6), (2, 3)]
    base = 6 << 12
    assert files.rows(files.reading(tmp_path, files.evt3(words), "a.raw")) == [
        (base - 1, 1, 1, 0),
        (base, 2, 1, 0),
        (base + 1, 3, 1, 0),
    ]


def test_evt_events_before_the_first_time_are_dropped(tmp_path, files):
    events = files.reading(tmp_path, files.evt3([(0, 1), (2, 1), (3, 2), (4, 7), *files.evt3_words()]), "a.raw")
    assert files.rows(events) == files.KNOWN and events.dropped == 4
    content = files.evt2([]) + struct.pack("<I", 1 << 28) + files.evt2(header="")
    events = files.reading(tmp_path, content, "a.raw")
    assert files.rows(events) == files.KNOWN and events.dropped == 1


@pytest.mark.parametrize("order", ["little", "legacy"])
def test_evt21_finds_the_order_of_its_halves(order, tmp_path, files):
    assert files.rows(files.reading(tmp_path, files.evt21(order=order, stated=False), "a.raw")) == files.KNOWN


def test_evt21_vectors(tmp_path, files):
    header = files.evt21([])
    content = header + struct.pack("<4I", 0, 8 << 28 | 1, 1 << 31 | 5, 1 << 28 | 2 << 22 | 0 << 11 | 6)
    assert files.rows(files.reading(tmp_path, content, "a.raw")) == [(66, 0, 6, 1), (66, 2, 6, 1), (66, 31, 6, 1)]


@pytest.mark.parametrize(
    "header", ["% date today\n", "% evt 4.0\n", "% format HISTO3D;height=3;width=3\n", "% evt 2.0\n% endianness big\n"]
)
def test_raw_of_an_unknown_encoding_is_an_error(header, tmp_path, files):
    with pytest.raises(ValueError, match="EVT 2.0, 2.1 and 3.0"):
        files.reading(tmp_path, files.evt2(header=header), "a.raw")


def test_what_the_text_header_states(tmp_path, files):
    with pytest.raises(ValueError, match="no version"):
        files.reading(tmp_path, files.dat().replace(b"% Version 2\n", b""), "a.dat")
    events = files.reading(tmp_path, files.evt2(header="% evt 2.0\n% plugin_name hal_plugin_gen3_fx3\n"), "a.raw")
    assert (events.width, events.height) == (640, 480)
    assert files.reading(tmp_path, files.dat(header=""), "a.dat").width is None


def test_evt3_without_high_words_is_carried_on(tmp_path, files):
    times = [(i * 1500, 7, 1, i % 2) for i in range(200)]
    words = [word for t, x, y, p in times for word in ((6, t & 4095), (0, y), (2, p << 11 | x))]
    wraps = (199 * 1500) >> 12
    for first in ([], [(8, 0)]):
        with pytest.warns(
            UserWarning, match=f"begins anew {wraps} times without a high word, of which there are {len(first)}"
        ):
            events = files.reading(tmp_path, files.evt3(first + words), "a.raw")
        assert files.rows(events) == times
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert files.rows(files.reading(tmp_path, files.evt3(files.evt3_words(times)), "a.raw")) == times
        short = files.reading(tmp_path, files.evt3(words[:6]), "a.raw")
    assert files.rows(short) == times[:2]


@pytest.mark.parametrize("header", ["% Height 240\n% Width 304\n", ""], ids=["sized", "unsized"])
@pytest.mark.parametrize("version", [1, 2])
def test_dat_of_the_other_version_is_an_error(version, header, tmp_path, files):
    random = np.random.default_rng(0)
    many = [(i, int(random.integers(304)), int(random.integers(240)), i % 2) for i in range(500)]
    content = files.dat(many, version, header)
    assert files.rows(files.reading(tmp_path, content, "a.dat")) == many
    wrong = content.replace(f"Version {version}".encode(), f"Version {3 - version}".encode())
    says = "have the 18 bits of version 1" if version == 1 else "more than the 18 bits of version 1"
    with pytest.raises(ValueError, match=says):
        files.reading(tmp_path, wrong, "a.dat")


def a_stream(files, every):
    """EVT 2.0's words with a high time before every so many events."""
    random = np.random.default_rng(0)
    many = [(i * 7, int(random.integers(1280)), int(random.integers(720)), i % 2) for i in range(2000)]
    words = np.frombuffer(files.evt2(many, header=""), "<u4").reshape(-1, 2)
    return b"".join(pair[int(i % every > 0) :].tobytes() for i, pair in enumerate(words))


@pytest.mark.parametrize("every", [1, 2, 3, 10])
@pytest.mark.parametrize("option", ["", "% endianness little\n", "% endianness legacy\n"], ids=["", "little", "legacy"])
def test_evt2_under_a_header_of_evt21_is_an_error(every, option, tmp_path, files):
    content = a_stream(files, every)
    with pytest.raises(ValueError, match="its words are those of EVT 2.0"):
        files.reading(tmp_path, b"% evt 2.1\n" + option.encode() + content, "a.raw")


@pytest.mark.parametrize("order", ["little", "legacy"])
def test_evt21_under_a_header_of_evt2_is_an_error(order, tmp_path, files):
    content = files.evt21(order=order)[len(files.evt21([], order=order)) :]
    with pytest.raises(ValueError, match="its words are those of EVT 2.1"):
        files.reading(tmp_path, b"% evt 2.0\n" + content, "a.raw")


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("order", ["little", "legacy"])
@pytest.mark.parametrize("columns", [32, 29, 1], ids=str)
def test_evt21_is_not_taken_for_evt2(columns, order, stated, tmp_path, files):
    many = [(i * 7, 32 * (i % 20) + 31 - i % columns, i % 480, i % 2) for i in range(2000)]
    header = files.evt21([], order, stated).replace(b"height=32;width=32", b"height=480;width=640")
    content = header + files.evt21(many, order, stated)[len(files.evt21([], order, stated)) :]
    assert files.rows(files.reading(tmp_path, content, "a.raw")) == many


def test_missing_high_times_are_said(tmp_path, files):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files.reading(tmp_path, b"% evt 2.0\n" + a_stream(files, 1), "a.raw")
    content = a_stream(files, 2000)
    with pytest.warns(UserWarning, match="high words of the time are missing: .* of which there are 1; the times are"):
        files.reading(tmp_path, b"% evt 2.0\n" + content, "a.raw")
    with pytest.raises(ValueError, match="none of its 2000 words of events has a known time"):
        files.reading(tmp_path, b"% evt 2.0\n" + content[4:], "a.raw")
    event = struct.pack("<2I", 5, 1 << 28 | 6)
    with pytest.raises(ValueError, match="none of its 1 words of events has a known time"):
        files.reading(tmp_path, files.evt21([]) + event, "a.raw")
    with pytest.raises(ValueError, match="none of its 1 words of events has a known time"):
        files.reading(tmp_path, files.evt3([(0, 1), (2, 1)]), "a.raw")


def sample(name):
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    return path


def test_real_evt3_equals_its_reference():
    events = read_events(sample("evt3_sample.raw"))
    with np.load(SAMPLES / "evt3_sample_events.npz") as want:
        for name in "txyp":
            assert_array_equal(getattr(events, name), want[name])
