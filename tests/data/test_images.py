"""Digits, folders and torchvision's sets as tensors: what is fixed, what is random, and who sees what."""

import hashlib
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from spikeformers.data import ImageData, TestSet, TrainingSet, test_loader, train_loader
from spikeformers.data.images import Digits
from spikeformers.data.loading import PADDING_LABEL, Shared, Shuffled

GREY = {"channels": 1, "mean": (0.5,), "std": (0.25,)}


@pytest.fixture(scope="module")
def digits():
    return ImageData(img_size=16, batch_size=64, erase=0.5, **GREY)


def folder(root, images=6, classes=("left", "right"), splits=("train", "val"), size=(12, 10)):
    for split in splits:
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(images):
                pixels = np.full((*size, 3), 40 * label + i, np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return str(root)


def test_digits_are_split_once_and_for_all():
    train, test = Digits(training=True), Digits(training=False)
    assert (len(train), len(test)) == (1437, 360)
    assert test.classes == list("0123456789")
    assert np.bincount(test.labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    digest = hashlib.sha256(test.images.tobytes() + bytes(test.labels)).hexdigest()
    assert digest.startswith("50633b623f555b34"), "the test digits changed, so results are no longer comparable"


def test_digits_use_the_whole_range_of_grey():
    image, label = Digits(training=True)[0]
    assert (image.size, image.mode, image.getextrema()) == ((8, 8), "L", (0, 255))
    assert isinstance(label, int)


def test_a_test_image_is_normalised(tmp_path):
    Image.new("L", (8, 8), 204).save(tmp_path / "grey.png")
    image = ImageData(img_size=16, **GREY).read(tmp_path / "grey.png")
    assert_close(image, torch.full((1, 16, 16), (204 / 255 - 0.5) / 0.25))


def test_images_become_the_channels_asked_for(tmp_path):
    Image.new("RGB", (9, 9), (255, 0, 0)).save(tmp_path / "red.png")
    colour = ImageData(img_size=4, mean=(0, 0, 0), std=(1, 1, 1))
    grey = ImageData(img_size=4, channels=1, mean=(0,), std=(1,))
    assert colour.read(tmp_path / "red.png")[:, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert grey.read(tmp_path / "red.png")[:, 0, 0].tolist() == [pytest.approx(76 / 255)]  # 0.299 red


def test_augmentation_depends_on_seed_epoch_and_index_only(digits):
    images, again = TrainingSet(digits, seed=1), TrainingSet(digits, seed=1)
    for i in (5, 9, 3):
        again[i, 7]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    assert torch.equal(images[3, 7][0], again[3, 7][0])
    assert not torch.equal(images[3, 7][0], images[3, 8][0])
    assert not torch.equal(images[3, 7][0], TrainingSet(digits, seed=2)[3, 7][0])


def test_augmentation_leaves_the_random_numbers_of_training_alone(digits):
    images = TrainingSet(digits, seed=1)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    want = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    images[0, 0]
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == want


def test_batches_do_not_depend_on_the_number_of_workers(digits):
    alone = list(train_loader(TrainingSet(digits, seed=1), epoch=2))
    helped = list(train_loader(TrainingSet(ImageData(**{**vars(digits), "workers": 2}), seed=1), epoch=2))
    assert len(alone) == 1437 // 64
    for (images, labels), (other_images, other_labels) in zip(alone, helped, strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


def test_the_order_changes_with_epoch_and_seed_and_repeats():
    def order(seed, epoch):
        sampler = Shuffled(100, 10, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 3) == order(1, 3)
    assert {epoch for _, epoch in order(1, 3)} == {3}
    orders = [[index for index, _ in order(*key)] for key in ((1, 3), (1, 4), (2, 3))]
    assert all(sorted(indices) == list(range(100)) for indices in orders)
    assert orders[0] != orders[1] and orders[0] != orders[2]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batches_of_one(world):
    one = list(Shuffled(103, 20, seed=0))
    shares = [list(Shuffled(103, 20, 0, rank, world)) for rank in range(world)]
    assert len(one) == len(Shuffled(103, 20, seed=0)) == 100
    local = 20 // world
    for step in range(5):
        joint = [key for share in shares for key in share[step * local : (step + 1) * local]]
        assert sorted(joint) == sorted(one[step * 20 : (step + 1) * 20])


@pytest.mark.parametrize(("size", "world"), [(10, 1), (10, 3), (2, 4), (12, 4)])
def test_every_test_image_counts_once(size, world):
    shares = [list(Shared(size, rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(Shared(size, 0, world))}
    keys = [key for share in shares for key in share]
    assert sorted(key for key in keys if key >= 0) == list(range(size))
    assert {~key for key in keys if key < 0} <= {size - 1}


def test_padding_carries_a_label_that_does_not_count(digits):
    images = TestSet(digits)
    assert images[359][1] in range(10)
    assert images[~359][1] == PADDING_LABEL
    assert torch.equal(images[359][0], images[~359][0])
    labels = torch.cat([labels for rank in range(7) for _, labels in test_loader(images, rank, 7)])
    assert (labels != PADDING_LABEL).sum() == 360 and len(labels) == 7 * 52


def test_image_folders(tmp_path):
    data = ImageData("folder", folder(tmp_path), img_size=8, batch_size=4)
    train, test = TrainingSet(data, seed=0), TestSet(data)
    assert train.classes == test.classes == ["left", "right"]
    assert len(train) == 12 and test[11][0].shape == (3, 8, 8) and test[11][1] == 1
    images, labels = next(iter(train_loader(train)))
    assert images.shape == (4, 3, 8, 8) and labels.shape == (4,)


def test_mnist_files_as_torchvision_keeps_them(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in (("train", 3), ("t10k", 2)):
        pixels = np.arange(count * 784, dtype=np.uint8).tobytes()
        header = np.array([2051, count, 28, 28], ">i4").tobytes()
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + pixels)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(np.array([2049, count], ">i4").tobytes() + bytes(range(count)))
    test = TestSet(ImageData("mnist", str(tmp_path), img_size=28, channels=1, mean=(0,), std=(1,)))
    assert len(test) == 2 and test[1][1] == 1
    assert_close(test[0][0].flatten()[:256], torch.arange(256) / 255)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, r"data.channels is 2; give 1 \(grey\) or 3"),
        ({"channels": 1}, r"data.mean has 3 numbers for 1 channel"),
        ({"std": (1.0,)}, r"data.std has 1 numbers for 3 channel"),
        ({"interpolation": "cubic"}, "'cubic'; give nearest, bilinear"),
        ({"batch_size": 0}, "must be at least 1"),
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
    with pytest.raises(ValueError, match="unknown data set 'cifar'; give digits, folder"):
        TestSet(ImageData("cifar"))


def test_splits_must_hold_the_same_classes(tmp_path):
    folder(tmp_path, splits=("train",))
    folder(tmp_path, splits=("val",), classes=("left", "up"))
    with pytest.raises(ValueError, match="these differ: right, up"):
        TestSet(ImageData("folder", str(tmp_path)))


def test_batches_that_cannot_be_made(digits):
    with pytest.raises(ValueError, match="cannot be shared by 3 processes; give a multiple of 3"):
        train_loader(TrainingSet(digits, seed=0), rank=0, world=3)
    with pytest.raises(ValueError, match="batch_size is 2000 but there are only 1437 training images"):
        train_loader(TrainingSet(ImageData(**{**vars(digits), "batch_size": 2000}), seed=0))


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
