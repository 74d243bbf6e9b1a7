"""Trained networks with what their checkpoints say of their data: read and written."""

import json
import os
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn

from .._options import fitting
from ..data import Data, EventData, data_type
from ..models import create_model, save_model
from ..models._checkpoint import check_options, check_values, planned
from ..models._input import describe, input_of_run
from ..models._reading import no_checkpoint
from ..models._state_dict import is_hollow
from ..models.shipped import find_shipped, shipped_file
from ..transforms.sta import Converted, is_converted, load_converted, save_converted


@dataclass
class Trained:
    """A model with what its checkpoint says about its data; `data` and `classes` are None if it says nothing."""

    model: nn.Module
    data: Data | None
    classes: list[str] | None


def data_of(trained: Trained) -> Data:
    """How the images of a model are prepared.

    Raises:
        ValueError: its checkpoint does not say so.
    """
    if trained.data is None:
        raise ValueError("this checkpoint does not say how its images are prepared; use one that `train` wrote")
    return trained.data


def load_trained(path: str | Path, early_classifiers: bool = False) -> Trained:
    """Reads best.ckpt or last.ckpt of a run, the former also by its folder, as converted.safetensors too, or a .safetensors file with its .json beside it.

    The model's `pretrained_cfg` says how its data were prepared, as timm reads it.

    Args:
        path: the file or the folder, or the name of a network that ships with the library.
        early_classifiers: whether the model gets the early classifiers that it was trained with, too.

    Raises:
        ValueError: there is no such file, it is none of these, or it holds no early classifiers and they are asked for.
    """
    if not Path(path).exists() and (key := find_shipped(str(path))):
        path = shipped_file(key)
    path = Path(path)
    for name in ("best.ckpt", "converted.safetensors"):
        if (path / name).is_file():
            path = path / name
            break
    if not path.is_file():
        raise ValueError(
            f"no checkpoint {path}; training leaves best.ckpt and last.ckpt in its run folder, conversion converted.safetensors"
        )
    if path.suffix == ".safetensors":
        if early_classifiers:
            raise ValueError(
                f"{path} holds no early classifiers, which exports leave out; give best.ckpt or last.ckpt of the run"
            )
        with fitting(f"{path} or the .json file beside it is damaged, or of another version"):
            model = load_converted(path) if is_converted(path) else create_model(checkpoint=path)
            with safetensors.safe_open(path, "pt") as file:
                known = json.loads((file.metadata() or {}).get("spikeformers", "{}"))
    else:
        with path.open("rb") as file:
            start = file.read(512)
        if reason := no_checkpoint(path, start, False):
            raise ValueError(
                f"{path} is no checkpoint of `spikeformers train`: it is {reason}; published weights are read by `spikeformers import`"
            )
        try:
            content = read_checkpoint(path)
            config, known = dict(content["model_config"]), content["known"]
            architecture = config.pop("architecture")
            weights = trained_weights(content["state_dict"], early_classifiers)
            if not isinstance(architecture, str) or not all(isinstance(value, Tensor) for value in weights.values()):
                raise TypeError("an architecture has a name, and weights are tensors")
        except Exception as error:  # torch.load raises many kinds, and a stranger's file may hold anything
            why = f": {error}" if isinstance(error, zipfile.BadZipFile) else ""
            raise ValueError(
                f"{path} is no checkpoint of `spikeformers train` ({type(error).__name__}{why}); "
                "published weights are read by `spikeformers import`"
            ) from None
        check_options(config, path)
        if hollow := [name for name, value in weights.items() if is_hollow(value)]:
            raise ValueError(
                f"{path} is damaged: {hollow[0]} claims {weights[hollow[0]].numel():,} values, of which it holds only a few"
            )
        if early_classifiers and not any(key.startswith("early.") for key in weights):
            raise ValueError(
                f"{path} holds no early classifiers; train them with --training.early_classifiers true (or shared)"
            )

        def prepare(model):
            if early_classifiers:
                model.add_early_classifiers(shared="early.0.head.weight" not in weights)

        with fitting(f"{path} is damaged, or of another version"):
            shapes = {name: list(value.shape) for name, value in weights.items()}
            wrong = f"{path} is damaged: its weights are not those of its model"
            own = planned(create_model, architecture, config, path, shapes, wrong, prepare=prepare).state_dict()
            check_values(weights, own, path)
            model = create_model(architecture, **config)
            prepare(model)
            model.load_state_dict(weights)
    data = known.get("data") if isinstance(known, dict) else known
    try:
        data = data and _described(data_type(data["name"]), data)
        classes = known.get("classes")
        if classes is not None and (
            not isinstance(classes, list) or not all(isinstance(name, str) for name in classes)
        ):
            raise TypeError("classes that are no list of names")
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} describes its data in words that this version does not know ({error})") from None
    if not isinstance(model, Converted):
        describe(model, input_of_run(known, path), path)
        if isinstance(data, EventData) and data.size:
            describe(model, {"input_size": (data.channels, *data.size)}, path)
    model.to(memory_format=torch.channels_last)
    return Trained(model.eval(), data, classes)


def trained_weights(state: dict, early_classifiers: bool = False) -> dict:
    """Of a checkpoint's `state_dict` by `Learner` the model's weights: averaged over time if the recipe did so, and without those
    of early classifiers, which only training and early exit need, unless they are asked for."""
    averaged = {key.removeprefix("ema.module."): value for key, value in state.items() if key.startswith("ema.module.")}
    weights = averaged or {key.removeprefix("model."): value for key, value in state.items()}
    return {key: value for key, value in weights.items() if early_classifiers or not key.startswith("early.")}


UNASKED = {"download": False, "cache": "none"}
"""Settings of data that a checkpoint does not decide, since it may be a stranger's: whoever runs it says what is fetched and
which folders are written."""


def _described(kind, settings):
    """The configuration of data that a checkpoint describes, with at most as many workers as there are cores."""
    settings = {**settings, **{field.name: UNASKED[field.name] for field in fields(kind) if field.name in UNASKED}}
    if isinstance(settings.get("workers"), int):
        settings["workers"] = min(settings["workers"], os.cpu_count() or 1)
    return kind(**settings)


def read_checkpoint(path: Path) -> dict:
    """What torch has saved, without running code. Checksums are compared, which torch does not do: weights that a disk or a copy has
    changed are no weights. Raises many kinds of errors."""
    with zipfile.ZipFile(path) as records:
        if damaged := records.testzip():
            raise zipfile.BadZipFile(f"damaged: {damaged} in it has changed since it was written")
    return torch.load(path, map_location="cpu", weights_only=True)


def save_trained(trained: Trained, path: Path):
    """Writes PATH.safetensors and PATH.json as `save_model` does; data and classes go into the former's metadata."""
    known = {"data": asdict(trained.data), "classes": trained.classes}
    save = save_converted if isinstance(trained.model, Converted) else save_model
    save(trained.model, path, {"spikeformers": json.dumps(known)})
