"""Mask files: the numbers in them, and the classes for which they stand."""
# Shapes: H W pixels.

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..orientation import image_orientation, upright_array
from ..reading import NOT_THE_FILE, UNREADABLE, check_memory, image_header

if TYPE_CHECKING:
    from .options import MaskData


IGNORED = 255  # the target of pixels that count neither in the loss nor in the score
LARGEST_VALUE = 2**16 - 1  # of a pixel of a mask
GREYS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies the values of PNG files of 2 and 4 bits by


class Meaning:
    """The class for which each value in a mask stands.

    Args:
        data: which values are ignored, and whether 0 is one of them.
        count: how many classes there are.

    Attributes:
        values: of the classes.
    """

    def __init__(self, data: "MaskData", count: int):
        first = 1 if data.reduce_zero else 0
        self.values = range(first, first + count)
        self.hint = "" if data.reduce_zero else ", or data.reduce_zero if 0 is no class"
        self.table = np.full(LARGEST_VALUE + 1, -1, np.int16)
        self.table[first : self.values.stop] = range(count)
        self.table[[*data.ignored, *range(first)]] = IGNORED

    def classes_of(self, values: np.ndarray, file: Path) -> np.ndarray:
        """The classes uint8 [H, W] that the values [H, W] of a mask stand for.

        Raises:
            ValueError: one stands for none.
        """
        outside = (values < 0) | (values > LARGEST_VALUE)
        classes = None if outside.any() else self.table[values]
        if classes is None or classes.min() < 0:
            value = values[outside][0] if classes is None else values[classes < 0][0]
            allowed = f"{self.values.start} to {self.values.stop - 1} for the {len(self.values)} classes"
            raise ValueError(
                f"its mask {file} has the value {value}; allowed are {allowed} and ignored ones; see data.classes, "
                f"data.ignore{self.hint}"
            )
        return classes.astype(np.uint8)


def mask_values(file: Path, size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """The values [H, W] in a mask, turned as the mask's own EXIF orientation asks, and that orientation, 1 to 8.

    Args:
        file: the mask.
        size: width and height of its image, which may also lie on its side.

    Raises:
        ValueError: the mask is missing, damaged, of another size, or holds colours.
    """
    try:
        with image_header(file) as mask:
            check_mode(mask.mode, file)
            if mask.size not in (size, size[::-1]):
                raise ValueError(other_size(size, file, mask.size))
            check_memory(mask, 10)
            raw = mask.tile[0][3] if mask.format == "PNG" and mask.tile else ""
            mask.load()
            own = image_orientation(mask)
            values = upright_array(np.asarray(mask), own)
    except FileNotFoundError:
        raise ValueError(f"it has no mask {file}") from None
    except UNREADABLE as error:
        if getattr(error, "errno", None) in NOT_THE_FILE:
            raise
        if str(file) in str(error):  # of another size or pixel format
            raise
        raise ValueError(f"its mask {file} cannot be read: {error}") from None
    if values.dtype == bool:
        values = values.astype(np.uint8)
    return values // GREYS.get(raw, 1), own


def other_size(size: tuple[int, int], file: Path, found: tuple[int, ...]) -> str:
    """The message that a mask has not its image's size.

    Args:
        size: width and height of the image.
        file: the mask.
        found: its width and height.
    """
    return f"it has {size[0]}x{size[1]} pixels, but its mask {file} {found[0]}x{found[1]}"


def check_mode(mode: str, file: Path) -> None:
    """Refuses masks of colours.

    Raises:
        ValueError: the pixel format, in Pillow's words, has several numbers for each pixel.
    """
    if mode not in ("1", "L", "P") and not mode.startswith("I"):
        raise ValueError(
            f"the mask {file} has the pixel format {mode}, not one number per pixel; expected is a PNG file, grey of 8 or 16 "
            "bits or with a palette, whose values are the classes' numbers"
        )
