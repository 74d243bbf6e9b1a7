"""Folders of images."""

import numpy as np
import pytest
from PIL import Image

from spikeformers.data import ImageData, TestSet, TrainingSet, train_loader


def folder(root, images=6, classes=("left", "right"), splits=("train", "val"), size=(12, 10)):
    for split in splits:
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(images):
                pixels = np.full((*size, 3), 40 * label + i, np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return str(root)


def test_image_folders(tmp_path):
    data = ImageData("folder", folder(tmp_path), img_size=8, batch_size=4)
    train, test = TrainingSet(data, seed=0), TestSet(data)
    assert train.classes == test.classes == ["left", "right"]
    assert len(train) == 12 and test[11][0].shape == (3, 8, 8) and test[11][1] == 1
    images, labels = next(iter(train_loader(train)))
    assert images.shape == (4, 3, 8, 8) and labels.shape == (4,)


def test_splits_must_hold_the_same_classes(tmp_path):
    folder(tmp_path, splits=("train",))
    folder(tmp_path, splits=("val",), classes=("left", "up"))
    with pytest.raises(ValueError, match="these differ: right, up"):
        TestSet(ImageData("folder", str(tmp_path)))
