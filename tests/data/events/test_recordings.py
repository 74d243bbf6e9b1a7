"""Recordings as a source of frames: the cache, broken files, parts, and processes that help."""

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from spikeformers.data.events import EventData, Events, recordings, write_events
from spikeformers.data.loading import train_loader
from spikeformers.data.samples import PADDING_LABEL, TestSet, TrainingSet


def test_sensors_of_several_sizes_need_one_size(tmp_path, made):
    root = made.own(tmp_path)
    write_events(tmp_path / "train" / "left" / "9.npz", Events(*(np.arange(2),) * 4, width=40, height=30))
    with pytest.raises(ValueError, match="40x30 pixels but the first file's 20x12; data.img_size"):
        EventData("events", root).source(training=True)[3]
    assert EventData("events", root, img_size=10, cache="none").source(training=True)[3][0].sum() == 2


def test_frames_are_decoded_once(tmp_path, monkeypatch, made):
    data = EventData("events", made.own(tmp_path), sensor=(20, 12))
    first = [data.source(training=True)[i][0] for i in range(6)]
    assert len(list((tmp_path / "frames_cache").rglob("*.npz"))) == 6
    with monkeypatch.context() as patch:
        patch.setattr(recordings, "read_events", None)
        for i, frames in enumerate(first):
            np.testing.assert_array_equal(
                EventData("events", str(tmp_path), sensor=(20, 12)).source(True)[i][0], frames
            )
        with pytest.raises(TypeError):
            EventData("events", str(tmp_path), sensor=(20, 12), time_steps=5).source(training=True)[0]
    file = tmp_path / "train" / "left" / "0.npz"
    write_events(file, made.events(7, width=20, height=12))
    assert data.source(training=True)[0][0].sum() == 7


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "8a627861ab144ed7546a2bf1c59124e3"),
        ({"img_size": 48, "resize": "bilinear"}, "8a627861ab144ed7546a2bf1c59124e3"),
        (
            {
                "name": "events",
                "time_steps": 4,
                "split_by": "duration",
                "duration": 50,
                "img_size": 48,
                "sensor": [20, 12],
            },
            "b0d07e17e506f3cb6580622cf3e61329",
        ),
    ],
    ids=str,
)
def test_frames_that_were_kept_once_are_found_again(options, name, tmp_path):
    """If this fails, everybody's frames are decoded anew: their names are the same from version to version."""
    (tmp_path / "a.npz").write_bytes(b"x" * 10)
    os.utime(tmp_path / "a.npz", ns=(0, 10**18))
    assert EventData(**options, root=str(tmp_path)).frame_cache().file(tmp_path / "a.npz", (5, 9)).stem == name


def test_frames_of_images_that_were_kept_once_are_found_again(tmp_path):
    cache = EventData("cifar10_saccades", str(tmp_path), images="digits").source(training=True).cache
    assert cache.file(Image.new("L", (4, 4), 7)).stem == "bdabaa0be0359b4b76c4944f2ce8c2c4"


def test_the_cache_can_lie_elsewhere_or_nowhere(tmp_path, made):
    root = made.own(tmp_path / "data")
    EventData("events", root, cache=str(tmp_path / "fast")).source(training=True)[0]
    EventData("events", root, cache="none").source(training=True)[0]
    assert len(list((tmp_path / "fast").rglob("*.npz"))) == 1 and not (tmp_path / "data" / "frames_cache").exists()
    (tmp_path / "data" / "frames_cache").write_text("no folder")
    with pytest.warns(UserWarning, match="frames are not cached"):
        assert EventData("events", root).source(training=True)[0][0].any()
    with pytest.raises(ValueError, match="data.cache is .*frames_cache"):
        EventData("events", root, cache=str(tmp_path / "data" / "frames_cache" / "x")).source(training=True)


def test_counts_are_kept_for_every_interpolation(tmp_path, monkeypatch, made):
    root = made.own(tmp_path)
    wide = {"sensor": (20, 12), "resize": "bilinear"}
    whole, _ = EventData("events", root, **wide).source(training=True)[0]
    monkeypatch.setattr(recordings, "read_events", None)
    for size in (6, 9):
        data = EventData("events", root, **wide, img_size=size)
        np.testing.assert_array_equal(data.source(training=True)[0][0], whole)
        assert TestSet(EventData("events", root, **wide, img_size=size, folds=2, fold=1)).shape == (16, 2, size, size)


def test_a_limit_takes_the_first_of_each_class(tmp_path, made):
    root = made.own(tmp_path, files=3, classes=("left", "middle", "right"))
    data = EventData("events", root, limit=5)
    for training in (True, False):
        part, whole = data.source(training), EventData("events", root).source(training)
        assert part.labels == [0, 0, 1, 1, 2] and list(part.classes) == ["left", "middle", "right"]
        for i, j in enumerate((0, 1, 3, 4, 6)):
            assert part.where(i) == whole.where(j) and part[i][1] == whole[j][1]
            np.testing.assert_array_equal(part[i][0], whole[j][0])
    assert len(EventData("events", root, limit=100).source(training=True)) == 9
    assert data.shape == (16, 2, 12, 20)
    digits = EventData("cifar10_saccades", str(tmp_path), images="digits", limit=40, folds=4, fold=2)
    assert (len(TrainingSet(digits, seed=0)), len(TestSet(digits))) == (30, 10)


def test_broken_files_are_left_out_with_a_warning_or_stop(tmp_path, made):
    root = made.own(tmp_path)
    (tmp_path / "val" / "left" / "0.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "train" / "left" / "0.npz").write_bytes(b"")
    test = TestSet(EventData("events", root))
    with pytest.warns(UserWarning, match="left/0.npz.*left out"):
        assert test[0][1] == PADDING_LABEL
    assert test[1][1] == 0
    with pytest.raises(ValueError, match="left/0.npz"):
        TestSet(EventData("events", root, strict=True))[0]


def test_workers_prepare_the_same_batches(tmp_path, made):
    data = EventData("nmnist", made.nmnist(tmp_path), time_steps=2, roll=3, batch_size=10)
    alone = list(train_loader(TrainingSet(data, seed=1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        helped = list(train_loader(TrainingSet(EventData(**{**vars(data), "workers": 2}), seed=1)))
    for (frames, labels), (other_frames, other_labels) in zip(alone, helped, strict=True):
        assert torch.equal(frames, other_frames) and torch.equal(labels, other_labels)


def test_files_without_memory_or_end_are_left_out(tmp_path, monkeypatch, made):
    root = made.own(tmp_path)
    (tmp_path / "val" / "left" / "0.npz").unlink()
    os.mkfifo(tmp_path / "val" / "left" / "0.npz")
    data = EventData("events", root, sensor=(20, 12), cache="none")
    with pytest.warns(UserWarning, match="left/0.npz.*a pipe.*left out"):
        assert TestSet(data)[0][1] == PADDING_LABEL

    def full(path):
        raise MemoryError

    monkeypatch.setattr(recordings, "read_events", full)
    with (
        pytest.warns(UserWarning, match="cannot read .*left out"),
        pytest.raises(ValueError, match="none of the 6 samples"),
    ):
        TestSet(data)[0]


def test_kept_frames_that_are_damaged_are_made_again(tmp_path, made):
    data = EventData("events", made.own(tmp_path), sensor=(20, 12))
    whole = data.source(training=True)[0][0]
    (file,) = (tmp_path / "frames_cache").rglob("*.npz")
    content = file.read_bytes()
    middle = len(content) // 2
    for damaged in (content[:middle], content[:middle] + b"\x00\xff" + content[middle + 2 :], b"", b"\x93NUMPY" * 9):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(data.source(training=True)[0][0], whole)
        assert file.read_bytes() == content
    for frames in (np.ones((16, 2, 12, 20)), np.ones((16, 2, 12, 21), np.uint8)):
        np.savez_compressed(file, frames=frames)
        np.testing.assert_array_equal(data.source(training=True)[0][0], whole)
