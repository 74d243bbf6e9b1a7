"""The options of event data sets: settings that cannot work, single files, augmentation."""

import numpy as np
import pytest
import torch

from spikeformers.data.events import EventData, integrate
from spikeformers.data.samples import TestSet, TrainingSet


def test_a_file_as_a_test_sample(tmp_path, made):
    recording = made.events(width=3, height=3)
    made.bin_file(tmp_path / "a.bin", recording)
    data = EventData("nmnist", time_steps=2, clip=2, hflip=1, cutout=34)
    frames = data.read(tmp_path / "a.bin")
    np.testing.assert_array_equal(frames, integrate(recording, 2, size=(34, 34)).clip(max=2))
    assert frames.dtype == torch.float32 and frames.sum() < 40
    with pytest.raises(ValueError, match="b.bin"):
        data.read(tmp_path / "b.bin")


def test_augmentation_is_for_training_and_follows_the_seed(tmp_path, made):
    data = EventData("nmnist", made.nmnist(tmp_path), time_steps=2, hflip=0.5, roll=5, rotate=30, shear=0.3, cutout=9)
    train, test = TrainingSet(data, seed=1), TestSet(data)
    torch.manual_seed(0)
    assert torch.equal(train[3, 7][0], TrainingSet(data, seed=1)[3, 7][0])
    assert not torch.equal(train[3, 7][0], train[3, 8][0])
    assert torch.equal(test[3][0], test[3][0])
    np.testing.assert_array_equal(test[3][0], test.source[3][0])
    one = EventData("nmnist", str(tmp_path), time_steps=2, cutout=68, augment_one=True).transform(training=True)
    emptied = sum(not one(test.source[3][0]).any() for _ in range(60))
    assert 10 <= emptied <= 50, "cutout or nothing, one as often as the other"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "cifar10"}, "cifar10_dvs, cifar10_saccades"),
        ({"time_steps": 0}, "data.time_steps is 0; give at least 1"),
        ({"split_by": "count"}, "number, time or duration"),
        ({"split_by": "duration"}, "microseconds per frame"),
        ({"duration": 100}, "belongs to split_by duration"),
        ({"img_size": 0}, "data.img_size"),
        ({"sensor": (0, 5)}, r"data.sensor is \(0, 5\); give at least 1"),
        ({"sensor": (5,)}, "give a list of 2 whole numbers or null"),
        ({"hflip": 1.5}, "0 to 1"),
        ({"cutout": -1}, "data.cutout is -1"),
        ({"folds": 5, "fold": 6}, "give 1 to data.folds"),
        ({"batch_size": 0}, "data.batch_size"),
        ({"limit": -1}, "data.limit is -1"),
        ({"resize": "bicubic"}, "give events or bilinear"),
        ({"images": "paintings"}, "data.images is 'paintings'; give digits, folder"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        EventData(**given)
