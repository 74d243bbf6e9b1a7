"""The state dict inside a checkpoint of whatever trainer, and whether its tensors can be weights."""

from collections.abc import Collection, Mapping
from typing import cast

import torch
from torch import Tensor

from .._arguments import shown

# wrappers around a state dict; those of weights that were averaged over training, and then those of the weights themselves
_AVERAGED = (
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "params_ema",
    "ema",
    "swa_model",
    "averaged_model",
    "ema_weights",
    "ema_params",
    "shadow",
    "shadow_params",
    "teacher",
)
_RAW = (
    "model",
    "state_dict",
    "model_state_dict",
    "model_state",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "student",
)
# wrappers around names: in front of all of them, of the averaged ones beside others, and anywhere inside
_PREFIXES = ("module.", "model.", "levels.", "net.", "network.")
_AVERAGED_PREFIXES = (
    "ema.module.",
    "model_ema.module.",
    "ema_model.module.",
    "model_ema.",
    "ema_model.",
    "averaged_model.",
    "ema.",
)
_INSIDE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_COUNTERS = ("n_averaged",)
_PROFILED = {"total_ops", "total_params"}  # counters that thop hangs onto every module


def unwrap(content: Mapping[str, object]) -> dict[str, Tensor]:
    """The state dict {name: tensor [...]} inside a checkpoint, its names without the prefixes of wrappers; averaged weights where it holds both."""
    return opened(content)[0]


def opened(
    content: Mapping[str, object], ema: bool | None = None, lenient: bool = False
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The state dict {name: tensor [...]} inside a checkpoint, its names without the prefixes of wrappers.

    Args:
        content: of the file.
        ema: whether to take weights that were averaged over training, or those themselves; None for the former if there are any.
        lenient: whether names without a prefix that most names have are a trainer's, not the network's, and left out.

    Returns:
        The state dict, sentences about what was taken, and the names left out.

    Raises:
        ValueError: there are no tensors, or not the weights that are asked for.
    """
    notes: list[str] = []
    content, averaged, unnamed = _inside_wrappers(_without_strangers(content, notes), ema, notes)
    state = _state_of(content, notes)
    state, named = _averaged_by_name(state, ema, notes)
    averaged = averaged or named
    for counter in _COUNTERS:
        if counter in state and state[counter].ndim == 0:
            if ema is False:
                raise ValueError(
                    f"the checkpoint holds averaged weights only (of {int(state[counter])} models), and ema=False asks for others"
                )
            notes.append(f"these weights are the average of {int(state.pop(counter))} models")
            averaged = True
    if unnamed and not averaged:
        lost = "averages over training in it are a list without names, which cannot be told apart"
        if ema:
            raise ValueError(
                f"the checkpoint holds no averaged weights by name, which ema=True asks for: {lost}; save them as a state dict"
            )
        notes.append(f"these weights are not averaged: {lost}")
    if ema and not averaged:
        raise ValueError(
            f"the checkpoint holds no averaged weights, which ema=True asks for; its names are like {', '.join(list(state)[:4])}"
        )
    left_out: list[str] = []
    while prefix := _prefix(state, lenient):
        left_out += [name for name in state if not name.startswith(prefix)]
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return state, notes, left_out


def _inside_wrappers(
    content: Mapping[str, object], ema: bool | None, notes: list[str]
) -> tuple[Mapping[str, object], bool, bool]:
    """The innermost entry with the weights that are asked for, whether it is one of averages, and whether averages without names were
    beside it."""
    averaged = unnamed = False
    for _ in range(8):  # wrappers in wrappers
        unnamed |= any(_is_unnamed(content.get(key)) for key in _AVERAGED)
        inside = {
            kind: next((k for k in keys if _holds_tensors(content.get(k))), None)
            for kind, keys in (("ema", _AVERAGED), ("raw", _RAW))
        }
        if inside["ema"] and ema is not False:
            averaged = True
            beside = f"; {inside['raw']} beside it holds those that were not (ema=False)" if inside["raw"] else ""
            notes.append(f"these weights are averages over training: {inside['ema']} of the checkpoint{beside}")
            content = cast(Mapping[str, object], content[inside["ema"]])
        elif inside["raw"]:
            if inside["ema"]:
                notes.append(
                    f"these weights are not averaged: {inside['raw']} of the checkpoint, which has {inside['ema']} too"
                )
                averaged = False
            content = cast(Mapping[str, object], content[inside["raw"]])
        elif inside["ema"]:
            raise ValueError(
                f"the checkpoint holds averaged weights only ({inside['ema']}), and ema=False asks for others"
            )
        else:
            break
    return content, averaged, unnamed


def _state_of(content: Mapping[str, object], notes: list[str]) -> dict[str, Tensor]:
    """The tensors of an entry by their names, without wrappers inside those and without a profiler's counters."""
    state = {name: value for name, value in content.items() if isinstance(value, Tensor) and isinstance(name, str)}
    if counted := [name for name in state if name.rpartition(".")[2] in _PROFILED and state[name].numel() == 1]:
        notes.append(f"{len(counted)} counters of a profiler, such as {counted[0]}, are left out")
        state = {name: value for name, value in state.items() if name not in counted}
    hollow = [name for name, value in state.items() if is_hollow(value)]
    if hollow:
        raise ValueError(
            f"{shown(hollow[0])} claims {state[hollow[0]].numel():,} values, of which the checkpoint holds only a few"
        )
    if not state:
        entries = ", ".join(name[:40] for name in list(content)[:8] if isinstance(name, str))
        raise ValueError(f"no tensors in the checkpoint; its entries are {entries}")
    return {".".join(part for part in name.split(".") if part not in _INSIDE): value for name, value in state.items()}


def _averaged_by_name(
    state: dict[str, Tensor], ema: bool | None, notes: list[str]
) -> tuple[dict[str, Tensor], bool | None]:
    """Of weights and their averages beside each other those that are asked for, and whether they are averages; None if there are no
    such names."""
    for prefix in _AVERAGED_PREFIXES:
        averages = {name for name in state if name.startswith(prefix)}
        if not averages or not any(not name.startswith(_AVERAGED_PREFIXES) for name in state):
            continue
        if ema is False:
            notes.append(
                f"these weights are not averaged: those not called {prefix}*, though the checkpoint has such ones too ({prefix}*)"
            )
            return {name: value for name, value in state.items() if name not in averages}, False
        notes.append(
            f"these weights are averages over training: those called {prefix}*; the others are not (ema=False)"
        )
        return {name.removeprefix(prefix): value for name, value in state.items() if name in averages}, True
    return state, None


def _is_unnamed(value: object) -> bool:
    """Whether an entry is a list of averaged tensors, as torch_ema writes, or holds one."""
    if isinstance(value, Mapping):
        return any(_is_unnamed(value.get(key)) for key in ("shadow_params", "shadow"))
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Tensor) for item in value)


def _without_strangers(content: Mapping[str, object], notes: list[str]) -> Mapping[str, object]:
    """A checkpoint of distillation without the teacher, if that is another network. A teacher of the student's shapes is its average."""
    if not (_holds_tensors(content.get("teacher")) and _holds_tensors(content.get("student"))):
        return content
    teacher, student = (
        {name: value.shape for name, value in _tensors(content[key]).items()} for key in ("teacher", "student")
    )
    if teacher == student:
        return content
    notes.append("these weights are the student's; the teacher beside it is another network")
    return {key: value for key, value in content.items() if key != "teacher"}


def _tensors(value: object) -> dict[str, Tensor]:
    """The tensors of an entry that `_holds_tensors`, by their names in it."""
    return opened(cast(Mapping[str, object], value))[0]


def is_hollow(value: Tensor) -> bool:
    """Whether a tensor [...] repeats a few values so often that a few bytes of a file would become gigabytes."""
    if value.layout != torch.strided or value.is_meta:
        return False
    return value.numel() > 2**16 and value.numel() * value.element_size() > value.untyped_storage().nbytes()


def _holds_tensors(value: object) -> bool:
    """Whether an entry of a checkpoint is a state dict, or has one in it."""
    for _ in range(8):
        if not isinstance(value, Mapping):
            return False
        if any(isinstance(item, Tensor) for item in value.values()):
            return True
        value = next((value[key] for key in (*_AVERAGED, *_RAW) if isinstance(value.get(key), Mapping)), None)
    return False


def _prefix(names: Collection[str], lenient: bool) -> str | None:
    """What stands in front of all names, or of most."""
    for prefix in _PREFIXES:
        having = sum(name.startswith(prefix) for name in names)
        if having == len(names) or (lenient and having > len(names) / 2):
            return prefix
    return None


def bad_values(state: Mapping[str, Tensor], own: Mapping[str, Tensor] | None = None) -> list[str]:
    """One line for each tensor that cannot be weights: quantised, sparse, without values, or with values that are not finite.

    Args:
        state: tensors [...] by name.
        own: the model's, by the same names, whose counters may be whole numbers; without it, what is not floating-point may.
    """
    lines = []
    for name, value in state.items():
        floating = own[name].is_floating_point() if own is not None and name in own else value.is_floating_point()
        kind = str(value.dtype).removeprefix("torch.")
        if value.layout != torch.strided or value.is_quantized:
            lines.append(f"{name} is {'quantised' if value.is_quantized else 'sparse'}")
        elif value.is_meta:
            lines += [f"{name} has no values"] if own is None or not own[name].is_meta else []
        elif floating and value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            lines.append(f"{name} is of {kind}; weights are float32, float64, float16 or bfloat16, not quantised ones")
        elif not floating and (value.is_floating_point() or value.is_complex()):
            lines.append(f"{name} is of {kind}, and the model counts with whole numbers there")
        elif floating and not bool(torch.isfinite(value).all()):
            lines.append(
                f"{name} has {int((~torch.isfinite(value)).sum()):,} values of {value.numel():,} that are NaN or infinite"
            )
    return lines
