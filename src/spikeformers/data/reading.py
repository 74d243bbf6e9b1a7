"""Reading what a stranger's folders hold: the one way to open an image file, and which names are no data."""
# Shapes: H W pixels.

import errno
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Collection, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image, UnidentifiedImageError

from .._files import regular_file

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
NOT_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOMEM)  # the machine's trouble, which no sample is to blame for

# Of Pillow's formats those of photos and masks. Others are recognised by their content, whatever the file is called: EPS would
# start Ghostscript, and formats without a mark at their beginning take damaged files for pictures.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "DIB")
TURNS = {  # what EXIF's orientation asks for
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 274, 258, 262, 339  # tags of EXIF and TIFF
LARGEST_16 = 2**16 - 1
HEADERS = 5000  # photos, evenly spread, whose orientation is looked at when a split is opened; of all if one of them is to be turned
MOST_MEMORY = 2**30  # bytes for one image; a file of some kilobytes may state any number of pixels
PIXEL = {"RGB": 4, "1": 5, "L": 5, "P": 5, "I": 17, "F": 17}  # bytes that a pixel of a mode takes until it is RGB
TOOLS = {  # folders and files that file managers, archivers and notebook servers leave; in lower case
    "__macosx",
    "__pycache__",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "desktop.ini",
    "icon\r",
}


def of_a_tool(name: str, folder: bool = False) -> bool:
    """Whether a file or folder of that name is hidden or lies there for a program's sake, and so is neither data nor a class.

    Args:
        name: without the folders it lies in.
        folder: it is one; NAS begin the names of theirs with @ or #, as in @eaDir and #recycle.
    """
    return name.startswith((".", "@", "#") if folder else ".") or name.lower() in TOOLS


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder` that are classes, sorted. What `of_a_tool` leaves out is said if there are files in it.

    Raises:
        OSError: there is no such folder.
    """
    found = sorted(entry.name for entry in Path(folder).iterdir() if entry.is_dir())
    left_out = [name for name in found if of_a_tool(name, True) and any((Path(folder) / name).iterdir())]
    if left_out:
        warnings.warn(
            f"{folder}: {_some(left_out)} {'is' if len(left_out) == 1 else 'are'} no class: names that begin with ., @ or #, and "
            "those that tools give to their folders, are left out",
            stacklevel=2,
        )
    return [name for name in found if not of_a_tool(name, True)]


def files_in(folder: Path, suffixes: Collection[str], deep: bool = False) -> tuple[list[Path], list[Path]]:
    """The files whose names end in one of `suffixes` (in lower case), sorted, and those that do not; without those of tools.

    Args:
        deep: also in folders below, each folder once.
    """
    found, others, seen = [], [], set()
    for place, folders, names in sorted(os.walk(folder, followlinks=deep)) if deep else _flat(folder):
        folders[:] = [name for name in folders if not of_a_tool(name, True)]
        real = os.path.realpath(place)
        if real in seen or any(of_a_tool(part, True) for part in Path(place).relative_to(folder).parts):
            continue
        seen.add(real)
        for name in sorted(names):
            if not of_a_tool(name):
                (found if name.lower().endswith(tuple(suffixes)) else others).append(Path(place, name))
    return found, others


def _flat(folder):
    with os.scandir(folder) as entries:
        return [(folder, [], [entry.name for entry in entries if not entry.is_dir()])]


def tell_left_out(where: str | Path, files: Sequence[Path], suffixes: Collection[str], why: str = "by name") -> None:
    """Warns of files that are not read, with their number and the first names; of none if there are none.

    Args:
        where: the folder, for the message.
        files: those that are not read.
        suffixes: in what names of files that are read end.
        why: they are left out.
    """
    if files:
        warnings.warn(
            f"{where}: {len(files):,} file{'s are' if len(files) > 1 else ' is'} left out {why} ({_some([str(file) for file in files])}); "
            f"what is read ends in {', '.join(sorted(suffixes))}",
            stacklevel=3,
        )


def _some(names):
    return ", ".join(names[:3]) + f" and {len(names) - 3:,} more" * (len(names) > 3)


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
    except Exception as error:  # all that a decoder raises is about the file: KeyError, IndexError and others at damaged ones
        raise ValueError(f"{type(error).__name__}: {error}") from None


NO_IMAGE = "no image that Pillow can read"


def check_memory(image: Image.Image, per_pixel: int):
    """
    Raises:
        ValueError: an image whose pixels take so many bytes each takes more than MOST_MEMORY.
    """
    if image.width * image.height * per_pixel > MOST_MEMORY:
        raise ValueError(f"its {image.width}x{image.height} pixels take more than {MOST_MEMORY / 2**30:.0f} GiB of memory")


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
            known = {"RGBa": "RGBA", "La": "LA"}.get(image.mode)  # premultiplied by alpha, which Pillow does not turn into RGB
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
            raise ValueError(f"{path} is not an image that Pillow can read; give a PNG, JPEG, WebP or the like") from None
        raise ValueError(f"cannot read the image {path} ({error}); check that it is a complete image file") from None


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


def header_orientation(source: str | Path | BytesIO) -> tuple[tuple[int, int], int]:
    """Width and height of an image as it is stored and EXIF's orientation, 1 to 8, without reading its pixels.

    Raises:
        ValueError: see `image_header`.
        OSError: see `image_header`.
    """
    with image_header(source) as image:
        # Pillow turns TIFF files itself, and in PNG files that do not state EXIF before the pixels would read these
        says = image.format != "TIFF" and (image.format != "PNG" or {"exif", "Raw profile type exif"} & image.info.keys())
        return image.size, image_orientation(image) if says else 1


def tells_nothing(orientation: int, width: int, height: int) -> bool:
    """Whether annotations of a photo have the same size before and after it is turned as EXIF's orientation asks.

    Args:
        orientation: EXIF's, from 1 to 8.
        width, height: of the photo in pixels.
    """
    return orientation in (2, 3, 4) or orientation in (5, 6, 7, 8) and width == height


def drawn_as_stored(where: str | Path, photos: Sequence[Path], stated: Callable[[int], tuple[int, int] | None]) -> bool:
    """Whether annotations whose size does not tell were drawn on the photos as they are stored, instead of upright.

    The photos of the split whose annotations tell decide by their majority; without any it is no. A warning says for how many
    photos this had to be decided, and how it was.

    Args:
        where: the folder or file of the annotations, for the message.
        photos: of the split.
        stated: the width and height of the annotations of photo i; None if they cannot be read or say how they are to be turned.
    """
    count = min(len(photos), HEADERS)
    some = [place * len(photos) // count for place in range(count)]
    found = [_how_drawn(photos[index], index, stated) for index in some]
    if any(found) and count < len(photos):
        found += [_how_drawn(photos[index], index, stated) for index in sorted({*range(len(photos))}.difference(some))]
    unclear, stored, upright_ones = (found.count(kind) for kind in ("unclear", "as stored", "upright"))
    if unclear:
        way = "as it is stored" if stored > upright_ones else "turned upright"
        why = f"as {max(stored, upright_ones):,} of the {stored + upright_ones:,} are whose size tells"
        warnings.warn(
            f"{where}: {unclear:,} photo{'s are' if unclear > 1 else ' is'} to be mirrored or turned (EXIF's orientation), and the size of "
            f"the annotations does not tell whether they were drawn before or after; they are taken for drawn on the photo {way}, "
            f"{why if stored + upright_ones else 'as most tools show it'}. If that is wrong, turn the photos' pixels and remove the orientation",
            stacklevel=3,
        )
    return stored > upright_ones


def _how_drawn(photo, index, stated):
    try:
        size, orientation = header_orientation(photo)
        given = stated(index) if orientation != 1 else None
    except UNREADABLE:  # it is reported when the image is asked for
        return None
    if given is None or given not in (size, size[::-1]):
        return None
    if tells_nothing(orientation, *size):
        return "unclear" if given == size else None
    return "as stored" if given == size else "upright"


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
        if low >= 0 and 16 < high <= 255:  # between 1 and 16, both an image in 0..1 with highlights and a dark one are likely
            return 0, 255
    elif bits <= 16 and _signed(image) and low >= 0:
        return 0, 2 ** (bits - 1) - 1
    kind = "floating-point numbers" if image.mode == "F" else f"{bits}-bit numbers"
    raise ValueError(
        f"its pixels are {kind} from {low:g} to {high:g}, which do not say what is white; give 8 or 16 bits without negative "
        "values, or floating-point numbers from 0 to 1"
    )
