"""What a model says of its input: how images become tensors, and the names of the classes."""

from collections.abc import Mapping
from typing import Literal, cast

from torch import nn

from .._arguments import Count, Positive, check_argument
from ._reading import parse_json
from .network import Configured

_INPUT = {
    "input_size": tuple[Count, Count, Count],
    "mean": tuple[float, ...],
    "std": tuple[Positive, ...],
    "crop_pct": Positive,
    "crop_mode": Literal["center", "squash", "border"],
    "interpolation": Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "random"],
    "label_names": tuple[str, ...],
}
"""The entries of timm's description of a model that checkpoints keep: how images become inputs, and the classes' names."""


def input_of(model: nn.Module) -> dict:
    """The entries of a model's `pretrained_cfg` that go into a checkpoint."""
    known = getattr(model, "pretrained_cfg", None) or {}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name in _INPUT
        if (value := known.get(name)) is not None
    }


def checked_input(known: object, where: object) -> dict:
    """Entries of `pretrained_cfg` from a file, each of its type.

    Raises:
        ValueError: one is not; the message names the file.
    """
    try:
        if not isinstance(known, dict):
            raise ValueError(f"pretrained_cfg must be a dictionary, not {known!r:.100}")
        checked = {}
        for name, kind in _INPUT.items():
            if known.get(name) is not None:
                value = check_argument(name, known[name], kind)
                checked[name] = tuple(value) if isinstance(value, list) else value
        if (size := checked.get("input_size")) and max(size) > 2**16:
            raise ValueError(f"input_size must be channels, height and width of an image, not {size}")
        for name in ("mean", "std"):
            if size and name in checked and len(checked[name]) != size[0]:
                raise ValueError(
                    f"{name} must be a list of {size[0]} numbers, one for each channel of input_size, not {checked[name]!r:.100}"
                )
    except ValueError as error:
        raise ValueError(f"{where} describes the model's input in words that are not understood: {error}") from None
    return checked


def known_input(metadata: Mapping[str, str], path: object) -> dict:
    """What `spikeformers train` has left in a checkpoint's metadata, as entries of `pretrained_cfg`; see `input_of_run`."""
    if "spikeformers" not in metadata:
        return {}
    return input_of_run(parse_json(metadata["spikeformers"], f"the metadata of {path}"), path)


def input_of_run(known: Mapping, path: object) -> dict:
    """The data and classes of a run as entries of `pretrained_cfg`.

    Args:
        known: {"data": arguments of its data set, "classes": names}, both of which may be missing or None.
        path: the file that says so.

    Raises:
        ValueError: an entry is of another type.
    """
    data, classes = known.get("data") or {}, known.get("classes")
    if not isinstance(data, Mapping):
        raise ValueError(f"the metadata of {path} must describe the run's data as a dictionary, not {data!r:.100}")
    found = {"label_names": classes}
    if "time_steps" in data:  # frames of events, as they are
        found |= {"mean": [0.0, 0.0], "std": [1.0, 1.0], "crop_pct": 1.0}
        side, sensor = data.get("img_size"), data.get("sensor")
        if side is not None:
            found["input_size"] = [2, side, side]
        elif isinstance(sensor, (list, tuple)) and len(sensor) == 2:
            found["input_size"] = [2, sensor[1], sensor[0]]
    elif "img_size" in data:
        side = data["img_size"]
        height, width = side if isinstance(side, (list, tuple)) and len(side) == 2 else (side, side)
        found["input_size"] = [data.get("channels", 3), height, width]
        found |= {name: data.get(name) for name in ("mean", "std", "crop_pct", "interpolation")}
    return checked_input(found, f"the metadata of {path}")


def describe(model: nn.Module, known: Mapping, where: object) -> None:
    """Makes the model say what is known of its input and classes: entries of `pretrained_cfg`, as timm reads it.

    Args:
        model: made by `create_model`.
        known: entries of `pretrained_cfg`.
        where: what says so, for the message.

    Raises:
        ValueError: it is not this model's.
    """
    if not known:
        return
    network, known = cast(Configured, model), dict(known)
    size, names = known.get("input_size"), known.get("label_names")
    if size and size[0] != network.in_chans:
        raise ValueError(
            f"{where} says that its images have {size[0]} channels, and its model takes {network.in_chans}"
        )
    if names is not None and network.num_classes - len(names) not in (0, 1):  # a detector counts the background
        known.pop("label_names")
    network.describe_input(known)
