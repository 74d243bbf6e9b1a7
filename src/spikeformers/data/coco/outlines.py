"""Outlines of objects, polygons or run lengths, as COCO's format writes them, and the masks that they enclose."""
# Shapes: N objects in an image, H W its pixels.

import math
from collections.abc import Sequence

import numpy as np

from ..._install import command_for

FARTHEST = (
    1e6  # pixels; a coordinate beyond is a mistake, and the library that draws outlines reckons with 32-bit integers
)
LONGEST_OUTLINE = 2e6  # pixels along an object's polygons; drawing takes some 20 bytes for each
LARGEST_MASKS = 2**32  # bytes of an image's masks, one per pixel and object
RUN_CHARACTERS = 10  # in COCO's string; 7 hold 32 bits


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
            raise ValueError(
                f"the masks of its {size} take {len(objects) * height * width / 2**30:.0f} GiB; give --data.masks false"
            )
        library = mask_library()
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
        polygons.append(numbers_of(polygon, count, "polygon", "x and y of each point"))
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


def numbers_of(values: object, count: int, name: str, expected: str) -> np.ndarray:
    """`count` finite numbers as float64 array.

    Args:
        values: from the file.
        count: how many there must be.
        name: of the entry.
        expected: its meaning, for the message.

    Raises:
        ValueError: there are others.
    """
    try:
        numbers = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        numbers = np.zeros(0)
    # for a handful of numbers, their product is several times faster than numpy.isfinite
    if numbers.shape != (count,) or not math.isfinite(numbers @ numbers):
        raise ValueError(f"has the {name} {str(values)[:100]}; give {expected} as finite numbers")
    return numbers


def mask_library():
    """The module that draws outlines.

    Raises:
        ValueError: it is not installed.
    """
    try:
        from faster_coco_eval.core import mask
    except ImportError:
        raise ValueError(f"masks need faster-coco-eval: {command_for('dense')}; or --data.masks false") from None
    return mask
