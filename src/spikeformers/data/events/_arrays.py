"""NumPy files from strangers: the sizes that they state are compared with their bytes before memory is taken for them."""

import errno
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np

from ..._files import regular_file


class Refused(ValueError):
    """What a file states cannot be, or is not read; the message says so to people."""


AMPLE = 1 << 25
"""Bytes that a file of any size may stand for."""
RATIO = 50
"""How often its own size a larger one may stand for. Compressed recordings stand for 2 to 20 times theirs."""


@contextmanager
def recorded_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to read bytes, as `regular_file` does.

    Raises:
        Refused: it is a pipe, a device or the like, which may never end, or nearly all of it is a hole.
        OSError: it does not exist, is a folder, or may not be read.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with ExitStack() as stack:
        try:
            file = stack.enter_context(regular_file(path))
        except ValueError:
            raise Refused(f"cannot open {path}: it is a pipe, a device or the like; give a file") from None
        about = os.fstat(file.fileno())
        if about.st_size > AMPLE and getattr(about, "st_blocks", about.st_size) * 512 * RATIO < about.st_size:
            # file systems may keep few blocks for what they compress
            hole = file.seek(0, getattr(os, "SEEK_HOLE", os.SEEK_END))
            if hole < about.st_size:
                raise Refused(
                    f"cannot read {path}: nearly all of its {about.st_size:,} bytes are a hole that nobody wrote"
                )
            file.seek(0)
        yield file


def must_be_worth(size: int, path: Path):
    """
    Args:
        size: bytes of memory that the file stands for.
    Raises:
        Refused: that is more than compression explains.
    """
    own = os.path.getsize(path)
    if size > max(AMPLE, RATIO * own):
        raise Refused(
            f"its {own:,} bytes stand for {size:,}, more than {RATIO} times as much, as no recording does; it is damaged, or made to "
            "fill the memory"
        )


class Arrays:
    """The arrays of an .npz or .npy file (the latter's name is empty): `held` has their types and shapes, known before any values
    are read."""

    def __init__(self, path: str | Path):
        self.path, self.held, self.members = Path(path), {}, {}
        with recorded_file(self.path) as file:
            zipped = file.read(2) == b"PK"
            file.seek(0)
            if not zipped:
                self.held[""] = self._stated(file, os.path.getsize(self.path))
                return
        with ZipFile(self.path) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                    raise Refused(f"{member.filename} is compressed in a way that NumPy does not use")
                with archive.open(member) as file:
                    name = member.filename.removesuffix(".npy")
                    self.held[name] = self._stated(file, member.file_size)
                    self.members[name] = member

    @staticmethod
    def _stated(file, size):
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size:
            raise Refused(f"an array of type {dtype} and shape {shape} is stated where only {size:,} bytes are")
        return dtype, shape

    def read(self, names: Iterable[str], dense: bool = False) -> dict[str, np.ndarray]:
        """Some of the arrays.

        Args:
            dense: whether they may be compressed as much as frames are, most of whose pixels are 0.
        Raises:
            ValueError: they are larger than a recording can be in a file of this size, or hold objects.
        """
        names = list(names)
        if not dense:
            must_be_worth(
                sum(math.prod(shape) * dtype.itemsize for dtype, shape in map(self.held.get, names)), self.path
            )
        if not self.members:
            return {name: np.load(self.path, allow_pickle=False) for name in names}
        result = {}
        with ZipFile(self.path) as archive:
            for name in names:
                with archive.open(self.members[name]) as file:
                    result[name] = np.lib.format.read_array(file, allow_pickle=False)
        return result
