"""The names of the classes: as given, or from files beside the data."""

from pathlib import Path
from typing import TYPE_CHECKING

from .meaning import IGNORED

if TYPE_CHECKING:
    from .options import MaskData


def class_names(data: "MaskData") -> list[str]:
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
        raise ValueError(
            f"there is no folder {data.root}; set data.root to the folder that holds the images and their masks"
        )
    raise ValueError(
        f"nothing states the classes of the masks in {data.root}; give their names or number as data.classes, or the file "
        f"{plain} with a name per line"
    )
