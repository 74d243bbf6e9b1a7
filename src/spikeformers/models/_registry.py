"""Models by name: registered here and with timm, created, listed, saved and read back."""

import difflib
import fnmatch
import functools
import importlib
import inspect
import os
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import timm.models
from timm.models import build_model_with_cfg
from torch import nn

from .._arguments import check_arguments
from ._checkpoint import from_checkpoint
from .network import Network, configure
from .shipped import must_ship, shipped_file, shipped_options

Made = TypeVar("Made", bound=Network)

_MODELS: dict[str, Callable[..., nn.Module]] = {}
_OPTIONS: dict[str, inspect.Signature] = {}  # of those that `add_model` added
_TASKS: dict[str, Callable[..., nn.Module]] = {}
_REGISTERING = "spikeformers.tasks"
"""The package on a higher floor whose import registers the tasks; it is loaded when a name is wanted that is none of a backbone."""


def _tasks() -> dict[str, Callable[..., nn.Module]]:
    importlib.import_module(_REGISTERING)
    return _TASKS


def register_model(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Decorator: makes the function's name a model of ours and of timm's. Its return annotation is the model's class. With
    pretrained=True the function is called with the options of the weights that ship, where none are given."""

    @functools.wraps(function)
    def create(pretrained: bool = False, **kwargs) -> nn.Module:
        tag = kwargs.get("pretrained_cfg")  # where timm puts it; who gives a whole configuration has weights elsewhere
        if pretrained and (tag is None or isinstance(tag, str)):
            key = must_ship(f"{function.__name__}.{tag}" if tag else function.__name__)
            options = shipped_options(key)
            weights = {
                "file": str(shipped_file(key)),
                "tag": key.partition(".")[2],
                "num_classes": options["num_classes"],
            }
            overlay = {**weights, **(kwargs.get("pretrained_cfg_overlay") or {})}
            kwargs = {**options, **kwargs, "pretrained_cfg": None, "pretrained_cfg_overlay": overlay}
        return function(pretrained=pretrained, **kwargs)

    _MODELS[function.__name__] = create
    return timm.models.register_model(create)


def add_model(name: str, create: Callable[..., nn.Module], options: inspect.Signature) -> None:
    """Makes a name of one that is no backbone of ours known here; timm does not learn of it.

    Args:
        name: of the model.
        create: makes it from options.
        options: those that it takes.
    """
    _MODELS[name], _OPTIONS[name] = create, options


def remove_model(name: str) -> None:
    """Takes back `add_model`.

    Raises:
        ValueError: nothing was added by this name.
    """
    if name not in _OPTIONS:
        raise ValueError(
            f"no network {name!r} was registered by register_network; there are {', '.join(_OPTIONS) or 'none'}"
        )
    del _MODELS[name], _OPTIONS[name]


def _options_of(name: str) -> list[str]:
    """The options of a model that is no task's network."""
    if name in _OPTIONS:
        return [*_OPTIONS[name].parameters]
    return [*inspect.signature(typing.get_type_hints(_MODELS[name])["return"]).parameters, "schedule", "temporal"]


def register_task(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Decorator: makes the function's name one that `create_model` knows: a task's network around a backbone."""
    _TASKS[function.__name__] = function
    return function


def build(model_class: type[Made], variant: str, pretrained: bool, kwargs: dict) -> Made:
    """What a registered function returns: the model with timm's configuration, and `config` to create it again.

    Args:
        model_class: the class, whose constructor's options are the model's.
        variant: name of the registered function.
        pretrained: whether timm loads weights.
        kwargs: what was given: the model's options, schedule and temporal, and timm's.

    Raises:
        ValueError: an option that does not exist, or a value out of range.
    """
    own = inspect.signature(model_class).parameters
    timms = [*inspect.signature(build_model_with_cfg).parameters, "features_only", "out_indices", "feature_cls"]
    _must_have(variant, kwargs, [*own, "schedule", "temporal"], timms)
    kwargs, schedule = check_arguments(model_class, kwargs), kwargs.get("schedule")
    temporal = {name: kwargs.pop(name) for name in ("schedule", "temporal") if name in kwargs}

    def make(**options):
        model = model_class(**options)
        if schedule is not None:
            model.set_schedule(**temporal)
        return model

    features = {"feature_cls": "getter", "out_indices": None}  # all stages, however many there are
    model = cast(Made, build_model_with_cfg(make, variant, pretrained, feature_cfg=features, **kwargs))
    # every setting, given or not, so that a saved model does not change with a default
    settings = {name: kwargs.get(name, option.default) for name, option in own.items()}
    if schedule is not None:
        settings |= {
            "time_steps": schedule[0],
            "schedule": list(schedule),
            "temporal": temporal.get("temporal", "softmax"),
        }
    configure(model, variant, settings)
    if hasattr(model, "describe_input"):
        model.describe_input({})
    return model


def _must_have(name: str, given: Iterable[str], options: Sequence[str], others: Sequence[str] = ()) -> None:
    unknown = [key for key in given if key not in options and key not in others]
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(map(repr, unknown))}; it has {', '.join(options)}")


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
    return sorted(_tasks())


def create_model(
    name: str | None = None, *, checkpoint: str | os.PathLike | None = None, pretrained: bool = False, **kwargs
) -> nn.Module:
    """A model by name, or the one that a checkpoint holds.

    Args:
        name: one of `list_models()`, or of `list_tasks()`, which need a backbone; may be left out if a checkpoint is given.
        checkpoint: a .safetensors file with its JSON configuration beside it, as `save_model` and `spikeformers import` write.
        pretrained: with the weights that ship with the library (`spikeformers list --pretrained`), by NAME or NAME.TAG; a classifier for
            other classes is left out. Nothing is downloaded.
        kwargs: options of the model's class such as num_classes, in_chans, time_steps; with a checkpoint they overrule it. Of any model:
            schedule, the time steps of every stage, and temporal, how they shrink; see `shrink`.

    Returns:
        The model in train mode, on the CPU. Its `pretrained_cfg` says how it wants its input, as timm reads it
        (`timm.data.resolve_model_data_config(model)`): that of a checkpoint what its run's data were, with the names of the classes
        in `label_names`.

    Raises:
        ValueError: no such model or option, one of another type or out of range, a checkpoint that does not fit or is damaged, or weights that
            do not ship.
    """
    if checkpoint is not None:
        return from_checkpoint(create_model, name, Path(checkpoint), kwargs)
    if name is None:
        raise ValueError("create_model needs a name (see list_models()) or a checkpoint")
    tag = ""
    if pretrained:
        name, _, tag = must_ship(name).partition(".")
    if name not in _MODELS and name in _tasks():
        return _create_task(name, kwargs)
    if name not in _MODELS:
        close = difflib.get_close_matches(name, [*_MODELS, *_TASKS], n=3, cutoff=0.6)
        hint = f"; did you mean {', '.join(sorted(close))}?" if close else ""
        raise ValueError(f"unknown model {name!r}{hint} (spikeformers list shows all)")
    _must_have(name, kwargs, _options_of(name))
    model = _MODELS[name](pretrained=True, pretrained_cfg=tag, **kwargs) if pretrained else _MODELS[name](**kwargs)
    if model.schedule and kwargs.get("time_steps", model.time_steps) != model.time_steps:
        raise ValueError(
            f"the schedule {kwargs['schedule']} begins with {model.time_steps} time steps, not with time_steps={kwargs['time_steps']}; give one"
        )
    return model


def _create_task(name: str, kwargs: dict) -> nn.Module:
    if "backbone" not in kwargs:
        raise ValueError(
            f"{name} needs a backbone, such as backbone='meta_spikeformer_15m' (spikeformers list shows all)"
        )
    parameters = inspect.signature(_TASKS[name]).parameters
    if "options" not in parameters:
        _must_have(name, kwargs, list(parameters))
    return _TASKS[name](**kwargs)
