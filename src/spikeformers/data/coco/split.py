"""The images of one split with their objects."""
# Shapes: N objects in an image, H W its pixels, K classes. Boxes are [left, top, right, bottom] in pixels.

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..drawn import drawn_as_stored
from ..orientation import tells_nothing, upright, upright_array, upright_boxes
from ..reading import stored_image
from .annotations import Annotations
from .outlines import LARGEST_MASKS, Outlines, mask_library

if TYPE_CHECKING:
    from .options import CocoData


class Coco:
    """The images of one split, by ascending id, each upright as the camera says, with a target:

    boxes: float32 [N, 4]; labels: int64 [N], 1 to K in the order of the categories' ids; masks: uint8 [N, H, W], where
    `CocoData.masks` asks for them; area: float32 [N], as annotated, or the box's where it is missing; iscrowd: int64 [N]; image_id: int.

    Annotations are taken for those of the upright photo, as most tools show it, where the file states its width and height; where
    it states those of the photo as it is stored, lying on its side, they are turned with it. Sizes do not say which it is for square
    photos and for those that are stored upside down: the split's other photos decide, see `drawn.drawn_as_stored`.

    Objects whose boxes have no width or no height are left out; `left_out_boxes` counts them. Crowd regions are left out in
    training. The annotations are kept in a few arrays, which worker processes share; masks are drawn when asked for. A warning names the
    categories without any object in the file, which are `absent`.

    Raises:
        ValueError: the file is missing or is not in COCO's format, naming the entry that is not; coordinates lie millions of pixels
            away or an outline is that long; or nothing is left to train on.
    """

    def __init__(self, data: "CocoData", training: bool):
        self.training, self.masks = training, data.masks
        if self.masks:
            mask_library()
        split = data.train if training else data.val
        self.folder = Path(data.root, data.images.replace("{split}", split))
        self.file = Path(data.root, data.annotations.replace("{split}", split))
        found = Annotations(self.file, data)
        self.category_ids, self.classes = found.category_ids, found.classes
        self._keep(found, 0 if data.empty or not training else 1, data.first)
        self._say_what_is_missing(found)
        # a photo without objects says nothing
        shown = [place for place in range(len(self.ids)) if self._starts[place] < self._starts[place + 1]]
        photos = [self.folder / self.names[place] for place in shown]
        self._as_stored = drawn_as_stored(self.file, photos, lambda index: self.sizes[shown[index]][::-1])

    def _keep(self, found, least, first):
        """Keeps the first images that have at least `least` objects to train on, and their objects, sorted by image."""
        images, shown = found.images, dict.fromkeys(found.images, 0)
        for item in found.objects:
            shown[item.image] += item.box is not None and not item.crowd
        self.ids = [key for key in sorted(images) if shown[key] >= least][: first or None]
        if not self.ids:
            why = f" to train on ({found.why_left_out()})" if least and found.objects else ""
            raise ValueError(
                f"{self.file} has no images"
                + " with objects" * least
                + why
                + "; data.train and data.val name the splits"
            )
        self.sizes = [(images[key]["height"], images[key]["width"]) for key in self.ids]
        self.names = [str(images[key]["file_name"]) for key in self.ids]
        self.labels = [0] * len(self.ids)
        places = {key: place for place, key in enumerate(self.ids)}
        objects = sorted((item for item in found.objects if item.image in places), key=lambda item: item.image)
        self.left_out_boxes = sum(item.box is None for item in objects)
        self.empty_images = sum(shown[key] == 0 for key in self.ids)
        objects = [item for item in objects if item.box is not None]
        self.crowds = sum(item.crowd for item in objects)
        self.objects = len(objects) - self.crowds
        if self.training:
            objects = [item for item in objects if not item.crowd]
        owners = np.array([places[item.image] for item in objects], np.int64)
        self._starts = np.searchsorted(owners, np.arange(len(self.ids) + 1))
        self._boxes = np.array([item.box for item in objects], np.float32).reshape(-1, 4)
        self._labels = np.array([item.label for item in objects], np.int64)
        self._areas = np.array([item.area for item in objects], np.float32)
        self._crowds = np.array([item.crowd for item in objects], np.int64)
        self._outlines = Outlines([item.outlines for item in objects]) if self.masks else None

    def _say_what_is_missing(self, found):
        """Filters and mistakes that leave nothing to train on, or nothing of a class, do not pass in silence.

        Raises:
            ValueError: there is nothing to train on.
        """
        kept = found.to_train_on()
        chosen = set(self.ids)
        if not any(item.image in chosen for item in kept):
            if kept:
                why = f"the {len(kept):,} objects are in other images than the first {len(self.ids)} (data.first)"
            else:
                why = found.why_left_out() if found.objects else "it has no annotations"
            text = f"{self.file} has no object to {'train on' if self.training else 'find'}: {why}"
            if self.training:
                raise ValueError(text)
            if found.objects:
                warnings.warn(f"{text}; average precision is not defined", stacklevel=2)
        elif self.training and self.masks and not self._some_mask_has_pixels():
            raise ValueError(
                f"{self.file} has no object to train on: no mask has a pixel in its image; "
                "the points of polygons are in pixels, not in shares of the image"
            )
        there = {item.label for item in kept}
        self.absent = [name for label, name in enumerate(self.classes, 1) if label not in there]
        if self.training and self.absent:
            names = ", ".join(self.absent[:5]) + ", ..." * (len(self.absent) > 5)
            warnings.warn(
                f"{self.file} has no object of {len(self.absent)} of its {len(self.classes)} categories: {names}",
                stacklevel=2,
            )

    def _some_mask_has_pixels(self):
        """Whether any mask has a pixel, as far as masks do not take too much memory. Stops at the first image that has one."""
        looked_at = False
        for index, (height, width) in enumerate(self.sizes):
            own = range(*self._starts[index : index + 2])
            if own and height * width * len(own) <= LARGEST_MASKS:
                if self._outlines.masks(own, height, width).any():
                    return True
                looked_at = True
        return not looked_at

    @property
    def summary(self) -> str:
        """What the split holds, in one line."""
        return (
            f"{len(self):,} images ({self.empty_images:,} without objects), {self.objects:,} objects of {len(self.classes)} "
            f"classes, {self.crowds:,} crowd regions, {self.left_out_boxes:,} boxes without area left out"
        )

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        stored, orientation = stored_image(self.folder / self.names[index])
        image, stated = upright(stored, orientation), self.sizes[index][::-1]
        if stated not in (image.size, stored.size):
            raise ValueError(
                f"it has {image.width}x{image.height} pixels, but image {self.ids[index]} in {self.file} {stated[0]}x{stated[1]}"
            )
        as_stored = self._as_stored if tells_nothing(orientation, *stored.size) else stated != image.size
        target = self.target(index)
        return (image, turned(target, orientation, *stated) if as_stored else target), 0

    def target(self, index: int) -> dict:
        """The objects of image `index` as the file states them."""
        own = slice(*self._starts[index : index + 2])
        target = {
            "boxes": torch.from_numpy(self._boxes[own].copy()),
            "labels": torch.from_numpy(self._labels[own].copy()),
            "area": torch.from_numpy(self._areas[own].copy()),
            "iscrowd": torch.from_numpy(self._crowds[own].copy()),
            "image_id": self.ids[index],
        }
        if self.masks:
            target["masks"] = torch.from_numpy(self._outlines.masks(range(own.start, own.stop), *self.sizes[index]))
        return target

    def where(self, index):
        """What messages call a sample."""
        return str(self.folder / self.names[index])


def turned(target: dict, orientation: int, width: int, height: int) -> dict:
    """A target of a photo as it is stored, `width` x `height`, turned with it as EXIF's orientation asks.

    Args:
        target: with boxes [N, 4] and perhaps masks [N, H, W].
        orientation: 1 to 8, as EXIF says.
        width, height: as the photo is stored.
    """
    boxes = upright_boxes(target["boxes"].numpy(), orientation, width, height)
    target = {**target, "boxes": torch.from_numpy(boxes)}
    if "masks" in target:
        target["masks"] = torch.from_numpy(upright_array(target["masks"].numpy(), orientation))
    return target
