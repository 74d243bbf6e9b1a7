"""The one way to open an image file, whatever a stranger has put into it."""
# Shapes: H W pixels.

import errno
import struct
import zlib
from contextlib import contextmanager, nullcontext
from functools import cache
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image, UnidentifiedImageError

from .._files import regular_file
from .orientation import image_orientation, upright

# what decoders raise at broken files; a file that stands for more memory than there is is one of them
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    BadZipFile,
    Image.DecompressionBombError,
)
NOT_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOMEM)  # troubles of the machine, not of the file

# Of Pillow's formats those of photos and masks. Others are recognised by their content, whatever the file is called: EPS would
# start Ghostscript, and formats without a mark at their beginning take damaged files for pictures.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "DIB")


BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
LARGEST_16 = 2**16 - 1
MOST_MEMORY = 2**30  # bytes for one image; a file of some kilobytes may state any number of pixels
PIXEL = {"RGB": 4, "1": 5, "L": 5, "P": 5, "I": 17, "F": 17}  # bytes that a pixel of a mode takes until it is RGB


@cache
def formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def image_suffixes() -> frozenset[str]:
    """The endings of their files, such as ".png"."""
    Image.init()
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in (*formats(), "MPO"))


@contextmanager
def image_header(source: str | Path | BytesIO):
    """The image in a file of one of FORMATS, or in its bytes, in the mode in which it is stored; only size and mode are read yet.

    Raises:
        ValueError: it is none, it is damaged, it stands for too many pixels, or it is no regular file.
        OSError: it is missing, or the machine cannot read it.
    """
    try:
        opened = nullcontext(source) if isinstance(source, BytesIO) else regular_file(source)
        with opened as file, Image.open(file, formats=formats()) as image:
            yield image
    except UnidentifiedImageError:
        raise ValueError(NO_IMAGE) from None
    except OSError as error:
        if error.errno is None:  # Pillow's own, such as "image file is truncated"
            raise ValueError(str(error)) from None
        raise
    except ValueError:
        raise
    except (
        Exception
    ) as error:  # all that a decoder raises is about the file: KeyError, IndexError and others at damaged ones
        raise ValueError(f"{type(error).__name__}: {error}") from None


NO_IMAGE = "no image that Pillow can read"


def check_memory(image: Image.Image, per_pixel: int):
    """
    Raises:
        ValueError: an image whose pixels take so many bytes each takes more than MOST_MEMORY.
    """
    if image.width * image.height * per_pixel > MOST_MEMORY:
        raise ValueError(
            f"its {image.width}x{image.height} pixels take more than {MOST_MEMORY / 2**30:.0f} GiB of memory"
        )


def stored_image(source: str | Path | BytesIO) -> tuple[Image.Image, int]:
    """An image in RGB as it lies in the file, and EXIF's orientation, 1 to 8: how it has to be turned to be upright.

    More than 8 bits are scaled to 8, as are floating-point numbers and those with a sign, whose largest value is white, instead of
    cut off; transparency is left away.

    Raises:
        ValueError: see `image_header`; or it is unknown which of its values is white, or some are no numbers.
        OSError: see `image_header`.
    """
    with image_header(source) as image:
        check_memory(image, PIXEL.get(image.mode, 11 if image.mode.startswith("I") else 8))
        _check_largest(image)
        image.load()
        orientation = image_orientation(image)
        if image.mode.startswith("I") or image.mode == "F" or image.mode == "L" and _signed(image):
            pixels = Image.fromarray(_eight_bits(image)).convert("RGB")
        else:
            known = {"RGBa": "RGBA", "La": "LA"}.get(
                image.mode
            )  # premultiplied by alpha, which Pillow does not turn into RGB
            pixels = image.convert(known) if known else image
            pixels = pixels if pixels.mode == "RGB" else pixels.convert("RGB")
    pixels.info = {}  # facts about the file, such as its orientation, need not hold for images made from it
    return pixels, orientation


def _check_largest(image):
    """
    Raises:
        ValueError: a PPM file has values above the largest that it states, which Pillow would make white.
    """
    if image.format != "PPM" or not image.tile or image.tile[0][0] != "ppm":
        return
    offset, largest = image.tile[0][2], image.tile[0][3][-1]
    kind = np.dtype("u1" if largest < 256 else ">u2")
    left, place = image.width * image.height * len(image.getbands()) * kind.itemsize, image.fp.tell()
    image.fp.seek(offset)
    while left and (part := image.fp.read(min(left, 2**20))):
        left -= len(part)
        found = np.frombuffer(part[: len(part) // kind.itemsize * kind.itemsize], kind).max(initial=0)
        if found > largest:
            raise ValueError(
                f"it has the value {found}, but states {largest} as the largest; values of more than 8 bits have their higher byte first"
            )
    image.fp.seek(place)


def upright_image(source: str | Path | BytesIO) -> Image.Image:
    """`stored_image`, turned upright as the camera says: what training, tests and predictions see alike."""
    image, orientation = stored_image(source)
    return upright(image, orientation)


def read_image(path: str | Path) -> Image.Image:
    """An image file in RGB, upright as the camera says (EXIF), see `stored_image`.

    Raises:
        ValueError: the file is missing or is no image.
    """
    try:
        return upright_image(path)
    except FileNotFoundError:
        raise ValueError(f"no image file {path}; check the path") from None
    except UNREADABLE as error:
        if str(error) == NO_IMAGE:
            raise ValueError(
                f"{path} is not an image that Pillow can read; give a PNG, JPEG, WebP or the like"
            ) from None
        raise ValueError(f"cannot read the image {path} ({error}); check that it is a complete image file") from None


def header_orientation(source: str | Path | BytesIO) -> tuple[tuple[int, int], int]:
    """Width and height of an image as it is stored and EXIF's orientation, 1 to 8, without reading its pixels.

    Raises:
        ValueError: see `image_header`.
        OSError: see `image_header`.
    """
    with image_header(source) as image:
        # Pillow turns TIFF files itself, and in PNG files that do not state EXIF before the pixels would read these
        says = image.format != "TIFF" and (
            image.format != "PNG" or {"exif", "Raw profile type exif"} & image.info.keys()
        )
        return image.size, image_orientation(image) if says else 1


def _signed(image):
    return 2 in getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, ())


def _eight_bits(image):
    """The pixels uint8 [H, W] of an image of mode I;16 (and its relatives), I or F, or of L with a sign."""
    values = np.asarray(image)
    if image.mode == "L":
        values = values.view(np.int8)
    tags = getattr(image, "tag_v2", {})
    black, white = _range(image, values, tags)
    if tags.get(PHOTOMETRIC) == 0 and image.mode != "F":  # white is zero; Pillow turns only images of 8 bits
        black, white = white, black
    result = np.empty(values.shape, np.uint8)
    flat, values = result.reshape(-1), values.reshape(-1)
    for start in range(0, len(flat), 2**18):  # some at a time: ten times the image's memory would be taken otherwise
        part = slice(start, start + 2**18)
        flat[part] = ((values[part].astype(np.float64) - black) * (255 / (white - black))).round().clip(0, 255)
    return result


def _range(image, values, tags):
    """The values that are black and white, as the file says; a guess by an image's brightest pixel would change its brightness."""
    bits = tags.get(BITS_PER_SAMPLE, (16,))
    bits = bits[0] if isinstance(bits, tuple) and bits else 16
    if image.mode.startswith("I;16"):
        return 0, 2**bits - 1
    if image.mode == "I" and image.format == "PPM":  # Pillow scales PPM's to 16 bits
        return 0, LARGEST_16
    low, high = values.min(), values.max()
    if image.mode == "F":
        if broken := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{broken:,} of its {values.size:,} pixels are no finite numbers (NaN or infinite)")
        if low >= -1e-3 and high <= 1 + 1e-3:
            return 0, 1
        if (
            low >= 0 and 16 < high <= 255
        ):  # between 1 and 16, both an image in 0..1 with highlights and a dark one are likely
            return 0, 255
    elif bits <= 16 and _signed(image) and low >= 0:
        return 0, 2 ** (bits - 1) - 1
    kind = "floating-point numbers" if image.mode == "F" else f"{bits}-bit numbers"
    raise ValueError(
        f"its pixels are {kind} from {low:g} to {high:g}, which do not say what is white; give 8 or 16 bits without negative "
        "values, or floating-point numbers from 0 to 1"
    )
