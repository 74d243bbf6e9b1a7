"""Folders of images, one for each class."""

from pathlib import Path

from ..listing import class_folders, files_in, tell_left_out
from ..reading import upright_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".avif", ".dib")


class ImageFolders:
    """Images in folders named after their classes, ROOT/SPLIT/CLASS/*, and in folders below; upright. Folders that are hidden or
    that tools leave (see `listing.of_a_tool`) are no classes, and files of other names are left out with a warning.

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
            raise ValueError(
                f"{root / split} holds the folders train and val, not classes; say which it is by data.split val"
            )
        other = root / ("val" if split == "train" else "train")
        if other.is_dir():
            classes = class_folders(other)
            if classes != self.classes:
                differ = ", ".join(sorted(set(classes) ^ set(self.classes)))
                raise ValueError(
                    f"{root}/train and {root}/val must hold the same class folders; these differ: {differ}"
                )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return upright_image(self.files[index]), self.labels[index]

    def where(self, index):
        """What messages call a sample."""
        return str(self.files[index])
