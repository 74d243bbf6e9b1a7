"""AEDAT 2.0, 3.1 and 4: axes, cameras, packets."""

import struct

import pytest


def test_aedat2_has_the_axes_of_spikingjelly(tmp_path, files):
    word = 100 << 8 | 20 << 1 | 1
    events = files.reading(tmp_path, files.aedat2([]) + struct.pack(">4I", word, 7, 0x8000, 8), "a.aedat")
    assert files.rows(events) == [(7, 27, 107, 0)] and events.dropped == 0  # and no mark of synchronisation
    with pytest.raises(ValueError, match="DAVIS240C"):
        files.reading(tmp_path, files.aedat2(header="#!AER-DAT2.0\r\n# AEChip: ini.DAVIS240C\r\n"), "a.aedat")


V2E = "#!AER-DAT2.0\r\n# This is a raw AE data file created by AEDat2Output in v2e\r\n# Timestamps tick is 1 us\r\n"


def v2e(events, width, height, header=V2E):
    """Columns from the right and rows from the bottom, as v2e writes them for its three cameras."""
    shifts = (1, 11, 0) if width == 640 else (12, 22, 11)
    words = [
        ((width - 1 - x) << shifts[0] | (height - 1 - y) << shifts[1] | p << shifts[2], t) for t, x, y, p in events
    ]
    return header.encode() + b"".join(struct.pack(">2I", *word) for word in words)


@pytest.mark.parametrize("size", [(346, 260), (240, 180), (640, 480)], ids=str)
def test_aedat2_of_v2e(size, tmp_path, files):
    events = files.reading(tmp_path, v2e(files.KNOWN, *size), "a.aedat")
    assert files.rows(events) == files.KNOWN and (events.width, events.height) == size
    anonymous = "#!AER-DAT2.0\r\n# raw events, 32-bit address, 32-bit time\r\n"
    with pytest.raises(ValueError, match="more than 15 bits, .*those of a DVS128 can be read"):
        files.reading(tmp_path, v2e(files.KNOWN, *size, anonymous), "a.aedat")
    middle = [(t, x + size[0] // 2, y + size[1] // 2, p) for t, x, y, p in files.KNOWN]
    if size == (240, 180):
        with pytest.raises(ValueError, match="does not say whose sensor"):
            files.reading(tmp_path, v2e(middle, *size), "a.aedat")


def test_a_camera_of_many_marks_is_no_dvs128(tmp_path, files):
    words = b"".join(struct.pack(">2I", 0x8000 * (i % 2) | i << 8 | i << 1, i) for i in range(100))
    with pytest.raises(ValueError, match="50 of its 100 addresses have more than 15 bits"):
        files.reading(tmp_path, files.aedat2([]) + words, "a.aedat")


def test_a_davis_of_which_only_a_corner_saw_something_is_no_dvs128(tmp_path, files):
    words = b"".join(struct.pack(">2I", i % 8 << 12 | (i // 8 & 1) << 11, i) for i in range(100))
    with pytest.raises(ValueError, match="lowest 10 bits of all 100 addresses are 0, as those of a DAVIS"):
        files.reading(tmp_path, files.aedat2([]) + words, "a.aedat")
    corner = [(5, 127, 127, 1)]  # the DVS128's address 0
    assert files.rows(files.reading(tmp_path, files.aedat2(corner), "a.aedat")) == corner


def test_aedat3_leaves_invalid_events_out_and_needs_whole_headers(tmp_path, files):
    content = files.aedat3([[(5, 1, 1, 1)]])
    invalid = content[:-8] + bytes([content[-8] & 0xFE]) + content[-7:]
    assert len(files.reading(tmp_path, invalid, "a.aedat")) == 0
    assert files.reading(tmp_path, files.aedat3(chip="DAVIS240C"), "a.aedat").width == 240
    with pytest.raises(ValueError, match="packet at byte"):
        files.reading(tmp_path, content + struct.pack("<2h6i", 1, 1, 8, 4, 0, 1, 2, 2), "a.aedat")


def test_aedat4_damage_is_found(tmp_path, files):
    content = files.aedat4(compression=1)
    with pytest.raises(ValueError, match="packet at byte"):
        files.reading(tmp_path, content.replace(b"\x04\x22\x4d\x18", b"\x04\x22\x4d\x19"), "a.aedat4")
    place = content.index(struct.pack("<q", len(content) - 4))
    early = content[:place] + struct.pack("<q", len(content) - 12) + content[place + 8 :]
    with pytest.raises(ValueError, match="packets end at byte"):
        files.reading(tmp_path, early, "a.aedat4")
    with pytest.raises(ValueError, match="holds events"):
        files.reading(tmp_path, content.replace(b">EVTS<", b">FRME<"), "a.aedat4")
    with pytest.raises(ValueError, match="sensor"):
        files.reading(tmp_path, content.replace(b"sizeX", b"sizeZ"), "a.aedat4")
