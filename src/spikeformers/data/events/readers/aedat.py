"""AEDAT: 2.0 holds pairs of 32-bit words, 3.1 packets of events, 4 compressed packets of flatbuffers.

Source: iniVation's description of its file formats (docs.inivation.com, "File formats"); v2e's writers for what v2e stores (github.com/SensorsINI/v2e).
"""

import re
import struct
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np

from .._arrays import AMPLE, RATIO
from .._events import Events
from ._shared import AGAIN, HEADER, checked_events, damage, library, records, unwrapped

PIECE = 1 << 20

AEDAT4_EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("", "V3")])


def read_aedat2(path: Path) -> Events:
    """The events of an AEDAT 2.0 file of a DVS128, or of v2e.

    Raises:
        ValueError: it is damaged, or of another camera, whose axes its writers disagree on.
    """
    data = memoryview(path.read_bytes())
    lines, start = _comments(data)
    text = "\n".join(lines)
    chip = re.search(r"AEChip: *(\S+)", text)
    if chip and "DVS128" not in chip[1].upper():
        raise ValueError(
            f"its events are of the camera {chip[1]}; of AEDAT 2.0 those of a DVS128 can be read: convert it"
        )
    events, dropped = records(data, [("address", ">u4"), ("t", ">u4")], start)
    t = unwrapped(events["t"], 32)
    address = events["address"].astype(np.int64)
    if re.search(r"\bv2e\b", text):
        return _v2e(path, t, address, dropped)
    for bits, few in ((16, 20), (15, 4)):  # bit 15 marks synchronisation, which is rare
        wide = int(np.count_nonzero(address >> bits))
        if wide > max(1, len(address) // few):
            raise ValueError(
                f"{wide} of its {len(address)} addresses have more than 15 bits, as those of a DAVIS have; of AEDAT 2.0 those of a DVS128 "
                "can be read, and those of v2e where its header names it: convert it to AEDAT 4 or .npz"
            )
    pixel = address & 0x8000 == 0
    t, address = t[pixel], address[pixel]
    if address.any() and not (address & 0x3FF).any():
        raise ValueError(
            f"the lowest 10 bits of all {len(address)} addresses are 0, as those of a DAVIS are; of AEDAT 2.0 those of a DVS128 can be read, "
            "and those of v2e where its header names it: convert it to AEDAT 4 or .npz"
        )
    x, y = 127 - (address >> 8), 127 - (address >> 1 & 127)  # an address of more than 15 bits lies outside
    return checked_events(path, t, x, y, 1 - (address & 1), 128, 128, dropped)


def _v2e(path, t, address, dropped):
    """v2e's three cameras, whose names are in no file: DAVIS of 346 x 260 or 240 x 180, which leave the lowest 10 bits free, and a DVS
    of 640 x 480, whose axes run from the lower right."""
    if not (address & 0x3FF).any():
        marks = address & 0x80000400 != 0
        t, address = t[~marks], address[~marks]
        x, y, p = address >> 12 & 1023, address >> 22 & 511, address >> 11 & 1
        sizes = (240, 180), (346, 260)
    else:
        x, y, p = address >> 1 & 1023, address >> 11 & 1023, address & 1
        sizes = ((640, 480),)
        if (address >> 21).any():
            raise ValueError(
                "its addresses are those of no camera that v2e writes in AEDAT 2.0; convert it to AEDAT 4 or .npz"
            )
    right, top = x.max(initial=0), y.max(initial=0)
    width, height = next(((w, h) for w, h in sizes if right < w and top < h), sizes[-1])
    if right < 0.9 * width and top < 0.9 * height:
        raise ValueError(
            f"its events reach columns up to {right} and rows up to {top}, which does not say whose sensor of v2e's (240x180, 346x260, 640x480) "
            "it is; write it as AEDAT 4 or .npz"
        )
    return checked_events(path, t, width - 1 - x, height - 1 - y, p, width, height, dropped)


def read_aedat3(path: Path) -> Events:
    """The events of an AEDAT 3.1 file, which its camera's software did not mark as invalid.

    Raises:
        ValueError: it is damaged, or its packets are compressed.
    """
    data = memoryview(path.read_bytes())
    lines, start = _comments(data)
    if "#!END-HEADER" not in lines:
        raise ValueError(f"its text header has no end; {AGAIN}")
    form = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("#Format:")), "RAW")
    if form != "RAW":
        raise ValueError(f"its header states the format {form}; AEDAT 3.1 of the format RAW can be read: convert it")
    cameras = (("DVS128", 128, 128), ("DAVIS240", 240, 180), ("DAVIS346", 346, 260), ("DAVIS640", 640, 480))
    source = next((line for line in lines if line.startswith("#Source")), "")
    width, height = next((size for camera, *size in cameras if camera in source), (None, None))
    packets, times, dropped = [np.zeros(0, "<u4")], [np.zeros(0, np.int64)], 0
    while start < len(data):
        if len(data) - start < 28:
            dropped += 1
            break
        kind, _, size, _, overflows, capacity, number, _ = struct.unpack_from("<2h6i", data, start)
        if not 0 <= number <= capacity or size < 1 or overflows < 0 or kind < 0 or (kind == 1 and size != 8):
            raise ValueError(
                f"the packet at byte {start} states type {kind}, {number} of {capacity} events of {size} bytes and "
                f"{overflows} overflows; it is damaged: {AGAIN}"
            )
        start += 28
        there = (len(data) - start) // size
        if there < capacity:
            dropped += max(1, number - there)
        if kind == 1:
            events = np.frombuffer(data[start : start + min(number, there) * 8], "<u4").reshape(-1, 2)
            packets.append(events[:, 0])
            times.append((overflows << 31) + events[:, 1].view("<i4").astype(np.int64))
        start += capacity * size
    words, t = np.concatenate(packets), np.concatenate(times)
    valid = words & 1 == 1  # the camera's software marks events that it filtered as invalid
    words, t = words[valid], t[valid]
    x, y, p = words >> 17, words >> 2 & 0x7FFF, words >> 1 & 1
    return checked_events(path, t, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8), width, height, dropped)


def read_aedat4(path: Path) -> Events:
    """The events of an AEDAT 4 file: its first stream of them.

    Raises:
        ValueError: it is damaged, holds no events, or a package to read it is missing.
    """
    data = memoryview(path.read_bytes())
    with damage("its header is damaged"):
        begin = bytes(data[:64]).index(b"\n") + 1
        (size,) = struct.unpack_from("<I", data, begin)
        header, start = data[begin + 4 : begin + 4 + size], begin + 4 + size
        compression = struct.unpack("<i", _field(header, 0, 4) or bytes(4))[0]
        table = struct.unpack("<q", _field(header, 1, 8) or b"\xff" * 8)[0]  # -1 where the recording was not closed
        (offset,) = struct.unpack("<I", _field(header, 2, 4))
        text = len(header) - len(_field(header, 2)) + offset
        (length,) = struct.unpack_from("<I", header, text)
        about = bytes(header[text + 4 : text + 4 + length])
        if b"<!" in about:
            raise ValueError("entities in its XML")  # which can stand for much more than they are
        info = xml.fromstring(about)
        streams = {
            int(node.get("name")): {key.get("key"): key.text for key in node.iter("attr")}
            for outputs in info.iter("node")
            if outputs.get("name") == "outInfo"
            for node in outputs.findall("node")
        }
        stream = min((key for key, about in streams.items() if about["typeIdentifier"] == "EVTS"), default=None)
    if stream is None:
        held = ", ".join(about["typeIdentifier"] for about in streams.values()) or "none"
        raise ValueError(f"none of its streams (types: {held}) holds events; give a recording of an event camera")
    with damage("its header states no size of the sensor"):
        width, height = int(streams[stream]["sizeX"]), int(streams[stream]["sizeY"])
    unpack, left = _decompressor(compression), max(AMPLE, RATIO * len(data))
    end = len(data) if table < 0 else min(table, len(data))
    packets = [np.zeros(0, AEDAT4_EVENT)]
    while start + 8 <= end:
        identifier, size = struct.unpack_from("<2i", data, start)
        if size < 0 or identifier not in streams:
            raise ValueError(f"the packet at byte {start} states stream {identifier} and {size} bytes; {AGAIN}")
        if start + 8 + size > end:
            break
        if identifier == stream:
            with damage(f"the packet at byte {start} is damaged"):
                content = unpack(bytes(data[start + 8 : start + 8 + size]), left)
                left -= len(content)
                packets.append(_packet(content))
        start += 8 + size
    if end < len(data) and start != end:
        raise ValueError(f"its packets end at byte {start}, its header states byte {end}; {AGAIN}")
    cut = int(start < (table if table >= 0 else len(data)))
    events = np.concatenate(packets)
    x, y = events["x"].astype(np.int32), events["y"].astype(np.int32)
    return checked_events(path, events["t"], x, y, events["p"] & 1, width, height, cut)


def _comments(data):
    """The lines of a header that begin with '#', and where the events begin."""
    lines, start = [], 0
    while data[start : start + 1] == b"#":
        line = bytes(data[start : start + 4096]).split(b"\n", 1)
        if len(line) < 2 or start > HEADER:
            raise ValueError(
                f"it ends in its text header, or that is longer than {HEADER:,} characters or 4096 in a line; {AGAIN}"
            )
        start += len(line[0]) + 1
        lines.append(line[0].decode("ascii", "replace").strip())
        if lines[-1] == "#!END-HEADER":
            break
    return lines, start


def _packet(buffer):
    """The events of a flatbuffer that its size precedes: a vector of structs, the table's first field."""
    if len(buffer) < 12 or buffer[8:12] != b"EVTS":
        raise ValueError(f"it holds {buffer[8:12]!r} instead of events")
    found = _field(memoryview(buffer)[4:], 0)
    if found is None:
        return np.zeros(0, AEDAT4_EVENT)
    (offset,) = struct.unpack_from("<I", found)
    (count,) = struct.unpack_from("<I", found, offset)
    return np.frombuffer(found[offset + 4 : offset + 4 + count * AEDAT4_EVENT.itemsize], AEDAT4_EVENT, count)


def _field(buffer, number, size=None):
    """A flatbuffer from a field of its root table on, `size` bytes of it if given; None where the field is left out."""
    (root,) = struct.unpack_from("<I", buffer)
    fields = root - struct.unpack_from("<i", buffer, root)[0]
    (length,) = struct.unpack_from("<H", buffer, fields)
    offset = struct.unpack_from("<H", buffer, fields + 4 + 2 * number)[0] if 4 + 2 * number < length else 0
    if not offset:
        return None
    return buffer[root + offset : None if size is None else root + offset + size]


def _decompressor(compression):
    """A function that unpacks a packet and refuses to make more bytes of it than its second argument, whatever size the packet itself
    states."""
    if compression == 0:
        return lambda packet, most: packet
    if compression in (1, 2):
        lz4 = library("lz4.frame", "a recording compressed with LZ4")
        return lambda packet, most: _whole_of(_lz4_pieces(lz4.LZ4FrameDecompressor(), packet), most)
    if compression in (3, 4):
        zstandard = library("zstandard", "a recording compressed with Zstandard")
        return lambda packet, most: _whole_of(_zstandard_pieces(zstandard.ZstdDecompressor(), packet), most)
    raise ValueError(f"its header states the unknown compression {compression}; {AGAIN}")


def _lz4_pieces(decompressor, packet):
    while not decompressor.eof:
        yield decompressor.decompress(packet, PIECE)
        if decompressor.needs_input and not decompressor.eof:
            raise ValueError("its end is missing")
        packet = b""


def _zstandard_pieces(decompressor, packet):
    with decompressor.stream_reader(packet) as reader:
        while piece := reader.read(PIECE):
            yield piece


def _whole_of(pieces, most):
    found, size = [], 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size > most:
            raise ValueError(
                f"it stands for more than the {most:,} bytes that a recording in a file of this size takes"
            )
    return b"".join(found)
