"""Event data sets in their publishers' layouts: splits, labels, frames, the cache, broken files and downloads."""

import functools
import hashlib
import http.server
import os
import struct
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikeformers.data.events import EventData, Events, Saccades, download, integrate, recordings, write_events
from spikeformers.data.events.datasets import DATASETS
from spikeformers.data.events.datasets._layout import CIFAR10
from spikeformers.data.events.download import Archive
from spikeformers.data.loading import PADDING_LABEL, TestSet, TrainingSet, test_loader, train_loader

PACKED = Path(__file__).parents[4] / "shared" / "data" / "nmnist"


def events(count=40, seed=0, width=34, height=34, start=0):
    random = np.random.default_rng(seed)
    t = start + np.sort(random.integers(0, 1000, count))
    x, y, p = (random.integers(0, end, count) for end in (width, height, 2))
    return Events(t, x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8))


def bin_file(path, recording):
    """N-MNIST's five bytes per event: x, y, polarity and 23 bits of time."""
    t, x, y, p = recording.t, recording.x, recording.y, recording.p
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], 1).astype(np.uint8).tobytes())


def aedat3_file(path, recording):
    """One packet of polarity events."""
    count = len(recording)
    address = recording.x.astype(np.int64) << 17 | recording.y << 2 | recording.p << 1 | 1
    body = np.stack([address, recording.t], 1).astype("<u4").tobytes()
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 0: DVS128\r\n#!END-HEADER\r\n"
    path.write_bytes(header + struct.pack("<2h6i", 1, 0, 8, 4, 0, count, count, count) + body)


def nmnist(root, splits=("Train", "Test"), per_class=2):
    for split in splits:
        for label in range(10):
            for i in range(per_class):
                bin_file(root / split / str(label) / f"{i:05}.bin", events(seed=10 * i + label))
    return str(root)


def own(root, files=3, classes=("left", "right"), splits=("train", "val"), width=20, height=12):
    for split in splits:
        for label, name in enumerate(classes):
            for i in range(files):
                recording = events(seed=100 * label + i, width=width, height=height)
                stated = Events(recording.t, recording.x, recording.y, recording.p, width, height)
                write_events(root / split / name / f"{i}.npz", stated)
    return str(root)


def test_nmnist_folders(tmp_path):
    data = EventData("nmnist", nmnist(tmp_path), time_steps=4, batch_size=5)
    train, test = TrainingSet(data, seed=0), TestSet(data)
    assert (len(train), len(test)) == (20, 20) and train.classes == list("0123456789")
    frames, label = test[13]
    assert label == 6 and frames.shape == data.shape == (4, 2, 34, 34) and frames.dtype == torch.float32
    np.testing.assert_array_equal(frames, integrate(events(seed=16), 4, size=(34, 34)))
    batch, labels = next(iter(train_loader(train)))
    assert batch.shape == (4, 5, 2, 34, 34) and labels.shape == (5,)
    assert sum(len(labels) for _, labels in test_loader(test)) == 20


def packed(root, count=30):
    recordings = [events(seed=i, count=20 + i) for i in range(count)]
    columns = {f"train_{key}": np.concatenate([getattr(one, key) for one in recordings]) for key in "txyp"}
    columns = {key: column.astype(np.uint32 if key == "train_t" else np.uint8) for key, column in columns.items()}
    offsets = np.cumsum([0, *(len(one) for one in recordings)])
    np.savez(root / "nmnist.npz", **columns, train_offsets=offsets, train_labels=np.arange(count, dtype=np.uint8) % 10)
    return recordings


def test_packed_nmnist_is_cross_validated(tmp_path):
    recordings = packed(tmp_path)
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


def test_packed_nmnist_can_be_scaled(tmp_path):
    recording = packed(tmp_path)[7]
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


def gesture(root):
    folder = root / "DvsGesture"
    folder.mkdir()
    for name, shift in (("user01_led", 0), ("user24_led", 5)):
        recording = events(300, seed=shift, width=128, height=128, start=2_000_000)
        aedat3_file(folder / f"{name}.aedat", recording)
        rows = [(1 + shift, 2_000_100, 2_000_400), (2 + shift, 2_000_400, 2_000_600), (11, 2_000_500, 2_000_900)]
        lines = ["class,startTime_usec,endTime_usec", *(",".join(map(str, row)) for row in rows)]
        (folder / f"{name}_labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n\n")
    return EventData("dvs128_gesture", str(root), time_steps=5)


def test_gestures_are_the_rows_of_the_tables(tmp_path, monkeypatch):
    data = gesture(tmp_path)
    train, test = data.source(training=True), data.source(training=False)
    assert train.labels == [0, 1, 10] and test.labels == [5, 6, 10] and len(train.classes) == 11
    recording = events(300, seed=5, width=128, height=128, start=2_000_000)
    for i, span in enumerate([(2_000_100, 2_000_400), (2_000_400, 2_000_600), (2_000_500, 2_000_900)]):
        np.testing.assert_array_equal(test[i][0], integrate(recording.between(*span), 5, size=(128, 128)))
    assert train[1][1] == 1
    monkeypatch.setattr(recordings, "read_events", None)  # from here on there is only the cache
    assert [train[i][1] for i in range(3)] == [0, 1, 10], "a file was not cached with all of its rows"


def test_a_gesture_that_the_file_no_longer_holds_is_told(tmp_path):
    data = gesture(tmp_path)
    table = tmp_path / "DvsGesture" / "user01_led_labels.csv"
    table.write_text(table.read_text() + "3,2005000,2006000\n")
    train = data.source(training=True)
    assert train[0][0].any()
    with pytest.raises(ValueError, match="no events from 2005000 to 2006000"):
        train[3]
    for damage in ("12,1,2", "0,1,2", "1,3,2", "1,2", "one,1,2"):
        table.write_text(f"class,startTime_usec,endTime_usec\n{damage}\n")
        with pytest.raises(ValueError, match="user01_led_labels.csv must hold rows of class"):
            data.source(training=True)
    table.unlink()
    with pytest.raises(ValueError, match="user01_led_labels.csv, though trials_to_train.txt lists"):
        data.source(training=True)


def test_cifar10_dvs_trains_on_the_first_ninety_percent_of_each_class(tmp_path):
    for label, name in enumerate(CIFAR10):
        for i in range(11):
            write_events(tmp_path / name / f"cifar10_{name}_{i}.npz", events(5, seed=100 * label + i))
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


def test_ncaltech101_splits_each_class(tmp_path):
    for name, files in (("BACKGROUND_Google", 10), ("accordion", 7)):
        for i in range(files):
            bin_file(tmp_path / "Caltech101" / name / f"image_{i:04}.bin", events(seed=i, width=240, height=180))
    data = EventData("ncaltech101", str(tmp_path), time_steps=3)
    train, test = data.source(training=True), data.source(training=False)
    assert train.classes == ["BACKGROUND_Google", "accordion"]
    assert (np.bincount(train.labels).tolist(), test.labels) == ([9, 7], [0])
    assert test[0][0].shape == (3, 2, 180, 240) and test[0][0].sum() == 40
    for _ in range(2):  # the second time, the cache lies among the classes
        assert len(EventData("ncaltech101", str(tmp_path / "Caltech101")).source(training=True).classes) == 2


def har(root):
    for name in ("action_001", "action_002"):
        for i in range(2):
            write_events(root / name / f"dvSave-{i}.npz", events(seed=i, width=346, height=260))
    (root / "train_label.txt").write_text("action_001/dvSave-0 0\naction_002/dvSave-1.npz 1\n")
    (root / "test_label.txt").write_text("action_002/dvSave-0 1\n\naction_001/dvSave-1 0\n")
    return EventData("har_dvs", str(root), time_steps=2)


def test_har_dvs_lists(tmp_path):
    data = har(tmp_path)
    train, test = data.source(training=True), data.source(training=False)
    assert (train.labels, test.labels, train.classes) == ([0, 1], [1, 0], ["action_001", "action_002"])
    assert test[0][0].shape == data.shape == (2, 2, 260, 346)
    np.testing.assert_array_equal(train[1][0], integrate(events(seed=1, width=346, height=260), 2, size=(260, 346)))


def test_har_dvs_images(tmp_path):
    har(tmp_path)
    folder = tmp_path / "action_001" / "images"
    folder.mkdir()
    for i in range(5):
        image = Image.new("L", (346, 260), 255)
        image.putpixel((10 + i, 20), 0)
        image.putpixel((30, 40), 128)
        image.save(folder / f"{8 + i}.png")  # 8.png comes before 10.png
    (tmp_path / "test_label.txt").write_text("action_001/images 5 0\n")
    data = EventData("har_dvs", str(tmp_path), time_steps=2)
    for _ in range(2):  # decoded, then cached
        frames, label = data.source(training=False)[0]
        assert label == 0 and frames.shape == (2, 2, 260, 346)
        assert np.argwhere(frames).tolist() == [[0, 0, 20, 10], [0, 1, 40, 30], [1, 0, 20, 12], [1, 1, 40, 30]]
    small, _ = EventData("har_dvs", str(tmp_path), time_steps=5, img_size=26).source(training=False)[0]
    assert small.shape == (5, 2, 26, 26) and small.sum() == 10


def test_folders_of_ones_own_take_the_size_that_the_files_state(tmp_path):
    data = EventData("events", own(tmp_path), time_steps=3, batch_size=2)
    assert data.shape == (3, 2, 12, 20) and data.size is None
    train, test = TrainingSet(data, seed=0), TestSet(data)
    assert train.classes == ["left", "right"] and test[4][1] == 1 and test[4][0].shape == (3, 2, 12, 20)
    assert EventData("events", str(tmp_path), sensor=(24, 16)).shape == (16, 2, 16, 24)
    assert EventData("events", str(tmp_path), img_size=8).source(training=False)[0][0].shape == (16, 2, 8, 8)


def test_sensors_of_several_sizes_need_one_size(tmp_path):
    root = own(tmp_path)
    write_events(tmp_path / "train" / "left" / "9.npz", Events(*(np.arange(2),) * 4, width=40, height=30))
    with pytest.raises(ValueError, match="40x30 pixels but the first file's 20x12; data.img_size"):
        EventData("events", root).source(training=True)[3]
    assert EventData("events", root, img_size=10, cache="none").source(training=True)[3][0].sum() == 2


def test_a_sensor_of_unknown_size_is_asked_for(tmp_path):
    write_events(tmp_path / "train" / "left" / "0.npz", events())
    data = EventData("events", str(tmp_path), folds=2, cache="none")
    with pytest.raises(
        ValueError, match=r"0.npz does not state its sensor's size; give its width and height"
    ):
        data.source(training=True)
    assert EventData("events", str(tmp_path), folds=2, sensor=(34, 34)).source(training=True)[0][0].sum() == 40


def test_frames_are_decoded_once(tmp_path, monkeypatch):
    data = EventData("events", own(tmp_path), sensor=(20, 12))
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
    write_events(file, events(7, width=20, height=12))
    assert data.source(training=True)[0][0].sum() == 7


def test_the_cache_can_lie_elsewhere_or_nowhere(tmp_path):
    root = own(tmp_path / "data")
    EventData("events", root, cache=str(tmp_path / "fast")).source(training=True)[0]
    EventData("events", root, cache="none").source(training=True)[0]
    assert len(list((tmp_path / "fast").rglob("*.npz"))) == 1 and not (tmp_path / "data" / "frames_cache").exists()
    (tmp_path / "data" / "frames_cache").write_text("no folder")
    with pytest.warns(UserWarning, match="frames are not cached"):
        assert EventData("events", root).source(training=True)[0][0].any()
    with pytest.raises(ValueError, match="data.cache is .*frames_cache"):
        EventData("events", root, cache=str(tmp_path / "data" / "frames_cache" / "x")).source(training=True)


def test_frames_can_be_interpolated_instead(tmp_path):
    recording = packed(tmp_path)[7]
    data = EventData("nmnist", str(tmp_path), time_steps=2, img_size=17, resize="bilinear", clip=2)
    counts = torch.from_numpy(integrate(recording, 2, size=(34, 34))).float().clamp(max=2)
    got = data.transform(training=False)(data.source(training=True)[7][0])
    assert got.shape == data.shape == (2, 2, 17, 17)
    # pixels twice as large: their centres lie amid four
    torch.testing.assert_close(got, counts.unflatten(3, (17, 2)).unflatten(2, (17, 2)).mean((3, 5)))


def test_counts_are_kept_for_every_interpolation(tmp_path, monkeypatch):
    root = own(tmp_path)
    wide = {"sensor": (20, 12), "resize": "bilinear"}
    whole, _ = EventData("events", root, **wide).source(training=True)[0]
    monkeypatch.setattr(recordings, "read_events", None)
    for size in (6, 9):
        data = EventData("events", root, **wide, img_size=size)
        np.testing.assert_array_equal(data.source(training=True)[0][0], whole)
        assert TestSet(EventData("events", root, **wide, img_size=size, folds=2, fold=1)).shape == (16, 2, size, size)


def painted(root, splits=("train", "val"), classes=("bars", "columns")):
    """Folders of stripes, lying or standing, each image with its own phase."""
    for split in splits:
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(3):
                stripes = np.tile((np.arange(20) + i + 3 * (split == "val")) % 7 < 3, (20, 1))
                Image.fromarray(np.uint8(255 * (stripes if label else stripes.T))).save(root / split / name / f"{i}.png")
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


def test_a_limit_takes_the_first_of_each_class(tmp_path):
    root = own(tmp_path, files=3, classes=("left", "middle", "right"))
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


def test_broken_files_are_left_out_with_a_warning_or_stop(tmp_path):
    root = own(tmp_path)
    (tmp_path / "val" / "left" / "0.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "train" / "left" / "0.npz").write_bytes(b"")
    test = TestSet(EventData("events", root))
    with pytest.warns(UserWarning, match="left/0.npz.*left out"):
        assert test[0][1] == PADDING_LABEL
    assert test[1][1] == 0
    with pytest.raises(ValueError, match="left/0.npz"):
        TestSet(EventData("events", root, strict=True))[0]


def test_events_outside_the_sensor_are_counted_with_the_file(tmp_path):
    bin_file(tmp_path / "a.bin", events(50, width=40))
    outside = int((events(50, width=40).x >= 34).sum())
    data = EventData("nmnist", time_steps=2)
    with pytest.warns(UserWarning, match=f"a.bin: {outside} events .* outside the sensor of 34x34") as warned:
        frames = data.read(tmp_path / "a.bin")
    assert len(warned) == 1 and frames.sum() == 50 - outside > 0
    root = nmnist(tmp_path / "data")
    bin_file(tmp_path / "data" / "Train" / "0" / "00000.bin", events(50, width=40))
    with pytest.warns(UserWarning, match=f"00000.bin: {outside} events") as warned:
        EventData("nmnist", root).source(training=True)[0]
    assert len(warned) == 1


def test_a_file_as_a_test_sample(tmp_path):
    recording = events(width=3, height=3)
    bin_file(tmp_path / "a.bin", recording)
    data = EventData("nmnist", time_steps=2, clip=2, hflip=1, cutout=34)
    frames = data.read(tmp_path / "a.bin")
    np.testing.assert_array_equal(frames, integrate(recording, 2, size=(34, 34)).clip(max=2))
    assert frames.dtype == torch.float32 and frames.sum() < 40
    with pytest.raises(ValueError, match="b.bin"):
        data.read(tmp_path / "b.bin")


def test_augmentation_is_for_training_and_follows_the_seed(tmp_path):
    data = EventData("nmnist", nmnist(tmp_path), time_steps=2, hflip=0.5, roll=5, rotate=30, shear=0.3, cutout=9)
    train, test = TrainingSet(data, seed=1), TestSet(data)
    torch.manual_seed(0)
    assert torch.equal(train[3, 7][0], TrainingSet(data, seed=1)[3, 7][0])
    assert not torch.equal(train[3, 7][0], train[3, 8][0])
    assert torch.equal(test[3][0], test[3][0])
    np.testing.assert_array_equal(test[3][0], test.source[3][0])
    one = EventData("nmnist", str(tmp_path), time_steps=2, cutout=68, augment_one=True).transform(training=True)
    emptied = sum(not one(test.source[3][0]).any() for _ in range(60))
    assert 10 <= emptied <= 50, "cutout or nothing, one as often as the other"


def test_durations_reach_the_frames(tmp_path):
    write_events(tmp_path / "a.npz", Events(*(np.array(c) for c in ([0, 9, 10, 35], [0] * 4, [0] * 4, [1] * 4)), 2, 2))
    data = EventData("events", split_by="duration", duration=10, time_steps=3)
    assert data.read(tmp_path / "a.npz").sum((1, 2, 3)).tolist() == [2, 1, 0]


@pytest.mark.parametrize("name", list(DATASETS))
def test_missing_data_say_where_to_put_them(tmp_path, name):
    with pytest.raises(ValueError, match="set data.root") as error:
        EventData(name, str(tmp_path / "nothing")).source(training=True)
    assert str(tmp_path / "nothing") in str(error.value)


def test_differing_class_folders_are_named(tmp_path):
    root = own(tmp_path)
    own(tmp_path, classes=("up",), splits=("val",))
    with pytest.raises(ValueError, match="these differ: up"):
        EventData("events", root).source(training=True)


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


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path):
    """A folder and the address of a server, on this machine, that offers it."""
    (tmp_path / "site").mkdir()
    handler = functools.partial(Quiet, directory=tmp_path / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / "site", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def archive(path, folder):
    with zipfile.ZipFile(path, "w") as file:
        for label in range(10):
            bin_file(path.parent / "one.bin", events(seed=label))
            file.write(path.parent / "one.bin", f"{folder}/{label}/00001.bin")
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_what_is_missing_is_fetched_once(tmp_path, site, monkeypatch):
    folder, address = site
    offered = [
        Archive(split, f"{split}.zip", f"{address}/{split}.zip", archive(folder / f"{split}.zip", split))
        for split in ("Train", "Test")
    ]
    monkeypatch.setattr(DATASETS["nmnist"], "archives", offered)
    root = tmp_path / "data"
    data = EventData("nmnist", str(root), download=True)
    assert len(data.source(training=True)) == len(data.source(training=False)) == 10
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["Test", "Train", "frames_cache"]
    monkeypatch.setattr(download.utils, "download_url", None)
    assert data.source(training=True)[3][1] == 3


@pytest.mark.parametrize("offer", ["nothing", "another file", "another folder"])
def test_a_failed_download_says_what_to_fetch_by_hand(tmp_path, site, monkeypatch, offer):
    folder, address = site
    md5 = "0" * 32
    if offer == "another file":
        archive(folder / "Train.zip", "Train")
    elif offer == "another folder":
        md5 = archive(folder / "Train.zip", "Others")
    url = f"{address}/Train.zip"
    monkeypatch.setattr(DATASETS["nmnist"], "archives", [Archive("Train", "Train.zip", url, md5)])
    size = "of a size .*" if offer == "nothing" else f"{(folder / 'Train.zip').stat().st_size:,} bytes"
    with pytest.raises(ValueError, match=f"nmnist .*{url} .{size}, md5 {md5}. by hand to .*data/Train.zip"):
        EventData("nmnist", str(tmp_path / "data"), download=True).source(training=True)
    assert not (tmp_path / "data" / "Train").exists()


@pytest.mark.parametrize(
    ("name", "hint"), [("dvs128_gesture", "form"), ("ncaltech101", "66201824"), ("har_dvs", "HARDVS")]
)
def test_what_must_be_fetched_by_hand_is_said(tmp_path, name, hint):
    with pytest.raises(ValueError, match=hint):
        EventData(name, str(tmp_path), download=True).source(training=True)


def test_workers_prepare_the_same_batches(tmp_path):
    data = EventData("nmnist", nmnist(tmp_path), time_steps=2, roll=3, batch_size=10)
    alone = list(train_loader(TrainingSet(data, seed=1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        helped = list(train_loader(TrainingSet(EventData(**{**vars(data), "workers": 2}), seed=1)))
    for (frames, labels), (other_frames, other_labels) in zip(alone, helped, strict=True):
        assert torch.equal(frames, other_frames) and torch.equal(labels, other_labels)


def test_a_recording_of_another_sensor_is_refused(tmp_path):
    large = Events(np.arange(10), np.arange(30, 40, dtype=np.int32), np.zeros(10, np.int32), np.ones(10, np.uint8), 64, 64)
    write_events(tmp_path / "large.npz", large)
    with pytest.raises(ValueError, match="only 4 of the 10 events in .*large.npz lie on a sensor of 34x34 pixels"):
        EventData("nmnist", time_steps=2).read(tmp_path / "large.npz")
    with pytest.warns(UserWarning, match="1 events are cut off or outside"):
        frames = EventData("nmnist", time_steps=2, sensor=(39, 39)).read(tmp_path / "large.npz")
    assert frames.sum() == 9


@pytest.mark.parametrize("stated", [(64, 64), (34, 34)], ids=str)
def test_a_recording_that_lies_outside_the_sensor_that_it_states_is_refused(stated, tmp_path):
    """What the reader has left out counts as well as what the data set's own sensor leaves out."""
    columns = dict(t=np.arange(100), x=np.arange(100), y=np.zeros(100, int), p=np.ones(100, int))
    np.savez(tmp_path / "a.npz", **columns, width=stated[0], height=stated[1])
    for data in (EventData("nmnist", time_steps=2), EventData("events", sensor=(34, 34), time_steps=2)):
        with pytest.raises(ValueError, match="only 34 of the 100 events in .*a.npz lie on a sensor of 34x34"):
            data.read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=f"only {stated[0]} of the 100 events"):
        EventData("events", time_steps=2).read(tmp_path / "a.npz")


def test_frames_larger_than_any_memory_are_refused(tmp_path):
    write_events(tmp_path / "a.npz", events(40))
    with pytest.raises(ValueError, match="a.npz: 1,000,000,000 frames of 34x34 pixels .* cannot be counted"):
        EventData("nmnist", time_steps=10**9).read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="cannot be counted"):
        EventData("nmnist", nmnist(tmp_path / "data"), time_steps=10**9).source(training=True)
    with pytest.raises(ValueError, match="cannot be counted"):
        EventData("nmnist", time_steps=2, sensor=(10**6, 10**6)).read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="cannot be counted"):
        EventData("nmnist", time_steps=2, img_size=10**6, resize="bilinear").read(tmp_path / "a.npz")


def test_files_without_memory_or_end_are_left_out(tmp_path, monkeypatch):
    root = own(tmp_path)
    (tmp_path / "val" / "left" / "0.npz").unlink()
    os.mkfifo(tmp_path / "val" / "left" / "0.npz")
    data = EventData("events", root, sensor=(20, 12), cache="none")
    with pytest.warns(UserWarning, match="left/0.npz.*a pipe.*left out"):
        assert TestSet(data)[0][1] == PADDING_LABEL

    def full(path):
        raise MemoryError

    monkeypatch.setattr(recordings, "read_events", full)
    with pytest.warns(UserWarning, match="cannot read .*left out"), pytest.raises(ValueError, match="none of the 6 samples"):
        TestSet(data)[0]


def test_kept_frames_that_are_damaged_are_made_again(tmp_path):
    data = EventData("events", own(tmp_path), sensor=(20, 12))
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
