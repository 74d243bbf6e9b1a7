"""Networks of other libraries by name, so that a converted one can be saved and made again."""

import importlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..._install import command_for
from ...models._reading import read_state_dict
from ...models._state_dict import unwrap
from .zero_shot import PROMPTS, ZeroShot, zero_shot

LIBRARIES = ("timm", "torchvision", "transformers")
FROM_FILES = {
    "pretrained",
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
    "weights",
    "weights_backbone",
}
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # by Pillow's numbers


@dataclass(frozen=True)
class NetworkSource:
    """The names and options by which a network is made again, without its weights.

    Attributes:
        library: timm, torchvision or transformers.
        name: of the model, or the class of a Hugging Face model.
        kwargs: what it is created with, or the configuration of a Hugging Face model.
        zero_shot: of a network like CLIP that classifies: the number of classes, and the width of its embeddings.
    """

    library: str
    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    zero_shot: tuple[int, int] | None = None

    def create(self) -> nn.Module:
        """A new network in eval mode, with weights that mean nothing.

        Raises:
            ValueError: it is made of files or downloads, or the library cannot make it.
        """
        if FROM_FILES & self.kwargs.keys() or ":" in self.name:
            raise ValueError(
                f"{self.library}:{self.name} with {self.kwargs} is made of files or downloads, of which no source may tell"
            )
        if self.library == "timm":
            import timm

            model = timm.create_model(self.name, pretrained=False, **self.kwargs)
        elif self.library == "torchvision":
            import torchvision

            model = torchvision.models.get_model(self.name, weights=None, **self.kwargs)
        elif self.library == "transformers":
            hub = _transformers()
            if not hasattr(hub, self.name):
                raise ValueError(f"Hugging Face transformers has no model class {self.name!r}")
            model_class = getattr(hub, self.name)
            model = model_class(model_class.config_class(**self.kwargs))
            if self.zero_shot:
                model = ZeroShot(model, *self.zero_shot)
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
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells every attempt to reach its server
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

            model = torchvision.models.get_model(rest, weights=None, **kwargs)
            published = torchvision.models.get_model_weights(rest).DEFAULT
            if weights is None:  # torchvision itself would unpickle them
                load = torch.hub.load_state_dict_from_url
                model.load_state_dict(load(published.url, map_location="cpu", check_hash=True, weights_only=True))
            wanted = published.transforms()
            model.pretrained_cfg = {
                "input_size": (3, wanted.crop_size[0], wanted.crop_size[0]),
                "mean": tuple(wanted.mean),
                "std": tuple(wanted.std),
                "interpolation": wanted.interpolation.value,
                "crop_pct": wanted.crop_size[0] / wanted.resize_size[0],
            }
    except OSError as error:
        raise _unavailable(name, error) from None
    except Exception as error:  # what libraries raise at names and options that they do not know
        raise ValueError(f"{name}: {_advice(error, library, kwargs and weights is None)}") from None
    model.source = NetworkSource(library, rest, kwargs)
    return _with(model, weights).eval()


def _hugging_face(rest, kwargs, weights):
    hub = _transformers()
    place, _, class_name = rest.rpartition(":")
    if not place or not hasattr(hub, class_name):
        place, class_name = rest, ""
    if place.startswith((".", "/", "~")) and not Path(place).is_dir():
        raise ValueError(f"transformers:{place}: there is no folder {place}")
    try:
        config_class = getattr(hub, class_name).config_class if class_name else hub.AutoConfig
        config = config_class.from_pretrained(place, **kwargs)
        class_name = class_name or (config.architectures or [""])[0]
        if not hasattr(hub, class_name):
            raise ValueError(f"its configuration names no model class; give one: transformers:{place}:BertModel")
        model_class = getattr(hub, class_name)
        if weights is None:
            model = model_class.from_pretrained(place, config=config, use_safetensors=True)
        else:
            model = _with(model_class(config), weights)
    except OSError as error:
        raise _unavailable(f"transformers:{place}", error) from None
    except Exception as error:  # as above
        raise ValueError(f"transformers:{place}: {_advice(error, 'transformers', False)}") from None
    settings = {
        key: value
        for key, value in config.to_diff_dict().items()
        if key not in ("architectures", "transformers_version")
    }
    settings["attn_implementation"] = config._attn_implementation
    model.source = NetworkSource("transformers", class_name, settings)
    model.place, model.pretrained_cfg = place, _images(hub, place, config)
    return model.eval()


def with_texts(model: nn.Module, classes: Sequence[str], prompts: Sequence[str] = PROMPTS) -> ZeroShot:
    """`zero_shot` of a network that `load_source` got from Hugging Face, with the tokenizer that lies beside it.

    Args:
        model: the network.
        classes: their names.
        prompts: sentences with a place for a name, whose embeddings are averaged.

    Raises:
        ValueError: the tokenizer cannot be had, or as for `zero_shot`.
    """
    try:
        tokenizer = _transformers().AutoTokenizer.from_pretrained(model.place)
        if len(tokenizer) < model.config.text_config.vocab_size // 2:
            raise FileNotFoundError("an empty one was made up")
    except Exception as error:  # as above
        raise _unavailable(
            f"transformers:{model.place}", error, "tokenizer", "give a folder that holds it, too"
        ) from None
    made = zero_shot(model, tokenizer, classes, prompts)
    made.source = replace(model.source, zero_shot=(made.num_classes, made.head.in_features))
    made.pretrained_cfg = model.pretrained_cfg
    return made


def _images(hub, place, config):
    """How a model of Hugging Face wants its images, in timm's words; {} if it takes none."""
    size = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", None)
    if size is None:
        return {}
    side = size if isinstance(size, int) else size[0]
    try:
        known = hub.AutoImageProcessor.from_pretrained(place)
    except (OSError, ValueError):  # there is no such file
        return {"input_size": (3, side, side)}
    resized, cut = (getattr(known, name, None) or {} for name in ("size", "crop_size"))
    shorter, side = resized.get("shortest_edge") or resized.get("height") or side, cut.get("height") or side
    return {
        "input_size": (3, side, side),
        "mean": tuple(known.image_mean or (0, 0, 0)),
        "std": tuple(known.image_std or (1, 1, 1)),
        "interpolation": INTERPOLATIONS.get(int(known.resample), "bicubic"),
        "crop_pct": side / shorter,
    }


def _transformers():
    try:
        hub = importlib.import_module("transformers")
        hub.utils.logging.disable_progress_bar()
        return hub
    except ModuleNotFoundError:
        raise ValueError(f"models of Hugging Face need transformers: {command_for('convert')}") from None


def _with(model, path):
    if path is None:
        return model
    state = unwrap(read_state_dict(path))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights of {path} do not fit the model: {' '.join(str(error).split())[:300]}") from None
    return model


def _advice(error, library, other_shape):
    text = " ".join(str(error).split())
    lists = {"timm": "timm.list_models()", "torchvision": "torchvision.models.list_models()"}.get(library)
    if library == "transformers":
        return f"{text}; check --kwargs and the class"
    if isinstance(error, TypeError):
        return f"{text}; check --kwargs"
    if other_shape:
        return f"{text}; pretrained weights may not fit --kwargs: give a file that does with --weights ({lists} knows the names)"
    return f"{text}; {library} lists its models with {lists}"


def _unavailable(name, error, what="pretrained weights", instead="give a file with --weights"):
    return ValueError(
        f"the {what} of {name} could not be found on this disk nor downloaded ({type(error).__name__}); fetch them once where there "
        f"is a network (they are then kept in the library's cache), or {instead}"
    )
