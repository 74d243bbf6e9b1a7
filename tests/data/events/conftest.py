"""Small recordings, laid out as publishers do."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest

from spikeformers.data.events import Events, write_events


def events(count=40, seed=0, width=34, height=34, start=0):
    random = np.random.default_rng(seed)
    t = start + np.sort(random.integers(0, 1000, count))
    x, y, p = (random.integers(0, end, count) for end in (width, height, 2))
    return Events(t, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8))


def bin_file(path, recording):
    """N-MNIST's five bytes per event: x, y, polarity and 23 bits of time."""
    t, x, y, p = recording.t, recording.x, recording.y, recording.p
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], 1).astype(np.uint8).tobytes())


def aedat3_file(path, recording):
    """One packet of polarity events."""
    count = len(recording)
    address = recording.x.astype(np.int64) << 17 | recording.y << 2 | recording.p << 1 | 1
    body = np.stack([address, recording.t], 1).astype("<u4").tobytes()
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 0: DVS128\r\n#!END-HEADER\r\n"
    path.write_bytes(header + struct.pack("<2h6i", 1, 0, 8, 4, 0, count, count, count) + body)


def nmnist(root, splits=("Train", "Test"), per_class=2):
    for split in splits:
        for label in range(10):
            for i in range(per_class):
                bin_file(root / split / str(label) / f"{i:05}.bin", events(seed=10 * i + label))
    return str(root)


def own(root, files=3, classes=("left", "right"), splits=("train", "val"), width=20, height=12):
    for split in splits:
        for label, name in enumerate(classes):
            for i in range(files):
                recording = events(seed=100 * label + i, width=width, height=height)
                stated = Events(recording.t, recording.x, recording.y, recording.p, width, height)
                write_events(root / split / name / f"{i}.npz", stated)
    return str(root)


def packed(root, count=30):
    recordings = [events(seed=i, count=20 + i) for i in range(count)]
    columns = {f"train_{key}": np.concatenate([getattr(one, key) for one in recordings]) for key in "txyp"}
    columns = {key: column.astype(np.uint32 if key == "train_t" else np.uint8) for key, column in columns.items()}
    offsets = np.cumsum([0, *(len(one) for one in recordings)])
    np.savez(root / "nmnist.npz", **columns, train_offsets=offsets, train_labels=np.arange(count, dtype=np.uint8) % 10)
    return recordings


@pytest.fixture(scope="session")
def made():
    """What makes recordings, and folders of them."""
    return SimpleNamespace(
        events=events, bin_file=bin_file, aedat3_file=aedat3_file, nmnist=nmnist, own=own, packed=packed
    )
