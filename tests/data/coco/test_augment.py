"""Boxes and masks stay with their augmented image."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from spikeformers.data import CocoData, TrainingSet
from spikeformers.data.coco.augment import CROP_SIDES


def test_mirrored_boxes_and_masks_stay_with_the_image(data):
    data.hflip = 1.0
    (_, target), _ = TrainingSet(data, 0)[1, 0]
    assert target["boxes"].tolist() == [[4, 1, 8, 4], [1, 0, 10, 8]]
    assert target["masks"][0].nonzero().amin(0).tolist() == [1, 4]


@pytest.fixture
def large(write):
    return partial(_large, write)


def _large(write, root, **options):
    """One image of 640 x 480 pixels with a red object on black at its left, and a small one in the corner."""
    left = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [100, 50, 200, 300]}
    left["segmentation"] = [[100, 50, 300, 50, 300, 350, 100, 350]]
    corner = {
        "id": 2,
        "image_id": 1,
        "category_id": 1,
        "bbox": [0, 0, 30, 30],
        "segmentation": [[0, 0, 30, 0, 30, 30, 0, 30]],
    }
    images = [{"id": 1, "file_name": "1.png", "width": 640, "height": 480}]
    annotations = {"images": images, "categories": [{"id": 1, "name": "red"}], "annotations": [left, corner]}
    write(root, annotations, colour=(0, 0, 0))
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[50:350, 100:300, 0] = 255
    Image.fromarray(pixels).save(root / "train" / "1.png")
    return CocoData(root=str(root), train="train", val="train", **options)


@pytest.mark.parametrize("masks", [True, False])
def test_boxes_masks_and_image_are_cropped_alike(large, tmp_path, masks):
    samples = TrainingSet(large(tmp_path, crop=1.0, masks=masks), seed=1)
    shapes, counts = set(), set()
    for draw in range(12):
        (image, target), _ = samples[0, draw]
        height, width = image.shape[1:]
        assert CROP_SIDES[0] <= height <= CROP_SIDES[1] and CROP_SIDES[0] <= width <= CROP_SIDES[1]
        shapes.add((height, width))
        counts.add(len(target["labels"]))
        assert {len(value) for value in target.values() if torch.is_tensor(value)} == {len(target["labels"])}
        rows, columns = (image[0] > 0.5).nonzero().unbind(1)
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (target["boxes"][0] - seen).abs().max() <= 1.5
        if masks:
            assert ((image[0] > 0.5) == target["masks"][0].bool()).float().mean() > 0.99
            assert target["area"][0] == target["masks"][0].sum()
        else:
            assert (target["area"][0] - len(rows)).abs() < 0.02 * len(rows)
    assert len(shapes) > 6 and counts == {1, 2}  # the corner is not always in


def test_augmentation_depends_on_seed_draw_and_index_only(large, tmp_path):
    data = large(tmp_path, crop=0.5, photometric=0.5)
    samples, again = TrainingSet(data, 3), TrainingSet(data, 3)
    wanted = [samples[0, draw][0] for draw in range(4)]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    for draw in (3, 1, 0, 2):
        image, target = again[0, draw][0]
        assert torch.equal(image, wanted[draw][0]) and torch.equal(target["boxes"], wanted[draw][1]["boxes"])
    assert len({round(float(image.sum()), 2) for image, _ in wanted}) > 1


def test_strips_are_cut_without_becoming_gigabytes(tmp_path, write):
    image = {"id": 1, "file_name": "1.png", "width": 20_000, "height": 1}
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [0, 0, 20_000, 1],
        "segmentation": [[0, 0, 20_000, 0, 20_000, 1, 0, 1]],
    }
    write(tmp_path, {"images": [image], "categories": [{"id": 1, "name": "a"}], "annotations": [annotation]})
    samples = TrainingSet(CocoData(root=str(tmp_path), train="train", crop=1.0), 0)
    assert {samples[0, draw][0][0].shape[1] for draw in range(3)} == {1}
