"""HAR-DVS: the publisher's lists, of event files and of folders of images."""

import numpy as np
from PIL import Image

from spikeformers.data.events import EventData, integrate, write_events


def har(root, made):
    for name in ("action_001", "action_002"):
        for i in range(2):
            write_events(root / name / f"dvSave-{i}.npz", made.events(seed=i, width=346, height=260))
    (root / "train_label.txt").write_text("action_001/dvSave-0 0\naction_002/dvSave-1.npz 1\n")
    (root / "test_label.txt").write_text("action_002/dvSave-0 1\n\naction_001/dvSave-1 0\n")
    return EventData("har_dvs", str(root), time_steps=2)


def test_har_dvs_lists(tmp_path, made):
    data = har(tmp_path, made)
    train, test = data.source(training=True), data.source(training=False)
    assert (train.labels, test.labels, train.classes) == ([0, 1], [1, 0], ["action_001", "action_002"])
    assert test[0][0].shape == data.shape == (2, 2, 260, 346)
    np.testing.assert_array_equal(
        train[1][0], integrate(made.events(seed=1, width=346, height=260), 2, size=(260, 346))
    )


def test_har_dvs_images(tmp_path, made):
    har(tmp_path, made)
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
