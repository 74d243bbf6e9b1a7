"""From images and masks to tensors of one size, mirrored and cut alike in training."""
# Shapes: H W pixels.

from typing import TYPE_CHECKING

import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode, functional as F

from .meaning import IGNORED

if TYPE_CHECKING:
    from .options import MaskData


CROPS = 11  # are drawn at most, while a class covers too much of them


class Resize:
    """From (Pillow image, classes [H, W]) to a test image, float32 [3, h, w], and the target, int64 [H, W]."""

    def __init__(self, data: "MaskData"):
        self.size, self.mean, self.std = data.size, data.mean, data.std

    def __call__(self, sample: tuple[Image.Image, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = sample
        return self.image(image), mask.long()

    def image(self, image: Image.Image) -> torch.Tensor:
        """A Pillow image -> float32 [3, H, W], smaller or larger as the data ask, and normalised."""
        pixels = F.pil_to_tensor(image)
        return normalised(F.resize(pixels, fitted(pixels.shape[-2:], self.size)), self.mean, self.std)


class MaskAugment:
    """From (Pillow image, classes [H, W]) to an image, float32 [3, S, S], and the target, int64 [S, S], with S = img_size."""

    def __init__(self, data: "MaskData"):
        self.data = data
        self.distort = PhotometricDistort(p=data.photometric)

    def __call__(self, sample: tuple[Image.Image, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        data = self.data
        image, mask = F.pil_to_tensor(sample[0]), sample[1][None]
        ratio = float(torch.empty(()).uniform_(*data.ratio))
        size = fitted(image.shape[-2:], [side * ratio for side in data.size])
        mask = F.resize(mask, size, InterpolationMode.NEAREST_EXACT)
        cut = self.place(mask)
        image, mask = F.crop(F.resize(image, size), *cut), F.crop(mask, *cut)
        if torch.rand(()) < data.hflip:
            image, mask = F.horizontal_flip(image), F.horizontal_flip(mask)
        if data.photometric:
            image = self.distort(image)
        missing = [0, 0, data.img_size - cut[3], data.img_size - cut[2]]
        image = F.pad(normalised(image, data.mean, data.std), missing)
        return image, F.pad(mask, missing, fill=IGNORED)[0].long()

    def place(self, mask: torch.Tensor) -> tuple[int, int, int, int]:
        """Top, left, height and width of the square to cut from a mask [H, W], or of what the image has of it."""
        height, width = (min(side, self.data.img_size) for side in mask.shape[-2:])
        for _ in range(CROPS):
            top, left = (
                int(torch.randint(whole - side + 1, ()))
                for whole, side in zip(mask.shape[-2:], (height, width), strict=True)
            )
            if self.data.cat_max_ratio == 1:
                break
            pixels = torch.bincount(F.crop(mask, top, left, height, width).flatten(), minlength=IGNORED + 1)[:IGNORED]
            if 0 < pixels.max() <= self.data.cat_max_ratio * pixels.sum():
                break
        return top, left, height, width


class PhotometricDistort(v2.RandomPhotometricDistort):
    """Torchvision's, but the channels keep their order: a class such as sky is known by its colour."""

    def make_params(self, flat_inputs):
        return {**super().make_params(flat_inputs), "channel_permutation": None}


def fitted(shape: tuple[int, int], size: tuple[float, float]) -> tuple[int, int]:
    """Height and width of an image of `shape`, scaled as large as the long and the short side of `size` allow."""
    scale = min(max(size) / max(shape), min(size) / min(shape))
    height, width = (max(1, round(side * scale)) for side in shape)
    return height, width


def normalised(image: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """uint8 [3, H, W] -> float32.

    Args:
        image: pixels.
        mean: subtracted from values in [0, 1].
        std: what the difference is divided by.
    """
    return F.normalize(F.to_dtype(image, torch.float32, scale=True), mean, std)
