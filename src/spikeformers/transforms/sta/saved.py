"""Converted networks on disk: weights and thresholds as safetensors, everything else as JSON."""

import json
from pathlib import Path

import safetensors.torch
import torch

from ..._files import write_atomically, write_json
from .convert import Converted
from .sources import NetworkSource


def save_converted(converted: Converted, path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Writes PATH.safetensors, with weights and thresholds, and PATH.json beside it, each whole or not at all, the former last.

    Args:
        converted: of a network that `load_source` made.
        path: of the .safetensors file.
        metadata: for its header.

    Raises:
        ValueError: the path does not end in .safetensors, or the network was not made by `load_source`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"the file must end in .safetensors, not {path.name!r}")
    source = getattr(converted.model, "source", None)
    if source is None:
        raise ValueError(
            "nobody knows how to make this network again; get it from spikeformers.transforms.sta.load_source, or set model.source = "
            "Source(library, name, kwargs) before converting"
        )
    state = {f"model.{key}": value for key, value in converted.model.state_dict().items()}
    for T, thresholds in converted.thresholds.items():
        state |= {f"thresholds.{T}.{place}": threshold for place, threshold in thresholds.items()}
    content = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    config = {
        "converted": source.to_dict(),
        "time_steps": converted.time_steps,
        "levels": converted.levels,
        "potential": converted.potential,
        "spiking": converted.spiking,
        "ranges": converted.ranges,
        "thresholds": "shaped",
        "dtype": str(next(converted.model.parameters()).dtype).removeprefix("torch."),
    }
    write_json(path.with_suffix(".json"), config)
    write_atomically(path, safetensors.torch.save(content, metadata))


def is_converted(path: str | Path) -> bool:
    """Whether a .safetensors file was written by `save_converted`."""
    description = Path(path).with_suffix(".json")
    if not description.is_file():
        return False
    try:
        return "converted" in json.loads(description.read_text(encoding="utf-8"))
    except ValueError:
        return False


def load_converted(path: str | Path) -> Converted:
    """The network that `save_converted` wrote.

    Raises:
        ValueError: it is none, or its library is missing.
    """
    path = Path(path)
    if not path.is_file() or not is_converted(path):
        raise ValueError(f"{path} is no converted network, which is a .safetensors file with its .json beside it")
    config = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if config.get("thresholds") != "shaped":
        raise ValueError(f"{path} was written by an earlier version, whose thresholds do not say which axis they belong to; convert again")
    try:
        model = NetworkSource(**config["converted"]).create().to(getattr(torch, config["dtype"]))
    except Exception as error:  # whatever a library raises at words that it does not know
        raise ValueError(f"{path} describes a network that cannot be made: {' '.join(str(error).split())}") from None
    state, thresholds = {}, {}
    for key, value in safetensors.torch.load_file(path).items():
        kind, _, rest = key.partition(".")
        if kind == "model":
            state[rest] = value
        else:
            T, _, place = rest.partition(".")
            thresholds.setdefault(int(T), {})[place] = value
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights of {path} do not fit the network that it describes: {' '.join(str(error).split())}") from None
    return Converted(model, thresholds, *(config[key] for key in ("time_steps", "levels", "potential", "spiking", "ranges")))
