"""N-Caltech101: folders of classes and the split."""

import numpy as np

from spikeformers.data.events import EventData


def test_ncaltech101_splits_each_class(tmp_path, made):
    for name, files in (("BACKGROUND_Google", 10), ("accordion", 7)):
        for i in range(files):
            made.bin_file(
                tmp_path / "Caltech101" / name / f"image_{i:04}.bin", made.events(seed=i, width=240, height=180)
            )
    data = EventData("ncaltech101", str(tmp_path), time_steps=3)
    train, test = data.source(training=True), data.source(training=False)
    assert train.classes == ["BACKGROUND_Google", "accordion"]
    assert (np.bincount(train.labels).tolist(), test.labels) == ([9, 7], [0])
    assert test[0][0].shape == (3, 2, 180, 240) and test[0][0].sum() == 40
    for _ in range(2):  # the second time, the cache lies among the classes
        assert len(EventData("ncaltech101", str(tmp_path / "Caltech101")).source(training=True).classes) == 2
