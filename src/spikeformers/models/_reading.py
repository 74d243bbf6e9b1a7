"""Checkpoint files of others, read without running anything that they hold."""

import argparse
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from .._files import read_text
from .._options import shown

LARGEST_JSON = 64 * 2**20
"""Bytes of a JSON file or header that is read: enough for the names of a million classes."""


# what a file that is no checkpoint begins with, and what it is
_OTHERS = [
    (rb"\s*<(!doctype|html|head|\?xml|error)", "a web page, as an expired or private link gives instead of a file"),
    (
        rb"version https://git-lfs",
        "a pointer of Git LFS, which stands for the file itself: fetch that with git lfs pull",
    ),
    (rb"\s*\{\s*\"(error|message|detail)", "the answer of a server that did not give the file"),
    (rb"\x89HDF", "an HDF5 file, as Keras writes"),
    (rb"GGUF", "a GGUF file"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"\x1f\x8b", "a gzip archive: unpack it"),
    (rb"BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "a compressed archive: unpack it"),
    (rb".{257}ustar", "a tar archive: unpack it"),
    (rb"\x08[\x01-\x0f]\x12.{0,40}(pytorch|onnx|tf2onnx)", "an ONNX network"),
]


class _NumberType:
    """Stands for a NumPy dtype in a pickle, of which only plain numbers are understood: nothing of NumPy's is called with a stranger's bytes."""

    def __init__(self, name="", *_):
        self.name, self.order = name, "="

    def __setstate__(self, state):
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]


def _number(kind, data=b"", *_):
    """The Python number behind a pickled NumPy one; its bytes where it is something else."""
    name = getattr(kind, "name", "")
    name = name.decode("latin-1") if isinstance(name, bytes) else name
    if (
        isinstance(name, str)
        and re.fullmatch(r"[biuf][1248]", name)
        and isinstance(data, bytes)
        and len(data) == int(name[1])
    ):
        return np.frombuffer(data, np.dtype(kind.order.replace("|", "=") + name))[0].item()
    return data


class _Array:
    """Stands for a NumPy array in a pickle, as trainers keep the state of their random numbers; its values are left out."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        pass


def _array(*_):
    return _Array()


# the trainers of the papers store their command line beside the weights, and numbers of NumPy: all of it is plain data
_PLAIN = [
    argparse.Namespace,
    (_NumberType, "numpy.dtype"),
    (_Array, "numpy.ndarray"),
    *((_number, f"{module}.scalar") for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    *((_array, f"{module}._reconstruct") for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    (_array, "numpy.core.numeric._frombuffer"),
    (_array, "numpy._core.numeric._frombuffer"),
]


def read_state_dict(path: str | os.PathLike) -> Mapping[str, object]:
    """A checkpoint file's content, without running any code that it may hold.

    Args:
        path: a file of torch.save or safetensors; or of a checkpoint in several files the .index.json, or the folder that holds it.

    Raises:
        ValueError: no such file, not a checkpoint, or one with objects other than tensors and plain data; the message says which.
    """
    path = Path(path)
    if path.is_dir():
        indices = sorted(path.glob("*.index.json"))
        if len(indices) != 1:
            found = f"{len(indices)} of them" if indices else "none"
            raise ValueError(
                f"{path} is a folder, and of a checkpoint in several files it would hold one .index.json, not {found}; name a file"
            )
        path = indices[0]
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}")
    if path.name.endswith(".index.json"):
        return _read_parts(path)
    with path.open("rb") as file:
        start = file.read(512)
    safe = path.suffix == ".safetensors" or bool(re.match(rb".{6}\x00\x00\{\s*\"", start, re.DOTALL))
    if reason := no_checkpoint(path, start, safe):
        raise ValueError(f"{path} is {reason}")
    content = _read_safetensors(path) if safe else _read_pickle(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    part = re.search(r"-(\d{5})-of-(\d{5})\.", path.name)
    if part and int(part[2]) > 1:
        raise ValueError(
            f"{path} is part {int(part[1])} of {int(part[2])} of a checkpoint; give the folder, or the .index.json in it, which names all parts"
        )
    return content


def no_checkpoint(path: Path, start: bytes, safe: bool) -> str | None:
    """What a file is that cannot be a checkpoint; None if it may be one.

    Args:
        path: the file.
        start: its first bytes.
        safe: whether it is called .safetensors.
    """
    if not start:
        return "empty: a download that did not begin, or a full disk"
    for pattern, what in _OTHERS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            return f"no checkpoint but {what}"
    if safe:
        return None
    if start[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = [info.filename for info in archive.infolist()]
                unpacked = sum(info.file_size for info in archive.infolist())
        except Exception:  # the directory at the end is missing or damaged
            return "cut off or damaged: the end of the file is missing; download it again"
        if any(name.endswith("constants.pkl") for name in names):
            return "a TorchScript program, which is code; save the state dict of the network instead"
        if unpacked > path.stat().st_size + 2**20:
            return "a compressed archive, as torch.save never writes; unpack it"
        if not any(name.endswith("data.pkl") for name in names):
            return "no checkpoint but a zip archive; unpack it"
        return None
    if start[:1] != b"\x80":
        text = start[:60].decode("ascii", "replace").split("\n")[0].strip()
        readable = text.isprintable() and "\ufffd" not in text
        return "no checkpoint of torch.save or safetensors" + (f"; it begins with {text!r}" if readable else "")
    return None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # damaged headers raise several kinds, and so do formats that torch does not have
        raise ValueError(f"{path} is damaged, or cut off: {_one_line(error)}; download or write it again") from None


def _read_pickle(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(_PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or strange file raises any of a dozen kinds
        reason = str(error)
    found = re.search(
        r"(?:Unsupported global: GLOBAL|load unsupported GLOBAL|Unsupported class|but got <class) '?([\w.]+)", reason
    )
    if found:
        raise ValueError(
            f"{path} cannot be read as weights alone: beside tensors it holds the Python object {found[1]}, and making it would run code. "
            "Where you trust the file, load it with the program that wrote it and save its state dict alone"
        )
    kind = re.search(r"WeightsUnpickler error:\s*(.+)", reason) or re.search(r"\n\n(.+)", reason)
    words = _one_line(kind[1] if kind else reason) if "weights_only" in reason else _one_line(reason)
    raise ValueError(
        f"{path} cannot be read: it is damaged or cut off ({words or 'the file ends too early'}); download it again"
    )


def _one_line(error: object) -> str:
    """A library's message without terminal codes, its advice and what follows its first line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line.split(" Please ")[0].rstrip(". ")[:200]


def _read_parts(index: Path) -> dict[str, object]:
    """All parts of a checkpoint whose .index.json says which file holds which name."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, Mapping) or not places or not all(isinstance(place, str) for place in places.values()):
        raise ValueError(
            f"{index} names no files of weights (weight_map), so it is no index of a checkpoint in several files"
        )
    parts = sorted(set(places.values()))
    for part in parts:
        if Path(part).name != part or part.endswith(".index.json"):  # elsewhere on the disk is not for a file to decide
            raise ValueError(f"{index} names {shown(part)}, which is no file beside it")
    missing = [part for part in parts if not (index.parent / part).is_file()]
    if missing:
        raise ValueError(f"{index} names {len(parts)} files, and these are not beside it: {', '.join(missing[:5])}")
    content: dict[str, object] = {}
    for part in parts:
        start = (index.parent / part).open("rb").read(512)
        if reason := no_checkpoint(index.parent / part, start, part.endswith(".safetensors")):
            raise ValueError(f"{index.parent / part} is {reason}")
        read = _read_safetensors if part.endswith(".safetensors") else _read_pickle
        content |= cast(Mapping[str, object], read(index.parent / part))
    lost = [name for name in places if name not in content]
    if lost:
        raise ValueError(f"{index} promises {len(lost)} tensors that its files do not hold, such as {shown(lost[0])}")
    return content


def read_json(path: Path) -> dict:
    """The dictionary that a JSON file holds.

    Raises:
        ValueError: the file is too large, damaged, or holds something else; the message names it.
    """
    try:
        size = path.stat().st_size
        text = read_text(path) if size <= LARGEST_JSON else ""
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged or cannot be read ({_one_line(error)})") from None
    if size > LARGEST_JSON:
        raise ValueError(f"{path} has {size:,} bytes, which no description of a model needs")
    return parse_json(text, str(path))


def parse_json(text: str, where: str) -> dict:
    """As `read_json`, of a text that comes from `where`.

    Raises:
        ValueError: the text is damaged, or holds something else.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # nested too deep, or a number of thousands of digits
        raise ValueError(f"{where} is damaged ({_one_line(error)}), so it is no JSON") from None
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds {shown(content)}, not a dictionary")
    return content


def header(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Shapes by name, and the metadata, of a .safetensors file, whose values are not read.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
        if reason := no_checkpoint(path, start, True):
            raise ValueError(f"{path} is {reason}")
        with safetensors.safe_open(path, "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            return shapes, dict(file.metadata() or {})
    except (SafetensorError, OSError, OverflowError, MemoryError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path} is damaged, or cut off ({_one_line(error)}); write it again with save_model"
        ) from None
