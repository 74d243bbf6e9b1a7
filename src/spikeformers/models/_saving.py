"""Models to disk, once it is certain that the same model will be read back."""

import os
import tempfile
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from .._arguments import shown
from .._files import write_json
from ..layers.hooks import all_changes
from ._checkpoint import configuration_of, differences, must_fit, on_paper, read_configuration, read_values
from ._input import input_of
from ._registry import create_model
from ._state_dict import bad_values
from .network import Configured

WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Names that torch.compile, DistributedDataParallel and others put in front of a module's own."""
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
_TRAINING_ONLY = (*_BATCH_NORMS, nn.modules.dropout._DropoutNd)


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
    config = {**_configured(model), "pretrained_cfg": input_of(model)}
    state = _state_of(model)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.", ignore_cleanup_errors=True) as folder:
        temporary = Path(folder) / path.name
        write_json(configuration_of(temporary), config)
        architecture, options, _ = read_configuration(temporary)
        expected = on_paper(create_model, architecture, options, configuration_of(temporary), {}, len(state))
        words = f"this model is not the {architecture} that its configuration makes, so nobody could read it back"
        wrong = differences(
            {name: list(value.shape) for name, value in state.items()}, expected, "in the model", "in the configuration"
        )
        must_fit(wrong + _other_kinds(model, expected) + _hanging(model), words, _hint(wrong, model))
        must_fit(bad_values(state, expected.state_dict()), "these values are no weights, and nothing was written")
        temporary.write_bytes(safetensors.torch.save(state, metadata))
        written = read_values(temporary, state)
        if different := [
            name for name, value in state.items() if name not in written or not torch.equal(written[name], value)
        ]:
            raise OSError(
                f"{path} reads back with other values than were written, such as {different[0]}; is the disk sound?"
            )
        os.replace(configuration_of(temporary), configuration_of(path))
        os.replace(temporary, path)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers of torch.compile, data parallelism and averaging, which hold nothing else."""
    while len(children := dict(model.named_children())) == 1 and (inner := WRAPPERS & children.keys()):
        model = children[inner.pop()]
    return model


def _configured(model: nn.Module) -> dict[str, Any]:
    """The model's configuration, brought up to date with the attributes that its methods change."""
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
    """One line for each module that does not compute what the one in the same place of the configuration's model computes."""
    own = {_own_name(name): module for name, module in model.named_modules() if not _own_name(name).startswith("early")}
    wanted = {name: module for name, module in expected.named_modules() if not name.startswith("early")}
    lines = []
    for name in sorted(own.keys() | wanted.keys()):
        mine, other = own.get(name), wanted.get(name)
        if mine is None or other is None:
            lines.append(f"{name}: {_kind(mine)} in the model, {_kind(other)} in the configuration")
        elif isinstance(mine, _BATCH_NORMS) and isinstance(other, _BATCH_NORMS) and _same_norms(mine, other):
            if mine.eps != other.eps:
                lines.append(
                    f"{name}: {_kind(mine)} with eps={mine.eps} in the model, eps={other.eps} in the configuration"
                )
        elif type(mine) is not type(other):
            lines.append(f"{name}: {_kind(mine)} in the model, {_kind(other)} in the configuration")
        elif (
            not isinstance(mine, _TRAINING_ONLY)
            and not hasattr(mine, "rate")
            and mine.extra_repr() != other.extra_repr()
        ):
            lines.append(
                f"{name}: {_kind(mine)}({mine.extra_repr()}) in the model, ({other.extra_repr()}) in the configuration"
            )
    return lines


def _same_norms(mine: nn.Module, other: nn.Module) -> bool:
    """Whether two batch norms compute the same outside training, as one that shares statistics between processes and a plain one do."""
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    synchronised = [
        type(norm) is nn.SyncBatchNorm or getattr(type(norm), "across_processes", False) for norm in (mine, other)
    ]
    known = all(shared or type(norm) in plain for norm, shared in zip((mine, other), synchronised, strict=True))
    return type(mine) is type(other) or (known and any(synchronised))


def _hanging(model: nn.Module) -> list[str]:
    """One line for each hook or replaced method that may change what the model computes; those of wrappers aside."""
    wrappers = {name for name, module in model.named_modules() if WRAPPERS & dict(module.named_children()).keys()}
    changes = (change.partition(": ") for change in all_changes(model))
    return [
        f"{_own_name(name)}: {what}" if what else name
        for name, _, what in changes
        if name not in wrappers and not name.startswith("early.")
    ]


def _kind(module: nn.Module | None) -> str:
    return "no module" if module is None else type(module).__name__


def _hint(wrong: list[str], model: nn.Module) -> str:
    """How to mend differences of these names."""
    names = " ".join(line.partition(":")[0] for line in wrong)
    if "_mask" in names or "_orig" in names:
        return "pruned weights are made permanent with torch.nn.utils.prune.remove(module, 'weight')"
    if "parametrizations." in names:
        return "parametrised weights are made plain with torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"
    if "weight_g" in names or "weight_u" in names:
        return (
            "weights that hooks compute are made plain with torch.nn.utils.remove_weight_norm or remove_spectral_norm"
        )
    if hasattr(model, "reset_classifier") and any(name.startswith("head") for name in names.split()):
        return (
            "another number of classes is set with model.reset_classifier(num_classes), which keeps the configuration"
        )
    return ""
