"""Labelled images: scikit-learn's digits, image folders, CIFAR and MNIST, as batches [B, C, H, W] with labels [B]."""

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import datasets

PADDING_LABEL = -100  # torch's cross_entropy leaves such samples out; so must whoever counts


@dataclass
class ImageData:
    """Which images, how they become tensors, and how they are augmented in training.

    Args:
        name: the data set: scikit-learn's 8x8 digits, folders root/train/CLASS/* and root/val/CLASS/*, or one of
            torchvision's.
        root: folder that holds the data (not used by digits).
        img_size: height and width in pixels after resizing.
        channels: 1 for grey, 3 for colour; images are converted.
        mean: subtracted from pixel values in [0, 1], one number per channel.
        std: what the difference is divided by, one number per channel.
        interpolation: how images are resized: nearest, bilinear, bicubic or lanczos.
        crop_pct: share of the resized image's side that a test image keeps, cut from its centre.
        scale: smallest and largest share of the area that a random training crop covers.
        ratio: smallest and largest width/height of a random training crop.
        hflip: probability of mirroring a training image.
        color_jitter: largest relative change of brightness, contrast and saturation in training.
        auto_augment: a policy of timm, such as rand-m9-mstd0.5-inc1.
        erase: probability of erasing a random rectangle of a training image.
        batch_size: images per optimiser step over all processes together.
        workers: processes that prepare images beside each training process; the images do not depend on it.
    """

    name: Literal["digits", "folder", "cifar10", "cifar100", "mnist"] = "digits"
    root: str = "data"
    img_size: int = 32
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    color_jitter: float = 0.0
    auto_augment: str | None = None
    erase: float = 0.0
    batch_size: int = 64
    workers: int = 0

    def __post_init__(self):
        self.mean, self.std, self.scale, self.ratio = map(tuple, (self.mean, self.std, self.scale, self.ratio))
        if self.channels not in (1, 3):
            raise ValueError(f"data.channels is {self.channels}; give 1 (grey) or 3 (colour)")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(
                    f"data.{key} has {len(values)} numbers for {self.channels} channel(s); give one per channel"
                )
        if self.interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
            raise ValueError(
                f"data.interpolation is {self.interpolation!r}; give nearest, bilinear, bicubic or lanczos"
            )
        if self.img_size < 1 or self.batch_size < 1:
            raise ValueError(
                f"data.img_size is {self.img_size} and data.batch_size {self.batch_size}; both must be at least 1"
            )

    @property
    def mode(self) -> str:
        """Pillow's name for the pixel format."""
        return "L" if self.channels == 1 else "RGB"

    def transform(self, training: bool):
        """timm's transform from a Pillow image to a tensor [C, H, W]: augmenting, or the one for testing."""
        shared = {
            "input_size": (self.channels, self.img_size, self.img_size),
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
        }
        if not training:
            return create_transform(**shared, crop_pct=self.crop_pct)
        policy = (self.auto_augment or "rand").split("-")[0]
        if policy not in ("rand", "augmix", "3a", "original", "originalr", "v0", "v0r"):
            raise ValueError(
                f"data.auto_augment is {self.auto_augment!r}; give a policy of timm, such as rand-m9-mstd0.5-inc1"
            )
        return create_transform(
            **shared,
            is_training=True,
            scale=self.scale,
            ratio=self.ratio,
            hflip=self.hflip,
            color_jitter=self.color_jitter or None,
            auto_augment=self.auto_augment,
            re_prob=self.erase,
            re_mode="pixel",
        )


class Digits:
    """scikit-learn's 1,797 handwritten digits, grey, 8x8 pixels: 1,437 to train, 360 to test, whatever the seed."""

    def __init__(self, training: bool):
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError:
            raise ValueError("the digits come with scikit-learn: pip install 'spikeformers[train]'") from None
        digits = load_digits()
        split = train_test_split(np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0)
        chosen = split[0 if training else 1]
        self.images = (digits.images[chosen] * (255 / 16)).round().astype(np.uint8)  # values 0..16 become 0..255
        self.labels = digits.target[chosen].tolist()
        self.classes = [str(name) for name in digits.target_names]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), self.labels[index]


def source(data: ImageData, training: bool):
    """The training or test split as (Pillow image, label) pairs with `classes`.

    Raises:
        ValueError: the data are not where `data.root` says.
    """
    root = Path(data.root)
    if data.name == "digits":
        return Digits(training)
    if data.name == "folder":
        return _folder(root, "train" if training else "val")
    known = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "mnist": datasets.MNIST}
    if data.name not in known:
        raise ValueError(f"unknown data set {data.name!r}; give digits, folder, {', '.join(known)}")
    cls = known[data.name]
    try:
        return cls(root, train=training)
    except RuntimeError:
        fetch = f"from torchvision.datasets import {cls.__name__}; {cls.__name__}({str(root)!r}, download=True)"
        raise ValueError(f'{data.name} is not in {root}; set data.root or fetch it: python -c "{fetch}"') from None


def _folder(root, split):
    try:
        found = datasets.ImageFolder(root / split)
    except FileNotFoundError as error:
        layout = f"image folders look like {root}/train/CLASS/1.jpg and {root}/val/CLASS/1.jpg; set data.root"
        raise ValueError(f"no images in {root / split} ({error}); {layout}") from None
    other = root / ("val" if split == "train" else "train")
    if other.is_dir():
        classes = sorted(entry.name for entry in other.iterdir() if entry.is_dir())
        if classes != found.classes:
            differ = ", ".join(sorted(set(classes) ^ set(found.classes)))
            raise ValueError(f"{root}/train and {root}/val must hold the same class folders; these differ: {differ}")
    return found


def stable_seed(*key) -> int:
    """A 63-bit seed that is the same for the same numbers on every machine, and unrelated for neighbouring ones."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def drawing_from(seed: int):
    """Inside, Python, NumPy and torch (on the CPU) draw from `seed`; outside they go on as if nothing had happened."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reset the GPU's generator as well
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class TrainingImages(Dataset):
    """Augmented images. Item (index, epoch) is (image [C, H, W], label) and depends on nothing but the seed and these two:
    not on the order, the number of workers or the number of processes."""

    def __init__(self, data: ImageData, seed: int):
        self.data, self.seed = data, seed
        self.source = source(data, training=True)
        self.classes = list(self.source.classes)
        self.transform = data.transform(training=True)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, key):
        index, epoch = key
        image, label = self.source[index]
        with drawing_from(stable_seed(self.seed, epoch, index)):
            return self.transform(image.convert(self.data.mode)), label


class TestImages(Dataset):
    """Test images. Item i is (image [C, H, W], label); item ~i (below zero) is the same image as padding, with the label
    PADDING_LABEL."""

    __test__ = False  # pytest: the name is no test

    def __init__(self, data: ImageData):
        self.data = data
        self.source = source(data, training=False)
        self.classes = list(self.source.classes)
        self.transform = data.transform(training=False)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, key):
        image, label = self.source[key if key >= 0 else ~key]
        return self.transform(image.convert(self.data.mode)), label if key >= 0 else PADDING_LABEL


class Shuffled(Sampler):
    """Keys (index, epoch) of one process's share of the training images, in a new order each epoch.

    The images of an optimiser step are the same however many processes share them: batch b is row b of
    [steps, batch_size], and process r takes every world-th column from r on. What does not fill a batch is left for the
    next epoch's order.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, epoch: int = 0):
        self.size, self.batch_size, self.seed, self.rank, self.world = size, batch_size, seed, rank, world
        self.epoch = epoch

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self):
        return self.size // self.batch_size * (self.batch_size // self.world)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(stable_seed(self.seed, epoch)))
        batches = order[: self.size // self.batch_size * self.batch_size].view(-1, self.batch_size)
        for index in batches[:, self.rank :: self.world].flatten().tolist():
            yield index, epoch


class Shared(Sampler):
    """Indices of one process's share of the test images. All shares are equally long: where the images run out, ~index
    marks a padding sample that must not count."""

    def __init__(self, size: int, rank: int = 0, world: int = 1):
        self.size, self.rank, self.world = size, rank, world

    def __len__(self):
        return math.ceil(self.size / self.world)

    def __iter__(self) -> Iterator[int]:
        for index in range(self.rank, len(self) * self.world, self.world):
            yield index if index < self.size else ~(self.size - 1)


def train_loader(images: TrainingImages, rank: int = 0, world: int = 1, epoch: int = 0) -> DataLoader:
    """Batches (images [B, C, H, W], labels [B]) of process `rank` of `world`, B = batch_size / world; the loader's
    `sampler.set_epoch` chooses the order and the augmentation, which start at `epoch`.

    Raises:
        ValueError: batch_size cannot be shared evenly, or there are fewer images than that.
    """
    data = images.data
    if data.batch_size % world:
        raise ValueError(
            f"data.batch_size {data.batch_size} (over all processes) cannot be shared by {world} processes; "
            f"give a multiple of {world}"
        )
    if len(images) < data.batch_size:
        raise ValueError(f"data.batch_size is {data.batch_size} but there are only {len(images)} training images")
    sampler = Shuffled(len(images), data.batch_size, images.seed, rank, world, epoch)
    return _loader(images, sampler, data.batch_size // world)


def test_loader(images: TestImages, rank: int = 0, world: int = 1) -> DataLoader:
    """Batches (images [B, C, H, W], labels [B]) of process `rank` of `world`; all processes together see every test image
    once, and padding labelled PADDING_LABEL."""
    return _loader(images, Shared(len(images), rank, world), max(1, images.data.batch_size // world))


test_loader.__test__ = False


def _loader(images, sampler, batch_size):
    return DataLoader(
        images,
        batch_size,
        sampler=sampler,
        num_workers=images.data.workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # workers get their seeds from here, not from the training's random numbers
    )


def read_image(path: str | Path, data: ImageData) -> torch.Tensor:
    """An image file as a test image [C, H, W].

    Raises:
        ValueError: the file is missing or is no image.
    """
    try:
        with Image.open(path) as image:
            return data.transform(training=False)(image.convert(data.mode))
    except FileNotFoundError:
        raise ValueError(f"no image file {path}; check the path") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image that Pillow can read; give a PNG, JPEG, WebP or the like") from None
    except OSError as error:
        raise ValueError(f"cannot read the image {path} ({error}); check that it is a complete image file") from None
