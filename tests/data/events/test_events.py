import numpy as np

from spikeformers.data.events import Events


def test_repr_is_one_line():
    n = 100_000
    t = np.arange(n, dtype=np.int64) * 3
    zeros, on = np.zeros(n, np.int32), (np.arange(n) % 4 == 0).astype(np.uint8)
    assert repr(Events(t, zeros, zeros, on, 34, 34)) == "Events(100,000 in 0.299997 s, 25% ON, on 34 x 34 pixels)"
    assert repr(Events(t[:0], zeros[:0], zeros[:0], on[:0])) == "Events(none, on a sensor of unknown size)"
    assert repr(Events(t, zeros, zeros, on, 34, 34, dropped=1_200)).endswith("1,200 dropped)")
