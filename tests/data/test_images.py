"""Digits, folders, mosaics, shards and torchvision's sets as tensors."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision import transforms

from spikeformers.data import ImageData, TestSet, TrainingSet, train_loader
from spikeformers.data.images.digits import Digits
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


def test_splits_must_hold_the_same_classes(tmp_path):
    folder(tmp_path, splits=("train",))
    folder(tmp_path, splits=("val",), classes=("left", "up"))
    with pytest.raises(ValueError, match="these differ: right, up"):
        TestSet(ImageData("folder", str(tmp_path)))


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


def mosaic(root, labels=(3, 1, 2, 0, 1, 1, 2), arrays=None, tile=4):
    """Two sheets of 2 x 2 tiles; tile i is grey 10 * i. The last tile is empty."""
    for sheet in range(2):
        pixels = np.zeros((2 * tile, 2 * tile, 3), np.uint8)
        for place in range(4):
            row, column = divmod(place, 2)
            pixels[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = 10 * (4 * sheet + place)
        for split in ("train", "test"):
            Image.fromarray(pixels).save(root / f"{split}_{sheet:02d}.png")
    labels = np.array(labels, np.uint8)
    np.savez(root / "labels.npz", y_train=labels, y_test=labels[::-1], classes=["a", "b", "c", "d"], **(arrays or {}))


@pytest.mark.parametrize("arrays", [{}, {"tile": 4}], ids=["inferred", "stated"])
def test_mosaics(tmp_path, arrays):
    mosaic(tmp_path, arrays=arrays)
    data = ImageData("mosaics", str(tmp_path), img_size=4, **GREY)
    training, test = data.source(training=True), data.source(training=False)
    assert training.classes == ["a", "b", "c", "d"] and len(training) == len(test) == 7
    assert [training[i][1] for i in range(7)] == [3, 1, 2, 0, 1, 1, 2] and [test[i][1] for i in range(7)] == [2, 1, 1, 0, 2, 1, 3]
    assert [(training[i][0].size, training[i][0].getextrema()[0]) for i in range(7)] == [((4, 4), (10 * i,) * 2) for i in range(7)]
    assert training.where(5).endswith("train_01.png")
    assert TestSet(data)[2][0].unique().item() == pytest.approx((20 / 255 - 0.5) / 0.25)


def test_mosaics_that_do_not_fit(tmp_path):
    data = ImageData("mosaics", str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot read .*labels.npz .*mosaics look like"):
        data.source(True)
    mosaic(tmp_path, labels=range(9), arrays={"tile": 4})
    with pytest.raises(ValueError, match="9 train labels for 8 tiles"):
        data.source(True)
    mosaic(tmp_path, labels=range(3))  # one tile of 8 pixels, or three of 4, or of 2? 2 sheets of 8 x 8 pixels do not say
    with pytest.raises(ValueError, match="3 labels do not say how large the tiles of 2 sheets of 8x8 pixels are; add"):
        data.source(True)
    whole = (tmp_path / "labels.npz").read_bytes()
    (tmp_path / "labels.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot read .*labels.npz"):
        data.source(True)
    mosaic(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "train_01.png")
    with pytest.raises(ValueError, match="images of one size, not of"):
        data.source(True)


@pytest.mark.parametrize("size", [0, 60])
def test_a_damaged_sheet_costs_its_tiles_only(tmp_path, size):
    mosaic(tmp_path)
    whole = (tmp_path / "train_01.png").read_bytes()
    (tmp_path / "train_01.png").write_bytes(whole[:size])
    training = TrainingSet(ImageData("mosaics", str(tmp_path), img_size=4, **GREY), 0)
    with pytest.warns(UserWarning, match="cannot read .*train_01.png"):
        labels = [training[i, 0][1] for i in range(7)]
    assert labels == [3, 1, 2, 0, 3, 3, 3] and training.left_out.startswith("3 of 7 could not be read")


def test_padded_crops_shift_the_image():
    data = ImageData(img_size=8, crop_padding=2, hflip=0.0, channels=1, mean=(0,), std=(1,))
    augment = data.transform(training=True)
    image = Image.new("L", (8, 8), 255)
    torch.manual_seed(0)
    empty = {int((augment(image) == 0).sum()) for _ in range(200)}
    assert empty == {64 - (8 - dx) * (8 - dy) for dx in range(3) for dy in range(3)}


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "3a", "augmix-m5-w4-d2"])
def test_policies_of_timm(policy):
    augment = ImageData(img_size=16, auto_augment=policy).transform(training=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8))
    assert augment(image).shape == (3, 16, 16) and not torch.equal(augment(image), augment(image))


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


@pytest.mark.parametrize("channels, size, padding", [(3, 32, 4), (1, 32, 4), (3, 32, 0), (3, 24, 2)])
def test_cropping_and_normalising_are_those_of_torchvision(channels, size, padding):
    mean, std = (0.4914, 0.4822, 0.4465)[:channels], (0.2470, 0.2435, 0.2616)[:channels]
    data = ImageData(img_size=size, channels=channels, mean=mean, std=std, crop_padding=padding)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    image = Image.fromarray(pixels).convert(data.mode)
    ours = data.transform(training=True)
    theirs = [step for step in ours.transforms]
    if padding:
        theirs[2] = transforms.RandomCrop(size, padding)
    theirs[-1:] = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    for seed in range(20):
        torch.manual_seed(seed)
        got = ours(image)
        torch.manual_seed(seed)
        assert torch.equal(got, transforms.Compose(theirs)(image)) or not padding
    plain = transforms.Compose([transforms.Resize(size, transforms.InterpolationMode.BICUBIC), *theirs[-2:]])
    assert torch.equal(data.transform(training=False)(image), plain(image))


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (8, 2000)])
def test_strips_are_looked_at_in_their_middle(tmp_path, size):
    pixels = np.zeros((*size[::-1], 3), np.uint8)
    middle = [slice(side // 3, side - side // 3) if side > 1000 else slice(None) for side in size[::-1]]
    pixels[tuple(middle)] = 255
    Image.fromarray(pixels).save(tmp_path / "strip.png")
    data = ImageData(img_size=32, mean=(0,) * 3, std=(1,) * 3)
    assert data.read(tmp_path / "strip.png").min() > 0.99
    kept = data.transform(training=False).transforms[1](Image.fromarray(pixels))
    assert max(kept.size) == 16 * min(kept.size)  # and not the whole strip, 32 pixels wide
    for options in ({}, {"crop_padding": 2}, {"auto_augment": "rand-m9-mstd0.5-inc1"}):
        assert ImageData(img_size=32, **options).transform(training=True)(Image.fromarray(pixels)).shape == (3, 32, 32)


def test_what_is_not_a_strip_is_seen_as_before():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 300, 3), np.uint8))
    convert, shorten, rest = ImageData(img_size=16).transform(training=False).transforms
    assert shorten(image) is image and rest(image).shape == (3, 16, 16)


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "rand-m10", "original-mstd0.5", "originalr", "v0", "v0r", "augmix-m10", "3a"])
def test_every_operation_of_a_policy_keeps_a_bit(policy):
    """Pillow refuses to keep none, which some policies ask for."""
    steps = ImageData(img_size=8, auto_augment=policy).transform(training=True).transforms
    found = [step for step in steps if hasattr(step, "ops") or hasattr(step, "policy")]
    assert len(found) == 1
    operations = getattr(found[0], "ops", None) or [operation for several in found[0].policy for operation in several]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8))
    for operation in operations:
        operation.prob, operation.magnitude_std = 1.0, 0
        for magnitude in range(11):
            operation.magnitude = magnitude
            assert operation(image).size == (8, 8)


def test_mosaics_with_damaged_numbers(tmp_path):
    data = ImageData("mosaics", str(tmp_path))
    for labels, arrays, message in (
        (range(7), {"tile": 4}, "has the train label 4; give whole numbers from 0 to 3"),
        ((1, 2, 255), {"tile": 4}, "has the train label 255"),
        ((1, 2), {"tile": 0}, "tiles have a side of 0 pixels"),
        ((1, 2), {"tile": 9}, "tiles have a side of 9 pixels, but the sheets have 8x8"),
        ((1, 2), {"tile": -4}, "tiles have a side of -4 pixels"),
        (1, {}, "is a single number"),
    ):
        mosaic(tmp_path, labels=labels if np.ndim(labels) or not isinstance(labels, int) else [1], arrays=arrays)
        if labels == 1:
            np.savez(tmp_path / "labels.npz", y_train=np.array(1), y_test=np.array(1), classes=["a", "b"])
        with pytest.raises(ValueError, match=message):
            data.source(True)
