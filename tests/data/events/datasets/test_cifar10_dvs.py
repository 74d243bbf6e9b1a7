"""CIFAR10-DVS: folders of classes and the papers' split."""

from pathlib import Path

import numpy as np

from spikeformers.data.events import EventData, write_events
from spikeformers.data.events.datasets._layout import CIFAR10


def test_cifar10_dvs_trains_on_the_first_ninety_percent_of_each_class(tmp_path, made):
    for label, name in enumerate(CIFAR10):
        for i in range(11):
            write_events(tmp_path / name / f"cifar10_{name}_{i}.npz", made.events(5, seed=100 * label + i))
    data = EventData("cifar10_dvs", str(tmp_path), time_steps=2)
    train, test = data.source(training=True), data.source(training=False)
    assert np.bincount(train.labels).tolist() == [10] * 10 and test.labels == list(range(10))
    order = [Path(train.where(i)).stem.split("_")[-1] for i in range(10)]
    assert order == ["0", "1", "10", "2", "3", "4", "5", "6", "7", "8"], (
        "names are sorted as text, as SpikingJelly does"
    )
    assert test.where(3) == str(tmp_path / "cat" / "cifar10_cat_9.npz")
    assert train[0][0].shape == data.shape == (2, 2, 128, 128)
    again = EventData("cifar10_dvs", str(tmp_path))
    assert again.source(training=True).classes == list(CIFAR10), "the cache's folder became a class"
