"""The images of one split, with the class of each pixel."""
# Shapes: H W pixels, K classes.

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..drawn import drawn_as_stored
from ..listing import files_in, tell_left_out
from ..orientation import tells_nothing, upright, upright_array
from ..reading import UNREADABLE, header_orientation, image_header, stored_image
from .classes import class_names
from .meaning import IGNORED, Meaning, check_mode, mask_values, other_size

if TYPE_CHECKING:
    from .options import MaskData


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
LOOKED_AT = (
    200  # masks, evenly spread, in which all classes are looked for when a split is opened; in all before it is refused
)


class Masks:
    """The images of one split, in the order of their names, with the class of each pixel, 0 to K - 1 or IGNORED.

    Some masks are looked at when the split is opened, and all of them before it is refused for what they lack. A warning names the
    classes of which no mask looked at has a pixel; they are `absent`.

    Raises:
        ValueError: there are no images, their masks have colours instead of classes, nothing states the classes, or the pixels
            looked at are all ignored, or for training all of one class or ignored.
    """

    def __init__(self, data: "MaskData", training: bool):
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
        self.meaning = Meaning(data, len(self.classes))
        self._check_first_mask()
        self.absent = self._look_for_classes(data, training)
        self._as_stored = drawn_as_stored(self.folder, self.files, self._size_without_orientation)

    def _check_first_mask(self):
        """Refuses a data set whose first mask holds colours, since its other masks will, too."""
        try:
            with image_header(self.mask_file(0)) as mask:
                mode = mask.mode
        except UNREADABLE:  # it is reported when the image is asked for
            return
        check_mode(mode, self.mask_file(0))

    def _look_for_classes(self, data, training):
        """The names of the classes of which no mask looked at has a pixel.

        A network never learns such a class, and a score over the classes that occur hides it. Most tools save two classes as 0 and
        255, which are one class and the ignored value here.
        """
        count = min(len(self.files), LOOKED_AT)
        some = [place * len(self.files) // count for place in range(count)]
        rest = sorted({*range(len(self.files))}.difference(some))
        pixels, looked_at = np.zeros(IGNORED + 1, np.int64), 0
        for number, index in enumerate((*some, *rest)):
            # a data set is refused for what none of its masks has, so all of them are looked at before
            if number >= count and not self._nothing_to_tell_apart(pixels, training):
                break
            try:
                with image_header(self.files[index]) as image:
                    size = image.size
                classes = self.meaning.classes_of(mask_values(self.mask_file(index), size)[0], self.mask_file(index))
            except UNREADABLE:  # it is reported when the image is asked for
                continue
            pixels += np.bincount(classes.ravel(), minlength=IGNORED + 1)
            looked_at += 1
            if pixels[: len(self.classes)].all():
                return []
        if not looked_at:
            return []
        absent = [name for name, number in zip(self.classes, pixels, strict=False) if not number]
        masks = (
            f"the {looked_at} masks"
            if looked_at == len(self.files)
            else f"{looked_at} of the {len(self.files):,} masks"
        )
        values = ", ".join(map(str, data.ignored)) + " and 0" * data.reduce_zero
        ignored = f"{pixels[IGNORED] / pixels.sum():.1%} of their pixels have an ignored value (data.ignore: {values})"
        text = (
            f"no pixel in {masks} looked at in {self.folder} is of {', '.join(absent[:5])}{', ...' * (len(absent) > 5)} "
            f"({len(absent)} of {len(self.classes)} classes); {ignored if pixels[IGNORED] else 'none is ignored'}"
        )
        if pixels[IGNORED]:
            text += (
                f". If an ignored value stands for a class, write the class's value, {self.meaning.values.start} to "
                f"{self.meaning.values.stop - 1}, into the masks instead, or give another data.ignore"
            )
        if self._nothing_to_tell_apart(pixels, training):
            raise ValueError(text)
        warnings.warn(text, stacklevel=2)
        return absent

    def _nothing_to_tell_apart(self, pixels, training):
        """Whether all pixels are ignored, or in training ignored or of one class, by their numbers for each class and for IGNORED."""
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
        values, own = mask_values(file, size)
        if tells_nothing(orientation, *size):
            as_stored = self._as_stored and own == 1
        else:
            as_stored = values.shape == size and orientation != 1
        if as_stored:
            values = upright_array(values, orientation)
        if values.shape != size[::-1]:
            raise ValueError(other_size(size, file, values.shape[::-1]))
        return torch.from_numpy(self.meaning.classes_of(values, file))

    def where(self, index):
        """What messages call a sample."""
        return str(self.files[index])
