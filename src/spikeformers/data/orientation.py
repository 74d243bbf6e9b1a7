"""Photos, masks and boxes turned upright as EXIF's orientation asks."""
# Shapes: N boxes, H W pixels.

import numpy as np
from PIL import Image

TURNS = {  # what EXIF's orientation asks for
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


ORIENTATION = 274  # EXIF's tag


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """An image turned as EXIF's orientation asks."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def upright_array(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The same of an array [..., H, W]."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(-1, -2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[..., ::-1, :]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels)


def upright_boxes(boxes: np.ndarray, orientation: int, width: float, height: float) -> np.ndarray:
    """The same of boxes [N, 4] (left, top, right, bottom) in an image whose stored `width` and `height` are given.

    Args:
        boxes: in the image as it is stored.
        orientation: 1 to 8, as EXIF says.
        width, height: of the image as it is stored.
    """
    left, top, right, bottom = boxes.T
    if orientation in (5, 6, 7, 8):
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    return np.stack([left, top, right, bottom], 1)


def image_orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8, of a loaded image; 1 where it is damaged."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF, at which Pillow raises many kinds, says nothing
        return 1
    return value if type(value) is int and value in TURNS else 1


def tells_nothing(orientation: int, width: int, height: int) -> bool:
    """Whether annotations of a photo have the same size before and after it is turned as EXIF's orientation asks.

    Args:
        orientation: EXIF's, from 1 to 8.
        width, height: of the photo in pixels.
    """
    return orientation in (2, 3, 4) or orientation in (5, 6, 7, 8) and width == height
