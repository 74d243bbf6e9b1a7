"""Labelled images in tar files as the WebDataset convention has them, read at random by index; and the way there.

A shard holds KEY.jpg (or .jpeg, .png, .webp) next to KEY.cls, the label in ASCII digits; other members are left alone. Shards
are plain local tar files. Python's `tarfile` scans each once and the offsets are kept beside it in SHARD.index.json; reading
an image is then a seek. The `webdataset` package streams tar files and since 1.0 has no random access: streams tie the order of
samples to the number of processes and workers, which here only the sampler decides. Its former part `wids` has random access,
but wants a hand-made list of the shards and their samples, scans a shard again whenever its cache has dropped it, reads no long
names and takes a truncated shard for a short one. `webdataset` reads what `write_shards` writes.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from stat import S_ISREG

import numpy as np
from PIL import Image

from .._files import umask, write_atomically
from .._progress import progress_bar
from .listing import of_a_tool
from .protocols import Source
from .reading import UNREADABLE, regular_file, upright_image

__all__ = ["ShardImages", "write_shards"]

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
LONGEST_LABEL = 64  # bytes
SPLITS = {"train": ("train",), "val": ("val", "validation", "test")}  # the first whose shards exist is taken
INDEX_VERSION = 1


@dataclass
class ShardIndex:
    """The samples of one shard, in its order: names of the images, their first byte and size in bytes, and labels, each [N]."""

    names: np.ndarray  # bytes, which take a quarter of Python's strings
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)


class ShardImages:
    """The images of ROOT/SPLIT-*.tar, ROOT/*-SPLIT-*.tar or ROOT/SPLIT/*.tar, whichever exists, as (Pillow image, label).

    The classes' names come from ROOT/classes.txt or ROOT/classnames.txt, one per line, or from the ClassLabel of a Hugging Face
    ROOT/_info.json, ROOT/info.json or ROOT/dataset_info.json; without any they are "0", "1" and so on up to the largest label of
    both splits.

    Args:
        root: the folder.
        split: "train" or "val"; the latter's shards may also be called validation or test.

    Raises:
        ValueError: no shards, a damaged one, or an image whose label is missing or is no class.
    """

    def __init__(self, root: Path, split: str):
        root = Path(root)
        self.files = find_shards(root, split)
        if not self.files:
            raise ValueError(
                f"no {split} shards in {root}; they are called {split}-000000.tar, NAME-{split}-000000.tar or {split}/000000.tar"
            )
        self._indices = [index_of(file) for file in self.files]
        self.shards = [len(index) for index in self._indices]
        self._ends = list(itertools.accumulate(self.shards))
        self.labels = np.concatenate([index.labels for index in self._indices])
        if not len(self):
            raise ValueError(
                f"the {len(self.files)} {split} shards in {root} hold no image; images are KEY.jpg, .png or .webp"
            )
        names = class_names(root)
        if names is None:
            other = (index_of(file).labels for name in SPLITS if name != split for file in find_shards(root, name))
            largest = max(labels.max(initial=-1) for labels in (self.labels, *other))
            names = [str(label) for label in range(largest + 1)]
        self.classes = names
        wrong = np.flatnonzero(self.labels >= len(names))
        if len(wrong):
            raise ValueError(
                f"{self.where(wrong[0])} has the label {self.labels[wrong[0]]}, but there are only {len(names)} classes; "
                f"labels start at 0: check the list of classes in {root}"
            )

    def __len__(self):
        return len(self.labels)

    def _place(self, index: int) -> tuple[int, int]:
        """The shard's number, and the sample's within it."""
        shard = bisect_right(self._ends, index)
        return shard, index - self._ends[shard] + self.shards[shard]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """The image in RGB, upright as the camera says, and its label."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        shard, place = self._place(index)
        found = self._indices[shard]
        # opened anew each time: nothing is shared with other processes or threads, and 1,000 shards take no 1,000 handles
        with open(self.files[shard], "rb", buffering=0) as file:
            file.seek(found.offsets[place])
            content = file.read(found.sizes[place])
        return upright_image(BytesIO(content)), int(self.labels[index])

    def where(self, index: int) -> str:
        """The sample's shard and member, for people."""
        shard, place = self._place(index)
        return f"{self.files[shard]}: {os.fsdecode(self._indices[shard].names[place])}"


def find_shards(root: Path, split: str) -> list[Path]:
    """The tar files of a split, sorted by name; empty if there are none.

    Raises:
        ValueError: an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; give {' or '.join(SPLITS)}")
    for name in SPLITS[split]:
        for pattern in (f"{name}-*.tar", f"*-{name}-*.tar", f"{name}/*.tar"):
            files = sorted(file for file in root.glob(pattern) if not of_a_tool(file.name))
            if files:
                return files
    return []


def class_names(root: Path) -> list[str] | None:
    """The classes' names that ROOT lists, or None.

    Raises:
        ValueError: the list cannot be read.
    """
    for name in ("classes.txt", "classnames.txt"):
        if (root / name).is_file():
            return (root / name).read_text(encoding="utf-8").rstrip().splitlines()
    for name in ("_info.json", "info.json", "dataset_info.json"):
        if (root / name).is_file():
            try:
                features = json.loads((root / name).read_bytes()).get("features") or {}
                return next((list(f["names"]) for f in features.values() if f.get("_type") == "ClassLabel"), None)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"cannot read {root / name} ({error!r}); mend it or list the classes in classes.txt"
                ) from None
    return None


def index_of(shard: Path) -> ShardIndex:
    """The shard's index, from SHARD.index.json if that was made from this very file. A new one is kept there if it can be.

    Raises:
        ValueError: the shard is damaged, or an image has no label.
    """
    try:
        stat = shard.stat()
    except OSError as error:
        raise ValueError(f"cannot read the shard {shard} ({error}); check the file") from None
    if not S_ISREG(stat.st_mode):
        raise ValueError(f"cannot read the shard {shard} (it is no regular file); check the file")
    made_from = {"version": INDEX_VERSION, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    cache = shard.with_name(f"{shard.name}.index.json")
    try:
        saved = json.loads(cache.read_bytes())
        if {key: saved[key] for key in made_from} == made_from:
            index = _arrays(*(saved[key] for key in ("names", "offsets", "sizes", "labels")))
            _check_index(index, stat.st_size)
            return index
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, MemoryError):
        pass  # there is none, or it was damaged
    samples = scan(shard)
    columns = [list(column) for column in zip(*samples, strict=True)] or [[], [], [], []]
    entry = {**made_from, **dict(zip(("names", "offsets", "sizes", "labels"), columns, strict=True))}
    with contextlib.suppress(OSError):  # a read-only or full disk: the index serves this process only
        write_atomically(cache, json.dumps(entry).encode())
    return _arrays(*columns)


def _check_index(index, size):
    """Raises ValueError where an index points out of its shard, or a label is no class number."""
    inside = (index.offsets >= 0) & (index.sizes >= 0) & (index.sizes <= size) & (index.offsets <= size - index.sizes)
    if not (inside & (index.labels >= 0) & (index.labels <= 999_999)).all():
        raise ValueError("an entry is not of this shard")


def _arrays(names, offsets, sizes, labels):
    if not len(names) == len(offsets) == len(sizes) == len(labels):
        raise ValueError("columns of different length")
    numbers = (np.array(column, np.int64) for column in (offsets, sizes, labels))
    return ShardIndex(np.array([os.fsencode(name) for name in names], "S"), *numbers)


def scan(shard: Path) -> list[tuple[str, int, int, int]]:
    """(name, first byte, size, label) of each image in a tar file. Payloads are skipped, but for the labels.

    Raises:
        ValueError: the shard is damaged, an image has no label or a label no image, or a label is no number from 0 up.
    """
    try:
        with tarfile.open(shard, "r:") as tar:
            members = [member for member in tar if member.isreg()]
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                # tarfile takes whatever is no header for the end
                raise tarfile.ReadError(f"no end-of-archive mark at byte {tar.offset}")
            return [
                sample
                for key, group in itertools.groupby(members, lambda member: _key_and_extension(member.name)[0])
                if key is not None and (sample := _sample(shard, tar, key, list(group)))
            ]
    except tarfile.TarError as error:
        raise ValueError(
            f"{shard} is truncated or no plain tar file ({error}); fetch or write it again, uncompressed"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read the shard {shard} ({error}); check the file") from None
    except (OverflowError, RecursionError, MemoryError, KeyError, IndexError, EOFError, TypeError) as error:
        raise ValueError(f"{shard} is damaged ({type(error).__name__}: {error}); fetch or write it again") from None


def _key_and_extension(name):
    """As WebDataset splits names: at the first dot of the last part, lower-case; (None, "") for hidden files and the like."""
    folder, slash, file = name.rpartition("/")
    stem, dot, extension = file.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and dot else (None, "")


def _sample(shard, tar, key, members):
    """(name, first byte, size, label) of the members of one key; None if they are neither an image nor a label."""
    images = [member for member in members if _key_and_extension(member.name)[1] in IMAGE_EXTENSIONS]
    labels = [member for member in members if _key_and_extension(member.name)[1] == "cls"]
    if not images and not labels:
        return None
    if len(images) != 1 or len(labels) != 1:
        names = ", ".join(member.name for member in members)
        raise ValueError(
            f"{shard}: {names} are {len(images)} images and {len(labels)} labels; a sample is one image such as {key}.jpg "
            f"with one label {key}.cls beside it"
        )
    (image,), (label,) = images, labels
    for member in (image, label):
        if member.sparse is not None:  # its bytes do not lie in the file one after the other
            raise ValueError(
                f"{shard}: {member.name} is stored with holes (a sparse file); write the shard again without them"
            )
    text = tar.extractfile(label).read(LONGEST_LABEL) if label.size <= LONGEST_LABEL else b"(%d bytes)" % label.size
    if not text.strip().isdigit() or len(text.strip()) > 6:  # more would be a billion classes by mistake
        raise ValueError(
            f"{shard}: {label.name} holds {text[:40]!r}, not a class number; write one of 0 to 999999 in ASCII digits"
        )
    return image.name, image.offset_data, image.size, int(text)


def write_shards(
    source: Source, root: Path, split: str, *, images_per_shard: int = 1000, paths: Sequence[Path] | None = None
) -> list[Path]:
    """Writes the images of a source to ROOT/SPLIT/SPLIT-000000.tar and so on, and its classes to ROOT/classes.txt.

    The samples are in a random order that is always the same, because training shuffles samples only among a few shards: one
    class per shard would be learnt badly. Keys are the samples' numbers in the source. The same images make the same bytes.
    The folder ROOT/SPLIT appears when all shards are written, or not at all.

    Args:
        source: the images and labels.
        root: the folder, made if need be. Both splits go to the same.
        split: "train" or "val".
        images_per_shard: images in each shard but the last.
        paths: the images' files, one per sample. JPEG, PNG and WebP files are then taken as they are and not decoded; others,
            and all images without a path, become PNG.

    Returns:
        The shards.
    Raises:
        ValueError: the split is there already, ROOT has other classes, an image cannot be read, or a number is out of range.
    """
    root, classes = Path(root), [str(name) for name in source.classes]
    if images_per_shard < 1:
        raise ValueError(f"images_per_shard is {images_per_shard}; give at least 1")
    if not len(source) or paths is not None and len(paths) != len(source):
        given = "" if paths is None else f" and {len(paths)} paths"
        raise ValueError(
            f"the source has {len(source)} images{given}; there must be at least one, and a path for each or none"
        )
    if find_shards(root, split) or (root / split).exists():
        raise ValueError(f"{root} has {split} shards or a folder {split} already; remove them or choose another folder")
    known = class_names(root)
    if known is not None and known != classes:
        raise ValueError(
            f"{root} lists other classes than the source ({len(known)}, {len(classes)}); choose another folder"
        )
    order = np.random.default_rng(0).permutation(len(source)).tolist()
    starts = range(0, len(order), images_per_shard)
    root.mkdir(parents=True, exist_ok=True)
    _clear_up(root, split)
    folder = Path(tempfile.mkdtemp(dir=root, prefix=f".{split}."))
    lock = _locked(folder)
    try:
        with progress_bar(split, len(order), " images") as bar:
            for number, start in enumerate(starts):
                with tarfile.open(folder / f"{split}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                    for index in order[start : start + images_per_shard]:
                        content, extension = _encoded(source, index, paths)
                        _add(tar, f"{index:08d}.{extension}", content)
                        _add(tar, f"{index:08d}.cls", str(int(source.labels[index])).encode())
                        bar.update()
        os.chmod(folder, 0o777 & ~umask())  # mkdtemp makes private ones
        if known is None:
            write_atomically(root / "classes.txt", "".join(f"{name}\n" for name in classes).encode())
        os.rename(folder, root / split)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)
    return find_shards(root, split)


def _clear_up(root, split):
    """Removes the hidden folders that a writer who was killed has left. One who is still at work holds a lock on its own."""
    for folder in root.glob(f".{split}.*"):
        inside = re.compile(rf"{re.escape(split)}-\d{{6}}\.tar")
        if (
            not folder.is_dir()
            or folder.is_symlink()
            or not all(inside.fullmatch(entry.name) for entry in folder.iterdir())
        ):
            continue
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    for file in root.glob(".classes.txt.*"):  # of `write_atomically`, which takes no time at all
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > 60:
                file.unlink()


def _locked(folder):
    """A handle that holds the lock on a folder until it is closed or its process ends; None if another holds it, or there are no
    locks here."""
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except OSError:
        os.close(handle)
        return None


def _encoded(source, index, paths):
    """The bytes of an image file, and its extension."""
    try:
        if paths is None:
            image = source[index][0]
        else:
            extension = Path(paths[index]).suffix[1:].lower()
            if extension in IMAGE_EXTENSIONS:
                with regular_file(paths[index]) as file:
                    return file.read(), extension
            image = upright_image(paths[index])
    except UNREADABLE as error:
        raise ValueError(f"cannot read the image {source.where(index)} ({error}); mend it or take it out") from error
    content = BytesIO()
    (image if image.mode in ("1", "L", "P", "RGB", "RGBA") else image.convert("RGB")).save(content, "PNG")
    return content.getvalue(), "png"


def _add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))
