"""Which images with objects, and how they are augmented in training."""
# Shapes: H W pixels.

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torchvision.transforms.v2 import functional as F

from ..._options import PROBABILITY, check_options
from ..._ranges import Range
from ..loading import Measured, collate_dense
from ..reading import read_image
from .augment import CocoAugment, in_unit_range
from .split import Coco


@dataclass
class CocoData(Measured):
    """Which images with objects, in COCO's JSON format, and how they are augmented in training.

    Args:
        name: coco, any data set in that format: a JSON file per split with the lists images, annotations and categories.
        root: folder that holds the data.
        train: the split that is trained on.
        val: the split that is tested on.
        images: the folder of a split's images below root; {split} stands for the split's name.
        annotations: the JSON file of a split below root.
        masks: read the objects' outlines (polygons or run lengths) as well as their boxes.
        hflip: probability of mirroring a training image.
        photometric: probability of each of the changes of colour of RandomPhotometricDistort (brightness, contrast,
            saturation, hue, order of the channels) of a training image; 0.5 is usual.
        crop: probability of the second branch of DETR's augmentation: the short side becomes 400, 500 or 600 pixels and a
            rectangle with sides of 384 to 600 pixels is cut out at random; 0.5 in the published recipe. The model brings
            all images to their final sizes.
        first: if above 0, only so many images of each split are used, those with the smallest ids: for trying out.
        empty: train on images without objects too; they are always tested on.
        batch_size: images per optimiser step over all processes together.
        workers: processes that prepare images beside each training process; the images do not depend on it.
        strict: stop at an image that cannot be read, instead of warning, leaving it out and counting it.
    """

    task: ClassVar[str] = "detection"
    folds: ClassVar[int] = 1
    holdout: ClassVar[int] = 0
    fold: ClassVar[int] = 0
    repeats: ClassVar[int] = 1
    collate = staticmethod(collate_dense)

    name: Literal["coco"] = "coco"
    root: str = "data"
    train: str = "train2017"
    val: str = "val2017"
    images: str = "{split}"
    annotations: str = "annotations/instances_{split}.json"
    masks: bool = True
    hflip: float = 0.5
    photometric: float = 0.0
    crop: float = 0.0
    first: int = 0
    empty: bool = True
    batch_size: int = 2
    workers: int = 0
    strict: bool = False

    ranges: ClassVar = {
        **dict.fromkeys(("hflip", "photometric", "crop"), PROBABILITY),
        "first": Range(least=0),
        "batch_size": Range(least=1, most=10**6),
        "workers": Range(least=0, most=256),
    }

    def __post_init__(self):
        check_options(self, "data", self.ranges)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a wide image as the published recipe shows it to the model; the images' own sizes differ."""
        return 3, 800, 1333

    def source(self, training: bool) -> "Coco":
        """The training or test split: item i is ((Pillow image, target), 0), see `Coco`.

        Raises:
            ValueError: the data are not where `root` says, or an annotation is broken.
        """
        return Coco(self, training)

    def transform(self, training: bool):
        """From (Pillow image, target) to (float32 [3, H, W] in [0, 1], target): augmenting, or the image as it is."""
        return CocoAugment(self.hflip, self.photometric, self.crop) if training else _unchanged

    def read(self, path: str | Path) -> torch.Tensor:
        """An image file as a test image [3, H, W] in [0, 1].

        Raises:
            ValueError: the file is missing or is no image.
        """
        return in_unit_range(F.pil_to_tensor(read_image(path)))


def _unchanged(sample):
    image, target = sample
    return in_unit_range(F.pil_to_tensor(image)), target
