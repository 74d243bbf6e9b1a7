"""Configurations of data sets with class masks."""

import numpy as np
import pytest

from spikeformers.data import MaskData, TrainingSet, data_names, data_type

VALUES = np.array([[0, 1, 2, 3], [3, 2, 255, 0]])


def test_other_layouts_and_no_images(tmp_path, write, masks):
    write(tmp_path, "1", VALUES % 3)
    (tmp_path / "images" / "training").rename(tmp_path / "train")
    (tmp_path / "annotations" / "training").rename(tmp_path / "trainannot")
    layout = {"images": "{split}", "masks": "{split}annot", "train": "train"}
    assert TrainingSet(masks(tmp_path, **layout), 0)[0, 0][0][1].shape == (512, 512)
    with pytest.raises(
        ValueError, match="no images in .*images/training; the layout is ROOT/images/{split}/1.jpg with masks"
    ):
        masks(tmp_path).source(training=True)


def test_the_name_and_wrong_settings():
    assert data_type("masks") is MaskData and "masks" in data_names()
    for options, message in (
        ({"cat_max_ratio": 0}, "data.cat_max_ratio is 0"),
        ({"photometric": -1}, "data.photometric is -1"),
        ({"size": (512,)}, "data.size is"),
        ({"ratio": (2, 1)}, "data.ratio is"),
        ({"mean": (0.5,)}, r"data.mean is \(0.5,\); give a list of 3 numbers"),
        ({"ignore": -1}, "data.ignore is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            MaskData(**options)
