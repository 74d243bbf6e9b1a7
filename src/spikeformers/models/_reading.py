"""Checkpoint files of others, read without running anything that they hold, and the state dict inside."""

import argparse
import json
import os
import re
import zipfile
from collections.abc import Collection, Mapping
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

# wrappers around a state dict; those of weights that were averaged over training, and then those of the weights themselves
_AVERAGED = (
    "model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "params_ema", "ema", "swa_model", "averaged_model", "ema_weights", "ema_params",
    "shadow", "shadow_params", "teacher",
)
_RAW = ("model", "state_dict", "model_state_dict", "model_state", "module", "net", "network", "weights", "params", "student")
# wrappers around names: in front of all of them, of the averaged ones beside others, and anywhere inside
_PREFIXES = ("module.", "model.", "levels.", "net.", "network.")
_AVERAGED_PREFIXES = ("ema.module.", "model_ema.module.", "ema_model.module.", "model_ema.", "ema_model.", "averaged_model.", "ema.")
_INSIDE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_COUNTERS = ("n_averaged",)
_PROFILED = {"total_ops", "total_params"}  # counters that thop hangs onto every module

# what a file that is no checkpoint begins with, and what it is
_OTHERS = [
    (rb"\s*<(!doctype|html|head|\?xml|error)", "a web page, as an expired or private link gives instead of a file"),
    (rb"version https://git-lfs", "a pointer of Git LFS, which stands for the file itself: fetch that with git lfs pull"),
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
    if isinstance(name, str) and re.fullmatch(r"[biuf][1248]", name) and isinstance(data, bytes) and len(data) == int(name[1]):
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
            raise ValueError(f"{path} is a folder, and of a checkpoint in several files it would hold one .index.json, not {found}; name a file")
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
    found = re.search(r"(?:Unsupported global: GLOBAL|load unsupported GLOBAL|Unsupported class|but got <class) '?([\w.]+)", reason)
    if found:
        raise ValueError(
            f"{path} cannot be read as weights alone: beside tensors it holds the Python object {found[1]}, and making it would run code. "
            "Where you trust the file, load it with the program that wrote it and save its state dict alone"
        )
    kind = re.search(r"WeightsUnpickler error:\s*(.+)", reason) or re.search(r"\n\n(.+)", reason)
    words = _one_line(kind[1] if kind else reason) if "weights_only" in reason else _one_line(reason)
    raise ValueError(f"{path} cannot be read: it is damaged or cut off ({words or 'the file ends too early'}); download it again")


def _one_line(error: object) -> str:
    """A library's message without terminal codes, its advice and what follows its first line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line.split(" Please ")[0].rstrip(". ")[:200]


def _read_parts(index: Path) -> dict[str, object]:
    """All parts of a checkpoint whose .index.json says which file holds which name."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, Mapping) or not places or not all(isinstance(place, str) for place in places.values()):
        raise ValueError(f"{index} names no files of weights (weight_map), so it is no index of a checkpoint in several files")
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


def unwrap(content: Mapping[str, object]) -> dict[str, Tensor]:
    """The state dict {name: tensor [...]} inside a checkpoint, its names without the prefixes of wrappers; averaged weights where it holds both."""
    return opened(content)[0]


def opened(
    content: Mapping[str, object], ema: bool | None = None, lenient: bool = False
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The state dict {name: tensor [...]} inside a checkpoint, its names without the prefixes of wrappers.

    Args:
        content: of the file.
        ema: whether to take weights that were averaged over training, or those themselves; None for the former if there are any.
        lenient: whether names without a prefix that most names have are a trainer's, not the network's, and left out.

    Returns:
        The state dict, sentences about what was taken, and the names left out.

    Raises:
        ValueError: there are no tensors, or not the weights that are asked for.
    """
    notes, averaged = [], None
    content, unnamed = _without_strangers(content, notes), False
    for _ in range(8):  # wrappers in wrappers
        unnamed |= any(_is_unnamed(content.get(key)) for key in _AVERAGED)
        inside = {kind: next((k for k in keys if _holds_tensors(content.get(k))), None) for kind, keys in (("ema", _AVERAGED), ("raw", _RAW))}
        if inside["ema"] and ema is not False:
            averaged = True
            beside = f"; {inside['raw']} beside it holds those that were not (ema=False)" if inside["raw"] else ""
            notes.append(f"these weights are averages over training: {inside['ema']} of the checkpoint{beside}")
            content = cast(Mapping[str, object], content[inside["ema"]])
        elif inside["raw"]:
            if inside["ema"]:
                notes.append(f"these weights are not averaged: {inside['raw']} of the checkpoint, which has {inside['ema']} too")
                averaged = False
            content = cast(Mapping[str, object], content[inside["raw"]])
        elif inside["ema"]:
            raise ValueError(f"the checkpoint holds averaged weights only ({inside['ema']}), and ema=False asks for others")
        else:
            break
    state = {name: value for name, value in content.items() if isinstance(value, Tensor) and isinstance(name, str)}
    if counted := [name for name in state if name.rpartition(".")[2] in _PROFILED and state[name].numel() == 1]:
        notes.append(f"{len(counted)} counters of a profiler, such as {counted[0]}, are left out")
        state = {name: value for name, value in state.items() if name not in counted}
    hollow = [name for name, value in state.items() if is_hollow(value)]
    if hollow:
        raise ValueError(f"{shown(hollow[0])} claims {state[hollow[0]].numel():,} values, of which the checkpoint holds only a few")
    if not state:
        entries = ", ".join(name[:40] for name in list(content)[:8] if isinstance(name, str))
        raise ValueError(f"no tensors in the checkpoint; its entries are {entries}")
    state = {".".join(part for part in name.split(".") if part not in _INSIDE): value for name, value in state.items()}
    left_out: list[str] = []
    for prefix in _AVERAGED_PREFIXES:
        both = {name for name in state if name.startswith(prefix)}
        if both and len(both) < len(state) and any(not name.startswith(_AVERAGED_PREFIXES) for name in state):
            chosen = both if ema is not False else set(state) - both
            word = "averages over training" if ema is not False else "not averaged"
            other = "; the others are not (ema=False)" if ema is not False else f", though the checkpoint has such ones too ({prefix}*)"
            notes.append(f"these weights are {word}: those {'' if ema is not False else 'not '}called {prefix}*{other}")
            averaged = ema is not False
            state = {name.removeprefix(prefix) if ema is not False else name: value for name, value in state.items() if name in chosen}
            break
    for counter in _COUNTERS:
        if counter in state and state[counter].ndim == 0:
            if ema is False:
                raise ValueError(f"the checkpoint holds averaged weights only (of {int(state[counter])} models), and ema=False asks for others")
            notes.append(f"these weights are the average of {int(state.pop(counter))} models")
            averaged = True
    if unnamed and not averaged:
        lost = "averages over training in it are a list without names, which cannot be told apart"
        if ema:
            raise ValueError(f"the checkpoint holds no averaged weights by name, which ema=True asks for: {lost}; save them as a state dict")
        notes.append(f"these weights are not averaged: {lost}")
    if ema and not averaged:
        raise ValueError(f"the checkpoint holds no averaged weights, which ema=True asks for; its names are like {', '.join(list(state)[:4])}")
    while prefix := _prefix(state, lenient):
        left_out += [name for name in state if not name.startswith(prefix)]
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return state, notes, left_out


def _is_unnamed(value: object) -> bool:
    """Whether an entry is a list of averaged tensors, as torch_ema writes, or holds one."""
    if isinstance(value, Mapping):
        return any(_is_unnamed(value.get(key)) for key in ("shadow_params", "shadow"))
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Tensor) for item in value)


def _without_strangers(content: Mapping[str, object], notes: list[str]) -> Mapping[str, object]:
    """A checkpoint without a teacher that is another network than its student, as distillation has; one of the same shapes is its average."""
    if not (_holds_tensors(content.get("teacher")) and _holds_tensors(content.get("student"))):
        return content
    teacher, student = ({name: value.shape for name, value in _tensors(content[key]).items()} for key in ("teacher", "student"))
    if teacher == student:
        return content
    notes.append("these weights are the student's; the teacher beside it is another network")
    return {key: value for key, value in content.items() if key != "teacher"}


def _tensors(value: object) -> dict[str, Tensor]:
    """The tensors of an entry that `_holds_tensors`, by their names in it."""
    return opened(cast(Mapping[str, object], value))[0]


def is_hollow(value: Tensor) -> bool:
    """Whether a tensor [...] repeats a few values so often that a few bytes of a file would become gigabytes."""
    if value.layout != torch.strided or value.is_meta:
        return False
    return value.numel() > 2**16 and value.numel() * value.element_size() > value.untyped_storage().nbytes()


def _holds_tensors(value: object) -> bool:
    """Whether an entry of a checkpoint is a state dict, or has one in it."""
    for _ in range(8):
        if not isinstance(value, Mapping):
            return False
        if any(isinstance(item, Tensor) for item in value.values()):
            return True
        value = next((value[key] for key in (*_AVERAGED, *_RAW) if isinstance(value.get(key), Mapping)), None)
    return False


def _prefix(names: Collection[str], lenient: bool) -> str | None:
    """What stands in front of all names, or of most."""
    for prefix in _PREFIXES:
        having = sum(name.startswith(prefix) for name in names)
        if having == len(names) or (lenient and having > len(names) / 2):
            return prefix
    return None


def bad_values(state: Mapping[str, Tensor], own: Mapping[str, Tensor] | None = None) -> list[str]:
    """One line for each tensor that no weights are: quantised, sparse, without values, or with values that are not finite.

    Args:
        state: tensors [...] by name.
        own: the model's, by the same names, whose counters may be whole numbers; without it, what is not floating-point may.
    """
    lines = []
    for name, value in state.items():
        floating = own[name].is_floating_point() if own is not None and name in own else value.is_floating_point()
        kind = str(value.dtype).removeprefix("torch.")
        if value.layout != torch.strided or value.is_quantized:
            lines.append(f"{name} is {'quantised' if value.is_quantized else 'sparse'}")
        elif value.is_meta:
            lines += [f"{name} has no values"] if own is None or not own[name].is_meta else []
        elif floating and value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            lines.append(f"{name} is of {kind}; weights are float32, float64, float16 or bfloat16, not quantised ones")
        elif not floating and (value.is_floating_point() or value.is_complex()):
            lines.append(f"{name} is of {kind}, and the model counts with whole numbers there")
        elif floating and not bool(torch.isfinite(value).all()):
            lines.append(f"{name} has {int((~torch.isfinite(value)).sum()):,} values of {value.numel():,} that are NaN or infinite")
    return lines


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
        raise ValueError(f"{path} is damaged, or cut off ({_one_line(error)}); write it again with save_model") from None
