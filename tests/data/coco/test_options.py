"""Configurations of data sets in COCO's format."""

import json

import pytest

from spikeformers.data import CocoData, TestSet, data_names, data_type


def test_other_layouts(tmp_path, content, write):
    write(tmp_path, content())
    (tmp_path / "train" / "_annotations.json").write_text(json.dumps(content()))
    layout = {"images": "{split}", "annotations": "{split}/_annotations.json"}
    assert TestSet(CocoData(root=str(tmp_path), val="train", **layout))[2][0][1]["image_id"] == 12
    with pytest.raises(ValueError, match="no annotations .*val2017/_annotations.json"):
        CocoData(root=str(tmp_path), **layout).source(training=False)


def test_the_name_and_wrong_settings(tmp_path):
    assert data_type("coco") is CocoData and "coco" in data_names()
    with pytest.raises(ValueError, match="data.crop is 2"):
        CocoData(crop=2)
    with pytest.raises(ValueError, match="data.batch_size is 0"):
        CocoData(batch_size=0)
