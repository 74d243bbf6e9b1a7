"""Augmentation of images with objects: boxes and masks are mirrored and cut with their image."""
# Shapes: N objects in an image, H W its pixels. Boxes are [left, top, right, bottom] in pixels.

from collections.abc import Sequence

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from .annotations import LEAST_SIDE

CROP_SHORT_SIDES = (400, 500, 600)  # pixels; the second branch of DETR's augmentation
CROP_SIDES = (384, 600)
LONGEST_CROPPED = 16 * max(CROP_SHORT_SIDES)  # pixels of the long side before the cut, which matters for strips only


class CocoAugment:
    """From (Pillow image, target) to an augmented image, float32 [3, H, W] in [0, 1], and what is left of its objects.

    Boxes end at the image's edges. Objects that are narrower than LEAST_SIDE or have no pixel left are dropped; area becomes
    the number of pixels of the mask, or without masks the box's.

    Args:
        hflip: probability of mirroring.
        photometric: probability of each change of colour.
        crop: probability of resizing and cutting out a rectangle.
    """

    def __init__(self, hflip: float, photometric: float, crop: float):
        steps = []
        if photometric:
            steps.append(v2.RandomPhotometricDistort(p=photometric))
        if hflip:
            steps.append(v2.RandomHorizontalFlip(hflip))
        if crop:
            steps.append(v2.RandomApply([RandomShortestSize(CROP_SHORT_SIDES), RandomSizeCrop(*CROP_SIDES)], crop))
        steps += [v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(LEAST_SIDE, labels_getter=_per_object)]
        self.steps = v2.Compose(steps)

    def __call__(self, sample: tuple[Image.Image, dict]) -> tuple[torch.Tensor, dict]:
        image, target = sample
        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(image.height, image.width))
        target = {**target, "boxes": boxes}
        if "masks" in target:
            target["masks"] = tv_tensors.Mask(target["masks"])
        image, target = self.steps(tv_tensors.Image(image), target)
        # tensors of torchvision's own classes would slow down whatever follows
        target = {
            key: value.as_subclass(torch.Tensor) if torch.is_tensor(value) else value for key, value in target.items()
        }
        if "masks" in target:
            target["area"] = target["masks"].flatten(1).sum(1).float()
        else:
            target["area"] = (target["boxes"][:, 2:] - target["boxes"][:, :2]).prod(1)
        left = target["area"] > 0
        if not left.all():
            target = {key: value[left] if torch.is_tensor(value) else value for key, value in target.items()}
        return in_unit_range(image.as_subclass(torch.Tensor)), target


class RandomShortestSize(v2.RandomShortestSize):
    """Torchvision's, with at least one pixel and at most LONGEST_CROPPED."""

    def __init__(self, short_sides: Sequence[int]):
        super().__init__(short_sides, LONGEST_CROPPED)

    def make_params(self, flat_inputs):
        return {"size": [max(1, side) for side in super().make_params(flat_inputs)["size"]]}


class RandomSizeCrop(v2.Transform):
    """A rectangle of a random place, whose sides are drawn from `least` to `most` pixels as far as the image reaches."""

    def __init__(self, least: int, most: int):
        super().__init__()
        self.least, self.most = least, most

    def make_params(self, flat_inputs):
        cut = {}
        for start, side, whole in zip(("top", "left"), ("height", "width"), v2.query_size(flat_inputs), strict=True):
            cut[side] = int(torch.randint(min(self.least, whole), min(self.most, whole) + 1, ()))
            cut[start] = int(torch.randint(whole - cut[side] + 1, ()))
        return cut

    def transform(self, inpt, params):
        return self._call_kernel(F.crop, inpt, **params)


def in_unit_range(image: torch.Tensor) -> torch.Tensor:
    """uint8 [C, H, W] -> float32 in [0, 1]."""
    return F.to_dtype(image, torch.float32, scale=True)


def _per_object(sample):
    """What has an entry per object besides boxes and masks."""
    return [sample[1][key] for key in ("labels", "area", "iscrowd")]
