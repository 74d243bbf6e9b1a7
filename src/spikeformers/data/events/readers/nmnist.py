"""N-MNIST and N-Caltech101 (.bin): five bytes per event, x, y, then one bit of polarity and 23 of time, big-endian.

Source: Orchard et al., "Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades", Frontiers in Neuroscience, 2015, and the
publisher's page (www.garrickorchard.com/datasets/n-mnist).
"""

from pathlib import Path

import numpy as np

from .._events import Events
from ._shared import AGAIN, checked_events, records


def read_nmnist(path: Path) -> Events:
    """The events of an N-MNIST or N-Caltech101 file. It has no mark of its own, so what cannot be such a recording is refused.

    Raises:
        ValueError: it looks like another format, or is damaged.
    """
    data = memoryview(path.read_bytes())
    events, dropped = records(data, "5u1")
    events = events.reshape(-1, 5)
    x, y = events[:, 0].astype(np.int32), events[:, 1].astype(np.int32)
    overflow = y == 240  # no pixel: the time grew by 2**13 more
    t = (events[:, 2] & 127).astype(np.int64) << 16 | events[:, 3].astype(np.int64) << 8 | events[:, 4]
    t += np.cumsum(overflow) << 13
    t, x, y, p = (column[~overflow] for column in (t, x, y, events[:, 2] >> 7))
    backwards = int(np.count_nonzero(t[1:] < t[:-1]))
    beyond = int(np.count_nonzero(y > 240))
    why = None
    if backwards > max(1, len(t) // 10):
        why = f"the time runs back at {backwards} of {len(t)} events"
    elif beyond > len(t) // 20:
        why = f"{beyond} of {len(t)} events lie in rows from 241 on, which no such camera has"
    elif len(t) > 100 and t[0] == t[-1] and len(np.unique(data[:5000])) == 1:
        why = "all bytes are the same"
    if why:
        raise ValueError(
            f"taken as N-MNIST's format, since its name ends in .bin, {why}; it is damaged, or of another format: {AGAIN}"
        )
    return checked_events(path, t, x, y, p, dropped=dropped)
