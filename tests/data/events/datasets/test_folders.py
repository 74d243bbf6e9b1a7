"""Folders of one's own: classes and sensors."""

import pytest

from spikeformers.data.events import EventData
from spikeformers.data.samples import TestSet, TrainingSet


def test_folders_of_ones_own_take_the_size_that_the_files_state(tmp_path, made):
    data = EventData("events", made.own(tmp_path), time_steps=3, batch_size=2)
    assert data.shape == (3, 2, 12, 20) and data.size is None
    train, test = TrainingSet(data, seed=0), TestSet(data)
    assert train.classes == ["left", "right"] and test[4][1] == 1 and test[4][0].shape == (3, 2, 12, 20)
    assert EventData("events", str(tmp_path), sensor=(24, 16)).shape == (16, 2, 16, 24)
    assert EventData("events", str(tmp_path), img_size=8).source(training=False)[0][0].shape == (16, 2, 8, 8)


def test_differing_class_folders_are_named(tmp_path, made):
    root = made.own(tmp_path)
    made.own(tmp_path, classes=("up",), splits=("val",))
    with pytest.raises(ValueError, match="these differ: up"):
        EventData("events", root).source(training=True)
