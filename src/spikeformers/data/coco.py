"""Images with objects: data sets in COCO's JSON format, for detection and instance segmentation."""
# Shapes: N objects in an image, H W its pixels, K classes. Boxes are [left, top, right, bottom] in pixels.

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from .._options import PROBABILITY, check_options
from .._ranges import Range
from .loading import Measured, collate_dense, read_image
from .reading import drawn_as_stored, regular_file, stored_image, tells_nothing, upright, upright_array, upright_boxes

LEAST_SIDE = 1.0  # pixels; an object whose box is narrower after augmentation is no longer trained on
CROP_SHORT_SIDES = (400, 500, 600)  # pixels; the second branch of DETR's augmentation
CROP_SIDES = (384, 600)
LONGEST_CROPPED = 16 * max(CROP_SHORT_SIDES)  # pixels of the long side before the cut, which matters for strips only
FARTHEST = 1e6  # pixels; a coordinate beyond is a mistake, and the library that draws outlines reckons with 32-bit integers
LONGEST_OUTLINE = 2e6  # pixels along an object's polygons; drawing takes some 20 bytes for each
LARGEST_MASKS = 2**32  # bytes of an image's masks, one per pixel and object
RUN_CHARACTERS = 10  # in COCO's string; 7 hold 32 bits


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
        return _in_unit_range(F.pil_to_tensor(read_image(path)))


class Coco:
    """The images of one split, by ascending id, each upright as the camera says, with a target:

    boxes: float32 [N, 4]; labels: int64 [N], 1 to K in the order of the categories' ids; masks: uint8 [N, H, W], where
    `CocoData.masks` asks for them; area: float32 [N], as annotated, or the box's where it is missing; iscrowd: int64 [N]; image_id: int.

    Annotations are taken for those of the upright photo, as most tools show it, where the file states its width and height; where
    it states those of the photo as it is stored, lying on its side, they are turned with it. Which of the two cannot be told by
    square photos and such as stand upside down: they are taken for upright.

    Objects whose boxes have no width or no height are left out; `left_out_boxes` counts them. Crowd regions are left out in
    training. The annotations are kept in a few arrays, which worker processes share; masks are drawn when asked for. A category
    without any object in the file is told of in a warning; `absent` are their names.

    Raises:
        ValueError: the file is missing or is not in COCO's format, naming the entry that is not; coordinates lie millions of pixels
            away or an outline is that long; or nothing is left to train on.
    """

    def __init__(self, data: CocoData, training: bool):
        self.training, self.masks = training, data.masks
        if self.masks:
            _mask_library()
        split = data.train if training else data.val
        self.folder = Path(data.root, data.images.replace("{split}", split))
        self.file = Path(data.root, data.annotations.replace("{split}", split))
        content = _content(self.file, data)
        images = self._entries(content, "images", "image", ("file_name", "width", "height"))
        self._check_sizes(images.values())
        categories = self._entries(content, "categories", "category", ("name",))
        self.category_ids = sorted(categories)
        self.classes = [str(categories[key]["name"]) for key in self.category_ids]
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if not self.classes or twice:
            what = f"several categories called {', '.join(twice)}" if twice else "no categories"
            raise ValueError(f"{self.file} has {what}; give each class a category with a name of its own")
        objects = self._objects(
            self._entries(content, "annotations", "annotation", ("image_id", "category_id", "bbox")), images
        )
        self._keep(images, objects, 0 if data.empty or not training else 1, data.first)
        self._say_what_is_missing(objects, data)
        # a photo without objects says nothing
        shown = [place for place in range(len(self.ids)) if self._starts[place] < self._starts[place + 1]]
        photos = [self.folder / self.names[place] for place in shown]
        self._as_stored = drawn_as_stored(self.file, photos, lambda index: self.sizes[shown[index]][::-1])

    def _entries(self, content, key, kind, needed):
        """The entries of the list `key` by their ids."""
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(
                f"{self.file} has no list {key}; a file in COCO's format has the lists images, annotations and categories"
            )
        found = {}
        for place, entry in enumerate(entries, 1):
            if not isinstance(entry, dict) or type(entry.get("id")) is not int:
                raise ValueError(
                    f"{self.file}: entry {place} of {key} has no id; give each {kind} a whole number as id"
                )
            name = entry["id"]
            missing = [needed_key for needed_key in needed if needed_key not in entry]
            if missing:
                raise ValueError(f"{self.file}: {kind} {name} has no {', '.join(missing)}; COCO's format asks for it")
            if name in found:
                raise ValueError(f"{self.file}: there are two entries of {key} with the id {name}; ids must differ")
            found[name] = entry
        return found

    def _check_sizes(self, images):
        for image in images:
            if not all(type(image[key]) is int and 0 < image[key] <= FARTHEST for key in ("width", "height")):
                given = f"{image['width']!r:.40} x {image['height']!r:.40}"
                raise ValueError(f"{self.file}: image {image['id']} has the size {given}; give whole numbers of pixels")

    def _objects(self, annotations, images):
        """The objects as lists of (image id, box, label, area, iscrowd, outlines), and those without area as None."""
        labels = {key: label for label, key in enumerate(self.category_ids, 1)}
        objects = []
        for annotation in annotations.values():
            try:
                objects.append(self._object(annotation, images, labels))
            except ValueError as error:
                raise ValueError(f"{self.file}: annotation {annotation['id']} {error}") from None
        return objects

    def _object(self, annotation, images, labels):
        image = _known(images, annotation["image_id"], "image_id", "images")
        label = _known(labels, annotation["category_id"], "category_id", "categories")
        left, top, width, height = _numbers(annotation["bbox"], 4, "bbox", "[left, top, width, height]")
        if max(abs(left), abs(top), abs(left + width), abs(top + height)) > FARTHEST:
            raise ValueError(f"has the bbox {annotation['bbox']}, which lies more than {FARTHEST:,.0f} pixels away")
        area = annotation.get("area")  # many exporters leave it out or write null
        (area,) = _numbers([max(0, width) * max(0, height) if area is None else area], 1, "area", "the object's pixels")
        if not 0 <= area <= FARTHEST**2:
            raise ValueError(f"has the area {area:g}; give the object's pixels")
        crowd = annotation.get("iscrowd")
        if not (crowd is None or isinstance(crowd, (int, float)) and crowd in (0, 1)):
            raise ValueError(f"has the iscrowd {crowd!r}; give 0 or 1")
        crowd = int(crowd or 0)  # 0.0 and null are written too
        if width <= 0 or height <= 0:  # what outline such an object has does not matter
            return image["id"], None, label, area, crowd, None
        outlines = None
        if self.masks:
            if not annotation.get("segmentation"):
                raise ValueError("has no segmentation; to train and test boxes alone, give --data.masks false")
            outlines = parse_segmentation(annotation["segmentation"], image["height"], image["width"])
        return image["id"], (left, top, left + width, top + height), label, area, crowd, outlines

    def _keep(self, images, objects, least, first):
        """Keeps the first images that have at least `least` objects to train on, and their objects, sorted by image."""
        self._all_sizes = {key: (image["height"], image["width"]) for key, image in images.items()}
        shown = dict.fromkeys(images, 0)
        for image, box, _, _, crowd, _ in objects:
            shown[image] += box is not None and not crowd
        self.ids = [key for key in sorted(images) if shown[key] >= least][: first or None]
        if not self.ids:
            why = f" to train on ({self._why_left_out(objects)})" if least and objects else ""
            raise ValueError(
                f"{self.file} has no images" + " with objects" * least + why + "; data.train and data.val name the splits"
            )
        self.sizes = [(images[key]["height"], images[key]["width"]) for key in self.ids]
        self.names = [str(images[key]["file_name"]) for key in self.ids]
        self.labels = [0] * len(self.ids)
        places = {key: place for place, key in enumerate(self.ids)}
        objects = sorted((item for item in objects if item[0] in places), key=lambda item: item[0])
        self.left_out_boxes = sum(item[1] is None for item in objects)
        self.empty_images = sum(shown[key] == 0 for key in self.ids)
        objects = [item for item in objects if item[1] is not None]
        self.crowds = sum(item[4] for item in objects)
        self.objects = len(objects) - self.crowds
        if self.training:
            objects = [item for item in objects if not item[4]]
        owners = np.array([places[item[0]] for item in objects], np.int64)
        self._starts = np.searchsorted(owners, np.arange(len(self.ids) + 1))
        self._boxes = np.array([item[1] for item in objects], np.float32).reshape(-1, 4)
        self._labels = np.array([item[2] for item in objects], np.int64)
        self._areas = np.array([item[3] for item in objects], np.float32)
        self._crowds = np.array([item[4] for item in objects], np.int64)
        self._outlines = Outlines([item[5] for item in objects]) if self.masks else None

    def _why_left_out(self, objects):
        """What becomes of annotations, in numbers, for people."""
        crowds = sum(item[1] is not None and item[4] for item in objects)
        without_area = sum(item[1] is None for item in objects)
        thin = sum(item[1] is not None and not item[4] and not self._visible(item) for item in objects)
        parts = [
            f"{crowds:,} are crowd regions (iscrowd 1), which are not trained on; where each is one object, as CVAT exports brush masks, set iscrowd to 0" * (crowds > 0),
            f"{without_area:,} have boxes without area" * (without_area > 0),
            f"{thin:,} have less than {LEAST_SIDE:g} pixel of their boxes in the image; boxes are in pixels, not in shares of the image"
            * (thin > 0),
        ]
        return f"of {len(objects):,} annotations " + ", ".join(part for part in parts if part)

    def _visible(self, item):
        """Whether training keeps an object by its box, if it is not cut off."""
        height, width = self._all_sizes[item[0]]
        left, top, right, bottom = item[1]
        return min(right, width) - max(left, 0) >= LEAST_SIDE and min(bottom, height) - max(top, 0) >= LEAST_SIDE

    def _say_what_is_missing(self, objects, data):
        """Filters and mistakes that leave nothing to train on, or nothing of a class, do not pass in silence.

        Raises:
            ValueError: there is nothing to train on.
        """
        kept = [item for item in objects if item[1] is not None and not item[4] and self._visible(item)]
        chosen = set(self.ids)
        if not any(item[0] in chosen for item in kept):
            if kept:
                why = f"the {len(kept):,} objects are in other images than the first {len(self.ids)} (data.first)"
            else:
                why = self._why_left_out(objects) if objects else "it has no annotations"
            text = f"{self.file} has no object to {'train on' if self.training else 'find'}: {why}"
            if self.training:
                raise ValueError(text)
            if objects:
                warnings.warn(f"{text}; average precision is not defined", stacklevel=2)
        elif self.training and self.masks and not self._some_mask_has_pixels():
            raise ValueError(
                f"{self.file} has no object to train on: no mask has a pixel in its image; "
                "the points of polygons are in pixels, not in shares of the image"
            )
        there = {item[2] for item in kept}
        self.absent = [name for label, name in enumerate(self.classes, 1) if label not in there]
        if self.training and self.absent:
            names = ", ".join(self.absent[:5]) + ", ..." * (len(self.absent) > 5)
            warnings.warn(
                f"{self.file} has no object of {len(self.absent)} of its {len(self.classes)} categories: {names}", stacklevel=2
            )

    def _some_mask_has_pixels(self):
        """Looks at one image where all is well, and at all before the split is refused; at none whose masks take too much memory."""
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


class Outlines:
    """The segmentations of many objects, in three arrays instead of millions of Python's numbers.

    Args:
        outlines: for each object its polygons [x, y, x, y, ...], or its run lengths, see `parse_segmentation`.
    """

    def __init__(self, outlines: Sequence[tuple[list[np.ndarray], bool]]):
        parts = [part for object_parts, _ in outlines for part in object_parts]
        self.numbers = np.concatenate([np.zeros(0), *parts])
        self.ends = np.cumsum([0, *map(len, parts)])
        self.first_part = np.cumsum([0, *(len(object_parts) for object_parts, _ in outlines)])
        self.runs = np.array([runs for _, runs in outlines], bool)

    def masks(self, objects: Sequence[int], height: int, width: int) -> np.ndarray:
        """The masks [N, H, W] of objects of one image, uint8 with 1 inside.

        Args:
            objects: their numbers.
            height, width: of the image.

        Raises:
            ValueError: they take more than LARGEST_MASKS bytes.
        """
        if len(objects) * height * width > LARGEST_MASKS:
            size = f"{len(objects):,} objects on {width}x{height} pixels"
            raise ValueError(f"the masks of its {size} take {len(objects) * height * width / 2**30:.0f} GiB; give --data.masks false")
        library = _mask_library()
        encoded = []
        for index in objects:
            parts = range(self.first_part[index], self.first_part[index + 1])
            numbers = [self.numbers[self.ends[part] : self.ends[part + 1]] for part in parts]
            if self.runs[index]:
                runs = {"size": [height, width], "counts": numbers[0].astype(int).tolist()}
                encoded.append(library.frPyObjects(runs, height, width))
            else:
                encoded.append(library.merge(library.frPyObjects([part.tolist() for part in numbers], height, width)))
        if not encoded:
            return np.zeros((0, height, width), np.uint8)
        return np.ascontiguousarray(library.decode(encoded).transpose(2, 0, 1))


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
        return _in_unit_range(image.as_subclass(torch.Tensor)), target


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


def parse_segmentation(segmentation: list | dict, height: int, width: int) -> tuple[list[np.ndarray], bool]:
    """COCO's segmentation of an object as float64 arrays: polygons [x, y, x, y, ...] and False, or one array of run lengths
    (down the columns, background first) and True.

    Args:
        segmentation: a list of polygons, or a dictionary with the image's size, [height, width], and the run lengths as list or
            as COCO's compressed string.
        height: the image's, in pixels.
        width: the image's, in pixels.
    Raises:
        ValueError: it is none of these, or its points lie millions of pixels away or apart.
    """
    if isinstance(segmentation, dict):
        return [_run_lengths(segmentation, height, width)], True
    if not isinstance(segmentation, list):
        raise ValueError("has a segmentation that is neither a list of polygons nor run lengths (RLE)")
    polygons = []
    for polygon in segmentation:
        count = len(polygon) if isinstance(polygon, list) else 0
        if count < 6 or count % 2:
            raise ValueError(f"has a polygon of {count} numbers; give x and y of at least 3 points")
        polygons.append(_numbers(polygon, count, "polygon", "x and y of each point"))
    # no coordinate is larger than the root of the sum of squares, no side longer than twice that: cheap, and enough for most
    bounds = [math.sqrt(polygon @ polygon) for polygon in polygons]
    if max(bounds, default=0) > FARTHEST or sum(map(lambda b, p: b * len(p), bounds, polygons)) > LONGEST_OUTLINE:
        _check_outline(polygons)
    return polygons, False


def _check_outline(polygons):
    farthest = max(np.abs(polygon).max() for polygon in polygons)
    if farthest > FARTHEST:
        raise ValueError(f"has a polygon with the coordinate {farthest:g}, more than {FARTHEST:,.0f} pixels away")
    length = sum(np.abs(polygon - np.roll(polygon, 2)).sum() for polygon in polygons)
    if length > LONGEST_OUTLINE:
        raise ValueError(f"has an outline of {length:,.0f} pixels, which is more than {LONGEST_OUTLINE:,.0f}")


def _run_lengths(segmentation, height, width):
    if segmentation.get("size") != [height, width]:
        raise ValueError(f"has run lengths (RLE) of size {segmentation.get('size')}; its image has {[height, width]}")
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = uncompressed(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("has run lengths (RLE) whose counts are neither COCO's string nor a list of whole numbers")
    if max(counts, default=0) > height * width:
        raise ValueError(f"has run lengths (RLE) with a run longer than its image, which has {height * width:,} pixels")
    if sum(counts) != height * width:
        raise ValueError(f"has run lengths (RLE) of {sum(counts):,} pixels in all; its image has {height * width:,}")
    return np.array(counts, np.float64)


def uncompressed(counts: str) -> list[int]:
    """The run lengths in COCO's compressed string, which are not negative unless the string is broken.

    A character is "0" plus 6 bits: 5 of the number, the lowest first, and one that says that more follow; the number's topmost
    bit is its sign. From the fourth run on, it is the difference to the run two before, which has the same colour.

    Raises:
        ValueError: other characters, or an end in the middle of a number.
    """
    runs, number, shift = [], 0, 0
    for character in counts:
        bits = ord(character) - ord("0")
        if not 0 <= bits < 64:
            raise ValueError(f"has run lengths (RLE) with the character {character!r}; COCO's string has none such")
        number |= (bits & 31) << shift
        shift += 5
        if shift > 5 * RUN_CHARACTERS:
            raise ValueError(f"has run lengths (RLE) with a number of more than {RUN_CHARACTERS} characters")
        if not bits & 32:
            if bits & 16:
                number -= 1 << shift
            runs.append(number + runs[-2] if len(runs) > 2 else number)
            number, shift = 0, 0
    if shift:
        raise ValueError("has run lengths (RLE) that end in the middle of a number")
    return runs


def _content(file, data):
    try:
        with regular_file(file) as opened:
            return json.loads(opened.read().decode("utf-8-sig"))
    except FileNotFoundError:
        before, _, after = data.annotations.partition("{split}")
        pattern = Path(data.root, before + "*" + after)
        found = sorted(path.name for path in pattern.parent.glob(pattern.name))
        raise ValueError(
            f"no annotations {file}; COCO's layout is ROOT/{data.annotations} beside the images ROOT/{data.images}/*, with "
            f"data.train and data.val as {{split}}; found {', '.join(found) or 'none such'}"
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{file} is no valid JSON ({error or 'it is too large'}); check that it is complete") from None
    except OSError as error:
        raise ValueError(f"cannot read the annotations {file} ({error.strerror or error})") from None


def _known(entries, key, name, where):
    if type(key) is not int or key not in entries:
        raise ValueError(f"has the {name} {str(key)[:100] if not isinstance(key, str) else repr(key[:100])}, which is none of the {where}")
    return entries[key]


def _numbers(values, count, name, expected):
    """`count` finite numbers as float64 array."""
    try:
        numbers = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        numbers = np.zeros(0)
    # for a handful of numbers, their product is several times faster than numpy.isfinite
    if numbers.shape != (count,) or not math.isfinite(numbers @ numbers):
        raise ValueError(f"has the {name} {str(values)[:100]}; give {expected} as finite numbers")
    return numbers


def _mask_library():
    try:
        from faster_coco_eval.core import mask
    except ImportError:
        raise ValueError(
            "masks need faster-coco-eval: pip install 'spikeformers[dense]'; or --data.masks false"
        ) from None
    return mask


def _unchanged(sample):
    image, target = sample
    return _in_unit_range(F.pil_to_tensor(image)), target


def _in_unit_range(image):
    return F.to_dtype(image, torch.float32, scale=True)


def _per_object(sample):
    """What has an entry per object besides boxes and masks."""
    return [sample[1][key] for key in ("labels", "area", "iscrowd")]
