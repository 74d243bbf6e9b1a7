"""The trained networks inside the package: weights/NAME.TAG.safetensors in half precision, NAME.TAG.json, and index.json, which says what they are.

Each is a tag of one of our models for timm as well. Nothing is downloaded.
"""

import hashlib
import json
import os
from functools import cache
from pathlib import Path

import safetensors.torch
from torch import nn

from .._files import write_json

FOLDER = Path(__file__).parent.parent / "weights"


@cache
def shipped() -> dict[str, dict]:
    """What ships, as {"NAME.TAG": what index.json says of it}; of several tags of a name the first is meant where none is given.

    Of each: sha256 of the weights; data, classes; accuracy in [0, 1] on the official test samples; time_steps, parameters, firing_rate;
    recipe, hours of training on one core.
    """
    index = FOLDER / "index.json"
    return json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}


def find_shipped(name: str) -> str | None:
    """NAME.TAG of what ships by this name, with or without a tag; None if nothing does."""
    if name in shipped():
        return name
    return next((key for key in shipped() if key.partition(".")[0] == name), None)


def must_ship(name: str) -> str:
    """As `find_shipped`.

    Raises:
        ValueError: nothing ships by this name.
    """
    found = find_shipped(name)
    if found is None:
        there = ", ".join(shipped()) or "none yet"
        raise ValueError(
            f"no weights of {name} ship with this library (there are: {there}); create it without pretrained, or load a file "
            "with create_model(checkpoint=...)"
        )
    return found


@cache
def shipped_file(key: str) -> Path:
    """The file of a network that ships, whole and unchanged.

    Raises:
        ValueError: it is missing or not what was released.
    """
    path = FOLDER / f"{key}.safetensors"
    mend = "install the package again: pip install --force-reinstall spikeformers"
    if not path.is_file() or not path.with_suffix(".json").is_file():
        raise ValueError(f"{path} or the .json file beside it is missing; {mend}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != shipped()[key]["sha256"]:
        raise ValueError(f"{path} is not the file that was released (its hash is another); {mend}")
    return path


def shipped_options(key: str) -> dict:
    """The constructor's options of a network that ships."""
    config = json.loads(shipped_file(key).with_suffix(".json").read_text(encoding="utf-8"))
    return {name: value for name, value in config.items() if name != "architecture"}


def shipped_cfgs(name: str, cfg: dict) -> dict[str, dict]:
    """timm's configurations of a model: under its name, and under NAME.TAG of all weights of it that ship."""
    tagged = {
        key: {**cfg, "num_classes": len(entry["classes"]), "file": str(FOLDER / f"{key}.safetensors")}
        for key, entry in shipped().items()
        if key.partition(".")[0] == name
    }
    return tagged or {name: cfg}


def ship(model: nn.Module, key: str, metadata: dict[str, str], about: dict) -> Path:
    """Writes a trained network in half precision into the package's folder, and what `about` says of it into index.json.

    Batch statistics stay in float32: their variances may be too small or too large for half precision.

    Args:
        model: made by `create_model`.
        key: NAME.TAG.
        metadata: for the header of the .safetensors file.
        about: its entry in index.json, see `shipped`.

    Raises:
        ValueError: the model was not made by `create_model`, or the name before the dot is not its own.
    """
    from ._saving import save_model

    architecture = getattr(model, "config", {}).get("architecture")
    if key.partition(".")[0] != architecture or not key.partition(".")[2]:
        raise ValueError(f"weights of {architecture} ship as {architecture}.TAG, not as {key!r}")
    path = FOLDER / f"{key}.safetensors"
    save_model(model, path, metadata)
    state = safetensors.torch.load_file(path)
    halved = {
        name: value.half() if value.is_floating_point() and "running_" not in name else value
        for name, value in state.items()
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(safetensors.torch.save(halved, metadata))
    os.replace(temporary, path)
    entries = {**shipped(), key: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **about}}
    write_json(FOLDER / "index.json", entries)
    shipped.cache_clear()
    shipped_file.cache_clear()
    return path
