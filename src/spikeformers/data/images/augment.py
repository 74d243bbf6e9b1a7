"""From Pillow images to normalised tensors: as for a test, or augmented as timm does."""
# Shapes: C channels, H W pixels.

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import auto_augment, create_transform
from timm.data.transforms import MaybeToTensor
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

if TYPE_CHECKING:
    from .options import ImageData


LONGEST = 16  # times its width is the part of a strip that a test looks at


def preparation(data: "ImageData") -> Compose:
    """From a Pillow image to a test image [C, H, W]."""
    steps = create_transform(**_shared(data), crop_pct=data.crop_pct).transforms
    return Compose([Convert(data.mode), Shorten(), Compose(_with_table(steps, data.mean, data.std))])


def augmentation(data: "ImageData") -> Compose:
    """From a Pillow image to an augmented training image [C, H, W].

    Raises:
        ValueError: timm does not know the policy of auto_augment.
    """
    policy = (data.auto_augment or "rand").split("-")[0]
    if policy not in ("rand", "augmix", "3a", "original", "originalr", "v0", "v0r"):
        raise ValueError(
            f"data.auto_augment is {data.auto_augment!r}; give a policy of timm, such as rand-m9-mstd0.5-inc1"
        )
    steps = create_transform(
        **_shared(data),
        is_training=True,
        scale=data.scale,
        ratio=data.ratio,
        hflip=data.hflip,
        color_jitter=data.color_jitter or None,
        auto_augment=data.auto_augment,
        re_prob=data.erase,
        re_mode="pixel",
    ).transforms
    for step in steps:
        mend_posterize(step)
    if data.crop_padding:
        size = (data.img_size, data.img_size)
        steps[:1] = [Resize(size, steps[0].interpolation), ShiftedCrop(data.img_size, data.crop_padding)]
    return Compose([Convert(data.mode), *_with_table(steps, data.mean, data.std)])


def _shared(data):
    return {"input_size": data.shape, "interpolation": data.interpolation, "mean": data.mean, "std": data.std}


class Convert:
    """To Pillow's format "L" or "RGB"."""

    def __init__(self, mode: str):
        self.mode = mode

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.convert(self.mode)


class Shorten:
    """Cuts the middle out of a strip more than LONGEST times as long as wide. A test image is cut from there anyway, but the whole strip
    would be resized before: 1 x 60,000 pixels to 224 x 13 million."""

    def __call__(self, image: Image.Image) -> Image.Image:
        most = LONGEST * min(image.size)
        if max(image.size) <= most:
            return image
        left, top = (max(0, side - most) // 2 for side in image.size)
        return image.crop((left, top, left + min(image.width, most), top + min(image.height, most)))


def mend_posterize(transform) -> None:
    """Lets policies of timm keep one bit where they ask for none: `PosterizeIncreasing` does so at its highest level, and Pillow refuses it.

    Args:
        transform: a step of the augmentation; others than policies stay as they are.
    """
    policy = getattr(transform, "policy", ())  # of AutoAugment lists of operations, of the others one list
    operations = [*getattr(transform, "ops", ()), *(operation for several in policy for operation in several)]
    for operation in operations:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = posterize


def posterize(image: Image.Image, bits: int, **_) -> Image.Image:
    """timm's operation: only the highest `bits` of each value stay, at least one."""
    return image if bits >= 8 else ImageOps.posterize(image, max(1, bits))


class ShiftedCrop:
    """Cuts size x size pixels at a random place out of an image with `padding` black pixels on each side. Draws and results are those of
    torchvision's RandomCrop, at a tenth of the time: Pillow fills what lies outside with black by itself."""

    def __init__(self, size: int, padding: int):
        self.size, self.padding = size, padding

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = (side + 2 * self.padding for side in image.size)
        top = int(torch.randint(0, height - self.size + 1, (1,))) if (height, width) != (self.size, self.size) else 0
        left = int(torch.randint(0, width - self.size + 1, (1,))) if (height, width) != (self.size, self.size) else 0
        left, top = left - self.padding, top - self.padding
        return image.crop((left, top, left + self.size, top + self.size))


class Normalised:
    """A Pillow image "L" or "RGB" -> tensor [C, H, W], (pixel / 255 - mean) / std, looked up in a table of all 256 values: the same
    numbers as torchvision's ToTensor and Normalize, sooner."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        levels = torch.arange(256).to(torch.get_default_dtype()).div(255).repeat(len(mean), 1)[:, :, None]
        self.table = Normalize(mean, std)(levels)[:, :, 0].numpy()

    def __call__(self, image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(image)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        out = np.empty((len(self.table), *pixels.shape[:2]), self.table.dtype)
        for channel, values in enumerate(self.table):
            np.take(values, pixels[:, :, channel], out=out[channel], mode="clip")  # "raise" would buffer the output
        return torch.from_numpy(out)


def _with_table(transforms, mean, std):
    """The transforms with `Normalised` in place of ToTensor and Normalize next to each other."""
    result = []
    for step in transforms:
        if result and isinstance(result[-1], (ToTensor, MaybeToTensor)) and isinstance(step, Normalize):
            result[-1] = Normalised(mean, std)
        else:
            result.append(step)
    return result
