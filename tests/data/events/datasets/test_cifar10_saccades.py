"""Images that become recordings, once."""

import numpy as np
import pytest
from PIL import Image

from spikeformers.data.events import EventData, Saccades, integrate, write_events
from spikeformers.data.loading import train_loader
from spikeformers.data.samples import TestSet, TrainingSet


def painted(root, splits=("train", "val"), classes=("bars", "columns")):
    """Folders of stripes, lying or standing, each image with its own phase."""
    for split in splits:
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(3):
                stripes = np.tile((np.arange(20) + i + 3 * (split == "val")) % 7 < 3, (20, 1))
                Image.fromarray(np.uint8(255 * (stripes if label else stripes.T))).save(
                    root / split / name / f"{i}.png"
                )
    return EventData("cifar10_saccades", str(root), images="folder", time_steps=4, batch_size=2)


def test_images_become_recordings(tmp_path):
    data = painted(tmp_path)
    train, test = TrainingSet(data, seed=0), TestSet(data)
    assert train.classes == ["bars", "columns"] and (len(train), len(test)) == (6, 6)
    frames, label = test[4]
    path = tmp_path / "val" / "columns" / "1.png"
    assert label == 1 and frames.shape == data.shape == (4, 2, 48, 48) and test.source.where(4) == str(path)
    with Image.open(path) as image:
        recording = Saccades()(image)
    np.testing.assert_array_equal(frames, integrate(recording, 4, size=(48, 48)))
    np.testing.assert_array_equal(data.read(path), frames)
    write_events(tmp_path / "recording.npz", recording)
    np.testing.assert_array_equal(data.read(tmp_path / "recording.npz"), frames)
    with pytest.raises(ValueError, match="cannot read the image .*none.png.*give an image file, or a recording"):
        data.read(tmp_path / "none.png")
    small = EventData("cifar10_saccades", str(tmp_path), images="folder", sensor=(30, 20), img_size=10, cache="none")
    assert small.source(training=True)[0][0].shape == small.shape == (16, 2, 10, 10)
    batch, _ = next(iter(train_loader(TrainingSet(EventData(**{**vars(data), "roll": 5, "cutout": 8}), seed=0))))
    assert batch.shape == (4, 2, 2, 48, 48) and batch.any()


def test_images_are_recorded_once(tmp_path, monkeypatch):
    data = painted(tmp_path / "a")
    cache = str(tmp_path / "cache")
    first = [EventData(**{**vars(data), "cache": cache}).source(training=True)[i][0] for i in range(6)]
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 6
    again = EventData(**{**vars(painted(tmp_path / "b")), "cache": cache})
    monkeypatch.setattr(Saccades, "__call__", None)  # from here on there is only the cache
    for i, frames in enumerate(first):
        np.testing.assert_array_equal(again.source(training=True)[i][0], frames)
    for change in ({"sensor": (40, 40)}, {"time_steps": 5}, {"split_by": "time"}):
        with pytest.raises(TypeError):
            EventData(**{**vars(again), **change}).source(training=True)[0]
    with pytest.raises(TypeError):
        again.source(training=False)[0]
