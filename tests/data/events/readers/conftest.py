"""Event files of every format, made by hand byte by byte, and files that stand for more than they are."""

import struct
import zipfile
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest

from spikeformers.data.events.readers import read_events

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


MADE = {
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


OF_EVENTS = {
    "a.bin": nmnist,
    "a.dat": dat,
    "evt2.raw": evt2,
    "evt21.raw": evt21,
    "evt3.raw": lambda events: evt3(evt3_words(events)),
    "two.aedat": aedat2,
    "three.aedat": lambda events: aedat3([events]),
    "a.aedat4": lambda events: aedat4([events]),
    "a.es": event_stream,
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
    return (
        header.replace(struct.pack("<q", len(content) - 4), struct.pack("<q", -1))
        + struct.pack("<2i", 0, len(bomb))
        + bomb
    )


BOMBS_MADE = {
    "zip.npz": zip_bomb,
    "header.npz": lambda: npz_header((10**12,)),
    "negative.npz": lambda: npz_header((-(10**12),)),
    "filled.h5": lambda: hdf5_bomb("filled"),
    "chunk.h5": lambda: hdf5_bomb("one chunk"),
    "lz4.aedat4": lambda: aedat4_bomb(1),
    "zstd.aedat4": lambda: aedat4_bomb(3),
    "a.es": lambda: event_stream(width=65535, height=65535),
    "a.raw": lambda: evt2(header="% evt 2.0\n% geometry 20000x20000\n% end\n"),
    "size.dat": lambda: dat(header="% Height 9999\n% Width 9999\n"),
    "size.aedat4": lambda: aedat4(size=99999),
    "header.raw": lambda: b"% a\n" * 400_000,
    "header.aedat": lambda: b"#!AER-DAT2.0\n" + b"#\n" * 800_000,
}


@pytest.fixture(scope="session")
def files():
    """What makes event files, and reads and checks them."""
    return SimpleNamespace(
        KNOWN=KNOWN,
        nmnist=nmnist,
        dat=dat,
        evt2=evt2,
        evt21=evt21,
        evt3=evt3,
        evt3_words=evt3_words,
        event_stream=event_stream,
        aedat2=aedat2,
        aedat3=aedat3,
        aedat4=aedat4,
        lz4_frame=lz4_frame,
        zstandard_frame=zstandard_frame,
        npz=npz,
        columns=columns,
        npz_bytes=npz_bytes,
        npy_bytes=npy_bytes,
        structured=structured,
        hdf5_bytes=hdf5_bytes,
        MADE=MADE,
        OF_EVENTS=OF_EVENTS,
        columns_of=columns_of,
        zip_bomb=zip_bomb,
        npz_header=npz_header,
        hdf5_bomb=hdf5_bomb,
        aedat4_bomb=aedat4_bomb,
        BOMBS_MADE=BOMBS_MADE,
        rows=rows,
        reading=reading,
        assert_valid=assert_valid,
    )
