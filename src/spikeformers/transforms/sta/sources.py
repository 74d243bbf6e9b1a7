"""Networks of other libraries by name, so that a converted one can be saved and made again."""

import importlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ...models.published import read_state_dict, unwrap

LIBRARIES = ("timm", "torchvision", "transformers")


@dataclass(frozen=True)
class Source:
    """What makes a network again, its weights aside.

    Attributes:
        library: timm, torchvision or transformers.
        name: of the model, or the class of a Hugging Face model.
        kwargs: what it is created with, or the configuration of a Hugging Face model.
    """

    library: str
    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    def create(self) -> nn.Module:
        """A new network in eval mode, with weights that mean nothing."""
        if self.library == "timm":
            import timm

            model = timm.create_model(self.name, **self.kwargs)
        elif self.library == "torchvision":
            import torchvision

            model = torchvision.models.get_model(self.name, **self.kwargs)
        elif self.library == "transformers":
            hub = _transformers()
            if not hasattr(hub, self.name):
                raise ValueError(f"Hugging Face transformers has no model class {self.name!r}")
            model_class = getattr(hub, self.name)
            model = model_class(model_class.config_class(**self.kwargs))
        else:
            raise ValueError(f"unknown library {self.library!r}; give one of {', '.join(LIBRARIES)}")
        model.source = self
        return model.eval()

    def to_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def load_source(name: str, kwargs: dict[str, Any] | None = None, weights: str | Path | None = None) -> nn.Module:
    """A pretrained network in eval mode that knows its `source`.

    Args:
        name: timm:NAME (or NAME alone), torchvision:NAME, or transformers:FOLDER_OR_REPOSITORY[:CLASS]. The class is the one that
            the configuration names, unless it is given.
        kwargs: for creating it; of transformers, changes of its configuration.
        weights: a .safetensors, .pth or .pt file with its parameters; otherwise the library's pretrained ones, from disk or the
            library's server.

    Raises:
        ValueError: there is no such model, its weights do not fit, or they cannot be had.
    """
    library, _, rest = name.partition(":")
    if library not in LIBRARIES or not rest:
        library, rest = "timm", name
    kwargs = dict(kwargs or {})
    if library == "transformers":
        return _hugging_face(rest, kwargs, weights)
    try:
        if library == "timm":
            import timm

            model = timm.create_model(rest, pretrained=weights is None, **kwargs)
        else:
            import torchvision

            model = torchvision.models.get_model(rest, weights="DEFAULT" if weights is None else None, **kwargs)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"{name}: {_advice(error, library)}") from None
    except Exception as error:  # servers fail in many ways
        raise _unavailable(name, error) from None
    model.source = Source(library, rest, kwargs)
    return _with(model, weights).eval()


def _hugging_face(rest, kwargs, weights):
    hub = _transformers()
    place, _, class_name = rest.rpartition(":")
    if not place or not hasattr(hub, class_name):
        place, class_name = rest, ""
    try:
        config = hub.AutoConfig.from_pretrained(place, **kwargs)
        class_name = class_name or (config.architectures or [""])[0]
        if not hasattr(hub, class_name):
            raise ValueError(f"its configuration names no model class; give one: transformers:{place}:BertModel")
        model_class = getattr(hub, class_name)
        if weights is None:
            model = model_class.from_pretrained(place, config=config, use_safetensors=True)
        else:
            model = _with(model_class(config), weights)
    except ValueError:
        raise
    except Exception as error:  # OSError, errors of the hub and of httpx
        raise _unavailable(f"transformers:{place}", error) from None
    settings = {key: value for key, value in config.to_diff_dict().items() if key not in ("architectures", "transformers_version")}
    model.source = Source("transformers", class_name, settings)
    return model.eval()


def _transformers():
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError:
        raise ValueError("models of Hugging Face need transformers: pip install 'spikeformers[convert]'") from None


def _with(model, path):
    if path is None:
        return model
    state = unwrap(read_state_dict(path))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights of {path} do not fit the model: {' '.join(str(error).split())[:300]}") from None
    return model


def _advice(error, library):
    text = " ".join(str(error).split())
    return f"{text}; {library} lists its models with {'timm.list_models()' if library == 'timm' else 'torchvision.models.list_models()'}"


def _unavailable(name, error):
    return ValueError(
        f"the pretrained weights of {name} are not on this disk and could not be downloaded ({type(error).__name__}); fetch them once "
        "where there is a network (they are then kept in the library's cache), or give a file with --weights"
    )
