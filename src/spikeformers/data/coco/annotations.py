"""A JSON file in COCO's format, read and checked entry by entry."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..reading import regular_file
from .outlines import FARTHEST, numbers_of, parse_segmentation

if TYPE_CHECKING:
    from .options import CocoData

LEAST_SIDE = 1.0  # pixels; an object whose box is narrower is not trained on


class Instance(NamedTuple):
    """An annotated object.

    Attributes:
        image: the id of its image.
        box: (left, top, right, bottom) in pixels, None if it has no width or no height.
        label: of its class, from 1.
        area: in pixels, as annotated, or the box's.
        crowd: 1 for a region of many objects, else 0.
        outlines: its polygons or run lengths, see `parse_segmentation`; None where masks are not wanted.
    """

    image: int
    box: tuple[float, float, float, float] | None
    label: int
    area: float
    crowd: int
    outlines: tuple[list[np.ndarray], bool] | None


class Annotations:
    """What the JSON file of a split says.

    Args:
        file: it.
        data: whether outlines are read, and the layout for messages.

    Attributes:
        images: the entries by id, with file_name, width and height.
        category_ids: of the classes, ascending.
        classes: their names.
        objects: an `Instance` for each annotation.

    Raises:
        ValueError: the file is missing or is not in COCO's format, naming the entry that is not.
    """

    def __init__(self, file: Path, data: "CocoData"):
        self.file, self.masks = file, data.masks
        content = _content(file, data)
        self.images = self._entries(content, "images", "image", ("file_name", "width", "height"))
        self._check_sizes()
        categories = self._entries(content, "categories", "category", ("name",))
        self.category_ids = sorted(categories)
        self.classes = [str(categories[key]["name"]) for key in self.category_ids]
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if not self.classes or twice:
            what = f"several categories called {', '.join(twice)}" if twice else "no categories"
            raise ValueError(f"{file} has {what}; give each class a category with a name of its own")
        self.objects = self._objects(
            self._entries(content, "annotations", "annotation", ("image_id", "category_id", "bbox"))
        )

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

    def _check_sizes(self):
        for image in self.images.values():
            if not all(type(image[key]) is int and 0 < image[key] <= FARTHEST for key in ("width", "height")):
                given = f"{image['width']!r:.40} x {image['height']!r:.40}"
                raise ValueError(f"{self.file}: image {image['id']} has the size {given}; give whole numbers of pixels")

    def _objects(self, annotations):
        labels = {key: label for label, key in enumerate(self.category_ids, 1)}
        objects = []
        for annotation in annotations.values():
            try:
                objects.append(self._instance(annotation, labels))
            except ValueError as error:
                raise ValueError(f"{self.file}: annotation {annotation['id']} {error}") from None
        return objects

    def _instance(self, annotation, labels):
        image = _known(self.images, annotation["image_id"], "image_id", "images")
        label = _known(labels, annotation["category_id"], "category_id", "categories")
        left, top, width, height = numbers_of(annotation["bbox"], 4, "bbox", "[left, top, width, height]")
        if max(abs(left), abs(top), abs(left + width), abs(top + height)) > FARTHEST:
            raise ValueError(f"has the bbox {annotation['bbox']}, which lies more than {FARTHEST:,.0f} pixels away")
        area = annotation.get("area")  # many exporters leave it out or write null
        (area,) = numbers_of(
            [max(0, width) * max(0, height) if area is None else area], 1, "area", "the object's pixels"
        )
        if not 0 <= area <= FARTHEST**2:
            raise ValueError(f"has the area {area:g}; give the object's pixels")
        crowd = annotation.get("iscrowd")
        if not (crowd is None or isinstance(crowd, (int, float)) and crowd in (0, 1)):
            raise ValueError(f"has the iscrowd {crowd!r}; give 0 or 1")
        crowd = int(crowd or 0)  # 0.0 and null are written too
        if width <= 0 or height <= 0:  # what outline such an object has does not matter
            return Instance(image["id"], None, label, area, crowd, None)
        outlines = None
        if self.masks:
            if not annotation.get("segmentation"):
                raise ValueError("has no segmentation; to train and test boxes alone, give --data.masks false")
            outlines = parse_segmentation(annotation["segmentation"], image["height"], image["width"])
        return Instance(image["id"], (left, top, left + width, top + height), label, area, crowd, outlines)

    def why_left_out(self) -> str:
        """How many annotations are not trained on, by reason, for people."""
        without_area = sum(item.box is None for item in self.objects)
        crowds = sum(item.box is not None and item.crowd for item in self.objects)
        thin = sum(item.box is not None and not item.crowd and not self._visible(item) for item in self.objects)
        parts = [
            f"{crowds:,} are crowd regions (iscrowd 1), which are not trained on; where each is one object, as CVAT exports brush masks, set iscrowd to 0"
            * (crowds > 0),
            f"{without_area:,} have boxes without area" * (without_area > 0),
            f"{thin:,} have less than {LEAST_SIDE:g} pixel of their boxes in the image; boxes are in pixels, not in shares of the image"
            * (thin > 0),
        ]
        return f"of {len(self.objects):,} annotations " + ", ".join(part for part in parts if part)

    def _visible(self, item):
        """Whether enough of an object's box lies in its image."""
        image = self.images[item.image]
        height, width = image["height"], image["width"]
        left, top, right, bottom = item.box
        return min(right, width) - max(left, 0) >= LEAST_SIDE and min(bottom, height) - max(top, 0) >= LEAST_SIDE

    def to_train_on(self) -> list[Instance]:
        """The objects that training keeps if augmentation does not cut them off."""
        return [item for item in self.objects if item.box is not None and not item.crowd and self._visible(item)]


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
        raise ValueError(
            f"has the {name} {str(key)[:100] if not isinstance(key, str) else repr(key[:100])}, which is none of the {where}"
        )
    return entries[key]
