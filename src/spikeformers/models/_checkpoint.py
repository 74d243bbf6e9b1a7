"""Models on disk: weights as safetensors, and as JSON what makes the model again and how it wants its input."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from .._arguments import Count, Positive, check_argument, shown
from .._files import write_json
from ..layers.hooks import all_changes
from ._reading import bad_values, header, parse_json, read_json
from .network import Configured

WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Names that torch.compile, DistributedDataParallel and others put in front of a module's own."""

_INPUT = {
    "input_size": tuple[Count, Count, Count],
    "mean": tuple[float, ...],
    "std": tuple[Positive, ...],
    "crop_pct": Positive,
    "crop_mode": Literal["center", "squash", "border"],
    "interpolation": Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "random"],
    "label_names": tuple[str, ...],
}
"""What of timm's description of a model is kept in a checkpoint: how images become inputs, and the classes' names."""

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
_TRAINING_ONLY = (*_BATCH_NORMS, nn.modules.dropout._DropoutNd)


def from_checkpoint(create, name: str | None, path: Path, given: dict) -> nn.Module:
    """What `create_model` makes of a checkpoint.

    Args:
        create: makes a model from an architecture's name and its options.
        name: of the architecture that is expected, or None.
        path: the .safetensors file.
        given: options that overrule the file's.

    Raises:
        ValueError: no such file, another architecture than expected, options that do not exist, or weights that do
            not fit.
    """
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} is not a .safetensors file; a checkpoint of `spikeformers train` is read by spikeformers.evaluation.load_trained, "
            f"and published weights are converted with: spikeformers import {path} OUT.safetensors"
        )
    for file in (path, configuration_of(path)):
        if not file.is_file():
            raise ValueError(f"there is no file {file}; a checkpoint is a .safetensors file with a .json file of the same name")
    architecture, options, known = _read_configuration(path)
    if name not in (None, architecture):
        raise ValueError(f"{path} holds a {architecture}, not a {name}")
    shapes, metadata = header(path)
    known |= known_input(metadata, path)
    options |= given
    wrong = f"{path} does not fit {architecture} with the options given"
    own = planned(create, architecture, options, configuration_of(path), shapes, wrong, given).state_dict()
    state = _read_values(path, own)
    model = create(architecture, **options)
    model.load_state_dict(state)
    describe(model, known, path)
    return model


def configuration_of(path: Path) -> Path:
    """The JSON file beside the weights."""
    return path.with_suffix(".json")


def _read_configuration(path: Path) -> tuple[str, dict, dict]:
    """Architecture, its options, and what the model says of its input.

    Nothing in the file can name other files or reach for anything: those are options of `create_model`, not of a model.
    """
    file = configuration_of(path)
    config = read_json(file)
    architecture, known = config.pop("architecture", None), config.pop("pretrained_cfg", {})
    if not isinstance(architecture, str):
        raise ValueError(f"{file} names no architecture, so it is not a configuration of spikeformers")
    check_options(config, file)
    return architecture, config, _checked_input(known, file)


def check_options(options: Mapping, where: object) -> None:
    """Refuses options from a file that would make `create_model` read other files.

    Raises:
        ValueError: there are some; the message names the file.
    """
    for each in (options, options.get("backbone_kwargs")):
        if isinstance(each, Mapping) and (strange := {"pretrained", "checkpoint", "pretrained_cfg"} & each.keys()):
            raise ValueError(f"{where} has the entries {', '.join(sorted(strange))}, which are no options of a model")


def check_blocks(options: Mapping, tensors: int, words: str) -> None:
    """Refuses more blocks than there are tensors, since making them takes time even without memory.

    Args:
        options: of a model, and under `backbone_kwargs` of its backbone.
        tensors: in the file of its weights.
        words: begin the message.

    Raises:
        ValueError: there are more.
    """
    for each in (options, options.get("backbone_kwargs")):
        for key in ("depth", "depths", "layers", "num_layers", "num_hidden_layers"):
            depths = each.get(key) if isinstance(each, Mapping) else None
            blocks = sum(n for n in (depths if isinstance(depths, (list, tuple)) else [depths]) if isinstance(n, int))
            if blocks > tensors:
                raise ValueError(f"{words}: it says {blocks:,} blocks, and there are {tensors:,} tensors")


def planned(create, architecture: str, options: dict, where: object, shapes: Mapping[str, list[int]], wrong: str, given: Mapping = {}, prepare=None) -> nn.Module:
    """The model that a file describes, on the meta device, once its weights are known to fit it.

    Args:
        create: makes a model from an architecture's name and its options.
        architecture: its name.
        options: of it.
        where: the file that says so.
        shapes: of the weights by name.
        wrong: begins the message where they do not fit.
        given: options that are not the file's.
        prepare: what else is done to the model.

    Raises:
        ValueError: no model can be made of these options, or the weights do not fit it.
    """
    model = _on_paper(create, architecture, options, where, given, len(shapes))
    if prepare is not None:
        with torch.device("meta"):
            prepare(model)
    _must_fit(_differences(shapes, model), wrong)
    return model


def _on_paper(create, architecture: str, options: dict, where: object, given: Mapping, tensors: int) -> nn.Module:
    """The model on the meta device, where it takes no memory whatever its sizes are.

    Raises:
        ValueError: no model can be made of these options.
    """
    words = f"no model can be made of {where}" + (f" with {', '.join(given)}" if given else "")
    check_blocks(options, tensors, words)
    try:
        with torch.device("meta"):
            return create(architecture, **options)
    except ValueError as error:
        raise ValueError(f"{words}: {error}") from None
    except Exception as error:  # sizes that torch cannot count in, options of torchvision that fit no other
        raise ValueError(f"{words} ({type(error).__name__}: {str(error)[:200]})") from None


def _differences(shapes: Mapping[str, list[int]], model: nn.Module, has: str = "in the file", wants: str = "in the model") -> list[str]:
    """One line for each name that the two do not share with one shape."""
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    return [
        f"{name}: {shapes.get(name, 'missing')} {has}, {own.get(name, 'missing')} {wants}"
        for name in sorted(shapes.keys() | own.keys())
        if list(shapes.get(name, ["missing"])) != own.get(name)
    ]


def _must_fit(wrong: list[str], words: str, hint: str = "") -> None:
    if wrong:
        shown = "\n  ".join(wrong[:10] + [f"and {len(wrong) - 10} more"] * (len(wrong) > 10) + [hint] * bool(hint))
        raise ValueError(f"{words}:\n  {shown}")


def _read_values(path: Path, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    try:
        state = safetensors.torch.load_file(path)
    except Exception as error:
        raise ValueError(f"{path} is damaged ({error}); write it again with save_model") from None
    check_values(state, own, path)
    return state


def check_values(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Refuses what no weights of a model with the state `own` are, such as values that are not finite.

    Args:
        state: tensors [...] by name, from the file.
        own: those of the model.
        path: the file, for the message.

    Raises:
        ValueError: there are some; the message names them.
    """
    _must_fit(bad_values(state, own), f"{path} holds values that are no weights")


def save_model(model: nn.Module, path: str | os.PathLike, metadata: dict[str, str] | None = None) -> None:
    """Writes PATH.safetensors and PATH.json, from which `create_model(checkpoint=PATH)` makes the same model.

    Both files are written under temporary names and read back as `create_model` does, and only when all of it is the same do they
    replace what was there: the model in the file is the model in memory, or there is an error now. What the model says of its input
    (`pretrained_cfg`: size, mean, std, crop, interpolation, label_names) is written too. Wrappers of torch.compile and data
    parallelism are taken off, early classifiers left out.

    Args:
        model: made by `create_model` or timm.
        path: of the .safetensors file.
        metadata: for the header of the .safetensors file.

    Raises:
        ValueError: the path does not end in .safetensors, the model carries no configuration, or is not what its configuration
            makes: other layers, constants or methods, hooks, parametrised or pruned weights, values that are not finite. The message names what differs.
    """
    from ._registry import create_model  # which needs this module

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"the file must end in .safetensors, not {path.name!r}")
    if metadata is not None and not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise ValueError("metadata of a .safetensors file are strings by strings; write other things as JSON")
    if not isinstance(model, nn.Module):
        raise ValueError(f"a model is saved, made by create_model, not {shown(model)}")
    model = unwrapped(model)
    if not hasattr(model, "config"):
        raise ValueError(
            "this model carries no configuration; make it with create_model. A merged model has none: "
            "save the unmerged model, and merge after loading"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    config = {**_configured(model), "pretrained_cfg": _input_of(model)}
    state = _state_of(model)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.", ignore_cleanup_errors=True) as folder:
        temporary = Path(folder) / path.name
        write_json(configuration_of(temporary), config)
        architecture, options, _ = _read_configuration(temporary)
        expected = _on_paper(create_model, architecture, options, configuration_of(temporary), {}, len(state))
        words = f"this model is not the {architecture} that its configuration makes, so nobody could read it back"
        wrong = _differences({name: list(value.shape) for name, value in state.items()}, expected, "in the model", "in the configuration")
        _must_fit(wrong + _other_kinds(model, expected) + _hanging(model), words, _hint(wrong, model))
        _must_fit(bad_values(state, expected.state_dict()), "these values are no weights, and nothing was written")
        temporary.write_bytes(safetensors.torch.save(state, metadata))
        written = _read_values(temporary, state)
        if different := [name for name, value in state.items() if name not in written or not torch.equal(written[name], value)]:
            raise OSError(f"{path} reads back with other values than were written, such as {different[0]}; is the disk sound?")
        os.replace(configuration_of(temporary), configuration_of(path))
        os.replace(temporary, path)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers of torch.compile, data parallelism and averaging, which hold nothing else."""
    while len(children := dict(model.named_children())) == 1 and (inner := WRAPPERS & children.keys()):
        model = children[inner.pop()]
    return model


def _configured(model: nn.Module) -> dict[str, Any]:
    """The model's configuration with what its methods have changed since."""
    config = dict(cast(Configured, model).config)
    if hasattr(model, "reset_classifier"):  # a backbone
        changed = ("num_classes", "in_chans", "time_steps", "global_pool")
        config |= {name: getattr(model, name) for name in changed if hasattr(model, name)}
        if getattr(model, "distillation", False) or "distillation" in config:
            config["distillation"] = model.distillation
    return config


def _own_name(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _state_of(model: nn.Module) -> dict[str, Tensor]:
    """The state without wrappers' names and early classifiers, on the CPU; no two tensors share memory, which safetensors cannot keep."""
    state, seen = {}, set()
    for name, value in model.state_dict().items():
        name, value = _own_name(name), value.detach()
        if not name.startswith("early."):
            value = value.contiguous().cpu() if value.layout == torch.strided and not value.is_meta else value
            shared = not value.is_meta and value.numel() and value.untyped_storage().data_ptr() in seen
            state[name] = value.clone() if shared else value
            if not value.is_meta and value.layout == torch.strided:
                seen.add(value.untyped_storage().data_ptr())
    return state


def _other_kinds(model: nn.Module, expected: nn.Module) -> list[str]:
    """One line for each module that computes something else than the one that the configuration makes, though it has the same weights."""
    own = {_own_name(name): module for name, module in model.named_modules() if not _own_name(name).startswith("early")}
    wanted = {name: module for name, module in expected.named_modules() if not name.startswith("early")}
    lines = []
    for name in sorted(own.keys() | wanted.keys()):
        mine, other = own.get(name), wanted.get(name)
        if mine is None or other is None:
            lines.append(f"{name}: {_kind(mine)} in the model, {_kind(other)} in the configuration")
        elif isinstance(mine, _BATCH_NORMS) and isinstance(other, _BATCH_NORMS) and _same_norms(mine, other):
            if mine.eps != other.eps:
                lines.append(f"{name}: {_kind(mine)} with eps={mine.eps} in the model, eps={other.eps} in the configuration")
        elif type(mine) is not type(other):
            lines.append(f"{name}: {_kind(mine)} in the model, {_kind(other)} in the configuration")
        elif not isinstance(mine, _TRAINING_ONLY) and not hasattr(mine, "rate") and mine.extra_repr() != other.extra_repr():
            lines.append(f"{name}: {_kind(mine)}({mine.extra_repr()}) in the model, ({other.extra_repr()}) in the configuration")
    return lines


def _same_norms(mine: nn.Module, other: nn.Module) -> bool:
    """Whether two batch norms compute the same outside training: those that share statistics between processes do."""
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    synchronised = [type(norm) is nn.SyncBatchNorm or getattr(type(norm), "across_processes", False) for norm in (mine, other)]
    known = all(shared or type(norm) in plain for norm, shared in zip((mine, other), synchronised, strict=True))
    return type(mine) is type(other) or (known and any(synchronised))


def _hanging(model: nn.Module) -> list[str]:
    """One line for each hook or replaced method that may change what the model computes; those of wrappers aside."""
    wrappers = {name for name, module in model.named_modules() if WRAPPERS & dict(module.named_children()).keys()}
    changes = (change.partition(": ") for change in all_changes(model))
    return [f"{_own_name(name)}: {what}" if what else name for name, _, what in changes if name not in wrappers and not name.startswith("early.")]


def _kind(module: nn.Module | None) -> str:
    return "no module" if module is None else type(module).__name__


def _hint(wrong: list[str], model: nn.Module) -> str:
    """What to do about names that are not the configuration's."""
    names = " ".join(line.partition(":")[0] for line in wrong)
    if "_mask" in names or "_orig" in names:
        return "pruned weights are made permanent with torch.nn.utils.prune.remove(module, 'weight')"
    if "parametrizations." in names:
        return "parametrised weights are made plain with torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"
    if "weight_g" in names or "weight_u" in names:
        return "weights that hooks compute are made plain with torch.nn.utils.remove_weight_norm or remove_spectral_norm"
    if hasattr(model, "reset_classifier") and any(name.startswith("head") for name in names.split()):
        return "another number of classes is set with model.reset_classifier(num_classes), which keeps the configuration"
    return ""


# what a model says of its input


def _input_of(model: nn.Module) -> dict:
    """What of `pretrained_cfg` goes into a checkpoint."""
    known = getattr(model, "pretrained_cfg", None) or {}
    return {name: list(value) if isinstance(value, tuple) else value for name in _INPUT if (value := known.get(name)) is not None}


def _checked_input(known: object, where: object) -> dict:
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
                raise ValueError(f"{name} must be a list of {size[0]} numbers, one for each channel of input_size, not {checked[name]!r:.100}")
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
    return _checked_input(found, f"the metadata of {path}")


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
        raise ValueError(f"{where} says that its images have {size[0]} channels, and its model takes {network.in_chans}")
    if names is not None and network.num_classes - len(names) not in (0, 1):  # a detector counts the background
        known.pop("label_names")
    network.describe_input(known)
