"""From images to tensors."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision import transforms

from spikeformers.data import ImageData

GREY = {"channels": 1, "mean": (0.5,), "std": (0.25,)}


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


@pytest.mark.parametrize(
    "policy", ["rand-m10-inc1", "rand-m10", "original-mstd0.5", "originalr", "v0", "v0r", "augmix-m10", "3a"]
)
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
