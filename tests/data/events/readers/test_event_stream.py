"""Event Stream: rows from the bottom, marks between events."""

import struct

import pytest


def test_event_stream_outside_the_sensor(tmp_path, files):
    content = files.event_stream([(1, 3, 31, 1)]) + struct.pack("<B2H", 2, 3, 32) + struct.pack("<B2H", 2, 32, 3)
    events = files.reading(tmp_path, content, "a.es")
    assert files.rows(events) == [(1, 3, 31, 1)] and events.dropped == 2


def test_rows_of_event_stream_are_turned_over(tmp_path, files):
    content = files.event_stream([]) + struct.pack("<B2H", 1, 5, 0)  # y = 0, the bottom row
    assert files.rows(files.reading(tmp_path, content, "a.es")) == [(0, 5, 31, 1)]


def test_event_stream_passes_marks_and_blocks(tmp_path, files):
    many = [(200 * i, i % 32, i // 7 % 32, i % 2) for i in range(30_000)]
    content = files.event_stream(many)
    assert files.rows(files.reading(tmp_path, content, "a.es")) == many
    content = files.event_stream([(1, 2, 3, 1)]) + b"\xfe\xfe\xff" + struct.pack("<B2H", 3 << 1, 0, 0)
    assert files.rows(files.reading(tmp_path, content, "a.es")) == [(1, 2, 3, 1), (131, 0, 31, 0)]
    with pytest.raises(ValueError, match="type ATIS"):
        files.reading(tmp_path, content[:15] + b"\x02" + content[16:], "a.es")
