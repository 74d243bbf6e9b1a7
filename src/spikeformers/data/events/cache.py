"""Frames of event recordings, kept on disk so that each recording is decoded once."""

import hashlib
import json
import os
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..._files import write_atomically
from ._arrays import Arrays

VERSION = 2  # of the frames: a change of a reader, of `integrate` or of `Saccades` that alters frames raises it


class FrameCache:
    """Frames [T, 2, H, W] of counts under a name that is a hash of what they were made from: the parameters, and the
    file's path below `root`, size and time of modification. If one of these changes, other frames are made.

    Several processes may use one folder: a file is written under a temporary name and renamed when it is complete, so
    that a writer that is killed leaves at most a hidden temporary file behind. A file that cannot be read is made anew.

    Args:
        folder: where the frames lie; made if missing.
        root: folder of the data set; moving both together keeps the cache valid.
        parameters: what decides the frames besides the recording; must be JSON.
    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path, root: str | Path, parameters: dict):
        self.folder, self.root, self.parameters = Path(folder), Path(root), parameters
        self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(f"{self.folder} cannot be written to")
        self.full = False

    def file(self, path: Path, span: tuple[int, int] | None = None) -> Path:
        """Where the frames of a recording belong.

        Args:
            path: the event file.
            span: the part of it, start and end in microseconds.
        """
        state = path.stat()
        return self._file(os.path.relpath(path, self.root), state.st_size, state.st_mtime_ns, span)

    def _file(self, *identity):
        identity = [VERSION, self.parameters, *identity]
        name = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name}.npz"

    def load(
        self, path: Path, span: tuple[int, int] | None = None, shape: tuple[int, ...] | None = None
    ) -> np.ndarray | None:
        """The frames, or None where they are missing or damaged.

        Args:
            path: the event file.
            span: the part of it, start and end in microseconds.
            shape: [T, 2, H, W] that they must have; None takes any.
        """
        file = self.file(path, span)
        try:
            arrays = Arrays(file)
            dtype, stated = arrays.held["frames"]
            if dtype.kind not in "iu" or shape not in (None, stated):
                return None
            return arrays.read(["frames"], dense=True)["frames"]  # the archive's checksum finds damage
        except Exception:  # damaged files make NumPy and zipfile raise many kinds; frames are made anew then
            return None

    def store(self, path: Path, span: tuple[int, int] | None, frames: np.ndarray):
        """Keeps frames in the smallest integers that hold them. A full disk costs a warning, not the run.

        Args:
            path: the event file.
            span: the part of it, start and end in microseconds.
            frames: counts [T, 2, H, W].
        """
        file = self.file(path, span)
        largest = frames.max(initial=0)
        small = frames.astype(next(kind for kind in (np.uint8, np.uint16, np.int32) if largest <= np.iinfo(kind).max))
        content = BytesIO()
        np.savez_compressed(content, frames=small)
        try:
            write_atomically(file, content.getvalue())
        except OSError as error:
            if not self.full:
                warnings.warn(
                    f"frames are not cached in {self.folder} ({error}); training goes on without", stacklevel=2
                )
            self.full = True


class ImageFrameCache(FrameCache):
    """Frames made from images: the hash is that of the parameters and of the image's size and pixels, wherever it lies."""

    def file(self, image: Image.Image, span: None = None) -> Path:
        """Where the frames of an image (of any mode but a palette) belong."""
        return self._file(image.mode, image.size, hashlib.blake2b(image.tobytes()).hexdigest(), span)


def open_cache(
    folder: str | None, root: str | Path, parameters: dict, kind: type[FrameCache] = FrameCache
) -> FrameCache | None:
    """The cache that an option asks for; None where frames are not kept.

    Args:
        folder: what the option says: a folder, None for frames_cache below the root, or "" or "none" for no cache.
        root: folder of the data set.
        parameters: what decides the frames besides the recording; must be JSON.
        kind: the class of the cache.
    Raises:
        ValueError: the folder that was given cannot be made. Where none was given, a warning says so.
    """
    if folder is not None and folder.lower() in ("", "none"):
        return None
    try:
        return kind(folder or Path(root, "frames_cache"), root, parameters)
    except OSError as error:
        if folder:
            raise ValueError(f"data.cache is {folder!r}, which cannot be used ({error})") from None
        warnings.warn(f"frames are not cached: {error}; data.cache names another folder", stacklevel=2)
        return None
