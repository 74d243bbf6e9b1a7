"""Images and targets are resized, cut and mirrored alike."""

import random

import numpy as np
import pytest
import torch

from spikeformers.data import TestSet, TrainingSet, train_loader
from spikeformers.data.masks.augment import fitted

IDENTITY = {"mean": (0, 0, 0), "std": (1, 1, 1)}
PLAIN = {"hflip": 0.0, "photometric": 0.0, "ratio": (1.0, 1.0), "cat_max_ratio": 1.0, **IDENTITY}


@pytest.mark.parametrize(
    "shape, size, want",
    [
        ((480, 640), (2048, 512), (512, 683)),
        ((640, 480), (2048, 512), (683, 512)),
        ((100, 1000), (2048, 512), (205, 2048)),
        ((360, 480), (480, 360), (360, 480)),
        ((360, 480), (360, 480), (360, 480)),
    ],
)
def test_images_become_as_large_as_both_sides_allow(shape, size, want):
    assert fitted(shape, size) == want


def halves():
    """Left half black and class 0, right half white and class 1, 40 x 60 pixels."""
    classes = np.zeros((40, 60), np.uint8)
    classes[:, 30:] = 1
    return classes, np.repeat(classes[..., None] * 255, 3, axis=2)


def test_test_images_are_resized_and_their_targets_are_not(tmp_path, write, masks):
    write(tmp_path, "1", *halves())
    data = masks(tmp_path, size=(90, 20), **IDENTITY)
    (image, target), _ = TestSet(data)[0]
    assert image.shape == (3, 20, 30) and image.dtype == torch.float32 and target.shape == (40, 60)
    assert image[:, :, :14].max() < 0.01 and image[:, :, 16:].min() > 0.99
    assert torch.equal(data.read(tmp_path / "images" / "training" / "1.png"), image)


def test_images_are_normalised(tmp_path, write, masks):
    write(tmp_path, "1", *halves())
    (image, _), _ = TestSet(masks(tmp_path, size=(60, 40), mean=(0.5, 0.25, 0), std=(0.5, 1, 0.25)))[0]
    assert image[:, 0, 0].tolist() == [-1, -0.25, 0] and image[:, 0, -1].tolist() == [1, 0.75, 4]


def test_training_images_and_targets_are_cut_and_mirrored_alike(tmp_path, write, masks):
    write(tmp_path, "1", *halves())
    options = {**PLAIN, "hflip": 0.5, "ratio": (0.75, 2.0), "cat_max_ratio": 0.9}
    samples = TrainingSet(masks(tmp_path, img_size=24, size=(60, 40), **options), 0)
    first, edges = set(), set()
    for draw in range(20):
        (image, target), _ = samples[0, draw]
        assert image.shape == (3, 24, 24) and target.shape == (24, 24) and target.dtype == torch.int64
        assert ((image[0] > 0.5) == (target == 1)).float().mean() > 0.95
        first.add(int(target[0, 0])), edges.add(int((target[0] == 1).sum()))
    assert first == {0, 1} and len(edges) > 5


def test_small_images_are_padded_at_the_right_and_the_bottom(tmp_path, write, masks):
    write(tmp_path, "1", *halves())
    (image, target), _ = TrainingSet(masks(tmp_path, img_size=64, size=(60, 40), **{**PLAIN, "mean": (0.5,) * 3}), 0)[
        0, 0
    ]
    assert image.shape == (3, 64, 64)
    assert (target[:40, :60] != 255).all() and (target[40:] == 255).all() and (target[:, 60:] == 255).all()
    assert (image[:, :40, :60].abs() == 0.5).all()
    assert not image[:, 40:].any() and not image[:, :, 60:].any()  # 0 after normalisation


def test_squares_that_one_class_covers_are_drawn_again(tmp_path, write, masks):
    classes = np.zeros((64, 64), np.uint8)
    classes[:32, :32] = 1
    classes[:8, :] = 255  # ignored pixels are no part of the whole
    write(tmp_path, "1", classes)
    options = {"img_size": 24, "size": (64, 64)}

    def largest_shares(limit):
        samples = TrainingSet(masks(tmp_path, **options, **{**PLAIN, "cat_max_ratio": limit}), 0)
        for draw in range(60):
            counts = torch.bincount(samples[0, draw][0][1].flatten(), minlength=256)[:255]
            yield float(counts.max() / counts.sum())

    assert sum(share > 0.75 for share in largest_shares(0.75)) <= 8
    assert sum(share > 0.75 for share in largest_shares(1.0)) >= 30


def test_a_square_of_one_class_is_taken_in_the_end(tmp_path, write, masks):
    write(tmp_path, "1", np.zeros((30, 30)))
    (_, target), _ = TrainingSet(masks(tmp_path, img_size=16), 0)[0, 0]
    assert not target.any()


def test_changes_of_colour_keep_the_order_of_the_channels(tmp_path, write, masks):
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 2], image[..., 1] = 200, 100
    write(tmp_path, "1", np.zeros((16, 16)), image)
    samples = TrainingSet(masks(tmp_path, img_size=16, size=(16, 16), **{**PLAIN, "photometric": 1.0}), 0)
    colours = [samples[0, draw][0][0][:, 0, 0] for draw in range(10)]
    assert all(blue > green > red for red, green, blue in colours)
    assert len({round(float(blue), 3) for _, _, blue in colours}) > 5


def test_augmentation_depends_on_seed_draw_and_index_only(tmp_path, write, masks):
    rng = np.random.default_rng(0)
    for name in "ab":
        write(tmp_path, name, rng.integers(0, 3, (30, 40)), rng.integers(0, 256, (30, 40, 3), np.uint8))
    data = masks(tmp_path, img_size=24, size=(60, 30), batch_size=2)
    (images, targets), *_ = train_loader(TrainingSet(data, 4), epoch=3)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    data.workers = 1
    (again, targets_again), *_ = train_loader(TrainingSet(data, 4), epoch=3)
    assert torch.equal(torch.stack(images), torch.stack(again))
    assert torch.equal(torch.stack(targets), torch.stack(targets_again))
    assert not torch.equal(TrainingSet(data, 4)[0, 3][0][0], TrainingSet(data, 4)[0, 4][0][0])
