"""How recordings lie on disk: folders of classes, lists of names, and a split where the publisher gives none."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ...listing import class_folders, files_in, tell_left_out
from .._arrays import recorded_file
from .._ranks import earlier
from ..recordings import Recording

DIGITS = tuple("0123456789")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def class_names(folder: Path) -> list[str]:
    """The folders in `folder` that are classes, sorted; the cache of frames, which may lie among them, is none."""
    return [name for name in class_folders(folder) if name != "frames_cache"]


def files_of(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files in `folder` with one of these endings, sorted; none where there is no such folder."""
    return files_in(folder, suffixes)[0] if folder.is_dir() else []


def by_class(root: Path, classes: Sequence[str], suffixes: Sequence[str]) -> list[Recording]:
    """The recordings root/CLASS/*, class by class in the order of `classes`; other files there cost a warning that counts them.

    Args:
        root: the folder of the classes' folders.
        classes: their names.
        suffixes: how the files' names end, in small letters.
    Raises:
        ValueError: a class has no recordings.
    """
    listed = [files_in(root / name, suffixes) if (root / name).is_dir() else ([], []) for name in classes]
    found = [[Recording(path, label) for path in files] for label, (files, _) in enumerate(listed)]
    missing = [str(root / name) for name, files in zip(classes, found, strict=True) if not files]
    if missing or not found:
        others = f" and {len(missing) - 1} more folders" if len(missing) > 1 else ""
        where = f"{missing[0]}{others}" if missing else f"the folders of {root}"
        raise ValueError(f"no event files ({', '.join(suffixes)}) in {where}; set data.root")
    tell_left_out(root, [path for _, others in listed for path in others], suffixes)
    return [recording for files in found for recording in files]


def first_ninety_percent(recordings: Sequence[Recording], training: bool) -> list[Recording]:
    """Of each class the first 90 %, rounded up, or for testing the rest."""
    labels = np.array([recording.label for recording in recordings])
    first = earlier(labels) < np.ceil(np.bincount(labels)[labels] * 0.9)
    return [recording for recording, trains in zip(recordings, first, strict=True) if trains == training]


def list_of_names(file: Path) -> str:
    """What a publisher's list of recordings holds.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with recorded_file(file) as opened:
            return opened.read().decode("utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot read {file} as a list of recordings ({error}); fetch it again, or set data.root"
        ) from None
