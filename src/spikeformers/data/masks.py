"""Images with a class for every pixel: folders of images and masks, for semantic segmentation."""
# Shapes: H W pixels, K classes.

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode, functional as F

from .._options import POSITIVE, PROBABILITY, check_options
from .._ranges import Range
from .loading import Measured, collate_dense, read_image
from .reading import (
    NOT_THE_FILE,
    UNREADABLE,
    check_memory,
    drawn_as_stored,
    files_in,
    header_orientation,
    image_header,
    image_orientation,
    stored_image,
    tell_left_out,
    tells_nothing,
    upright,
    upright_array,
)

IGNORED = 255  # the target of pixels that count neither in the loss nor in the score
LARGEST_VALUE = 2**16 - 1  # of a pixel of a mask
GREYS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies the values of PNG files of 2 and 4 bits by
CROPS = 11  # one, and 10 more if a class covers too much of it
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
LOOKED_AT = 200  # masks, evenly spread, in which all classes are looked for when a split is opened; in all before it is refused


@dataclass
class MaskData(Measured):
    """Which images with class masks, how they become tensors, and how they are augmented in training.

    Args:
        name: masks, a folder of images and one of masks for each split. A mask is a PNG file of the image's name and size with
            the class of each pixel: grey of 1 to 16 bits, or with a palette, which is not looked at. Photos are turned upright
            as the camera says, and a mask that has the size of the photo as it is stored is turned with it. Where both sizes are the
            same, most of the split's photos that tell decide, and a warning says so.
        root: folder that holds the data.
        train: the split that is trained on.
        val: the split that is tested on.
        images: the folder of a split's images below root; {split} stands for the split's name.
        masks: the folder of a split's masks below root.
        classes: the classes' names, or how many there are; if left out, root/classes.txt (a name per line) or ADE20K's
            root/objectInfo150.txt says.
        reduce_zero: the masks' value 0 is no class but ignored, and class k has the value k + 1, as in ADE20K.
        ignore: the value, or values, of pixels that count neither in the loss nor in the score.
        size: the longest long side and the longest short side of a test image in pixels; it is made as large as both allow.
        ratio: smallest and largest factor to that size of a training image.
        img_size: height and width of the square that is cut at random out of a training image; what it lacks is padded at the
            right and the bottom and ignored.
        cat_max_ratio: largest share of one class in that square; others are drawn, up to 10 times. 1 takes all.
        hflip: probability of mirroring a training image.
        photometric: probability of each of the changes of brightness, contrast, saturation and hue of a training image.
        mean: subtracted from pixel values in [0, 1], one number per channel.
        std: what the difference is divided by, one number per channel.
        batch_size: images per optimiser step over all processes together.
        workers: processes that prepare images beside each training process; the images do not depend on it.
        strict: stop at an image or mask that cannot be read, instead of warning, leaving it out and counting it.
    """

    task: ClassVar[str] = "segmentation"
    folds: ClassVar[int] = 1
    holdout: ClassVar[int] = 0
    fold: ClassVar[int] = 0
    repeats: ClassVar[int] = 1
    collate = staticmethod(collate_dense)

    name: Literal["masks"] = "masks"
    root: str = "data"
    train: str = "training"
    val: str = "validation"
    images: str = "images/{split}"
    masks: str = "annotations/{split}"
    classes: tuple[str, ...] | int = ()
    reduce_zero: bool = False
    ignore: int | tuple[int, ...] = 255
    size: tuple[int, int] = (2048, 512)
    ratio: tuple[float, float] = (0.5, 2.0)
    img_size: int = 512
    cat_max_ratio: float = 0.75
    hflip: float = 0.5
    photometric: float = 0.5
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    batch_size: int = 16
    workers: int = 0
    strict: bool = False

    ranges: ClassVar = {
        **dict.fromkeys(("hflip", "photometric"), PROBABILITY),
        "classes": Range(least=1),
        "ignore": Range(least=0, most=LARGEST_VALUE),
        **dict.fromkeys(("size", "img_size"), Range(least=1, most=16384)),
        "ratio": Range(above=0, most=100),
        "cat_max_ratio": Range(above=0, most=1),
        "mean": Range(least=-1e6, most=1e6),
        "std": POSITIVE,
        "batch_size": Range(least=1, most=10**6),
        "workers": Range(least=0, most=256),
    }

    def __post_init__(self):
        check_options(self, "data", self.ranges)
        self.size, self.ratio, self.mean, self.std = map(tuple, (self.size, self.ratio, self.mean, self.std))
        if not isinstance(self.classes, int):
            self.classes = tuple(self.classes)
        if not isinstance(self.ignore, int):
            self.ignore = tuple(self.ignore)
        if self.ratio[0] > self.ratio[1]:
            raise ValueError(f"data.ratio is {self.ratio}; give the smallest factor first, then the largest")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a training image."""
        return 3, self.img_size, self.img_size

    @property
    def ignored(self) -> tuple[int, ...]:
        """The values of `ignore`."""
        return (self.ignore,) if isinstance(self.ignore, int) else self.ignore

    def source(self, training: bool) -> "Masks":
        """The training or test split: item i is ((Pillow image, classes uint8 [H, W]), 0), see `Masks`.

        Raises:
            ValueError: the data are not where `root` says, or nothing states the classes.
        """
        return Masks(self, training)

    def transform(self, training: bool):
        """From (Pillow image, classes [H, W]) to (float32 [3, h, w], target int64).

        In training, both are squares of img_size pixels. In testing, the image is resized and the target as it was, [H, W].
        """
        return MaskAugment(self) if training else Resize(self)

    def read(self, path: str | Path) -> torch.Tensor:
        """An image file as a test image [3, h, w].

        Raises:
            ValueError: the file is missing or is no image.
        """
        return Resize(self).image(read_image(path))


class Masks:
    """The images of one split, in the order of their names, with the class of each pixel, 0 to K - 1 or IGNORED.

    Some masks are looked at when the split is opened, and all before it is refused for what they lack: `absent` are the classes of
    which none looked at has a pixel, and of which a warning tells.

    Raises:
        ValueError: there are no images, their masks have colours instead of classes, nothing states the classes, or the pixels
            looked at are all ignored, or for training all of one class or ignored.
    """

    def __init__(self, data: MaskData, training: bool):
        split = data.train if training else data.val
        folder = Path(data.root, data.images.replace("{split}", split))
        self.folder = Path(data.root, data.masks.replace("{split}", split))
        self.classes = class_names(data)
        self.files, others = files_in(folder, SUFFIXES) if folder.is_dir() else ([], [])
        tell_left_out(folder, others, SUFFIXES)
        if not self.files:
            raise ValueError(
                f"no images in {folder}; the layout is ROOT/{data.images}/1.jpg with masks ROOT/{data.masks}/1.png, which "
                "data.root, data.images, data.masks, data.train and data.val change"
            )
        self.labels = [0] * len(self.files)
        first = 1 if data.reduce_zero else 0
        self.values = range(first, first + len(self.classes))
        self.hint = "" if data.reduce_zero else ", or data.reduce_zero if 0 is no class"
        self.meaning = np.full(LARGEST_VALUE + 1, -1, np.int16)  # of each value in a mask
        self.meaning[first : self.values.stop] = range(len(self.classes))
        self.meaning[[*data.ignored, *range(first)]] = IGNORED
        self._check_first_mask()
        self.absent = self._look_for_classes(data, training)
        self._as_stored = drawn_as_stored(self.folder, self.files, self._size_without_orientation)

    def _check_first_mask(self):
        """Masks of colours are a mistake in the whole data set, which need not be told for each of its files."""
        try:
            with image_header(self.mask_file(0)) as mask:
                mode = mask.mode
        except UNREADABLE:  # whoever asks for it will see why
            return
        _check_mode(mode, self.mask_file(0))

    def _look_for_classes(self, data, training):
        """The names of the classes that no mask looked at has a pixel of.

        A network learns such a class never, and a score over the classes that occur hides it: 0 and 255, as most tools save two
        classes, are one class and the ignored value.
        """
        count = min(len(self.files), LOOKED_AT)
        some = [place * len(self.files) // count for place in range(count)]
        rest = sorted({*range(len(self.files))}.difference(some))
        pixels, looked_at = np.zeros(IGNORED + 1, np.int64), 0
        for number, index in enumerate((*some, *rest)):
            # a data set is refused for what none of its masks has, not for what some have not
            if number >= count and not self._nothing_to_tell_apart(pixels, training):
                break
            try:
                with image_header(self.files[index]) as image:
                    size = image.size
                classes = self._classes_of(self._mask_values(index, size)[0], self.mask_file(index))
            except UNREADABLE:  # whoever asks for it will see why
                continue
            pixels += np.bincount(classes.ravel(), minlength=IGNORED + 1)
            looked_at += 1
            if pixels[: len(self.classes)].all():
                return []
        if not looked_at:
            return []
        absent = [name for name, number in zip(self.classes, pixels, strict=False) if not number]
        masks = f"the {looked_at} masks" if looked_at == len(self.files) else f"{looked_at} of the {len(self.files):,} masks"
        values = ", ".join(map(str, data.ignored)) + " and 0" * data.reduce_zero
        ignored = f"{pixels[IGNORED] / pixels.sum():.1%} of their pixels have an ignored value (data.ignore: {values})"
        text = (
            f"no pixel in {masks} looked at in {self.folder} is of {', '.join(absent[:5])}{', ...' * (len(absent) > 5)} "
            f"({len(absent)} of {len(self.classes)} classes); {ignored if pixels[IGNORED] else 'none is ignored'}"
        )
        if pixels[IGNORED]:
            text += (
                f". If an ignored value stands for a class, write the class's value, {self.values.start} to "
                f"{self.values.stop - 1}, into the masks instead, or give another data.ignore"
            )
        if self._nothing_to_tell_apart(pixels, training):
            raise ValueError(text)
        warnings.warn(text, stacklevel=2)
        return absent

    def _nothing_to_tell_apart(self, pixels, training):
        """Whether so many pixels of each class, and ignored ones at the end, are all ignored, or in training of one class or ignored."""
        found = np.count_nonzero(pixels[: len(self.classes)])
        return found == 0 or bool(training and pixels[IGNORED] and found == 1 < len(self.classes))

    def _size_without_orientation(self, index):
        """Width and height of the mask of image `index`; None if it says itself how it is to be turned."""
        size, orientation = header_orientation(self.mask_file(index))
        return size if orientation == 1 else None

    def mask_file(self, index: int) -> Path:
        """The file of the mask of image `index`."""
        return self.folder / f"{self.files[index].stem}.png"

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        stored, orientation = stored_image(self.files[index])
        image = upright(stored, orientation)
        return (image, self.mask(index, image.size, orientation)), 0

    def mask(self, index: int, size: tuple[int, int], orientation: int = 1) -> torch.Tensor:
        """The classes uint8 [H, W] of the pixels of image `index`, whose width and height are `size` once it is turned upright from
        the `orientation` in which it is stored.

        Args:
            index: of the image.
            size: width and height of the upright image.
            orientation: 1 to 8, as EXIF says.

        Raises:
            ValueError: the mask is damaged, of another size, or has classes that do not exist.
        """
        file = self.mask_file(index)
        values, own = self._mask_values(index, size)
        if tells_nothing(orientation, *size):
            as_stored = self._as_stored and own == 1
        else:
            as_stored = values.shape == size and orientation != 1
        if as_stored:
            values = upright_array(values, orientation)
        if values.shape != size[::-1]:
            raise ValueError(_other_size(size, file, values.shape[::-1]))
        return torch.from_numpy(self._classes_of(values, file))

    def _mask_values(self, index, size):
        """The values [H, W] in the mask of image `index` of the width and height `size`, or lying on its side, turned as the mask itself
        says; and the orientation that it says, 1 to 8."""
        file = self.mask_file(index)
        try:
            with image_header(file) as mask:
                _check_mode(mask.mode, file)
                if mask.size not in (size, size[::-1]):
                    raise ValueError(_other_size(size, file, mask.size))
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

    def _classes_of(self, values, file):
        """The classes uint8 [H, W] that values stand for.

        Raises:
            ValueError: one stands for none.
        """
        outside = (values < 0) | (values > LARGEST_VALUE)
        classes = None if outside.any() else self.meaning[values]
        if classes is None or classes.min() < 0:
            value = values[outside][0] if classes is None else values[classes < 0][0]
            allowed = f"{self.values.start} to {self.values.stop - 1} for the {len(self.classes)} classes"
            raise ValueError(
                f"its mask {file} has the value {value}; allowed are {allowed} and ignored ones; see data.classes, "
                f"data.ignore{self.hint}"
            )
        return classes.astype(np.uint8)

    def where(self, index):
        """What messages call a sample."""
        return str(self.files[index])


class Resize:
    """From (Pillow image, classes [H, W]) to a test image, float32 [3, h, w], and the target, int64 [H, W]."""

    def __init__(self, data: MaskData):
        self.size, self.mean, self.std = data.size, data.mean, data.std

    def __call__(self, sample: tuple[Image.Image, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = sample
        return self.image(image), mask.long()

    def image(self, image: Image.Image) -> torch.Tensor:
        """A Pillow image -> float32 [3, H, W], smaller or larger as the data ask, and normalised."""
        pixels = F.pil_to_tensor(image)
        return normalised(F.resize(pixels, fitted(pixels.shape[-2:], self.size)), self.mean, self.std)


class MaskAugment:
    """From (Pillow image, classes [H, W]) to an image, float32 [3, S, S], and the target, int64 [S, S], with S = img_size."""

    def __init__(self, data: MaskData):
        self.data = data
        self.distort = PhotometricDistort(p=data.photometric)

    def __call__(self, sample: tuple[Image.Image, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        data = self.data
        image, mask = F.pil_to_tensor(sample[0]), sample[1][None]
        ratio = float(torch.empty(()).uniform_(*data.ratio))
        size = fitted(image.shape[-2:], [side * ratio for side in data.size])
        mask = F.resize(mask, size, InterpolationMode.NEAREST_EXACT)
        cut = self.place(mask)
        image, mask = F.crop(F.resize(image, size), *cut), F.crop(mask, *cut)
        if torch.rand(()) < data.hflip:
            image, mask = F.horizontal_flip(image), F.horizontal_flip(mask)
        if data.photometric:
            image = self.distort(image)
        missing = [0, 0, data.img_size - cut[3], data.img_size - cut[2]]
        image = F.pad(normalised(image, data.mean, data.std), missing)
        return image, F.pad(mask, missing, fill=IGNORED)[0].long()

    def place(self, mask: torch.Tensor) -> tuple[int, int, int, int]:
        """Top, left, height and width of the square to cut from a mask [H, W], or of what the image has of it."""
        height, width = (min(side, self.data.img_size) for side in mask.shape[-2:])
        for _ in range(CROPS):
            top, left = (
                int(torch.randint(whole - side + 1, ()))
                for whole, side in zip(mask.shape[-2:], (height, width), strict=True)
            )
            if self.data.cat_max_ratio == 1:
                break
            pixels = torch.bincount(F.crop(mask, top, left, height, width).flatten(), minlength=IGNORED + 1)[:IGNORED]
            if 0 < pixels.max() <= self.data.cat_max_ratio * pixels.sum():
                break
        return top, left, height, width


class PhotometricDistort(v2.RandomPhotometricDistort):
    """Torchvision's, but the channels keep their order: a class such as sky is known by its colour."""

    def make_params(self, flat_inputs):
        return {**super().make_params(flat_inputs), "channel_permutation": None}


def fitted(shape: tuple[int, int], size: tuple[float, float]) -> tuple[int, int]:
    """Height and width of an image of `shape`, scaled as large as the long and the short side of `size` allow."""
    scale = min(max(size) / max(shape), min(size) / min(shape))
    height, width = (max(1, round(side * scale)) for side in shape)
    return height, width


def normalised(image: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """uint8 [3, H, W] -> float32.

    Args:
        image: pixels.
        mean: subtracted from values in [0, 1].
        std: what the difference is divided by.
    """
    return F.normalize(F.to_dtype(image, torch.float32, scale=True), mean, std)


def class_names(data: MaskData) -> list[str]:
    """The classes' names: given, from the data's folder, or where only their number is given "0", "1" and so on.

    Raises:
        ValueError: there are none, too many, or two of the same name.
    """
    names = _given_names(data)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"there are several classes called {', '.join(twice)}; give each a name of its own (data.classes)"
        )
    if not 1 <= len(names) <= IGNORED:
        raise ValueError(f"there are {len(names)} classes; give 1 to {IGNORED} (data.classes)")
    return names


def _given_names(data):
    if isinstance(data.classes, int):
        return [str(number) for number in range(data.classes)]
    if data.classes:
        return list(data.classes)
    plain, ade = Path(data.root, "classes.txt"), Path(data.root, "objectInfo150.txt")
    if plain.is_file():
        return [line.strip() for line in plain.read_text(encoding="utf-8").splitlines() if line.strip()]
    if ade.is_file():  # a heading, then columns between tabs
        lines = ade.read_text(encoding="utf-8").splitlines()[1:]
        return [line.split("\t")[-1].strip() for line in lines if line.strip()]
    if not Path(data.root).is_dir():
        raise ValueError(f"there is no folder {data.root}; set data.root to the folder that holds the images and their masks")
    raise ValueError(
        f"nothing states the classes of the masks in {data.root}; give their names or number as data.classes, or the file "
        f"{plain} with a name per line"
    )


def _other_size(size, file, found):
    return f"it has {size[0]}x{size[1]} pixels, but its mask {file} {found[0]}x{found[1]}"


def _check_mode(mode, file):
    if mode not in ("1", "L", "P") and not mode.startswith("I"):
        raise ValueError(
            f"the mask {file} has the pixel format {mode}, not one number per pixel; expected is a PNG file, grey of 8 or 16 "
            "bits or with a palette, whose values are the classes' numbers"
        )
