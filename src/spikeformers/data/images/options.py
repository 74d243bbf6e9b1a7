"""Which labelled images, how they become tensors, and how they are augmented in training."""
# Shapes: C channels, H W pixels.

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from ..._options import POSITIVE, PROBABILITY, check_options
from ..._ranges import Range
from ..loading import Measured, collate
from ..reading import read_image
from ..splits import check_holdout
from .augment import augmentation, preparation
from .digits import Digits
from .folders import ImageFolders
from .mosaics import Mosaics
from .torchvision_sets import TorchvisionImages


@dataclass
class ImageData(Measured):
    """Which images, how they become tensors, and how they are augmented in training.

    Args:
        name: the data set: scikit-learn's 8x8 digits, folders root/train/CLASS/* and root/val/CLASS/* (as ImageNet's), mosaics
            root/train_*.webp and root/test_*.webp (see `Mosaics`), shards root/train-*.tar and root/val-*.tar of WebDataset
            (see `ShardImages`), or one of torchvision's.
        root: folder that holds the data (not used by digits).
        img_size: height and width in pixels after resizing.
        channels: 1 for grey, 3 for colour; images are converted.
        mean: subtracted from pixel values in [0, 1], one number per channel.
        std: what the difference is divided by, one number per channel.
        interpolation: how images are resized: nearest, bilinear, bicubic or lanczos.
        crop_pct: share of the resized image's side that a test image keeps, cut from its centre.
        scale: smallest and largest share of the area that a random training crop covers.
        ratio: smallest and largest width/height of a random training crop.
        crop_padding: if above 0, a training image is instead resized, padded by so many black pixels on each side and cut to
            img_size at a random place, as is usual for CIFAR.
        hflip: probability of mirroring a training image.
        color_jitter: largest relative change of brightness, contrast and saturation in training.
        auto_augment: a policy of timm, such as rand-m9-mstd0.5-inc1 (RandAugment) or 3a (three-augment).
        erase: probability of erasing a random rectangle of a training image.
        repeats: how often an epoch shows each of its images, differently augmented (repeated augmentation); an epoch is as
            long as before and takes that many times fewer images.
        batch_size: images per optimiser step over all processes together.
        workers: processes that prepare images beside each training process; the images do not depend on it.
        strict: stop at an image that cannot be read, instead of warning, leaving it out and counting it.
        folds: if above 1, the training images are divided into so many parts, and one is tested on instead of the test images.
        fold: which of the parts is tested on, from 1; 0 trains all of them one after the other (cross-validation).
        split: the folder of the test images below root, of folder; "." if they lie in root itself.
        holdout: so many training images, evenly spread over the classes, are not trained on but tested after every epoch, so that
            the test images choose nothing: they are tested once, at the end.
    """

    task: ClassVar[str] = "classification"
    classified: ClassVar[bool] = True
    collate = staticmethod(collate)

    name: Literal["digits", "folder", "mosaics", "webdataset", "cifar10", "cifar100", "mnist"] = "digits"
    root: str = "data"
    img_size: int = 32
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 0
    hflip: float = 0.5
    color_jitter: float = 0.0
    auto_augment: str | None = None
    erase: float = 0.0
    repeats: int = 1
    batch_size: int = 64
    workers: int = 0
    strict: bool = False
    folds: int = 1
    fold: int = 0
    split: str = "val"
    holdout: int = 0

    ranges: ClassVar = {
        "img_size": Range(least=1, most=8192),
        **dict.fromkeys(("batch_size", "repeats", "folds"), Range(least=1, most=10**6)),
        **dict.fromkeys(("fold", "holdout"), Range(least=0)),
        "workers": Range(least=0, most=256),
        "mean": Range(least=-1e6, most=1e6),
        "std": POSITIVE,
        "crop_pct": Range(above=0, most=1),
        "scale": Range(above=0, most=1),
        "ratio": Range(above=0, most=1000),
        "crop_padding": Range(least=0, most=8192),
        "color_jitter": Range(least=0, most=10),
        **dict.fromkeys(("hflip", "erase"), PROBABILITY),
    }

    def __post_init__(self):
        check_options(self, "data", self.ranges)
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
        if self.fold > self.folds:
            raise ValueError(
                f"data.folds is {self.folds} and data.fold {self.fold}; give one of the folds, or 0 for all"
            )
        for key, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"data.{key} is {[low, high]}; give the smallest first, then the largest")
        if self.crop_padding > self.img_size:
            raise ValueError(
                f"data.crop_padding is {self.crop_padding}; give at most data.img_size, which is {self.img_size}"
            )
        check_holdout(self)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample."""
        return self.channels, self.img_size, self.img_size

    @property
    def mode(self) -> str:
        """Pillow's name for the pixel format."""
        return "L" if self.channels == 1 else "RGB"

    def source(self, training: bool):
        """The training or test split as (Pillow image, label) pairs, see `protocols.Source`.

        Raises:
            ValueError: the data are not where `root` says.
        """
        root = Path(self.root)
        if self.name == "digits":
            return Digits(training)
        if self.name == "folder":
            return ImageFolders(root, "train" if training else self.split)
        if self.name == "mosaics":
            return Mosaics(root, "train" if training else "test")
        if self.name == "webdataset":
            from ..shards import ShardImages

            return ShardImages(root, "train" if training else "val")
        return TorchvisionImages(self.name, root, training)

    def transform(self, training: bool):
        """From a Pillow image to a tensor [C, H, W], augmented in training.

        Raises:
            ValueError: timm does not know the policy of auto_augment.
        """
        return augmentation(self) if training else preparation(self)

    def read(self, path: str | Path) -> torch.Tensor:
        """An image file as a test image [C, H, W].

        Raises:
            ValueError: the file is missing or is no image.
        """
        return self.transform(training=False)(read_image(path))
