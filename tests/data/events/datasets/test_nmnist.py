"""N-MNIST: the publisher's folders, and packed recordings, damaged ones among them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spikeformers.data.events import EventData, integrate
from spikeformers.data.loading import test_loader, train_loader
from spikeformers.data.samples import TestSet, TrainingSet

PACKED = Path(__file__).parents[5] / "shared" / "data" / "nmnist"


def test_nmnist_folders(tmp_path, made):
    data = EventData("nmnist", made.nmnist(tmp_path), time_steps=4, batch_size=5)
    train, test = TrainingSet(data, seed=0), TestSet(data)
    assert (len(train), len(test)) == (20, 20) and train.classes == list("0123456789")
    frames, label = test[13]
    assert label == 6 and frames.shape == data.shape == (4, 2, 34, 34) and frames.dtype == torch.float32
    np.testing.assert_array_equal(frames, integrate(made.events(seed=16), 4, size=(34, 34)))
    batch, labels = next(iter(train_loader(train)))
    assert batch.shape == (4, 5, 2, 34, 34) and labels.shape == (5,)
    assert sum(len(labels) for _, labels in test_loader(test)) == 20


def test_packed_nmnist_is_cross_validated(tmp_path, made):
    recordings = made.packed(tmp_path)
    with pytest.raises(ValueError, match="no test recordings; give --data.folds 5"):
        TestSet(EventData("nmnist", str(tmp_path)))
    tested = []
    for fold in (1, 2, 3):
        data = EventData("nmnist", str(tmp_path), time_steps=3, folds=3, fold=fold)
        train, test = TrainingSet(data, seed=0), TestSet(data)
        assert (len(train), len(test)) == (20, 10) and not set(train.indices) & set(test.indices)
        assert sorted(test[i][1] for i in range(10)) == list(range(10))
        np.testing.assert_array_equal(test[4][0], integrate(recordings[test.indices[4]], 3, size=(34, 34)))
        tested += test.indices
    assert sorted(tested) == list(range(30))
    assert not (tmp_path / "frames_cache").exists(), "integrating is quicker than reading a cache"


def test_packed_nmnist_can_be_scaled(tmp_path, made):
    recording = made.packed(tmp_path)[7]
    frames, _ = EventData("nmnist", str(tmp_path), time_steps=1, img_size=128).source(training=True)[7]
    assert frames.shape == (1, 2, 128, 128) and frames.sum() == len(recording)
    places = recording.p, recording.y * 128 // 34, recording.x * 128 // 34
    assert set(zip(*(axis.tolist() for axis in frames[0].nonzero()), strict=True)) == set(
        zip(*(axis.tolist() for axis in places), strict=True)
    )


@pytest.mark.skipif(not PACKED.is_dir(), reason="needs the packed recordings")
def test_the_thousand_recordings():
    source = EventData("nmnist", str(PACKED), time_steps=10, folds=5).source(training=True)
    assert len(source) == 1000 and np.bincount(source.labels).min() == 87
    total = sum(int(source[i][0].sum()) for i in range(0, 1000, 50))
    assert total == sum(source.offsets[i + 1] - source.offsets[i] for i in range(0, 1000, 50))


def test_packed_recordings_that_are_damaged(tmp_path):
    np.savez(tmp_path / "nmnist.npz", train_t=np.zeros(3), train_offsets=np.array([0, 3]))
    data = EventData("nmnist", str(tmp_path))
    with pytest.raises(ValueError, match="lacks the arrays train_x, train_y, train_p, train_labels"):
        data.source(training=True)
    (tmp_path / "nmnist.npz").write_bytes((tmp_path / "nmnist.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot read .*nmnist.npz .*fetch it again"):
        data.source(training=True)


@pytest.mark.parametrize(
    "change",
    [
        {"train_x": np.zeros(3, np.uint8)},
        {"train_p": np.full(99, 7)},
        {"train_labels": np.full(3, 10)},
        {"train_offsets": np.array([0, 40, 30, 99])},
        {"train_offsets": np.array([0, 30, 60, 100])},
        {"train_offsets": np.array([0, 99])},
        {"train_t": np.zeros(99)},
    ],
    ids=str,
)
def test_packed_recordings_that_do_not_fit_each_other(change, tmp_path):
    arrays = {f"train_{key}": np.zeros(99, np.uint8) for key in "txyp"}
    arrays |= {"train_offsets": np.array([0, 30, 60, 99]), "train_labels": np.arange(3)}
    np.savez(tmp_path / "nmnist.npz", **arrays)
    data = EventData("nmnist", str(tmp_path), time_steps=2)
    assert len(data.source(training=True)) == 3
    np.savez(tmp_path / "nmnist.npz", **{**arrays, **change})
    with pytest.raises(ValueError, match="do not fit each other"):
        data.source(training=True)


def test_packed_recordings_whose_time_runs_back(tmp_path):
    arrays = {f"train_{key}": np.zeros(400, np.uint32) for key in "xyp"}
    arrays["train_t"] = np.tile(np.arange(200, dtype=np.uint32) * 100, 2)
    np.savez(tmp_path / "nmnist.npz", **arrays, train_offsets=np.array([0, 200, 400]), train_labels=np.arange(2))
    data = EventData("nmnist", str(tmp_path), time_steps=2)
    assert data.source(training=True)[1][0].sum() == 200  # each begins anew
    np.savez(tmp_path / "nmnist.npz", **arrays, train_offsets=np.array([0, 400]), train_labels=np.arange(1))
    with pytest.warns(UserWarning, match="recording 0.: the time runs back once in 400 events"):
        assert (np.diff(data.source(training=True).events(0).t) >= 0).all()
