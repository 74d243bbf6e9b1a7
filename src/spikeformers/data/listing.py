"""Which files and folders of a data set's folder are data."""

import os
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

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
