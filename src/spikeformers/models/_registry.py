"""Models by name: registered here and with timm, created, listed, saved and read back."""

import difflib
import fnmatch
import inspect
import json
import os
import typing
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import timm.models
from safetensors import SafetensorError
from timm.models import build_model_with_cfg
from torch import nn

from .._files import write_atomically, write_json
from .._options import must_have_sizes

_MODELS: dict[str, Callable[..., nn.Module]] = {}
_TASKS: dict[str, Callable[..., nn.Module]] = {}


def register_model(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Decorator: makes the function's name a model of ours and of timm's. Its return annotation is the model's class."""
    _MODELS[function.__name__] = function
    return timm.models.register_model(function)


def register_task(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Decorator: makes the function's name one that `create_model` knows: a task's network around a backbone."""
    _TASKS[function.__name__] = function
    return function


def build(model_class: type[nn.Module], variant: str, pretrained: bool, kwargs: dict) -> nn.Module:
    """What a registered function returns: the model with timm's configuration, and `config` to create it again."""
    kwargs, schedule = dict(kwargs), kwargs.get("schedule")
    temporal = {name: kwargs.pop(name) for name in ("schedule", "temporal") if name in kwargs}

    def make(**options):
        model = model_class(**options)
        if schedule is not None:
            model.set_schedule(**temporal)
        return model

    features = {"feature_cls": "getter", "out_indices": None}  # all stages, however many there are
    model = build_model_with_cfg(make, variant, pretrained, feature_cfg=features, **kwargs)
    options = inspect.signature(model_class).parameters
    # every setting, given or not, so that a saved model does not change with a default
    settings = {name: kwargs.get(name, option.default) for name, option in options.items()}
    if schedule is not None:
        settings |= {"time_steps": schedule[0], "schedule": list(schedule), "temporal": temporal.get("temporal", "softmax")}
    model.config = {"architecture": variant, **settings}
    return model


def events_cfg(pool_size: tuple[int, int]) -> dict:
    """timm's description of how a model for event cameras wants its input: frames of 48 x 48 pixels, as they are."""
    return {
        "num_classes": 10,
        "input_size": (2, 48, 48),
        "pool_size": pool_size,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.0, 0.0),
        "std": (1.0, 1.0),
        "first_conv": "stem.conv",
        "classifier": "head",
    }


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern such as 'meta_*', sorted."""
    return sorted(name for name in _MODELS if fnmatch.fnmatch(name, pattern))


def list_tasks() -> list[str]:
    """Names of all networks for tasks beyond classification, which `create_model` puts around a backbone, sorted."""
    return sorted(_TASKS)


def create_model(name: str | None = None, *, checkpoint: str | os.PathLike | None = None, **kwargs) -> nn.Module:
    """A model by name, or the one that a checkpoint holds.

    Args:
        name: one of `list_models()`, or of `list_tasks()`, which need a backbone; may be left out if a checkpoint is given.
        checkpoint: a .safetensors file with its JSON configuration beside it, as `save_model` and `spikeformers import` write.
        kwargs: options of the model's class such as num_classes, in_chans, time_steps; with a checkpoint they overrule it. Of any model:
            schedule, the time steps of every stage, and temporal, how they shrink; see `shrink`.

    Returns:
        The model in train mode, on the CPU.

    Raises:
        ValueError: no such model or option, or a checkpoint that does not fit.
    """
    if checkpoint is not None:
        return _from_checkpoint(name, Path(checkpoint), kwargs)
    if kwargs.pop("pretrained", False):
        raise ValueError("no weights are downloaded; load a file with load_published(model, path) or create_model(checkpoint=...)")
    if name is None:
        raise ValueError("create_model needs a name (see list_models()) or a checkpoint")
    must_have_sizes(kwargs)
    if name in _TASKS:
        return _create_task(name, kwargs)
    if name not in _MODELS:
        close = difflib.get_close_matches(name, [*_MODELS, *_TASKS], n=3, cutoff=0.6)
        hint = f"; did you mean {', '.join(sorted(close))}?" if close else ""
        raise ValueError(f"unknown model {name!r}{hint} (spikeformers list shows all)")
    options = [*inspect.signature(typing.get_type_hints(_MODELS[name])["return"]).parameters, "schedule", "temporal"]
    unknown = [key for key in kwargs if key not in options]
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(map(repr, unknown))}; it has {', '.join(options)}")
    model = _MODELS[name](**kwargs)
    if model.schedule and kwargs.get("time_steps", model.time_steps) != model.time_steps:
        raise ValueError(
            f"the schedule {kwargs['schedule']} begins with {model.time_steps} time steps, not with time_steps={kwargs['time_steps']}; give one"
        )
    return model


def _create_task(name: str, kwargs: dict) -> nn.Module:
    if "backbone" not in kwargs:
        raise ValueError(f"{name} needs a backbone, such as backbone='meta_spikeformer_15m' (spikeformers list shows all)")
    parameters = inspect.signature(_TASKS[name]).parameters
    unknown = [] if "options" in parameters else [key for key in kwargs if key not in parameters]
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(map(repr, unknown))}; it has {', '.join(parameters)}")
    return _TASKS[name](**kwargs)


def _configuration(path: Path) -> Path:
    return path.with_suffix(".json")


def _from_checkpoint(name: str | None, path: Path, kwargs: dict) -> nn.Module:
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} is not a .safetensors file; a checkpoint of `spikeformers train` is read by spikeformers.training.evaluation.load_trained, "
            f"and published weights are converted with: spikeformers import {path} OUT.safetensors"
        )
    for file in (path, _configuration(path)):
        if not file.is_file():
            raise ValueError(f"there is no file {file}; a checkpoint is a .safetensors file with a .json file of the same name")
    try:
        config = json.loads(_configuration(path).read_text(encoding="utf-8"))
        state = safetensors.torch.load_file(path)
    except (json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"{path} or the .json file beside it is damaged ({error}); write both again with save_model") from error
    architecture = config.pop("architecture", None) if isinstance(config, dict) else None
    if architecture is None:
        raise ValueError(f"{_configuration(path)} names no architecture, so it is not a configuration of spikeformers")
    if name not in (None, architecture):
        raise ValueError(f"{path} holds a {architecture}, not a {name}")
    model = create_model(architecture, **{**config, **kwargs})
    own = model.state_dict()
    wrong = [
        f"{key}: {list(state[key].shape) if key in state else 'missing'} in the file, "
        f"{list(own[key].shape) if key in own else 'missing'} in the model"
        for key in sorted(state.keys() | own.keys())
        if key not in state or key not in own or state[key].shape != own[key].shape
    ]
    if wrong:
        shown = "\n  ".join(wrong[:10] + [f"and {len(wrong) - 10} more"] * (len(wrong) > 10))
        raise ValueError(f"{path} does not fit {architecture} with the options given:\n  {shown}")
    model.load_state_dict(state)
    return model


def save_model(model: nn.Module, path: str | os.PathLike, metadata: dict[str, str] | None = None) -> None:
    """Writes PATH.safetensors and PATH.json, from which `create_model(checkpoint=PATH)` makes the same model.

    Both files are written whole or not at all: under a temporary name first, then renamed. `metadata` goes into the header of
    the .safetensors file.

    Raises:
        ValueError: the path does not end in .safetensors, or the model was not made by `create_model` or timm.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"the file must end in .safetensors, not {path.name!r}")
    if not hasattr(model, "config"):
        raise ValueError(
            "this model carries no configuration; make it with create_model. A merged model has none: "
            "save the unmerged model, and merge after loading"
        )
    config = dict(model.config)
    if config["architecture"] not in _TASKS:  # what a backbone's methods can change
        config |= {"num_classes": model.num_classes, "in_chans": model.in_chans, "time_steps": model.time_steps}
        if model.distillation or "distillation" in config:
            config["distillation"] = model.distillation
    state = {key: value.detach().contiguous().cpu() for key, value in model.state_dict().items() if not key.startswith("early.")}
    write_atomically(path, safetensors.torch.save(state, metadata))
    write_json(_configuration(path), config)
