"""Which images with class masks, how they become tensors, and how they are augmented in training."""
# Shapes: H W pixels.

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from ..._options import POSITIVE, PROBABILITY, check_options
from ..._ranges import Range
from ..loading import Measured, collate_dense
from ..reading import read_image
from .augment import MaskAugment, Resize
from .meaning import LARGEST_VALUE
from .split import Masks


@dataclass
class MaskData(Measured):
    """Which images with class masks, how they become tensors, and how they are augmented in training.

    Args:
        name: masks, a folder of images and one of masks for each split. A mask is a PNG file of the image's name and size with
            the class of each pixel: grey of 1 to 16 bits, or with a palette, which is not looked at. Photos are turned upright
            as the camera says, and a mask that has the size of the photo as it is stored is turned with it. Where both sizes are the
            same, the majority of the split's other photos decides, and a warning says so.
        root: folder that holds the data.
        train: the split that is trained on.
        val: the split that is tested on.
        images: the folder of a split's images below root; {split} stands for the split's name.
        masks: the folder of a split's masks below root.
        classes: the classes' names, or how many there are; if left out, root/classes.txt (a name per line) or ADE20K's
            root/objectInfo150.txt says.
        reduce_zero: the masks' value 0 is no class but ignored, and class k has the value k + 1, as in ADE20K.
        ignore: the value, or values, of pixels that count neither in the loss nor in the score.
        size: the longest long side and the longest short side of a test image in pixels; it is made as large as both allow.
        ratio: smallest and largest factor to that size of a training image.
        img_size: height and width of the square that is cut at random out of a training image; what it lacks is padded at the
            right and the bottom and ignored.
        cat_max_ratio: largest share of one class in that square; others are drawn, up to 10 times. 1 takes all.
        hflip: probability of mirroring a training image.
        photometric: probability of each of the changes of brightness, contrast, saturation and hue of a training image.
        mean: subtracted from pixel values in [0, 1], one number per channel.
        std: what the difference is divided by, one number per channel.
        batch_size: images per optimiser step over all processes together.
        workers: processes that prepare images beside each training process; the images do not depend on it.
        strict: stop at an image or mask that cannot be read, instead of warning, leaving it out and counting it.
    """

    task: ClassVar[str] = "segmentation"
    folds: ClassVar[int] = 1
    holdout: ClassVar[int] = 0
    fold: ClassVar[int] = 0
    repeats: ClassVar[int] = 1
    collate = staticmethod(collate_dense)

    name: Literal["masks"] = "masks"
    root: str = "data"
    train: str = "training"
    val: str = "validation"
    images: str = "images/{split}"
    masks: str = "annotations/{split}"
    classes: tuple[str, ...] | int = ()
    reduce_zero: bool = False
    ignore: int | tuple[int, ...] = 255
    size: tuple[int, int] = (2048, 512)
    ratio: tuple[float, float] = (0.5, 2.0)
    img_size: int = 512
    cat_max_ratio: float = 0.75
    hflip: float = 0.5
    photometric: float = 0.5
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    batch_size: int = 16
    workers: int = 0
    strict: bool = False

    ranges: ClassVar = {
        **dict.fromkeys(("hflip", "photometric"), PROBABILITY),
        "classes": Range(least=1),
        "ignore": Range(least=0, most=LARGEST_VALUE),
        **dict.fromkeys(("size", "img_size"), Range(least=1, most=16384)),
        "ratio": Range(above=0, most=100),
        "cat_max_ratio": Range(above=0, most=1),
        "mean": Range(least=-1e6, most=1e6),
        "std": POSITIVE,
        "batch_size": Range(least=1, most=10**6),
        "workers": Range(least=0, most=256),
    }

    def __post_init__(self):
        check_options(self, "data", self.ranges)
        self.size, self.ratio, self.mean, self.std = map(tuple, (self.size, self.ratio, self.mean, self.std))
        if not isinstance(self.classes, int):
            self.classes = tuple(self.classes)
        if not isinstance(self.ignore, int):
            self.ignore = tuple(self.ignore)
        if self.ratio[0] > self.ratio[1]:
            raise ValueError(f"data.ratio is {self.ratio}; give the smallest factor first, then the largest")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a training image."""
        return 3, self.img_size, self.img_size

    @property
    def ignored(self) -> tuple[int, ...]:
        """The values of `ignore`."""
        return (self.ignore,) if isinstance(self.ignore, int) else self.ignore

    def source(self, training: bool) -> "Masks":
        """The training or test split: item i is ((Pillow image, classes uint8 [H, W]), 0), see `Masks`.

        Raises:
            ValueError: the data are not where `root` says, or nothing states the classes.
        """
        return Masks(self, training)

    def transform(self, training: bool):
        """From (Pillow image, classes [H, W]) to (float32 [3, h, w], target int64).

        In training, both are squares of img_size pixels. In testing, the image is resized and the target as it was, [H, W].
        """
        return MaskAugment(self) if training else Resize(self)

    def read(self, path: str | Path) -> torch.Tensor:
        """An image file as a test image [3, h, w].

        Raises:
            ValueError: the file is missing or is no image.
        """
        return Resize(self).image(read_image(path))
