"""A small data set in COCO's format."""

import json

import pytest
from PIL import Image

from spikeformers.data import CocoData

SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]  # rows 1 to 3, columns 2 to 5


def content():
    """Image 7 has two objects, a crowd and a box without width, image 3 one object, image 12 none."""
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "width": 10, "height": 8},
            {"id": 12, "file_name": "c.png", "width": 6, "height": 6},
            {"id": 3, "file_name": "a.png", "width": 9, "height": 5},
        ],
        "categories": [{"id": 90, "name": "bus"}, {"id": 2, "name": "cat"}, {"id": 17, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 17,
                "bbox": [2, 1, 4, 3],
                "area": 11.5,
                "iscrowd": 0,
                "segmentation": [SQUARE],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 90,
                "bbox": [0, 4, 10, 4],
                "area": 40,
                "iscrowd": 1,
                "segmentation": {"size": [8, 10], "counts": [4] + [4] * 19},
            },
            {
                "id": 3,
                "image_id": 3,
                "category_id": 2,
                "bbox": [0, 0, 1, 5],
                "segmentation": {"size": [5, 9], "counts": "05X1"},
            },
            {
                "id": 4,
                "image_id": 7,
                "category_id": 2,
                "bbox": [3, 3, 0, 2],
                "area": 0,
                "iscrowd": 0,
                "segmentation": [SQUARE],
            },
            {
                "id": 5,
                "image_id": 7,
                "category_id": 90,
                "bbox": [0, 0, 9, 8],
                "area": 3,
                "iscrowd": 0,
                "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1], [8, 6, 9, 6, 9, 8, 8, 8]],
            },
        ],
    }


def write(root, annotations, split="train", colour=(200, 100, 50)):
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(annotations))
    for image in annotations["images"]:
        if "file_name" in image:
            Image.new("RGB", (image["width"], image["height"]), colour).save(root / split / image["file_name"])


@pytest.fixture
def data(tmp_path):
    write(tmp_path, content())
    return CocoData(root=str(tmp_path), train="train", val="train", hflip=0)


@pytest.fixture(name="content")
def _content():
    return content


@pytest.fixture(name="write")
def _write():
    return write
