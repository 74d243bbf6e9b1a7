"""Labelled images: scikit-learn's digits, image folders, mosaics, WebDataset shards, CIFAR and MNIST."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import auto_augment, create_transform
from timm.data.transforms import MaybeToTensor
from torchvision import datasets
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from .._options import POSITIVE, PROBABILITY, check_options
from .._ranges import Range
from .loading import Measured, check_holdout, collate, read_image
from .reading import UNREADABLE, class_folders, files_in, image_header, stored_image, tell_left_out, upright_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".avif", ".dib")
LONGEST = 16  # times its width is the part of a strip that a test looks at


@dataclass
class ImageData(Measured):
    """Which images, how they become tensors, and how they are augmented in training.

    Args:
        name: the data set: scikit-learn's 8x8 digits, folders root/train/CLASS/* and root/val/CLASS/* (as ImageNet's), mosaics
            root/train_*.webp and root/test_*.webp (see `Mosaics`), shards root/train-*.tar and root/val-*.tar of WebDataset
            (see `ShardImages`), or one of torchvision's.
        root: folder that holds the data (not used by digits).
        img_size: height and width in pixels after resizing.
        channels: 1 for grey, 3 for colour; images are converted.
        mean: subtracted from pixel values in [0, 1], one number per channel.
        std: what the difference is divided by, one number per channel.
        interpolation: how images are resized: nearest, bilinear, bicubic or lanczos.
        crop_pct: share of the resized image's side that a test image keeps, cut from its centre.
        scale: smallest and largest share of the area that a random training crop covers.
        ratio: smallest and largest width/height of a random training crop.
        crop_padding: if above 0, a training image is instead resized, padded by so many black pixels on each side and cut to
            img_size at a random place, as is usual for CIFAR.
        hflip: probability of mirroring a training image.
        color_jitter: largest relative change of brightness, contrast and saturation in training.
        auto_augment: a policy of timm, such as rand-m9-mstd0.5-inc1 (RandAugment) or 3a (three-augment).
        erase: probability of erasing a random rectangle of a training image.
        repeats: how often an epoch shows each of its images, differently augmented (repeated augmentation); an epoch is as
            long as before and takes that many times fewer images.
        batch_size: images per optimiser step over all processes together.
        workers: processes that prepare images beside each training process; the images do not depend on it.
        strict: stop at an image that cannot be read, instead of warning, leaving it out and counting it.
        folds: if above 1, the training images are divided into so many parts, and one is tested on instead of the test images.
        fold: which of the parts is tested on, from 1; 0 trains all of them one after the other (cross-validation).
        split: the folder of the test images below root, of folder; "." if they lie in root itself.
        holdout: so many training images, evenly spread over the classes, are not trained on but tested after every epoch, so that
            the test images choose nothing: they are tested once, at the end.
    """

    task: ClassVar[str] = "classification"
    classified: ClassVar[bool] = True
    collate = staticmethod(collate)

    name: Literal["digits", "folder", "mosaics", "webdataset", "cifar10", "cifar100", "mnist"] = "digits"
    root: str = "data"
    img_size: int = 32
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 0
    hflip: float = 0.5
    color_jitter: float = 0.0
    auto_augment: str | None = None
    erase: float = 0.0
    repeats: int = 1
    batch_size: int = 64
    workers: int = 0
    strict: bool = False
    folds: int = 1
    fold: int = 0
    split: str = "val"
    holdout: int = 0

    ranges: ClassVar = {
        "img_size": Range(least=1, most=8192),
        **dict.fromkeys(("batch_size", "repeats", "folds"), Range(least=1, most=10**6)),
        **dict.fromkeys(("fold", "holdout"), Range(least=0)),
        "workers": Range(least=0, most=256),
        "mean": Range(least=-1e6, most=1e6),
        "std": POSITIVE,
        "crop_pct": Range(above=0, most=1),
        "scale": Range(above=0, most=1),
        "ratio": Range(above=0, most=1000),
        "crop_padding": Range(least=0, most=8192),
        "color_jitter": Range(least=0, most=10),
        **dict.fromkeys(("hflip", "erase"), PROBABILITY),
    }

    def __post_init__(self):
        check_options(self, "data", self.ranges)
        self.mean, self.std, self.scale, self.ratio = map(tuple, (self.mean, self.std, self.scale, self.ratio))
        if self.channels not in (1, 3):
            raise ValueError(f"data.channels is {self.channels}; give 1 (grey) or 3 (colour)")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(
                    f"data.{key} has {len(values)} numbers for {self.channels} channel(s); give one per channel"
                )
        if self.interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
            raise ValueError(
                f"data.interpolation is {self.interpolation!r}; give nearest, bilinear, bicubic or lanczos"
            )
        if self.fold > self.folds:
            raise ValueError(f"data.folds is {self.folds} and data.fold {self.fold}; give one of the folds, or 0 for all")
        for key, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"data.{key} is {[low, high]}; give the smallest first, then the largest")
        if self.crop_padding > self.img_size:
            raise ValueError(f"data.crop_padding is {self.crop_padding}; give at most data.img_size, which is {self.img_size}")
        check_holdout(self)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample."""
        return self.channels, self.img_size, self.img_size

    @property
    def mode(self) -> str:
        """Pillow's name for the pixel format."""
        return "L" if self.channels == 1 else "RGB"

    def source(self, training: bool):
        """The training or test split as (Pillow image, label) pairs, see `loading.Source`.

        Raises:
            ValueError: the data are not where `root` says.
        """
        root = Path(self.root)
        if self.name == "digits":
            return Digits(training)
        if self.name == "folder":
            return ImageFolders(root, "train" if training else self.split)
        if self.name == "mosaics":
            return Mosaics(root, "train" if training else "test")
        if self.name == "webdataset":
            from .shards import ShardImages

            return ShardImages(root, "train" if training else "val")
        return Torchvision(self.name, root, training)

    def transform(self, training: bool):
        """From a Pillow image to a tensor [C, H, W]: augmenting, or the one for testing.

        Raises:
            ValueError: timm does not know the policy of auto_augment.
        """
        shared = {
            "input_size": self.shape,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
        }
        if not training:
            steps = create_transform(**shared, crop_pct=self.crop_pct).transforms
            return Compose([Convert(self.mode), Shorten(), Compose(_with_table(steps, self.mean, self.std))])
        policy = (self.auto_augment or "rand").split("-")[0]
        if policy not in ("rand", "augmix", "3a", "original", "originalr", "v0", "v0r"):
            raise ValueError(
                f"data.auto_augment is {self.auto_augment!r}; give a policy of timm, such as rand-m9-mstd0.5-inc1"
            )
        augment = create_transform(
            **shared,
            is_training=True,
            scale=self.scale,
            ratio=self.ratio,
            hflip=self.hflip,
            color_jitter=self.color_jitter or None,
            auto_augment=self.auto_augment,
            re_prob=self.erase,
            re_mode="pixel",
        ).transforms
        for step in augment:
            mend_posterize(step)
        if self.crop_padding:
            size = (self.img_size, self.img_size)
            augment[:1] = [Resize(size, augment[0].interpolation), ShiftedCrop(self.img_size, self.crop_padding)]
        return Compose([Convert(self.mode), *_with_table(augment, self.mean, self.std)])

    def read(self, path: str | Path) -> torch.Tensor:
        """An image file as a test image [C, H, W].

        Raises:
            ValueError: the file is missing or is no image.
        """
        return self.transform(training=False)(read_image(path))


class Convert:
    """To Pillow's format "L" or "RGB"."""

    def __init__(self, mode: str):
        self.mode = mode

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.convert(self.mode)


class Shorten:
    """Of a strip more than LONGEST times as long as wide, its middle. A test image is cut from there, but resized as a whole before:
    1 x 60,000 pixels would become 224 x 13 million."""

    def __call__(self, image: Image.Image) -> Image.Image:
        most = LONGEST * min(image.size)
        if max(image.size) <= most:
            return image
        left, top = (max(0, side - most) // 2 for side in image.size)
        return image.crop((left, top, left + min(image.width, most), top + min(image.height, most)))


def mend_posterize(transform) -> None:
    """Lets timm's policies, within the transforms of a training image, keep one bit where they ask for none: `PosterizeIncreasing`
    does so at its highest level, and Pillow refuses it."""
    policy = getattr(transform, "policy", ())  # of AutoAugment lists of operations, of the others one list
    operations = [*getattr(transform, "ops", ()), *(operation for several in policy for operation in several)]
    for operation in operations:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = posterize


def posterize(image: Image.Image, bits: int, **_) -> Image.Image:
    """timm's operation: only the highest `bits` of each value stay, at least one."""
    return image if bits >= 8 else ImageOps.posterize(image, max(1, bits))


class ShiftedCrop:
    """Cuts size x size pixels at a random place out of an image with `padding` black pixels on each side. Draws and results are those of
    torchvision's RandomCrop, at a tenth of the time: Pillow fills what lies outside with black by itself."""

    def __init__(self, size: int, padding: int):
        self.size, self.padding = size, padding

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = (side + 2 * self.padding for side in image.size)
        top = int(torch.randint(0, height - self.size + 1, (1,))) if (height, width) != (self.size, self.size) else 0
        left = int(torch.randint(0, width - self.size + 1, (1,))) if (height, width) != (self.size, self.size) else 0
        left, top = left - self.padding, top - self.padding
        return image.crop((left, top, left + self.size, top + self.size))


class Normalised:
    """A Pillow image "L" or "RGB" -> tensor [C, H, W], (pixel / 255 - mean) / std, looked up in a table of all 256 values: the same
    numbers as torchvision's ToTensor and Normalize, sooner."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        levels = torch.arange(256).to(torch.get_default_dtype()).div(255).repeat(len(mean), 1)[:, :, None]
        self.table = Normalize(mean, std)(levels)[:, :, 0].numpy()

    def __call__(self, image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(image)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        out = np.empty((len(self.table), *pixels.shape[:2]), self.table.dtype)
        for channel, values in enumerate(self.table):
            np.take(values, pixels[:, :, channel], out=out[channel], mode="clip")  # "raise" would buffer the output
        return torch.from_numpy(out)


def _with_table(transforms, mean, std):
    """The transforms with `Normalised` in place of ToTensor and Normalize next to each other."""
    result = []
    for step in transforms:
        if result and isinstance(result[-1], (ToTensor, MaybeToTensor)) and isinstance(step, Normalize):
            result[-1] = Normalised(mean, std)
        else:
            result.append(step)
    return result


class Digits:
    """scikit-learn's 1,797 handwritten digits, grey, 8x8 pixels: 1,437 to train, 360 to test, whatever the seed.

    Raises:
        ValueError: scikit-learn is not installed.
    """

    def __init__(self, training: bool):
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError:
            raise ValueError("the digits come with scikit-learn: pip install 'spikeformers[train]'") from None
        digits = load_digits()
        split = train_test_split(np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0)
        chosen = split[0 if training else 1]
        self.images = (digits.images[chosen] * (255 / 16)).round().astype(np.uint8)  # values 0..16 become 0..255
        self.labels = digits.target[chosen].tolist()
        self.classes = [str(name) for name in digits.target_names]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), self.labels[index]

    def where(self, index):
        """What messages call a sample."""
        return f"digit {index}"


class Torchvision:
    """CIFAR-10, CIFAR-100 and MNIST as torchvision reads them.

    Args:
        name: cifar10, cifar100 or mnist.
        root: folder that holds it.
        training: whether its training images are meant, or those for testing.

    Raises:
        ValueError: no such data set, or it is not in root.
    """

    SETS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "mnist": datasets.MNIST}

    def __init__(self, name: str, root: Path, training: bool):
        if name not in self.SETS:
            raise ValueError(f"unknown data set {name!r}; give digits, folder, mosaics, webdataset, {', '.join(self.SETS)}")
        cls = self.SETS[name]
        try:
            self.images = cls(root, train=training)
        except RuntimeError:
            fetch = f"from torchvision.datasets import {cls.__name__}; {cls.__name__}({str(root)!r}, download=True)"
            raise ValueError(f'{name} is not in {root}; set data.root or fetch it: python -c "{fetch}"') from None
        self.name, self.classes, self.labels = name, self.images.classes, np.asarray(self.images.targets).tolist()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index]

    def where(self, index):
        """What messages call a sample."""
        return f"image {index} of {self.name}"


class ImageFolders:
    """Images in folders named after their classes, ROOT/SPLIT/CLASS/*, and in folders below; upright. Folders that are hidden or
    that tools leave (see `reading.of_a_tool`) are no classes, and files of other names are left out with a warning.

    Raises:
        ValueError: there are no images in folders of classes, or those for training and testing have other classes.
    """

    def __init__(self, root: Path, split: str):
        layout = f"image folders look like {root}/train/CLASS/1.jpg and {root}/val/CLASS/1.jpg; set data.root"
        try:
            self.classes = class_folders(root / split)
        except OSError as error:
            raise ValueError(f"no images in {root / split} ({error.strerror or error}); {layout}") from None
        self.files, self.labels, others = [], [], []
        outside, _ = files_in(root / split, SUFFIXES)
        tell_left_out(root / split, outside, SUFFIXES, "for lying in no class's folder")
        for label, name in enumerate(self.classes):
            files, passed_over = files_in(root / split / name, SUFFIXES, deep=True)
            self.files += files
            self.labels += [label] * len(files)
            others += passed_over
        held = set(self.labels)
        if empty := [name for label, name in enumerate(self.classes) if label not in held]:
            found = f"; there are files of other names, such as {others[0]}" if others else ""
            which = f"{', '.join(empty[:5])}{', ...' * (len(empty) > 5)}"
            raise ValueError(
                f"there are no images in the class folder{'s' * (len(empty) > 1)} {which} of {root / split}{found}; put some in, or remove what is no "
                f"class (images end in {', '.join(SUFFIXES)}); {layout}"
            )
        if not self.classes:
            raise ValueError(f"no images in {root / split} (there is no class folder in it); {layout}")
        tell_left_out(root / split, others, SUFFIXES)
        if split == "." and {"train", "val"} <= set(self.classes):
            raise ValueError(f"{root / split} holds the folders train and val, not classes; say which it is by data.split val")
        other = root / ("val" if split == "train" else "train")
        if other.is_dir():
            classes = class_folders(other)
            if classes != self.classes:
                differ = ", ".join(sorted(set(classes) ^ set(self.classes)))
                raise ValueError(f"{root}/train and {root}/val must hold the same class folders; these differ: {differ}")

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return upright_image(self.files[index]), self.labels[index]

    def where(self, index):
        """What messages call a sample."""
        return str(self.files[index])


class Mosaics:
    """Square images side by side on large sheets, a compact way to keep many small ones.

    ROOT/train_*.webp (or .png), ROOT/test_*.webp: sheets in the order of their names, tiles row by row. ROOT/labels.npz:
    `y_train`, `y_test` with a label per tile, `classes` with the names, and `tile`, the tiles' side in pixels, which may be left
    out where the tiles fill all rows of the sheets. The sheets are decoded once and kept in memory.

    Raises:
        ValueError: sheets or labels are missing or damaged, or their numbers of tiles differ.
    """

    def __init__(self, root: Path, split: str):
        layout = f"mosaics look like {root}/{split}_00.webp and {root}/labels.npz; set data.root"
        self.sheets = sorted(path for path in root.glob(f"{split}_*") if path.suffix in (".webp", ".png"))
        try:
            with np.load(root / "labels.npz", allow_pickle=False) as labels:
                self.labels = labels[f"y_{split}"].tolist()
                self.classes = [str(name) for name in labels["classes"]]
                tile = int(labels["tile"]) if "tile" in labels else None
        except Exception as error:  # of damaged archives NumPy and zipfile raise many kinds
            raise ValueError(f"cannot read {root / 'labels.npz'} ({error}); {layout}") from None
        if not isinstance(self.labels, list):
            raise ValueError(f"y_{split} in {root / 'labels.npz'} is a single number; give a label per tile")
        if not self.sheets:
            raise ValueError(f"no sheet {split}_* in {root}; {layout}")
        sizes = set()
        for path in self.sheets:
            with contextlib.suppress(*UNREADABLE), image_header(path) as sheet:  # who asks for a tile of it will see why
                sizes.add(sheet.size)
        if len(sizes) != 1:
            raise ValueError(f"the sheets {split}_* in {root} must be images of one size, not of {sorted(sizes)}")
        self.width, self.height = sizes.pop()
        if tile is not None and not 1 <= tile <= min(self.width, self.height):
            raise ValueError(
                f"{root / 'labels.npz'} says that tiles have a side of {tile} pixels, but the sheets have {self.width}x{self.height}"
            )
        self.tile = tile or self._side()
        self.per_sheet = (self.width // self.tile) * (self.height // self.tile)
        if len(self.labels) > self.per_sheet * len(self.sheets):
            raise ValueError(f"{root} has {len(self.labels)} {split} labels for {self.per_sheet * len(self.sheets)} tiles")
        for label in self.labels:
            if type(label) is not int or not 0 <= label < len(self.classes):
                raise ValueError(
                    f"{root / 'labels.npz'} has the {split} label {str(label)[:40]}; give whole numbers from 0 to "
                    f"{len(self.classes) - 1}, one per tile, as there are {len(self.classes)} classes"
                )
        self.tiles = [self._decoded(path) for path in self.sheets]

    def _side(self):
        for side in range(min(self.width, self.height), 0, -1):
            empty = self.width * self.height // side**2 * len(self.sheets) - len(self.labels)
            if self.width % side == self.height % side == 0 and 0 <= empty < self.width // side:
                return side
        raise ValueError(
            f"{len(self.labels)} labels do not say how large the tiles of {len(self.sheets)} sheets of "
            f"{self.width}x{self.height} pixels are; add their side in pixels to labels.npz as tile"
        )

    def _decoded(self, path: Path) -> np.ndarray | None:
        """Tiles [n, side, side, 3] in uint8; None if the sheet cannot be read: whoever asks for a tile of it will see why."""
        try:
            return self._decode(path)
        except UNREADABLE:
            return None

    def _decode(self, path):
        pixels = np.asarray(stored_image(path)[0])
        if pixels.shape[:2] != (self.height, self.width):
            raise ValueError(f"it has {pixels.shape[1]}x{pixels.shape[0]} pixels, other sheets {self.width}x{self.height}")
        rows, columns = self.height // self.tile, self.width // self.tile
        pixels = pixels[: rows * self.tile, : columns * self.tile].reshape(rows, self.tile, columns, self.tile, 3)
        return pixels.swapaxes(1, 2).reshape(-1, self.tile, self.tile, 3)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        sheet, place = divmod(index, self.per_sheet)
        tiles = self.tiles[sheet]
        if tiles is None:
            tiles = self._decode(self.sheets[sheet])
        return Image.fromarray(tiles[place]), self.labels[index]

    def where(self, index):
        """What messages call a sample."""
        return str(self.sheets[index // self.per_sheet])
