"""N-MNIST's format: the mark of time."""


def test_nmnist_overflow_mark(tmp_path, files):
    mark = bytes([0, 240, 0, 0, 0])
    events = files.reading(tmp_path, files.nmnist(files.KNOWN[:2]) + mark + files.nmnist(files.KNOWN[2:3]), "a.bin")
    assert files.rows(events) == [*files.KNOWN[:2], (12 + 8192, 5, 2, 1)] and events.dropped == 0
