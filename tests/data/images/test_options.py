"""Configurations of image data sets, and what is told of data that are not there."""

import numpy as np
import pytest
from PIL import Image

from spikeformers.data import ImageData, TestSet, TrainingSet, train_loader
from spikeformers.data.shards import write_shards

GREY = {"channels": 1, "mean": (0.5,), "std": (0.25,)}


def folder(root, images=6, classes=("left", "right"), splits=("train", "val"), size=(12, 10)):
    for split in splits:
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(images):
                pixels = np.full((*size, 3), 40 * label + i, np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return str(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, r"data.channels is 2; give 1 \(grey\) or 3"),
        ({"channels": 1}, r"data.mean has 3 numbers for 1 channel"),
        ({"std": (1.0,)}, r"data.std has 1 numbers for 3 channel"),
        ({"interpolation": "cubic"}, "'cubic'; give nearest, bilinear"),
        ({"batch_size": 0}, "data.batch_size is 0; give at least 1"),
        ({"scale": (2, 3)}, r"data.scale is \(2, 3\); give a number above 0 and at most 1"),
        ({"ratio": (2, 1)}, "give the smallest first"),
        ({"crop_padding": 100_000}, "data.crop_padding is 100000; give at most 8,192"),
        ({"crop_padding": 100}, "give at most data.img_size, which is 32"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        ImageData(**options)


def test_data_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"image folders look like .*/train/CLASS/1.jpg"):
        TrainingSet(ImageData("folder", str(tmp_path)), seed=0)
    with pytest.raises(ValueError, match=r"set data.root or fetch it: python -c .*CIFAR10\(.*download=True"):
        TestSet(ImageData("cifar10", str(tmp_path)))
    with pytest.raises(ValueError, match="data.name is 'cifar'; give digits, folder"):
        ImageData("cifar")


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    data = ImageData(img_size=8)
    assert data.read(tmp_path / "whole.png").shape == (3, 8, 8)
    for name, message in (
        ("none.png", "no image file .*none.png; check the path"),
        ("text.png", "text.png is not an image that Pillow can read"),
        ("half.png", "cannot read the image .*half.png"),
    ):
        with pytest.raises(ValueError, match=message):
            data.read(tmp_path / name)


def test_shards_of_webdataset(tmp_path):
    source = ImageData("folder", folder(tmp_path / "folder")).source(training=True)
    for split in ("train", "val"):
        write_shards(source, tmp_path / "shards", split, images_per_shard=5)
    (tmp_path / "shards" / "classes.txt").write_text("left\nright\n")
    data = ImageData("webdataset", str(tmp_path / "shards"), img_size=8, batch_size=4, **GREY)
    training = TrainingSet(data, 0)
    assert training.classes == ["left", "right"] and list(training.shards) == [5, 5, 2]
    images, labels = next(iter(train_loader(training)))
    assert images.shape == (4, 1, 8, 8) and labels.max() < 2
    assert len(TestSet(data)) == 12
